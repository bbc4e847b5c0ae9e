"""The game that small models learn: four numbers modulo a prime, three operations, and a target."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from posterhall.search.tasks import compact
from posterhall.search.tasks.moves import Numbers, Rules, moves, play, puzzles, solvable
from posterhall.seeds import derive, generator
from posterhall.train.small import Lesson, SmallSettings, small_model

Chains = Literal["solutions", "legal moves"]
"""What chains of thought are learnt from: ways to the target, or moves drawn at random."""

OPERATORS = "+-*"
COUNT = 4
"""Numbers of a puzzle, as in the Game of 24."""
_BATCH = 32
_MOST_LESSONS = 60_000
"""Lessons of a longer training come again, in another order."""
_MIX = {"solve": 0.35, "move": 0.35, "value": 0.3}
"""Shares of lessons: whole chains; one legal move; whether the target can be reached."""
_VALUED = {1: 0.1, 2: 0.35, 3: 0.55}
"""Shares of the value lessons by how many numbers are left; a state of four is never valued."""


@dataclass(frozen=True)
class Puzzles:
    """All puzzles of a game that can be solved, divided by a seed.

    Attributes:
        rules: of the game.
        train: those that chains are learnt from.
        held_out: those that are to be solved; no lesson begins with one of them.
    """

    rules: Rules
    train: tuple[Numbers, ...]
    held_out: tuple[Numbers, ...]

    @classmethod
    def divided(cls, *, modulus: int, target: int, held_out: int, seed: int) -> Puzzles:
        """Hold out as many puzzles as that, drawn by the seed."""
        rules = Rules(target, OPERATORS, modulus)
        every = puzzles(rules, count=COUNT, low=0, high=modulus - 1)
        order = generator(seed, "held-out puzzles").permutation(len(every)).tolist()
        drawn = [every[place] for place in order]
        return cls(rules, tuple(drawn[held_out:]), tuple(drawn[:held_out]))


def lessons(game: Puzzles, *, count: int, chains: Chains, seed: int) -> Iterator[Lesson]:
    """Lessons of all kinds in a random order.

    States of one to three numbers come up in them whatever puzzle they belong to, as they do in chains;
    half of the values learnt are of states from which the target cannot be reached.

    Args:
        game: held-out puzzles are left out.
        count: how many.
        chains: what chains are made of.
        seed: of the draws.
    """
    rng = generator(seed, "lessons", chains)
    rules, held_out = game.rules, set(game.held_out)
    states = {
        size: [
            each
            for each in itertools.combinations_with_replacement(range(rules.modulus or 0), size)
            if each not in held_out
        ]
        for size in range(1, COUNT + 1)
    }
    by_value = {
        (size, value): [each for each in states[size] if solvable(each, rules) is value]
        for size in _VALUED
        for value in (True, False)
    }
    kinds = rng.choice(list(_MIX), p=list(_MIX.values()), size=count)
    sizes = rng.choice(list(_VALUED), p=list(_VALUED.values()), size=count)
    for kind, size in zip(kinds, sizes.tolist(), strict=True):
        if kind == "solve":
            numbers = _one(game.train, rng)
            path = play(numbers, rules, rng, solving=chains == "solutions")
            yield compact.trace(numbers, path or [])
        elif kind == "move":
            numbers = _one(states[int(rng.integers(2, COUNT + 1))], rng)
            yield compact.proposal(numbers, _one(moves(numbers, rules), rng))
        else:
            yield compact.value(_one(by_value[size, bool(rng.integers(2))], rng), rules)


def _one(among: Sequence[Any], rng: np.random.Generator) -> Any:
    return among[int(rng.integers(len(among)))]


def model(game: Puzzles, *, steps: int, chains: Chains, seed: int) -> Path:
    """The small model of a seed: trained, or found where it is kept.

    Eight heads of eight entries: what is left after a move is found by attention to the numbers it took,
    and with four heads the same training made half as many legal moves.
    """
    rules, count = game.rules, min(_MOST_LESSONS, _BATCH * steps)
    recipe = {
        "task": "game of numbers",
        "modulus": rules.modulus,
        "target": rules.target if isinstance(rules.target, int) else str(rules.target),
        "held_out": len(game.held_out),
        "chains": chains,
        "lessons": count,
        "seed": seed,
    }
    settings = SmallSettings(
        steps=steps,
        batch=_BATCH,
        heads=8,
        ffn_dim=160,
        max_length=64,
        rope_theta=20.0,
        seed=derive(seed, "model"),
    )
    drawn = lessons(game, count=count, chains=chains, seed=seed)
    return small_model(drawn, settings, recipe=recipe)


def drawn_moves(game: Puzzles) -> float:
    """Share of held-out puzzles that moves drawn uniformly among the legal ones solve, in expectation."""

    @functools.cache
    def chance(numbers: Numbers) -> float:
        if len(numbers) == 1:
            return float(numbers[0] == game.rules.target)
        legal = moves(numbers, game.rules)
        return sum(chance(each.rest) for each in legal) / len(legal)

    return sum(map(chance, game.held_out)) / len(game.held_out)
