"""Worked examples for the prompts of a game of numbers, made from its rules: right for any target."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

import numpy as np

from posterhall.errors import DataError
from posterhall.search.tasks.moves import (
    Move,
    Number,
    Numbers,
    Rules,
    expression,
    moves,
    play,
    shown,
    solvable,
)
from posterhall.seeds import generator

_DRAWN = 40
"""Draws after which examples are made to measure: few numbers come to a target far from those of a puzzle."""
_MOST = 1000


def spaced(numbers: Numbers) -> str:
    """Numbers as in a prompt."""
    return " ".join(map(shown, numbers))


@functools.lru_cache(maxsize=64)
def proposals(rules: Rules, count: int) -> str:
    """One puzzle and eight of its first moves (the paper's propose prompt has one example)."""
    numbers = next(_solved(rules, count, "propose"))[0]
    every = moves(numbers, rules)
    easy = [each for each in every if each.result > 0 and isinstance(each.result, int)]
    chosen = easy[:: max(1, len(easy) // 8)][:8]
    return f"Input: {spaced(numbers)}\nPossible next steps:\n" + "\n".join(map(str, chosen))


@functools.lru_cache(maxsize=64)
def chains(rules: Rules, count: int) -> str:
    """Five puzzles with steps and answer."""
    return "\n\n".join(
        f"Input: {spaced(numbers)}\nSteps:\n"
        + "\n".join(map(str, path))
        + f"\nAnswer: {expression(path)} = {shown(rules.target)}"
        for numbers, path in itertools.islice(_solved(rules, count, "chain"), 5)
    )


@functools.lru_cache(maxsize=64)
def answers(rules: Rules, count: int) -> str:
    """The same five puzzles with the answer alone."""
    return "\n\n".join(
        f"Input: {spaced(numbers)}\nAnswer: {expression(path)} = {shown(rules.target)}"
        for numbers, path in itertools.islice(_solved(rules, count, "chain"), 5)
    )


@functools.lru_cache(maxsize=64)
def judgements(rules: Rules, count: int) -> str:
    """Three right answers and three wrong ones: a wrong result, other numbers, a number left out."""
    solved = list(itertools.islice(_solved(rules, count, "judge"), 6))
    rng = generator(0, "game of numbers", "judge", "wrong")
    target = shown(rules.target)
    blocks = []
    for i, (numbers, path) in enumerate(solved):
        text, verdict = f"{expression(path)} = {target}", "sure"
        if i == 1:
            text, verdict = f"{_missing(numbers, rules, rng)} = {target}", "impossible"
        elif i == 3:
            text, verdict = f"{expression(solved[0][1])} = {target}", "impossible"
        elif i == 5:
            text, verdict = f"{expression(path[:-1] or path)} = {target}", "impossible"
        blocks.append(f"Input: {spaced(numbers)}\nAnswer: {text}\nJudge:\n{verdict}")
    return "\n\n".join(blocks)


@functools.lru_cache(maxsize=64)
def values(rules: Rules) -> str:
    """Eight sets of two or three numbers with what was tried and the class: the paper's value prompt has as
    many. "Likely" stands where the target can be reached but was not by what was tried."""
    rng = generator(0, "game of numbers", "value")
    wanted = [
        *((2, "sure"), (2, "impossible"), (3, "sure"), (3, "likely")),
        *((3, "impossible"), (3, "sure"), (3, "likely"), (3, "impossible")),
    ]
    target = shown(rules.target)
    blocks: dict[Numbers, str] = {}
    for size, verdict in wanted:
        for attempt in range(_MOST):
            numbers = _drawn(rules, size, rng, attempt)
            if numbers in blocks or solvable(numbers, rules) == (verdict == "impossible"):
                continue
            tried = _tried(numbers, rules, rng, hit=verdict == "sure")
            if tried is None or (verdict == "impossible" and size == 3 and not _far(numbers, rules)):
                continue
            lines = [f"Input: {spaced(numbers)}", *tried]
            if verdict == "likely":
                lines.append(f"None of these is {target}, but the numbers are of the right size.")
            elif verdict == "impossible":
                lines.append(f"Nothing comes to {target}.")
            blocks[numbers] = "\n".join([*lines, verdict])
            break
    return "\n\n".join(blocks.values())


def _drawn(rules: Rules, count: int, rng: np.random.Generator, attempt: int) -> Numbers:
    low, high = (0, rules.modulus - 1) if rules.modulus is not None else (1, 13)
    numbers: list[Number] = list(map(int, rng.integers(low, high + 1, count)))
    if attempt >= _DRAWN:  # a + (target - a), and two alike that cancel
        rest = rules.target - numbers[0] if count != 3 else rules.target
        numbers[-1] = rest if rules.modulus is None else rest % rules.modulus
        numbers[:2] = [numbers[0]] * 2 if count == 3 else numbers[:2]
        numbers[1:3] = [numbers[1]] * 2 if count == 4 else numbers[1:3]
    return tuple(sorted(numbers))


def _solved(rules: Rules, count: int, purpose: str) -> Iterator[tuple[Numbers, list[Move]]]:
    """Puzzles of at most four numbers that can be solved, with a solution."""
    count = min(max(count, 2), 4)
    rng = generator(0, "game of numbers", purpose, count)
    found = 0
    for attempt in range(_MOST):
        numbers = _drawn(rules, count, rng, 0 if found else attempt)
        path = play(numbers, rules, rng) if solvable(numbers, rules) else None
        if path:
            found += attempt < _DRAWN
            yield numbers, path
    raise DataError(
        f"hardly any {count} numbers make {shown(rules.target)} with {rules.operators}, and the prompts' "
        "examples are made of such; choose another target, or more operators"
    )


def _tried(numbers: Numbers, rules: Rules, rng: np.random.Generator, *, hit: bool) -> list[str] | None:
    """Three things that one may try, the last of them reaching the target if and only if `hit`."""
    lines: dict[str, None] = {}
    for _ in range(30):
        path = play(numbers, rules, rng, solving=False)
        if path and path[-1].result != rules.target:
            lines[f"{expression(path)} = {shown(path[-1].result)}"] = None
    shown_lines = list(lines)[: 2 if hit else 3]
    if not shown_lines:
        return None
    path = play(numbers, rules, rng) if hit else None
    return shown_lines + ([f"{expression(path)} = {shown(rules.target)}"] if path else [])


def _far(numbers: Numbers, rules: Rules) -> bool:
    """Whether nothing that can be made is near the target."""
    if rules.modulus is not None:
        return True
    lasts = (last for first in moves(numbers, rules) for last in moves(first.rest, rules))
    return not any(rules.target - 2 < last.result < rules.target + 2 for last in lasts)


def _missing(numbers: Numbers, rules: Rules, rng: np.random.Generator) -> str:
    """An expression with a wrong result."""
    for _ in range(_MOST):
        path = play(numbers, rules, rng, solving=False)
        if path and path[-1].result != rules.target:
            return expression(path)
    return spaced(numbers)
