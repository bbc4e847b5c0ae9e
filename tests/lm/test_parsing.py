"""Answers read out of what models say: what is found, on which rung, and that nothing is made up."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.errors import DataError
from posterhall.lm.parsing import UNREAD, Counts, answer_line, classes, integer, json_value

GRADES = ["sure", "likely", "impossible"]


@pytest.mark.parametrize(
    ("reply", "value", "how"),
    [
        ("sure", "sure", "exact"),
        ("  **Sure.** \n", "sure", "exact"),
        ("“Impossible”", "impossible", "exact"),
        ("`likely`…", "likely", "exact"),
        ("SURE!", "sure", "exact"),
        ("10 - 4 = 6\n6 * 4 = 24\nsure", "sure", "last line"),
        ("It might be impossible.\n\n**likely**", "likely", "last line"),
        ("Reasons, reasons.\nAnswer: likely", "likely", "labelled"),
        ("Answer: sure\nOn reflection:\n**Answer:** impossible", "impossible", "labelled"),
        ("Final answer: I think it is likely", "likely", "labelled"),
        ("So the answer is *sure*.", "sure", "labelled"),
        ("I would say it is likely, all told.", "likely", "search"),
        ("sure of that\nwell, likely so\nbye", "likely", "search"),
        ('{"grade": "sure", "why": "it is not impossible"}', "sure", "json"),
        ('Here:\n```json\n{"grade": "likely"}\n```', "likely", "json"),
        ("ｓｕｒｅ", "sure", "exact"),  # full-width letters
    ],
)
def test_a_class_is_found(reply, value, how):
    parsed = classes(reply, GRADES)
    assert (parsed.value, parsed.how) == (value, how)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        " \n\t",
        "I cannot tell.",
        "surely",  # no word of its own
        "assure",
        "sure or likely, I cannot say",
        "I am not sure",
        "It isn't likely.",
        '{"a": "sure", "b": "likely"}',
        "unlikely",
        "…",
    ],
)
def test_no_class_is_made_up(reply):
    parsed = classes(reply, GRADES)
    assert parsed.value is None
    assert parsed.how == UNREAD
    assert parsed.failures


def test_a_longer_class_goes_before_one_within_it():
    allowed = ["sure", "not sure", "very sure"]
    assert classes("I am not sure about it", allowed).value == "not sure"
    assert classes("I am very  sure about it", allowed).value == "very sure"
    assert classes("I am sure about it", allowed).value == "sure"


def test_classes_come_back_as_they_were_written():
    assert classes("yes", ["Yes", "NO"]).value == "Yes"
    assert classes("c++", ["C++", "C#"]).value == "C++"
    assert classes("ÉTÉ", ["été"]).value == "été"


@pytest.mark.parametrize("allowed", [[], ["a", "A"], [""], ["..."]])
def test_classes_that_are_none_are_refused(allowed):
    with pytest.raises(DataError, match="classes"):
        classes("a", allowed)


@given(st.text(max_size=300))
def test_a_class_is_always_one_of_those_allowed(reply):
    parsed = classes(reply, GRADES)
    assert parsed.value in (*GRADES, None)
    assert parsed.read == (parsed.value is not None)
    if parsed.value is not None and reply.isascii():
        assert parsed.value in reply.lower()


@given(st.sampled_from(GRADES), st.text(alphabet=" \n\t*_`\"'.“”", max_size=8))
def test_what_stands_around_a_class_does_not_matter(name, around):
    assert classes(around + name.upper() + around[::-1], GRADES).value == name


# -- numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("4", 4),
        ("**4**.", 4),
        ("4.0", 4),
        ("4/5", 4),
        ("4 out of 5", 4),
        ("(3)", 3),
        ("Score: 4/5", 4),
        ("On a scale of 1 to 5, I give it a 2", 2),
        ("On a scale of 1-5, I give it a 2", 2),
        ("Reason 1: good.\nReason 2: bad.\nAnswer: 3", 3),
        ("The answer is 2.", 2),
        ("The answer is $\\boxed{5}$.", 5),
        ('{"score": 3, "comment": "above 2"}', 3),
        ('{"score": "3"}', 3),
        ("a lot, then\n5", 5),
        ("４", 4),
        ("It costs 1,000 and more, so 2", 2),
        ("version 3.5 gets 4", 4),
        ("4 and again 4", 4),
    ],
)
def test_a_number_is_found(reply, value):
    assert integer(reply, 0, 5).value == value


@pytest.mark.parametrize(
    "reply", ["", "four", "3.5", "1,000", "A4", "2 or 3", "6", "-1", '{"a": 1, "b": 2}', "1-5", "true", "NaN"]
)
def test_no_number_is_made_up(reply):
    parsed = integer(reply, 0, 5)
    assert parsed.value is None
    assert parsed.how == UNREAD


def test_a_number_out_of_range_is_named():
    assert "7 is out of range" in integer("7", 0, 5).failures
    assert integer("−3").value == -3
    assert integer("-3", -5, 5).value == -3


@given(
    st.integers(-(10**17), 10**17), st.sampled_from(["{}", " {}. ", "**{}**", "Answer: {}", "well,\n{}\n"])
)
def test_any_whole_number_comes_back(number, form):
    assert integer(form.format(number)).value == number


@given(st.text(max_size=200), st.integers(-5, 5), st.integers(5, 50))
def test_a_number_is_always_in_range(reply, low, high):
    value = integer(reply, low, high).value
    assert value is None or (isinstance(value, int) and low <= value <= high)


# -- answers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "value", "how"),
    [
        ("Answer: (4 + 8) * (6 - 4) = 24", "(4 + 8) * (6 - 4) = 24", "labelled"),
        ("Steps:\n4 + 8 = 12\n**Answer:** `12 * 2`.\nThat is it.", "12 * 2", "labelled"),
        ("Answer:\n\nLighthouse, Dunes", "Lighthouse, Dunes", "labelled"),
        ("The final answer is: Paris.", "Paris", "labelled"),
        ("### Answer: 7", "7", "labelled"),
        ("Paris", "Paris", "exact"),
        ("I think.\nParis.", "Paris", "last line"),
        ("So, the answer is “Kim”.", "Kim", "labelled"),
    ],
)
def test_the_answer_line_is_found(reply, value, how):
    parsed = answer_line(reply)
    assert (parsed.value, parsed.how) == (value, how)


def test_of_two_answer_lines_the_last_counts_and_it_is_recorded():
    parsed = answer_line("Answer: 1\nNo, wait.\nAnswer: 2")
    assert parsed.value == "2"
    assert parsed.failures == ("2 answer lines",)


@pytest.mark.parametrize("reply", ["", "  \n ", "***", "..."])
def test_no_answer_is_made_up(reply):
    assert answer_line(reply).value is None


def test_an_empty_label_is_no_answer():
    assert answer_line("Answer: 5\nAnswer:").value == "5"


# -- JSON -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "value", "how"),
    [
        ('{"a": 1}', {"a": 1}, "exact"),
        ("[1, 2]", [1, 2], "exact"),
        ("null", None, "exact"),
        ('Sure!\n```json\n{"a": [1, {"b": "}"}]}\n```\nDone.', {"a": [1, {"b": "}"}]}, "fenced"),
        ("```\n[1]\n```\nor rather\n```json\n[2]\n```", [2], "fenced"),
        ('```json\n{"cut": "off"}', {"cut": "off"}, "fenced"),
        ('As [1] says: {"a": {"b": 2}} and so on {', {"a": {"b": 2}}, "search"),
        ('{broken {"a": 1}', {"a": 1}, "search"),
    ],
)
def test_json_is_found(reply, value, how):
    parsed = json_value(reply)
    assert (parsed.value, parsed.how, parsed.read) == (value, how, True)


@pytest.mark.parametrize("reply", ["", "no", '{"a": ', "{'a': 1}", "[NaN]", "Infinity", "{" * 5000])
def test_no_json_is_made_up(reply):
    parsed = json_value(reply)
    assert not parsed.read
    assert parsed.failures


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=20))
def test_any_json_comes_back_alone_and_in_a_fence(value):
    text = json.dumps(value)
    assert json_value(text).value == value
    fenced = json_value(f"Well:\n```json\n{text}\n```")
    assert (fenced.value, fenced.how) == (value, "fenced")


def test_a_value_that_breaks_the_schema_is_not_read():
    schema = json.dumps({"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}})
    assert json_value('{"a": 1}', schema).value == {"a": 1}
    wrong = json_value('{"a": "1"}', schema)
    assert not wrong.read
    assert wrong.failures[0] == "exact: .a is not of type integer"
    assert json_value('{"b": {"a": 1}}', schema).failures[0] == "exact: the value lacks 'a'"


# -- all --------------------------------------------------------------------------------------------


PIECES = ["{", "[", "a", "answer ", "1 ", "*", "```\n", "> ", "not ", '{"a":', "\\boxed{", "1-", "1/"]


@pytest.mark.parametrize("piece", PIECES)
def test_a_huge_reply_takes_no_time_to_speak_of(piece):
    reply = piece * (10**6 // len(piece))
    begun = time.process_time()
    for read in (lambda r: classes(r, GRADES), integer, answer_line, json_value):
        read(reply)
    assert time.process_time() - begun < 5


def test_replies_are_counted_by_how_they_were_read():
    counts = Counts()
    for reply in ("sure", "well, sure I guess", "hm", "sure"):
        counts.add(classes(reply, GRADES))
    assert counts.by_rung == {"exact": 2, "search": 1, UNREAD: 1}
    assert (counts.unread, counts.total) == (1, 4)
