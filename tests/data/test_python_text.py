"""The corpus that every Python brings along."""

from __future__ import annotations

import sys

import pytest

from posterhall.data import python_text
from posterhall.data.corpus import read
from posterhall.errors import DataError


def test_it_is_english_of_a_useful_size():
    corpus = python_text.corpus()
    vocabulary, encoded = read(corpus)
    assert encoded.words > 300_000
    assert 3_000 < len(vocabulary) < 30_000
    assert vocabulary.items[0] == "the"
    assert {"string", "return", "object", "file", "exception"} < set(vocabulary.items)
    assert read(corpus)[1].digest == encoded.digest  # it can be gone through again


def test_it_is_the_same_each_time_and_nothing_is_imported():
    before = set(sys.modules)
    first = python_text.digest()
    assert not {"idlelib", "turtle", "tkinter"} & (set(sys.modules) - before)
    python_text.lines.cache_clear()
    assert python_text.digest() == first


def test_code_comes_only_when_asked_for():
    plain, whole = python_text.lines(), python_text.lines(code=True)
    assert len(whole) > 1.5 * len(plain)
    assert len(set(whole)) == len(whole)
    assert "def init self" in " ".join(whole)


def test_prose_is_what_stands_in_comments_and_docstrings():
    source = (
        '"""One docstring\\n of "two" lines."""\n'
        "x = 'not # this' # but this\n"
        "# and this\n\n"
        "y = f'''third # still it'''\nz = 'open\\'s'\n"
    )
    assert list(python_text._prose(source, code=False)) == [
        'One docstring  of "two" lines.',
        " but this\n and this",
        "third # still it",
    ]


def test_a_python_without_source_text_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(python_text, "_library", lambda: tmp_path)
    python_text.lines.cache_clear()
    with pytest.raises(DataError, match="no source text"):
        python_text.lines()
    python_text.lines.cache_clear()
