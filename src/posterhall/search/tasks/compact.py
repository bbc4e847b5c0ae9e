"""One-line prompts of a game of numbers, for small models trained from scratch, and lessons in the same form.

All is words between spaces, one a number. A lesson is a prompt and what follows it:

    solve 3 4 9 10 :   4 + 9 = 2 left 2 3 10 ; 2 * 3 = 6 left 6 10 ; 6 - 10 = 7 left 7
    moves 2 3 10 :     2 + 3 = 5 left 5 10 ; 2 * 10 = 9 left 3 9
    move 2 3 10 :      2 * 10 = 9 left 3 9
    value 2 3 10 :     sure

(modulo 11). What the model reads when it is asked is the prompt of a lesson, to the byte.
"""

from __future__ import annotations

from collections.abc import Sequence

from posterhall.search.tasks.moves import Move, Numbers, Rules, shown, solvable

Lesson = tuple[str, str]
"""A prompt and what is to follow it."""


def prompt(kind: str, numbers: Numbers) -> str:
    """What a model is asked: `kind` is solve, moves, move or value; numbers are sorted."""
    return f"{kind} {' '.join(map(shown, numbers))} :"


def trace(numbers: Numbers, path: Sequence[Move]) -> Lesson:
    """All moves from a puzzle to its end: a chain of thought."""
    return prompt("solve", numbers), _lines(path)


def proposals(numbers: Numbers, some: Sequence[Move]) -> Lesson:
    """Several next moves."""
    return prompt("moves", numbers), _lines(some)


def proposal(numbers: Numbers, one: Move) -> Lesson:
    """One next move."""
    return prompt("move", numbers), _lines([one])


def value(numbers: Numbers, rules: Rules) -> Lesson:
    """Whether the target can be reached from some numbers: sure or impossible."""
    return prompt("value", numbers), " sure" if solvable(numbers, rules) else " impossible"


def _lines(some: Sequence[Move]) -> str:
    return " " + " ; ".join(
        f"{shown(each.left)} {each.operator} {shown(each.right)} = {shown(each.result)} "
        f"left {' '.join(map(shown, each.rest))}"
        for each in some
    )
