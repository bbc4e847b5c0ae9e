"""Tables line up whatever is in them, and JSON is JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from posterhall.cli.output import emit_json, emit_table, format_table, printable


def test_columns_line_up_and_lines_have_no_trailing_spaces():
    rows = [("bank", "0.71", ""), ("danube", "0.66", "a river")]
    assert format_table(rows, gap=4) == ["bank      0.71", "danube    0.66    a river"]


def test_numbers_of_different_length_stand_right():
    rows = [("a", 1, "x"), ("bb", 1000, "y")]
    assert format_table(rows, header=("name", "count", ""), right=[1]) == [
        "name  count",
        "a         1  x",
        "bb     1000  y",
    ]


def test_wide_characters_count_twice():
    lines = format_table([("河流", "0.7"), ("river", "0.6"), ("e\u0301te\u0301", "0.5")])
    assert [cell_len(line) for line in lines] == [10, 10, 10]


def test_what_is_missing_is_a_dash_and_nothing_is_no_line():
    assert format_table([("a", None)]) == ["a  -"]
    assert format_table([]) == []
    assert format_table([], header=("a", "b")) == ["a  b"]
    assert format_table([("a",), ("b", "c")]) == ["a", "b  c"]


def test_data_cannot_steer_the_terminal(capsys):
    emit_table([("\x1b[31mred\r\n\x07", "\u202eltr")])
    assert capsys.readouterr().out == "\\x1b[31mred\\r\\n\\x07  \\u202eltr\n"


@given(st.lists(st.lists(st.text(max_size=8), min_size=3, max_size=3), max_size=5))
def test_every_column_starts_at_one_place(rows):
    lines = format_table([["|", *row, "|"] for row in rows], gap=1)
    assert len(lines) == len(rows)
    assert all(line.isprintable() and line.startswith("|") and line.endswith("|") for line in lines)
    assert len({cell_len(line) for line in lines}) <= 1


@given(st.text())
def test_printable_text_is_printable_and_keeps_what_was_so(text):
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)


def test_json_takes_numpy_paths_and_what_json_lacks(capsys):
    emit_json(
        {"a": np.float32(0.5), "b": np.arange(2), "c": Path("x"), "d": math.nan, "e": [math.inf], "f": "é"}
    )
    out = capsys.readouterr().out
    assert "é" in out
    assert json.loads(out, parse_constant=pytest.fail) == {
        "a": 0.5,
        "b": [0, 1],
        "c": "x",
        "d": None,
        "e": [None],
        "f": "é",
    }
