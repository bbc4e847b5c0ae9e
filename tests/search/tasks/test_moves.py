"""Games of numbers against brute force and published counts."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.errors import DataError
from posterhall.search.tasks.expressions import read
from posterhall.search.tasks.moves import Rules, expression, move, moves, play, puzzles, solvable
from posterhall.seeds import generator


def apply(operator, a, b):
    if a is None or b is None or (operator == "/" and b == 0):
        return None
    return (
        a + b
        if operator == "+"
        else a - b
        if operator == "-"
        else a * b
        if operator == "*"
        else Fraction(a) / b
    )


def brute_force(numbers, target):
    """All orders, operators and the five ways to set parentheses: another way than the solver's."""
    for a, b, c, d in set(itertools.permutations(numbers)):
        for p, q, r in itertools.product("+-*/", repeat=3):
            values = (
                apply(r, apply(q, apply(p, a, b), c), d),
                apply(r, apply(p, a, apply(q, b, c)), d),
                apply(q, apply(p, a, b), apply(r, c, d)),
                apply(p, a, apply(r, apply(q, b, c), d)),
                apply(p, a, apply(q, b, apply(r, c, d))),
            )
            if target in values:
                return True
    return False


def test_there_are_1362_puzzles_of_24():
    assert len(puzzles(Rules())) == 1362


def test_there_are_969_puzzles_of_7_modulo_11():
    assert len(puzzles(Rules(7, "+-*", 11), low=0, high=10)) == 969


def test_the_solver_agrees_with_brute_force():
    rng = generator(0, "brute force")
    verdicts = set()
    for _ in range(25):
        numbers = tuple(sorted(map(int, rng.integers(1, 14, 4))))
        verdicts.add(solvable(numbers, Rules()))
        assert solvable(numbers, Rules()) == brute_force(numbers, 24), numbers
    assert verdicts == {True, False}


@pytest.mark.parametrize("numbers", [(3, 3, 8, 8), (1, 5, 5, 5), (1, 3, 4, 6), (3, 3, 7, 7)])
def test_puzzles_that_need_fractions_are_solvable(numbers):
    assert solvable(numbers, Rules())


@given(st.lists(st.integers(-3, 13), min_size=2, max_size=5), st.integers(0, 10_000))
def test_the_expression_of_a_path_has_its_value_and_its_numbers(numbers, seed):
    numbers = tuple(sorted(numbers))
    path = play(numbers, Rules(), generator(seed), solving=False)
    found = read(expression(path))
    assert found.value == path[-1].result
    assert sorted(found.numbers) == list(numbers)


@given(st.integers(0, 968), st.integers(0, 1000))
def test_a_solving_path_solves(place, seed):
    rules = Rules(7, "+-*", 11)
    numbers = puzzles(rules, low=0, high=10)[place]
    path = play(numbers, rules, generator(seed))
    assert path[-1].rest == (7,)
    assert read(expression(path)).value % 11 == 7
    for before, made in zip([numbers, *(each.rest for each in path)], path, strict=False):
        assert made in moves(before, rules)


def test_a_puzzle_without_solution_has_no_solving_path():
    assert play((1, 1, 1, 1), Rules(), generator(0)) is None


def test_a_move_takes_numbers_that_are_there():
    assert move((4, 9, 10, 13), 4, "+", 9, Rules()).rest == (10, 13, 13)
    assert move((4, 9, 10, 13), 4, "+", 4, Rules()) is None
    assert move((4, 4), 4, "+", 4, Rules()).rest == (8,)
    assert move((0, 5), 5, "/", 0, Rules()) is None


def test_equal_sums_are_one_move():
    assert move((4, 9), 9, "+", 4, Rules()) == move((4, 9), 4, "+", 9, Rules())
    assert str(move((Fraction(1, 12), 2), 2, "/", Fraction(1, 12), Rules())) == "2 / (1/12) = 24 (left: 24)"


@pytest.mark.parametrize(
    "wrong",
    [
        {"operators": "+^"},
        {"operators": ""},
        {"modulus": 11},
        {"modulus": 1, "operators": "+"},
        {"modulus": 11, "operators": "+-*", "target": 11},
    ],
)
def test_rules_that_cannot_be(wrong):
    with pytest.raises(DataError):
        Rules(**wrong)


@pytest.mark.parametrize("wrong", [{"count": 7}, {"low": 5, "high": 4}, {"high": 2000}])
def test_puzzles_beyond_reach(wrong):
    with pytest.raises(DataError):
        puzzles(Rules(), **wrong)
