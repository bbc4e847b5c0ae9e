"""Grids of made-up words: crosswords whose clues each stand for a short list, from a generated lexicon.

They need no knowledge, only search: most words of a list fit at first, few fit together, and a wrong one
shows up moves later. So depth-first search, pruning and backtracking can be tried without a large model.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from posterhall.errors import DataError
from posterhall.lm.parsing import classes
from posterhall.search.protocol import Ask, Check, State, Task, Thoughts
from posterhall.search.tasks.crosswords import BLANK, Puzzle, at, board_in, fits, put, spaced
from posterhall.search.tasks.templates import fill, prompt
from posterhall.seeds import generator

Style = Literal["plain", "compact"]
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_TRIES = 20_000
_PIECES = 500


@dataclass(frozen=True)
class Lexicon:
    """For each clue, its words: the same for all puzzles of a seed, so that a model can learn them.

    Raises:
        DataError: for a value out of its range.
    """

    size: int = 4
    """Letters of a word; grids have as many rows and columns, 2 to 8."""
    letters: int = 4
    """Letters of the alphabet, 2 to 26; the fewer, the more words fit by chance."""
    clues: int = 60
    """Clues, at least 2 for each row and column."""
    candidates: int = 5
    """Words of a clue, >= 1."""
    seed: int = 0
    """Of the words."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("size", 2, 8),
            ("letters", 2, 26),
            ("candidates", 1, 50),
            ("clues", 4, 10_000),
        ):
            if not low <= getattr(self, name) <= high:
                raise DataError(f"{name} is {getattr(self, name)}; it must be from {low} to {high}")
        if self.candidates > self.letters**self.size:
            raise DataError(f"there are no {self.candidates} words of {self.size} of {self.letters} letters")
        if self.clues < 2 * self.size:
            raise DataError(f"clues is {self.clues}; a grid of {self.size} has {2 * self.size} words")

    @functools.cached_property
    def words(self) -> Mapping[str, tuple[str, ...]]:
        """The words of each clue."""
        rng = generator(self.seed, "word grid", "lexicon", self.size, self.letters, self.candidates)
        return {
            str(clue): tuple(
                _word(int(n), self) for n in rng.choice(self.letters**self.size, self.candidates, False)
            )
            for clue in range(self.clues)
        }

    @functools.cached_property
    def _clues_of(self) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for clue, words in self.words.items():
            for word in words:
                found.setdefault(word, []).append(clue)
        return {word: tuple(clues) for word, clues in found.items()}

    def puzzle(self, rng: np.random.Generator) -> str:
        """A puzzle that has a solution, as `WordGrid.read` gives it.

        Raises:
            DataError: if the words of the lexicon hardly ever cross.
        """
        names = list(self.words)
        for _ in range(_TRIES):
            across = [names[int(i)] for i in rng.choice(len(names), self.size, replace=False)]
            rows = [self.words[clue][int(rng.integers(self.candidates))] for clue in across]
            columns = ["".join(row[i] for row in rows) for i in range(self.size)]
            choices = [[c for c in self._clues_of.get(word, ()) if c not in across] for word in columns]
            if all(choices):
                down = [each[int(rng.integers(len(each)))] for each in choices]
                return _written(across, down, {clue: self.words[clue] for clue in (*across, *down)})
        raise DataError(
            f"no grid could be made of {self.clues} clues with {self.candidates} words of {self.size} of "
            f"{self.letters} letters; take more clues or candidates, or fewer letters"
        )

    def puzzles(self, count: int, *, seed: int = 0) -> list[str]:
        """Different puzzles.

        Raises:
            DataError: if there are not so many.
        """
        found: dict[str, None] = {}
        rng = generator(seed, "word grid", "puzzles")
        for _ in range(20 * count):
            if len(found) == count:
                break
            found[self.puzzle(rng)] = None
        if len(found) < count:
            raise DataError(f"there are hardly {count} different grids of this lexicon; take more clues")
        return list(found)


