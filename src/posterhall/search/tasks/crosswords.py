"""Small crosswords without black squares, n rows by m columns (the 5 x 5 of Yao et al. 2023, §4.3)."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posterhall.errors import DataError
from posterhall.lm.parsing import classes
from posterhall.search.protocol import Ask, Check, State, Task, Thoughts
from posterhall.search.tasks.templates import fill, prompt, quoted

CERTAINTY = {"certain": 1.0, "high": 0.5, "medium": 0.2, "low": 0.1}
"""What the words of certainty are worth; a word's worth over all replies is added up (the authors' code)."""
LARGEST = 15
"""Rows or columns."""
BLANK = "_"
_PROPOSED = re.compile(
    r"\s*(?:[*•-]\s+|\d{1,3}\)\s+)?([hv])(\d{1,2})\s*[.:]\s*\W?([^\W\d_]{1,15})\W?\s*\(\s*(certain|high|medium|low)\s*\)\W*",
    re.IGNORECASE,
)
_LINES = 500


@dataclass(frozen=True)
class Puzzle:
    """A crossword: clues, and the solution where it is known."""

    across: tuple[str, ...]
    """Clues of the rows, from the top."""
    down: tuple[str, ...]
    """Clues of the columns, from the left."""
    solution: tuple[str, ...] | None
    """Rows in small letters; None if it is not known."""

    @property
    def blank(self) -> tuple[str, ...]:
        """The empty board."""
        return (BLANK * len(self.down),) * len(self.across)

    def slots(self) -> Iterator[tuple[str, str]]:
        """Names of all words, h1, h2, ..., v1, v2, ..., with their clues."""
        yield from ((f"h{i}", clue) for i, clue in enumerate(self.across, 1))
        yield from ((f"v{i}", clue) for i, clue in enumerate(self.down, 1))


def at(board: Sequence[str], slot: str) -> str:
    """The letters of a word on a board."""
    number = int(slot[1:]) - 1
    return board[number] if slot[0] == "h" else "".join(row[number] for row in board)


def put(board: tuple[str, ...], slot: str, word: str) -> tuple[str, ...]:
    """A board with a word written over what was there."""
    number = int(slot[1:]) - 1
    if slot[0] == "h":
        return (*board[:number], word, *board[number + 1 :])
    return tuple(row[:number] + letter + row[number + 1 :] for row, letter in zip(board, word, strict=True))


def fits(word: str, pattern: str) -> bool:
    """Whether a word has a pattern's length and letters."""
    return len(word) == len(pattern) and all(p in (BLANK, w) for w, p in zip(word, pattern, strict=True))


