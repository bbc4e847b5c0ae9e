"""The Tower of Hanoi: three pegs, disks of different sizes, from any state to any other."""

from __future__ import annotations

import functools
import re
from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from itertools import permutations, product
from typing import TypeAlias

from posterhall.errors import DataError
from posterhall.lm.parsing import integer
from posterhall.search.planner.protocol import Domain
from posterhall.search.protocol import Ask, Check, State, Task, Thoughts
from posterhall.search.tasks.templates import fill, prompt

Pegs: TypeAlias = tuple[str, str, str]
"""The disks on A, B and C from the bottom to the top, as in ("32", "", "1")."""

NAMES = "ABC"
MOST_DISKS = 8
_LONGEST = 100_000
_MOVE = re.compile(
    r"(?:(?:\bdisk\s{0,3})?\b([1-8])\b[^A-C\n\d]{0,20})?"
    r"(?<!\w)([ABC])\W{0,3}(?:to|->|→|,)\W{0,3}(?:peg )?([ABC])(?!\w)"
)
_PEG = re.compile(
    r"(?<!\w)([ABC])\W{0,3}[:=]\W{0,3}((?:[1-8](?!\d)[\s,]{0,3})+|empty|none|nothing|-)", re.IGNORECASE
)
_RULES = (
    "There are three pegs, A, B and C, and {count} disks, numbered by size: 1 is the smallest, {count} the "
    "largest. A move takes the topmost disk of a peg and puts it on top of another. A disk may not be put on "
    "a smaller one. Pegs are told from the bottom to the top."
)
_EXAMPLES: dict[str, tuple[str, ...]] = {
    "decomposer": (
        "Now: A: 3 2 1; B: empty; C: empty\nGoal: A: empty; B: empty; C: 3 2 1\n"
        "Disk 3 can only move when the others are on B.\nSubgoals:\nA: 3; B: 2 1; C: empty",
    ),
    "actor": (
        "Now: A: 3 2; B: 1; C: empty\nGoal: A: 3; B: 2 1; C: empty\n"
        "Disk 2 has to get onto B, so disk 1 has to leave it.\n"
        "Moves:\ndisk 1 from B to C\ndisk 2 from A to C",
    ),
    "monitor": (
        "Now: A: 3 2; B: 1; C: empty\nProposed: disk 2 from A to B\n"
        "The topmost disk of B is 1, and 2 is larger: a disk may not be put on a smaller one.\n"
        "Answer: invalid",
        "Now: A: 3 2; B: 1; C: empty\nProposed: disk 2 from A to C\n"
        "Disk 2 is topmost on A, and C is empty.\nAnswer: valid",
    ),
    "predictor": ("Now: A: 3 2; B: 1; C: empty\nMove: disk 2 from A to C\nNext: A: 3; B: 1; C: 2",),
    "evaluator": (
        "Now: A: 3; B: 2 1; C: empty\nGoal: A: empty; B: empty; C: 3 2 1\n"
        "Disk 3 goes to C, then 2 and 1 in three moves.\nAnswer: 4",
    ),
    "orchestrator": (
        "Now: A: 3; B: 2; C: 1\nGoal: A: 3; B: 2 1; C: empty\nDisk 1 is on C, not on B.\nAnswer: no",
    ),
}


@dataclass(frozen=True)
class Towers:
    """Which towers are made: all states but the goal, to be brought to peg C.

    Raises:
        DataError: for a value out of its range.
    """

    disks: int = 3
    """1 to 8; 3 give the paper's 26 problems, 4 its 80 (Webb et al. 2023)."""

    def __post_init__(self) -> None:
        if not 1 <= self.disks <= MOST_DISKS:
            raise DataError(f"disks is {self.disks}; it must be from 1 to {MOST_DISKS}")

    def all(self) -> list[str]:
        """Every problem, as `Hanoi.read` gives it."""
        goal: Pegs = ("", "", _tower(self.disks))
        starts = []
        for places in product(range(3), repeat=self.disks):
            # Of the largest disk first: so each peg is told from the bottom.
            pegs = ["", "", ""]
            for disk, place in zip(_tower(self.disks), places, strict=True):
                pegs[place] += disk
            starts.append((pegs[0], pegs[1], pegs[2]))
        return [_written(start, goal) for start in starts if start != goal]


