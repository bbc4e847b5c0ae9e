"""Files of problems in the forms people have, and problems made."""

from __future__ import annotations

import json

import pytest

from posterhall.errors import DataError, UsageError
from posterhall.search.tasks import Crosswords, Game24, WordGrid
from posterhall.search.tasks.files import one_line, read
from posterhall.search.tasks.making import lessons, problems
from posterhall.search.tasks.moves import Rules, solvable


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a.txt", "4 9 10 13\n\n 1 2 3 4 \r\n", ["4 9 10 13", "1 2 3 4"]),
        ("a.txt", "\ufeff4 9 10 13", ["4 9 10 13"]),
        ("a.jsonl", '"4 9 10 13"\n{"problem": "1 2 3 4", "rank": 5}\n', ["4 9 10 13", "1 2 3 4"]),
        ("a.jsonl", '{"problem": "q", "answer": 4}', ['{"problem": "q", "answer": 4}']),
        ("a.jsonl", '{"across": [], "down": []}', ['{"across": [], "down": []}']),
        ("a.json", '[[["c"], ["x"]], "y"]', ['[["c"], ["x"]]', "y"]),
        ("a.csv", "Rank,Puzzles\n1,1 1 4 6\n2,1 1 11 11\n", ["1 1 4 6", "1 1 11 11"]),
    ],
)
def test_forms_of_files(tmp_path, name, text, found):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    assert read(path) == found


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.txt", b"\n \n", "no problem"),
        ("a.txt", b"\xff\xfe", "UTF-8"),
        ("a.jsonl", b"{\n", "a.jsonl:1: no JSON"),
        ("a.jsonl", b'"x"\n7\n', "a.jsonl:2: is 7"),
        ("a.json", b"{}", "no list"),
        ("a.json", b"[" * 100_000, "no JSON"),
        ("a.csv", b"a,b\n1,2\n", "no column"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path, name, data, said):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError, match=said):
        read(path)


def test_a_field_may_be_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"q": "1 2 3 4"}\n')
    assert read(path, field="q") == ["1 2 3 4"]
    with pytest.raises(DataError, match="Did you mean: q"):
        read(path, field="qq")


def test_problems_on_one_line():
    assert one_line("a\nb  c") == "a b c"
    assert one_line('{"across": ["x", "y"], "down": ["z"], "solution": ["secret"]}') == "x; y / z"
    assert len(one_line("x" * 100, 10)) == 10
    assert one_line("{no json") == "{no json"


def test_problems_are_drawn_without_repetition_and_by_seed():
    some = problems("game24", number=20, seed=1, sets=["high=6"])
    assert (
        some
        == problems("game24", number=20, seed=1, sets=["high=6"])
        != problems("game24", number=20, sets=["high=6"])
    )
    assert len(set(some)) == 20
    left = problems("game24", sets=["high=6"], without=some)
    assert not set(left) & set(some)
    with pytest.raises(DataError, match="there are"):
        problems("game24", number=5000, sets=["high=6"])
    with pytest.raises(UsageError, match="game24"):
        problems("writing")


def test_what_is_made_can_be_read_by_its_task():
    for each in problems("word-grid", number=3, sets=["size=3"]):
        assert WordGrid().read(each) == each
    for each in problems("crosswords"):
        Crosswords().read(each)


def test_lessons_are_true_and_leave_out_what_is_held_out():
    sets = ["modulus=7", "target=3", "count=3"]
    held_out = problems("game24", number=20, sets=sets)
    rules = Rules(3, "+-*", 7)
    task = Game24(target=3, modulus=7, count=3, style="compact")
    kinds = set()
    for prompt, answer in lessons("game24", 400, sets=sets, without=held_out):
        kind, *numbers = prompt.removesuffix(" :").split()
        kinds.add(kind)
        if kind == "solve":
            assert " ".join(numbers) not in held_out
            assert task.check(" ".join(numbers), task.conclude(" ".join(numbers), answer)).solved
        elif kind == "value":
            assert (answer == " sure") == solvable(tuple(map(int, numbers)), rules)
    assert kinds == {"solve", "value", "move", "moves"}
    assert all(json.dumps(each) for each in lessons("word-grid", 10))
