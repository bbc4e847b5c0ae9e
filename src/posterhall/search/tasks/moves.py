"""Games of combining numbers: legal moves, what can be reached, and every puzzle that can be solved.

A move takes two of the numbers that are left and puts back what an operation makes of them; the puzzle is
solved when the target alone is left (the Game of 24 of Yao et al. 2023, §4.1). Rationals are exact. With a
modulus all is reckoned modulo it, which makes the game small enough for a model trained in a minute.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import numpy as np

from posterhall.errors import DataError

Number: TypeAlias = int | Fraction
Numbers: TypeAlias = tuple[Number, ...]

OPERATORS = "+-*/"
LARGEST = 10**9
"""Of numerator and denominator of anything reckoned: far beyond a puzzle, and a bound on the work."""


@dataclass(frozen=True)
class Rules:
    """What a game of numbers allows.

    Raises:
        DataError: for a value out of its range.
    """

    target: Number = 24
    """What is to be left in the end."""
    operators: str = OPERATORS
    """Some of + - * /."""
    modulus: int | None = None
    """Numbers are taken modulo this, >= 2, without division; None: rationals."""

    def __post_init__(self) -> None:
        if not self.operators or not set(self.operators) <= set(OPERATORS):
            raise DataError(f"operators is {self.operators!r}; it must be some of {OPERATORS}")
        if self.modulus is not None and (self.modulus < 2 or "/" in self.operators):
            raise DataError(
                f"modulus is {self.modulus} with the operators {self.operators!r}; it must be at least 2, "
                "and there is no division modulo a number: set operators to +-*"
            )
        if self.modulus is not None and not (
            isinstance(self.target, int) and 0 <= self.target < self.modulus
        ):
            raise DataError(f"target is {self.target}; modulo {self.modulus} it must be from 0 below that")

    def result(self, left: Number, operator: str, right: Number) -> Number | None:
        """What an operation gives; None where it is not allowed, divides by zero or leaves all bounds."""
        if operator not in self.operators:
            return None
        if operator == "/":
            if right == 0:
                return None
            value: Number = whole(Fraction(left) / right)
        elif operator == "+":
            value = left + right
        elif operator == "-":
            value = left - right
        else:
            value = left * right
        if self.modulus is not None and isinstance(value, int):
            value %= self.modulus
        return whole(value) if is_small(value) else None


@dataclass(frozen=True)
class Move:
    """Two numbers made into one."""

    left: Number
    operator: str
    right: Number
    result: Number
    rest: Numbers
    """All numbers that are left afterwards, sorted, the result among them."""

    def __str__(self) -> str:
        """As in "4 + 9 = 13 (left: 10 13 13)", or "2 / (1/12) = 24 (left: 24)"."""
        left, right = map(_operand, (self.left, self.right))
        equation = f"{left} {self.operator} {right} = {shown(self.result)}"
        return f"{equation} (left: {' '.join(map(shown, self.rest))})"


def whole(value: Number) -> Number:
    """An integer where the value is one."""
    return value.numerator if value.denominator == 1 else value


def is_small(value: Number) -> bool:
    """Whether a number is within the bounds of what is reckoned with."""
    return abs(value.numerator) <= LARGEST and value.denominator <= LARGEST


def shown(value: Number) -> str:
    """As in a prompt: 13, -2, 7/2."""
    return str(value)


def _operand(value: Number) -> str:
    return f"({shown(value)})" if value < 0 or value.denominator > 1 else shown(value)


def move(numbers: Sequence[Number], left: Number, operator: str, right: Number, rules: Rules) -> Move | None:
    """The move that combines two of some numbers, in canonical form; None if it is not legal.

    Of a sum or product the smaller number stands first: the other order is the same move.
    """
    rest = list(numbers)
    for each in (left, right):
        if each not in rest:
            return None
        rest.remove(each)
    result = rules.result(left, operator, right)
    if result is None:
        return None
    if operator in "+*" and left > right:
        left, right = right, left
    return Move(left, operator, right, result, tuple(sorted([*rest, result])))


@functools.lru_cache(maxsize=1 << 16)
def moves(numbers: Numbers, rules: Rules) -> tuple[Move, ...]:
    """All legal moves, each once; equal numbers are interchangeable.

    Args:
        numbers: what is left, sorted.
        rules: of the game.
    """
    found: dict[Move, None] = {}
    for i, j in itertools.combinations(range(len(numbers)), 2):
        for operator in rules.operators:
            for left, right in ((numbers[i], numbers[j]), (numbers[j], numbers[i])):
                made = move(numbers, left, operator, right, rules)
                if made is not None:
                    found[made] = None
    return tuple(found)


@functools.lru_cache(maxsize=1 << 18)
def solvable(numbers: Numbers, rules: Rules) -> bool:
    """Whether the target can be reached with all of some numbers (sorted), each used once."""
    if len(numbers) == 1:
        return numbers[0] == rules.target
    if len(numbers) == 2:
        pairs = (numbers, numbers[::-1])
        return any(rules.result(a, each, b) == rules.target for a, b in pairs for each in rules.operators)
    return any(solvable(rest, rules) for rest in {each.rest for each in moves(numbers, rules)})


def play(
    numbers: Numbers, rules: Rules, rng: np.random.Generator, *, solving: bool = True
) -> list[Move] | None:
    """Moves drawn at random until one number is left.

    Args:
        numbers: sorted.
        rules: of the game.
        rng: draws them, uniformly among those allowed.
        solving: only moves after which the target can still be reached; otherwise any legal one.

    Returns:
        The moves; None if there is no such way.
    """
    made: list[Move] = []
    while len(numbers) > 1:
        allowed = [each for each in moves(numbers, rules) if not solving or solvable(each.rest, rules)]
        if not allowed:
            return None
        made.append(allowed[int(rng.integers(len(allowed)))])
        numbers = made[-1].rest
    return made if made or not solving or solvable(numbers, rules) else None


def puzzles(rules: Rules, *, count: int = 4, low: int = 1, high: int = 13) -> list[tuple[int, ...]]:
    """Every multiset of numbers with which the target can be reached, in lexicographic order.

    With the defaults these are the 1,362 puzzles of 4nums.com, whose order by the time that people need is
    measured and cannot be generated.

    Args:
        rules: of the game.
        count: numbers of a puzzle, 1 to 6 (the work grows about a hundredfold with each).
        low: smallest number, inclusive.
        high: largest number, inclusive.

    Raises:
        DataError: for a value out of its range.
    """
    if not 1 <= count <= 6:
        raise DataError(f"count is {count}; a puzzle that can be searched through has 1 to 6 numbers")
    if not low <= high <= low + 99:
        raise DataError(f"numbers from {low} to {high}; give a range of at most 100 numbers")
    if rules.modulus is not None and (low < 0 or high >= rules.modulus):
        raise DataError(f"numbers from {low} to {high}; modulo {rules.modulus} they are from 0 below that")
    every = itertools.combinations_with_replacement(range(low, high + 1), count)
    return [each for each in every if solvable(each, rules)]


_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}


def expression(path: Sequence[Move]) -> str:
    """One expression of the moves made from a puzzle to its end, as "(10 - 4) * (13 - 9)".

    A number that was made stands for the move that made it; of equal numbers it does not matter which.

    Args:
        path: moves, at least one.
    """
    made: dict[Number, list[tuple[str, int]]] = {}

    def part(value: Number, needed: int) -> str:
        if made.get(value):
            text, precedence = made[value].pop()
        else:
            text = shown(value)
            precedence = 0 if value < 0 else 3 if value.denominator == 1 else 2
        return text if precedence >= needed else f"({text})"

    text = ""
    for each in path:
        own = _PRECEDENCE[each.operator]
        left = part(each.left, own)
        right = part(each.right, own + (each.operator in "-/"))
        text = f"{left} {each.operator} {right}"
        made.setdefault(each.result, []).append((text, own))
    return text