@dataclass(frozen=True)
class Hanoi(Task):
    """Bring all disks where they belong; a thought is one move.

    A problem is the disks on A, B and C from the bottom to the top, with - for an empty peg: "321 - -". The
    goal follows behind >, as in "32 1 - > - - 321"; without one it is all disks on C.
    """

    problem: str | None = None
    """None: any."""

    name = "hanoi"

    def __post_init__(self) -> None:
        object.__setattr__(self, "depth", 20)
        if self.problem is not None:
            object.__setattr__(self, "problem", self.read(self.problem))
            object.__setattr__(self, "depth", _limit(_pegs(self.problem)[0]))

    def read(self, text: str) -> str:
        """A problem in canonical form: "32 1 - > - - 321".

        Raises:
            DataError: if it is none.
        """
        start, _, goal = text[:200].partition(">")
        first = _read_pegs(start)
        last = _read_pegs(goal) if goal.strip() else first and ("", "", _tower(len("".join(first))))
        if first is None or last is None or sorted("".join(first)) != sorted("".join(last)):
            raise DataError(
                f"{text[:60]!r} is no tower; write the disks on pegs A, B and C from the bottom to the top, "
                f'1 the smallest, as "32 1 -" (at most {MOST_DISKS} disks), and a goal behind > if it is not '
                "all of them on C"
            )
        return _written(first, last)

    def check(self, problem: str, answer: str | None) -> Check:
        """Whether moves, one a line, are all allowed and end at the goal."""
        pegs, goal = _pegs(problem)
        if answer is None:
            return Check(False, 0.0, "no answer")
        moves = _moves_in(answer, pegs, goal)
        for number, move in enumerate(moves, 1):
            after = _moved(pegs, move)
            if after is None:
                return Check(False, 0.0, f"move {number} is not allowed: {move}")
            pegs = after
        size = len("".join(goal))
        there = sum(disk in peg for disk in map(str, range(1, size + 1)) for peg in _in(goal, pegs, disk))
        if pegs != goal:
            return Check(False, 0.99 * there / size, f"{there} of {size} disks where they belong")
        fewest = _distances(goal)[_pegs(problem)[0]]
        said = f"{len(moves)} moves" + (", the fewest" if len(moves) == fewest else f"; {fewest} would do")
        return Check(True, 1.0, said, {"fewest": float(len(moves) == fewest)})

    def key(self, state: State) -> Hashable:
        """The pegs."""
        return state.problem, _reached(state)

    def finished(self, state: State) -> bool:
        """Whether the pegs are as in the goal."""
        return _reached(state) == _pegs(state.problem)[1]

    def answer(self, state: State) -> str | None:
        """The moves, one a line."""
        return "\n".join(state.thoughts) or ("(no move)" if self.finished(state) else None)

    def worth(self, state: State) -> float | None:
        """Of a finished state: more than any estimate."""
        return 1000.0 if self.finished(state) else None

    def remaining(self, state: State) -> float:
        """Disks that are not on the peg where they belong: each takes a move."""
        pegs, goal = _reached(state), _pegs(state.problem)[1]
        if pegs is None:
            return float(len("".join(goal)))
        return float(sum(disk not in goal[place] for place, peg in enumerate(pegs) for disk in peg))

    def propose(self, state: State) -> Ask:
        """Asks for the moves that are allowed."""
        return Ask(fill(prompt("hanoi/propose"), self._fields(state)))

    def thoughts(self, state: State, reply: str) -> Thoughts:
        """The moves in a reply that are allowed."""
        pegs = _reached(state)
        found: dict[str, None] = {}
        unread = 0
        for move in _lines(reply, pegs):
            if move is None or pegs is None or _moved(pegs, move) is None:
                unread += 1
            else:
                found[move] = None
        return Thoughts(tuple(found), unread)

    def value(self, state: State) -> Ask:
        """Asks how many moves are left at least."""
        return Ask(fill(prompt("hanoi/value"), self._fields(state)))

    def rating(self, state: State, reply: str) -> float | None:
        """1 / (1 + moves left)."""
        left = integer(reply, low=0, high=10_000).value
        return None if left is None else 1 / (1 + left)

    def grade(self, state: State, reply: str) -> str | None:
        """None: replies give a number, no class."""
        return None

    def direct(self, problem: str) -> Ask:
        """Asks for all moves."""
        return self._whole(problem, "Without explaining, ")

    def chain(self, problem: str) -> Ask:
        """Asks to think first."""
        return self._whole(
            problem, "First say for each disk, the largest first, what has to move away. Then "
        )

    def conclude(self, problem: str, reply: str) -> str | None:
        """The moves in a reply, one a line."""
        return "\n".join(_moves_in(reply, *_pegs(problem))) or None

    def domain(self, problem: str) -> Domain:
        """For the planner of modules."""
        return TowerDomain(problem)

    def _fields(self, state: State) -> Mapping[str, str]:
        pegs, goal = _reached(state), _pegs(state.problem)[1]
        rules = _RULES.format(count=len("".join(goal)))
        return {"rules": rules, "state": _told(pegs or ("", "", "")), "goal": _told(goal)}

    def _whole(self, problem: str, how: str) -> Ask:
        return Ask(fill(prompt("hanoi/direct"), {**self._fields(State(problem)), "how": how}))