@dataclass(frozen=True)
class WordGrid(Task):
    """Fill a grid whose rows and columns are each one of their clue's words; a thought is one word.

    The generator is asked for one word at a time, that of the clue of which the fewest letters are missing
    (the first among equals), so the children of a state are the words that may stand there.
    """

    problem: str | None = None
    """The puzzle, as JSON; none: any."""
    style: Style = "plain"
    """plain: prompts show the words of the clue; compact: one line with the clue's number, for a small model
    that has learnt the lexicon."""

    name = "word-grid"
    grades = {"sure": 1.0, "maybe": 0.5, "impossible": 0.0}  # noqa: RUF012 - a declaration
    combine = "min"

    def __post_init__(self) -> None:
        if self.style not in ("plain", "compact"):
            raise DataError(f"style is {self.style!r}; allowed are plain and compact")
        object.__setattr__(self, "depth", 16)
        if self.problem is not None:
            object.__setattr__(self, "problem", self.read(self.problem))
            object.__setattr__(self, "depth", len(list(_grid(self.problem)[0].slots())))

    def read(self, text: str) -> str:
        """A puzzle as canonical JSON: {"across": [clue, ...], "down": [...], "words": {clue: [word, ...]}}.

        Raises:
            DataError: if it is none.
        """
        try:
            value = json.loads(text[:100_000])
            across, down, words = value["across"], value["down"], value["words"]
            sound = value.keys() == {"across", "down", "words"} and len(across) == len(down) <= 8
            sound &= all(isinstance(clue, str) and clue for clue in (*across, *down)) and len(across) >= 2
            sound &= all(
                word.isalpha() and len(word) == len(across) for each in words.values() for word in each
            )
            sound &= set(across) | set(down) <= words.keys()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            sound = False
        if not sound:
            raise DataError(
                f"{text[:60]!r} is no word grid; write "
                '{"across": ["3", "8"], "down": ["5", "1"], "words": {"3": ["ab", "ca"], ...}}: as many '
                "clues across as down, 2 to 8, each with its words of that many letters"
            )
        return _written(across, down, {clue: words[clue] for clue in (*across, *down)})

    def check(self, problem: str, answer: str | None) -> Check:
        """Whether every row and column is one of its clue's words; the score is the share that are."""
        puzzle, words = _grid(problem)
        board = board_in(answer or "", puzzle)
        if board is None:
            return Check(False, 0.0, f"not {len(puzzle.across)} rows of as many letters")
        right = [at(board, slot) in words[clue] for slot, clue in puzzle.slots()]
        share = sum(right) / len(right)
        return Check(all(right), share, f"{sum(right)} of {len(right)} words", {"words": share})

    def key(self, state: State) -> Hashable:
        """The grid."""
        return state.problem, _filled(state)

    def finished(self, state: State) -> bool:
        """Whether no square is empty."""
        return not any(BLANK in row for row in _filled(state))

    def answer(self, state: State) -> str | None:
        """The grid, a row a line; empty squares are _."""
        return "\n".join(_filled(state)) if state.thoughts else None

    def worth(self, state: State) -> float | None:
        """Of a finished grid: whether all words are of their lists."""
        if not self.finished(state):
            return None
        return 1000.0 if self.check(state.problem, self.answer(state)).solved else 0.0

    def remaining(self, state: State) -> float:
        """Rows or columns with an empty square, whichever are fewer."""
        grid = _filled(state)
        columns = ["".join(each) for each in zip(*grid, strict=True)]
        return float(min(sum(BLANK in each for each in grid), sum(BLANK in each for each in columns)))

    def propose(self, state: State) -> Ask:
        """Asks for the words of one clue that keep the letters there."""
        return self._ask("propose", state, self._next(state) or "h1")

    def thoughts(self, state: State, reply: str) -> Thoughts:
        """Words of the next clue that keep the letters there. Whether they are in the clue's list is for the
        evaluator to see, as with a real crossword."""
        slot = self._next(state)
        pieces = [each for each in reply.replace(";", "\n").replace(",", "\n").split("\n") if each.strip()]
        found: dict[str, None] = {}
        unread = max(0, len(pieces) - _PIECES)
        for piece in pieces[:_PIECES]:
            word = "".join(piece.split()).strip("*.-•`\"'").lower()
            if slot is None or not word.isalpha() or not fits(word, at(_filled(state), slot)):
                unread += word != "none"
            else:
                found[f"{slot}. {word}"] = None
        return Thoughts(tuple(found), unread)

    def aspects(self, state: State) -> Sequence[Ask]:
        """One question for each clue of whose word a letter is known."""
        return [
            self._ask("value", state, slot)
            for slot, _ in _grid(state.problem)[0].slots()
            if set(at(_filled(state), slot)) != {BLANK}
        ]

    def value(self, state: State) -> Ask:
        """The question about the first of the `aspects`, or else about the first row."""
        asks = self.aspects(state)
        return asks[0] if asks else self._ask("value", state, "h1")

    def grade(self, state: State, reply: str) -> str | None:
        """The class that ends a reply."""
        return classes(reply, list(self.grades)).value

    def direct(self, problem: str) -> Ask:
        """Asks for the rows."""
        return self._whole(problem, "")

    def chain(self, problem: str) -> Ask:
        """Asks for the words first, one after the other."""
        return self._whole(problem, "First write the word of each clue, one a line. Then: ")

    def conclude(self, problem: str, reply: str) -> str | None:
        """The last rows of the right length in a reply."""
        board = board_in(reply, _grid(problem)[0])
        return None if board is None else "\n".join(board)

    def _next(self, state: State) -> str | None:
        grid = _filled(state)
        open_slots = [slot for slot, _ in _grid(state.problem)[0].slots() if BLANK in at(grid, slot)]
        return min(open_slots, key=lambda slot: at(grid, slot).count(BLANK), default=None)

    def _ask(self, name: str, state: State, slot: str) -> Ask:
        puzzle, words = _grid(state.problem)
        clue, pattern = dict(puzzle.slots())[slot], spaced(at(_filled(state), slot))
        if self.style == "compact":
            return Ask(compact_prompt("words" if name == "propose" else "fits", clue, pattern), max_tokens=64)
        return Ask(fill(prompt(f"word_grid/{name}"), {"words": ", ".join(words[clue]), "pattern": pattern}))

    def _whole(self, problem: str, how: str) -> Ask:
        puzzle, words = _grid(problem)
        lists = "\n".join(f"{slot}: {', '.join(words[clue])}" for slot, clue in puzzle.slots())
        size = str(len(puzzle.across))
        return Ask(
            fill(prompt("word_grid/direct"), {"rows": size, "columns": size, "lists": lists, "how": how})
        )