@dataclass(frozen=True)
class Crosswords(Task):
    """Fill a crossword, a word a thought ("h2. motor"), best by depth-first search.

    The model lists words with how sure it is. A word that would change a letter is left out. A state is
    judged by each of its words that has two letters or more: one that is impossible prunes it. Any state
    has an answer, its board, since an unfinished one earns credit too.
    """

    problem: str | None = None
    """The puzzle, as JSON; none: any."""
    overwrite: bool = False
    """Let a word change letters that are there (the paper's arm without backtracking)."""

    name = "crosswords"
    grades = {"sure": 1.0, "maybe": 0.5, "impossible": 0.0}  # noqa: RUF012 - a declaration
    combine = "min"
    checkable = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "depth", 2 * LARGEST)
        if self.problem is not None:
            object.__setattr__(self, "problem", self.read(self.problem))
            puzzle = puzzle_of(self.problem)
            object.__setattr__(self, "depth", len(puzzle.across) + len(puzzle.down))

    # -- problems ---------------------------------------------------------------------------------

    def read(self, text: str) -> str:
        """A puzzle as canonical JSON: {"across": [...], "down": [...], "solution": [...]}.

        The solution, rows of letters, may be missing. The form of the paper's files, a list of all clues and
        a list of all letters, is read too.

        Raises:
            DataError: if it is none.
        """
        try:
            value = json.loads(text[:100_000])
        except (ValueError, RecursionError) as error:
            raise DataError(f"the crossword {text[:60]!r} is no JSON ({error}); {_FORM}") from None
        puzzle = _puzzle(value)
        found: dict[str, Any] = {"across": puzzle.across, "down": puzzle.down}
        if puzzle.solution:
            found["solution"] = puzzle.solution
        return json.dumps(found, ensure_ascii=False)

    def check(self, problem: str, answer: str | None) -> Check:
        """Shares of letters, words and games that are right (paper, Table 3)."""
        puzzle = puzzle_of(problem)
        if puzzle.solution is None:
            return Check(False, 0.0, "the puzzle's solution is not known")
        board = board_in(answer or "", puzzle)
        if board is None:
            return Check(False, 0.0, f"not {len(puzzle.across)} rows of {len(puzzle.down)} letters")
        right = [
            a == b
            for row, own in zip(puzzle.solution, board, strict=True)
            for a, b in zip(row, own, strict=True)
        ]
        words = [at(board, slot) == at(puzzle.solution, slot) for slot, _ in puzzle.slots()]
        letters = sum(right) / len(right)
        solved = all(right)
        why = (
            "right" if solved else f"{sum(right)} of {len(right)} letters, {sum(words)} of {len(words)} words"
        )
        return Check(
            solved,
            letters,
            why,
            {"letters": letters, "words": sum(words) / len(words), "games": float(solved)},
        )

    # -- states -----------------------------------------------------------------------------------

    def key(self, state: State) -> Hashable:
        """The board."""
        return state.problem, board_of(state.problem, state.thoughts)

    def finished(self, state: State) -> bool:
        """Whether no square is empty."""
        return not any(BLANK in row for row in board_of(state.problem, state.thoughts))

    def answer(self, state: State) -> str | None:
        """The board, a row a line; empty squares are _."""
        return "\n".join(board_of(state.problem, state.thoughts)) if state.thoughts else None

    def remaining(self, state: State) -> float:
        """Rows and columns are filled together, so at least half of the words with empty squares."""
        board = board_of(state.problem, state.thoughts)
        return float(
            min(
                sum(BLANK in row for row in board),
                sum(BLANK in "".join(each) for each in zip(*board, strict=True)),
            )
        )

    # -- generating -------------------------------------------------------------------------------

    def propose(self, state: State) -> Ask:
        """Asks for words for the open clues, with how sure the model is."""
        puzzle, board = puzzle_of(state.problem), board_of(state.problem, state.thoughts)
        lines = {slot: f"{slot}. {quoted(clue)}: {spaced(at(board, slot))}" for slot, clue in puzzle.slots()}
        filled = [slot for slot in lines if BLANK not in at(board, slot)]
        again = filled if self.overwrite else []
        return Ask(
            fill(
                prompt("crosswords/propose"),
                {
                    "rows": str(len(puzzle.across)),
                    "columns": str(len(puzzle.down)),
                    "board": "\n".join(map(spaced, board)),
                    "open": "\n".join(lines[slot] for slot in lines if slot not in filled or slot in again)
                    or "none",
                    "filled": "\n".join(lines[slot] for slot in filled if slot not in again) or "none",
                },
            )
        )

    def thoughts(self, state: State, reply: str) -> Thoughts:
        """Words that can be written, each with the sum of what it was given."""
        puzzle, board = puzzle_of(state.problem), board_of(state.problem, state.thoughts)
        slots = {slot for slot, _ in puzzle.slots()}
        lines = [line for line in reply.split("\n") if line.strip()]
        unread = max(0, len(lines) - _LINES)
        found: dict[str, float] = {}
        for line in lines[:_LINES]:
            match = _PROPOSED.fullmatch(line) if len(line) <= 200 else None
            slot = f"{match[1].lower()}{int(match[2])}" if match else ""
            word = match[3].lower() if match else ""
            if match is None or slot not in slots or not self._may(word, at(board, slot)):
                unread += 1
                continue
            thought = f"{slot}. {word}"
            found[thought] = found.get(thought, 0.0) + CERTAINTY[match[4].lower()]
        order = sorted(found, key=lambda each: -found[each])
        return Thoughts(tuple(order), unread, tuple(found[each] for each in order))

    def _may(self, word: str, pattern: str) -> bool:
        if word == pattern or len(word) != len(pattern):
            return False
        return self.overwrite or fits(word, pattern)

    # -- evaluating -------------------------------------------------------------------------------

    def aspects(self, state: State) -> Sequence[Ask]:
        """One question for each clue of whose word two letters or more are known."""
        board = board_of(state.problem, state.thoughts)
        return [
            _judge(clue, pattern)
            for slot, clue in puzzle_of(state.problem).slots()
            if len(pattern := at(board, slot)) - pattern.count(BLANK) >= min(2, len(pattern))
        ]

    def value(self, state: State) -> Ask:
        """The question about the first of the `aspects`, or else about the first row."""
        board = board_of(state.problem, state.thoughts)
        asks = self.aspects(state)
        return asks[0] if asks else _judge(puzzle_of(state.problem).across[0], board[0])

    def grade(self, state: State, reply: str) -> str | None:
        """The class that ends a reply."""
        return classes(reply, list(self.grades)).value

    # -- without search ---------------------------------------------------------------------------

    def direct(self, problem: str) -> Ask:
        """Asks for the rows of the solution."""
        return self._whole(problem, "")

    def chain(self, problem: str) -> Ask:
        """Asks for the words first, one after the other."""
        return self._whole(problem, "First write the words of all clues, one a line. Then: ")

    def conclude(self, problem: str, reply: str) -> str | None:
        """The last rows of the right length in a reply."""
        board = board_in(reply, puzzle_of(problem))
        return None if board is None else "\n".join(board)

    def _whole(self, problem: str, how: str) -> Ask:
        puzzle = puzzle_of(problem)
        clues = "\n".join(f"{slot}. {quoted(clue)}" for slot, clue in puzzle.slots())
        fields = {
            "rows": str(len(puzzle.across)),
            "columns": str(len(puzzle.down)),
            "clues": clues,
            "how": how,
        }
        return Ask(fill(prompt("crosswords/direct"), fields))


