"""Problems made by the thousand, and lessons about them for small models."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from posterhall import config
from posterhall.errors import DataError, UsageError
from posterhall.search.tasks import compact
from posterhall.search.tasks.crosswords import BLANK
from posterhall.search.tasks.hanoi import Towers
from posterhall.search.tasks.moves import OPERATORS, Numbers, Rules, moves, play, puzzles
from posterhall.search.tasks.word_grid import Lexicon, compact_lesson
from posterhall.search.tasks.worked import spaced
from posterhall.seeds import generator

MAKERS = ("game24", "word-grid", "crosswords", "hanoi")
"""Tasks that problems can be made for; of crosswords there are a few examples."""


@dataclass(frozen=True)
class NumberPuzzles:
    """Which games of numbers are made: all that can be solved.

    Raises:
        DataError: for a value out of its range.
    """

    target: int = 24
    """What is to be made."""
    count: int = 4
    """Numbers of a puzzle, 1 to 6."""
    operators: str | None = None
    """Some of + - * /; none: all, or + - * with a modulus."""
    modulus: int | None = None
    """Reckon modulo this, >= 2; none: with rationals."""
    low: int | None = None
    """Smallest number; none: 1, or 0 with a modulus."""
    high: int | None = None
    """Largest number; none: 13, or the largest there is with a modulus."""

    @property
    def rules(self) -> Rules:
        """Of the game."""
        operators = self.operators or (OPERATORS if self.modulus is None else "+-*")
        return Rules(self.target, operators, self.modulus)

    def all(self) -> list[tuple[int, ...]]:
        """Every puzzle, in lexicographic order."""
        modulus = self.modulus
        low = self.low if self.low is not None else 1 if modulus is None else 0
        high = self.high if self.high is not None else 13 if modulus is None else modulus - 1
        return puzzles(self.rules, count=self.count, low=low, high=high)


def problems(
    task: str,
    *,
    number: int | None = None,
    seed: int = 0,
    sets: Sequence[str] = (),
    without: Collection[str] = (),
) -> list[str]:
    """Problems of a task that have a solution.

    Args:
        task: one of `MAKERS`.
        number: how many, drawn at random; None for all (100 word grids).
        seed: of the draw.
        sets: settings as key=value: of `NumberPuzzles`, of `Lexicon` for word grids, of `Towers`
            for hanoi.
        without: problems to be left out.

    Raises:
        DataError: for a setting that there is not, or if there are not so many.
        UsageError: for a task whose problems cannot be made.
    """
    if task == "game24":
        every = [spaced(each) for each in config.resolve(NumberPuzzles, sets=sets, environ={}).all()]
    elif task == "word-grid":
        lexicon = config.resolve(Lexicon, sets=sets, flags={"seed": None}, environ={})
        every = lexicon.puzzles((number or 100) + len(without), seed=seed)
    elif task == "hanoi":
        every = config.resolve(Towers, sets=sets, environ={}).all()
    elif task == "crosswords":
        from posterhall.search.tasks.crosswords import examples

        every = examples()
    else:
        raise UsageError(f"no problems can be made for {task!r}; they can for {', '.join(MAKERS)}")
    left = [each for each in every if each not in set(without)]
    if number is None:
        return left
    if number > len(left):
        raise DataError(f"{number} problems are asked for, and there are {len(left):,}")
    chosen = sorted(
        int(i) for i in generator(seed, "problems", task).choice(len(left), number, replace=False)
    )
    return [left[i] for i in chosen]


def lessons(
    task: str, number: int, *, seed: int = 0, sets: Sequence[str] = (), without: Collection[str] = ()
) -> Iterator[tuple[str, str]]:
    """Prompts of the compact style and what is to follow them, in turn of all kinds.

    Args:
        task: game24 or word-grid.
        number: how many.
        seed: of all draws.
        sets: see `problems`.
        without: puzzles whose solutions are not shown, so that they can be tested on.

    Raises:
        UsageError: for a task without compact prompts.
    """
    rng = generator(seed, "lessons", task)
    if task == "game24":
        made = config.resolve(NumberPuzzles, sets=sets, environ={})
        known = [each for each in made.all() if spaced(each) not in set(without)]
        if not known:
            raise DataError("no puzzle is left to learn from")
        for i in range(number):
            yield _number_lesson(i, known[int(rng.integers(len(known)))], made.rules, rng)
    elif task == "word-grid":
        lexicon = config.resolve(Lexicon, sets=sets, environ={})
        clues = list(lexicon.words)
        for i in range(number):
            clue = clues[int(rng.integers(len(clues)))]
            word = lexicon.words[clue][int(rng.integers(lexicon.candidates))]
            if i % 2 and rng.random() < 0.5:  # letters of another clue's word: mostly impossible
                other = lexicon.words[clues[int(rng.integers(len(clues)))]]
                word = other[int(rng.integers(lexicon.candidates))]
            hidden = rng.random(lexicon.size) < rng.random()
            pattern = "".join(BLANK if hide else letter for hide, letter in zip(hidden, word, strict=True))
            yield compact_lesson("fits" if i % 2 else "words", clue, pattern, lexicon.words[clue])
    else:
        raise UsageError(f"no lessons can be made for {task!r}; they can for game24 and word-grid")


def _number_lesson(i: int, puzzle: Numbers, rules: Rules, rng: np.random.Generator) -> tuple[str, str]:
    if i % 4 == 0:
        return compact.trace(puzzle, play(puzzle, rules, rng) or [])
    on_the_way = play(puzzle, rules, rng, solving=bool(rng.random() < 0.5)) or []
    states = [puzzle, *(each.rest for each in on_the_way)]
    if i % 4 == 1:
        return compact.value(states[int(rng.integers(len(states)))], rules)
    state = states[int(rng.integers(len(states) - 1))] if len(states) > 1 else puzzle
    legal = moves(state, rules)
    if i % 4 == 2:
        return compact.proposal(state, legal[int(rng.integers(len(legal)))])
    some = rng.choice(len(legal), min(len(legal), 6), replace=False)
    return compact.proposals(state, [legal[int(each)] for each in some])