class TowerDomain(Domain):
    """A tower for the planner of modules; at most 10 moves for three disks, 20 for four (Webb et al.)."""

    decomposes = True
    move_form = "Write a move as: disk 1 from A to C"
    state_form = "Write a state as: A: 3 2; B: 1; C: empty"
    examples = _EXAMPLES

    def __init__(self, problem: str) -> None:
        pegs, goal = _pegs(problem)
        self.start, self.goal = _told(pegs), _told(goal)
        self.rules = _RULES.format(count=len("".join(pegs)))
        self.steps = _limit(pegs)
        self._disks = sorted("".join(pegs))

    def moves(self, state: str, text: str) -> Thoughts:
        """Moves named in a text, one a line, allowed or not."""
        read = _lines(text, _told_pegs(state))
        return Thoughts(tuple(dict.fromkeys(move for move in read if move)), sum(m is None for m in read))

    def state(self, text: str) -> str | None:
        """The last state in a text that has all disks, each once."""
        pegs = _told_pegs(text)
        if pegs is None or sorted("".join(pegs)) != self._disks:
            return None
        return _told(pegs)

    def legal(self, state: str) -> tuple[str, ...]:
        """Moves of a topmost disk onto an empty peg or a larger disk."""
        pegs = _told_pegs(state)
        return () if pegs is None else _legal(pegs)

    def apply(self, state: str, move: str) -> str | None:
        """The state after an allowed move."""
        pegs = _told_pegs(state)
        after = None if pegs is None else _moved(pegs, move)
        return None if after is None else _told(after)

    def reached(self, state: str, goal: str) -> bool:
        """Whether the pegs are the same."""
        return state == goal


# -- pegs -------------------------------------------------------------------------------------------


def _tower(disks: int) -> str:
    return "87654321"[MOST_DISKS - disks :]


def _limit(pegs: Pegs) -> int:
    """Most moves of a plan."""
    disks = len("".join(pegs))
    return 10 if disks <= 3 else 20 if disks == 4 else 2 ** (disks + 1)


def _read_pegs(text: str) -> Pegs | None:
    words = text.split()
    if len(words) != 3:
        return None
    a, b, c = ("" if word == "-" else word for word in words)
    disks = "".join(sorted(a + b + c, reverse=True))
    sound = 1 <= len(disks) <= MOST_DISKS and disks == _tower(len(disks))
    sound &= all(list(peg) == sorted(peg, reverse=True) for peg in (a, b, c))
    return (a, b, c) if sound else None


