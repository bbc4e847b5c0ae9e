"""Prompts with fields: what is put in stays text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.errors import DataError
from posterhall.lm.template import Template


def test_fields_are_filled_in_and_braces_written_double():
    template = Template('{a} and {b}, {a}: {{"json": {b}}}')
    assert template.fields == ("a", "b")
    assert template.fill({"a": "1", "b": "2"}) == '1 and 2, 1: {"json": 2}'


def test_what_is_filled_in_is_not_looked_at_again():
    assert Template("{a}{b}").fill({"a": "{b}", "b": "{{x}}"}) == "{b}{{x}}"


@pytest.mark.parametrize("name", ["text.__class__", "text[0]", "text!r", "text:>10"])
def test_a_field_is_a_name_and_nothing_else(name):
    with pytest.raises(DataError, match="no field"):
        Template(f"{{{name}}}").fill({"text": "x"})


@pytest.mark.parametrize("text", ["{", "}", "a {b", "{}", "{ }", "{a{b}}", '{\n"a"}'])
def test_a_brace_that_is_not_closed_is_shown(text):
    with pytest.raises(DataError, match="character"):
        Template(text)


def test_a_field_that_is_missing_is_named_with_the_nearest():
    with pytest.raises(DataError, match=r"line 3: no field 'txet'. Did you mean: text"):
        Template("{txet}").fill({"text": "x"}, "line 3")


@given(st.text())
def test_any_text_can_be_written(text):
    assert Template(text.replace("{", "{{").replace("}", "}}")).fill({}) == text