def compact_prompt(kind: str, clue: str, pattern: str) -> str:
    """What a small model is asked: `kind` is words or fits, the pattern has spaces between its letters."""
    return f"{kind} {clue} {pattern} :"


def compact_lesson(kind: str, clue: str, pattern: str, words: Sequence[str]) -> tuple[str, str]:
    """A prompt and what is to follow it: ("words 17 _ a :", " b a ; c a"), ("fits 17 _ a :", " sure").

    Args:
        kind: words or fits.
        clue: its number.
        pattern: letters and _, without spaces.
        words: all words of the clue.
    """
    kept = [word for word in words if fits(word, pattern)]
    if kind == "words":
        said = " ; ".join(map(spaced, kept)) or "none"
    else:
        said = "impossible" if not kept else "sure" if len(kept) == 1 else "maybe"
    return compact_prompt(kind, clue, spaced(pattern)), f" {said}"


def _word(number: int, lexicon: Lexicon) -> str:
    letters = []
    for _ in range(lexicon.size):
        number, letter = divmod(number, lexicon.letters)
        letters.append(ALPHABET[letter])
    return "".join(letters)


def _written(across: Sequence[str], down: Sequence[str], words: Mapping[str, Sequence[str]]) -> str:
    return json.dumps(
        {"across": list(across), "down": list(down), "words": {k: list(v) for k, v in words.items()}}
    )


@functools.lru_cache(maxsize=1 << 12)
def _grid(problem: str) -> tuple[Puzzle, Mapping[str, tuple[str, ...]]]:
    value = json.loads(problem)
    words = {clue: tuple(each) for clue, each in value["words"].items()}
    return Puzzle(tuple(value["across"]), tuple(value["down"]), None), words


@functools.lru_cache(maxsize=1 << 16)
def _board(problem: str, thoughts: tuple[str, ...]) -> tuple[str, ...]:
    if not thoughts:
        return _grid(problem)[0].blank
    slot, _, word = thoughts[-1].partition(". ")
    return put(_board(problem, thoughts[:-1]), slot, word)


def _filled(state: State) -> tuple[str, ...]:
    return _board(state.problem, state.thoughts)