def _written(start: Pegs, goal: Pegs) -> str:
    return " > ".join(" ".join(peg or "-" for peg in pegs) for pegs in (start, goal))


@functools.lru_cache(maxsize=1 << 12)
def _pegs(problem: str) -> tuple[Pegs, Pegs]:
    first, _, last = problem.partition(" > ")
    start, goal = _read_pegs(first), _read_pegs(last)
    if start is None or goal is None:
        raise DataError(f"{problem[:60]!r} is no tower in canonical form; give what `Hanoi.read` returns")
    return start, goal


def _told(pegs: Pegs) -> str:
    return "; ".join(f"{name}: {' '.join(peg) or 'empty'}" for name, peg in zip(NAMES, pegs, strict=True))


def _told_pegs(text: str) -> Pegs | None:
    """The last A, B and C in a text; None if one of them is missing."""
    found: dict[str, str] = {}
    for match in _PEG.finditer(text[-_LONGEST:]):
        found[match[1].upper()] = "".join(c for c in match[2] if c.isdigit())
    return (found["A"], found["B"], found["C"]) if len(found) == 3 else None


def _in(goal: Pegs, pegs: Pegs, disk: str) -> list[str]:
    """The peg of a disk, if it is the one where it belongs."""
    return [peg for peg, wanted in zip(pegs, goal, strict=True) if disk in wanted]


def _legal(pegs: Pegs) -> tuple[str, ...]:
    return tuple(
        f"disk {pegs[a][-1]} from {NAMES[a]} to {NAMES[b]}"
        for a, b in permutations(range(3), 2)
        if pegs[a] and (not pegs[b] or pegs[b][-1] > pegs[a][-1])
    )


def _moved(pegs: Pegs, move: str) -> Pegs | None:
    """The pegs after a move in canonical form; None if it is not allowed."""
    if move not in _legal(pegs):
        return None
    after = list(pegs)
    a, b = NAMES.index(move[-6]), NAMES.index(move[-1])
    after[b] += after[a][-1]
    after[a] = after[a][:-1]
    return after[0], after[1], after[2]


def _lines(text: str, pegs: Pegs | None) -> list[str | None]:
    """The move in each line that is not empty; None where there is none. A move that does not name its disk
    is of the topmost."""
    found: list[str | None] = []
    for line in text[-_LONGEST:].splitlines():
        if not line.strip():
            continue
        match = next(iter(reversed(list(_MOVE.finditer(line)))), None)
        if match is None:
            found.append(None)
            continue
        top = pegs[NAMES.index(match[2])][-1:] if pegs else ""
        disk = match[1] or top
        found.append(f"disk {disk} from {match[2]} to {match[3]}" if disk else None)
    return found


def _moves_in(text: str, pegs: Pegs, goal: Pegs) -> list[str]:
    """All moves in a text in order, with the disks that they would move; beyond the goal none is read."""
    found: list[str] = []
    here: Pegs | None = pegs
    for line in text[-_LONGEST:].splitlines():
        if here == goal:
            break
        [move] = _lines(line, here) or [None]
        if move is not None:
            found.append(move)
            here = None if here is None else _moved(here, move)
    return found


@functools.lru_cache(maxsize=1 << 16)
def _after(problem: str, thoughts: tuple[str, ...]) -> Pegs | None:
    if not thoughts:
        return _pegs(problem)[0]
    before = _after(problem, thoughts[:-1])
    return None if before is None else _moved(before, thoughts[-1])


def _reached(state: State) -> Pegs | None:
    return _after(state.problem, state.thoughts)


@functools.lru_cache(maxsize=64)
def _distances(goal: Pegs) -> Mapping[Pegs, int]:
    """Fewest moves to a goal from every state; moves can be taken back, so it is the same from there."""
    found, waiting = {goal: 0}, deque([goal])
    while waiting:
        here = waiting.popleft()
        for move in _legal(here):
            there = _moved(here, move)
            if there is not None and there not in found:
                found[there] = found[here] + 1
                waiting.append(there)
    return found
