"""Every task that is shipped, and one declared in a file, keeps the contract."""

from __future__ import annotations

import json

import pytest
from task import check_task

from posterhall.search.tasks import Crosswords, DeclaredTask, Game24, WordGrid, Writing
from posterhall.search.tasks.crosswords import examples
from posterhall.search.tasks.declared import Declaration
from posterhall.search.tasks.word_grid import Lexicon

STEPS = [
    "10 - 4 = 6 (left: 6 9 13)\n13 - 9 = 4 (left: 4 6)",
    "4 * 6 = 24 (left: 24)",
    "Answer: (10 - 4) * (13 - 9)",
]
GRID = Lexicon(size=3, clues=30).puzzles(1)[0]
WORDS = [word for words in json.loads(GRID)["words"].values() for word in words]
DECLARED = Declaration(
    "declared",
    propose="{problem} {thoughts}",
    value="{problem} {last}",
    vote="{problem} {choices}",
    direct="{problem}",
    check="number",
)


@pytest.mark.parametrize(
    ("task", "problem", "replies"),
    [
        pytest.param(Game24(original=True), "4 9 10 13", STEPS, id="game24, original"),
        pytest.param(
            Game24(count=5), "1 2 3 4 5", ["1 + 2 = 3\n4 + 5 = 9", "3 * 9 = 27\n3 + 3 = 6"], id="game24, five"
        ),
        pytest.param(
            Crosswords(),
            examples()[0],
            ["h1. cat (certain)\nv1. cop (low)", "v2. are (high)\nh3. pen (low)"],
            id="crosswords",
        ),
        pytest.param(
            Crosswords(overwrite=True), examples()[1], ["h1. bit (low)\nv1. ten (low)"], id="overwriting"
        ),
        pytest.param(WordGrid(), GRID, ["\n".join(WORDS)], id="word grid"),
        pytest.param(
            WordGrid(style="compact"), GRID, ["; ".join(" ".join(word) for word in WORDS)], id="compact grid"
        ),
        pytest.param(
            Writing(), "It rained.\nIt poured.", ["Plan:\nrain\n\nPassage:\nIt rained."], id="writing"
        ),
        pytest.param(
            DeclaredTask(DECLARED), '{"problem": "1 + 1", "answer": 2}', ["1 and 1\n2", "so 2"], id="declared"
        ),
    ],
)
def test_a_shipped_task_keeps_the_contract(task, problem, replies):
    check_task(task, [problem], replies)
