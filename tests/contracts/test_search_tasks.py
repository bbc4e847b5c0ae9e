"""The contract of a search task can be kept, and is noticed when it is broken."""

from __future__ import annotations

import pytest
from task import check_task

from posterhall.search import Check
from posterhall.search.tasks.game24 import Game24

MOVES = ["4 + 9 = 13\n10 - 4 = 6", "6 * 9 = 54\n13 + 13 = 26", "10 - 6 = 4", "13 - 9 = 4\n4 * 6 = 24"]


@pytest.mark.parametrize(
    "options", [{}, {"style": "compact", "modulus": 11, "target": 7, "operators": "+-*"}]
)
def test_games_of_numbers_keep_the_contract(options):
    problems = ["4 9 10 3"] if options else ["4 9 10 13", "1 1 1 1"]
    moves = ["4 + 9 = 2\n3 * 4 = 1", "2 * 3 = 6", "10 - 2 = 8\n6 + 10 = 5"] if options else MOVES
    check_task(Game24(**options), problems, moves, bad=["", "a b", "1"])


class Raising(Game24):
    def check(self, problem, answer):
        return Check(eval_like(answer), 0.0, "?") if answer else Check(False, 0.0, "none")


def eval_like(text):
    return bool(int(text))


class Forgetful(Game24):
    def key(self, state):
        return object()


class Boasting(Game24):
    def check(self, problem, answer):
        return Check(False, 7.0, "more than all")


@pytest.mark.parametrize(
    ("broken", "how"), [(Raising, ValueError), (Forgetful, AssertionError), (Boasting, AssertionError)]
)
def test_what_breaks_it_is_noticed(broken, how):
    with pytest.raises(how):
        check_task(broken(), ["4 9 10 13"], MOVES, examples=3)
