"""Word grids: every one made can be filled, and a search over perfect candidates fills it."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall import search
from posterhall.errors import DataError
from posterhall.lm.protocol import LM, Sample
from posterhall.search import State
from posterhall.search.tasks.word_grid import Lexicon, WordGrid, compact_lesson

LEXICON = Lexicon(size=3, letters=4, clues=40, candidates=4, seed=2)


def solutions(problem):
    """By brute force over the words across."""
    value = json.loads(problem)
    for rows in itertools.product(*(value["words"][clue] for clue in value["across"])):
        columns = ["".join(each) for each in zip(*rows, strict=True)]
        if all(word in value["words"][clue] for clue, word in zip(value["down"], columns, strict=True)):
            yield "\n".join(rows)


@pytest.mark.parametrize("problem", LEXICON.puzzles(10))
def test_a_grid_that_was_made_can_be_filled(problem):
    right = set(solutions(problem))
    assert right
    task = WordGrid()
    assert task.read(problem) == problem
    for rows in itertools.islice(
        itertools.product(*(json.loads(problem)["words"][clue] for clue in json.loads(problem)["across"])),
        100,
    ):
        assert task.check(problem, "\n".join(rows)).solved == ("\n".join(rows) in right)


def test_grids_follow_from_their_seed():
    assert LEXICON.puzzles(3, seed=5) == LEXICON.puzzles(3, seed=5) != LEXICON.puzzles(3, seed=6)
    assert len(set(LEXICON.puzzles(30))) == 30


class Speller(LM):
    """Proposes all words of a clue that fit, and judges by the list it is shown."""

    name = "speller"

    def __init__(self):
        self.asked = 0

    async def agenerate(self, requests):
        self.asked += len(requests)
        return [[Sample(self._say(each.prompt), "stop", 1, 1)] * each.n for each in requests]

    def _say(self, prompt):
        *_, words, pattern = (line for line in prompt.split("\n") if ": " in line)
        words, pattern = words.split(": ")[1].split(", "), pattern.split(": ")[1].split()
        kept = [w for w in words if all(p in ("_", c) for p, c in zip(pattern, w, strict=True))]
        if "one word: sure" in prompt:
            return "maybe" if kept else "impossible"
        return "\n".join(kept) or "none"


@pytest.mark.parametrize("problem", LEXICON.puzzles(6))
def test_depth_first_search_fills_grids_and_pruning_visits_fewer(problem):
    visited = {}
    for prune in (True, False):
        solution = search.solve(
            WordGrid(problem), Speller(), method="dfs", prune=prune, votes=1, use_check=True, states=2000
        )
        assert solution.solved
        visited[prune] = len(solution.tree.nodes)
    assert visited[True] <= visited[False]


def test_the_next_word_is_the_one_with_fewest_letters_missing():
    task = WordGrid(LEXICON.puzzles(1)[0])
    state = State(task.problem).then("v1. abc")
    assert task._next(State(task.problem)) == "h1"
    assert task._next(state) == "h1"
    assert task.thoughts(state, "abb; bbb, abc\nnone\nxy").found == ("h1. abb", "h1. abc")
    assert task.thoughts(state, "abb; bbb, abc\nnone\nxy").unread == 2


def test_lessons_say_what_a_small_model_is_asked():
    task = WordGrid(LEXICON.puzzles(1)[0], style="compact")
    value = json.loads(task.problem)
    clue = value["across"][0]
    prompt, _ = compact_lesson("words", clue, "___", value["words"][clue])
    assert task.propose(State(task.problem)).prompt == prompt
    assert compact_lesson("fits", "7", "a__", ["bcd"])[1] == " impossible"
    assert compact_lesson("fits", "7", "a__", ["abc", "acc"])[1] == " maybe"
    assert compact_lesson("words", "7", "a__", ["abc", "acc", "ccc"])[1] == " a b c ; a c c"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "{}",
        '{"across": ["1"], "down": ["2"], "words": {}}',
        '{"across": 1, "down": 2, "words": 3}',
        "[" * 99999,
    ],
)
def test_what_is_no_grid(text):
    with pytest.raises(DataError):
        WordGrid().read(text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 1},
        {"letters": 1},
        {"clues": 3},
        {"candidates": 99},
        {"size": 2, "letters": 2, "candidates": 5},
    ],
)
def test_lexicons_that_cannot_be(wrong):
    with pytest.raises(DataError):
        Lexicon(**wrong)


def test_a_lexicon_whose_words_never_cross_says_so():
    with pytest.raises(DataError, match="no grid"):
        Lexicon(size=8, letters=26, clues=16, candidates=1).puzzle(__import__("numpy").random.default_rng(0))


@given(st.text(max_size=100))
def test_any_reply_can_be_read(reply):
    task = WordGrid(LEXICON.puzzles(1)[0])
    task.thoughts(State(task.problem), reply)
    task.check(task.problem, reply)