def examples() -> list[str]:
    """A few small puzzles of our own, to try things with."""
    text = Path(__file__).with_name("examples").joinpath("crosswords.jsonl").read_text(encoding="utf-8")
    return text.splitlines()


def spaced(letters: str) -> str:
    """Letters as in a prompt, one by one."""
    return " ".join(letters)


@functools.lru_cache(maxsize=1 << 12)
def puzzle_of(problem: str) -> Puzzle:
    """The puzzle that a canonical problem is."""
    return _puzzle(json.loads(problem))


@functools.lru_cache(maxsize=1 << 16)
def board_of(problem: str, thoughts: tuple[str, ...]) -> tuple[str, ...]:
    """The board after some thoughts."""
    if not thoughts:
        return puzzle_of(problem).blank
    slot, _, word = thoughts[-1].partition(". ")
    return put(board_of(problem, thoughts[:-1]), slot, word)


def _judge(clue: str, pattern: str) -> Ask:
    return Ask(fill(prompt("crosswords/value"), {"clue": quoted(clue), "pattern": spaced(pattern)}))


_FORM = (
    'write {"across": ["clue of the first row", ...], "down": ["clue of the first column", ...], '
    '"solution": ["letters of the first row", ...]}, the solution only if it is known'
)


def _puzzle(value: object) -> Puzzle:
    if isinstance(value, list) and len(value) == 2 and all(isinstance(each, list) for each in value):
        clues, letters = value
        size = len(clues) // 2
        rows = ["".join(map(str, letters[i * size : (i + 1) * size])) for i in range(size)]
        value = {"across": clues[:size], "down": clues[size:], "solution": rows if letters else None}
    if not isinstance(value, dict) or not {"across", "down"} <= value.keys() <= {
        "across",
        "down",
        "solution",
    }:
        raise DataError(f"the crossword is {str(value)[:60]!r}; {_FORM}")
    across, down, solution = value["across"], value["down"], value.get("solution")
    for name, clues in (("across", across), ("down", down)):
        if not (isinstance(clues, list | tuple) and all(isinstance(each, str) for each in clues)):
            raise DataError(f"the crossword's {name!r} is not a list of texts; {_FORM}")
        if not 2 <= len(clues) <= LARGEST:
            raise DataError(f"the crossword has {len(clues)} clues {name}; allowed are 2 to {LARGEST}")
    if solution is None:
        return Puzzle(tuple(across), tuple(down), None)
    sound = isinstance(solution, list | tuple) and len(solution) == len(across)
    if not sound or not all(
        isinstance(row, str) and row.isalpha() and len(row) == len(down) for row in solution
    ):
        raise DataError(
            f"the crossword's solution is {str(solution)[:60]}; it must be {len(across)} rows (clues across) "
            f"of {len(down)} letters (clues down)"
        )
    return Puzzle(tuple(across), tuple(down), tuple(row.lower() for row in solution))


def board_in(text: str, puzzle: Puzzle) -> tuple[str, ...] | None:
    """The last lines of a text that are a board."""
    rows: list[str] = []
    for line in reversed(text[-20_000:].split("\n")):
        letters = "".join(line.split()).strip("*`|").lower()
        if len(letters) == len(puzzle.down) and all(each.isalpha() or each == BLANK for each in letters):
            rows.append(letters)
            if len(rows) == len(puzzle.across):
                return tuple(reversed(rows))
        elif letters:
            rows.clear()
    return None
