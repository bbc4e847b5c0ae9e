"""What may be said of judges: whether the place of an answer sways them, and how far they agree.

Games of a judge are taken together by question and pair of players. A judge who has seen both orders and says
the same each time has a verdict that does not depend on the order; one whose winner changes has flipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from posterhall.errors import DataError
from posterhall.evals.arena.verdicts import FIRST, SECOND, TIE, Verdicts
from posterhall.metrics.agreement import fleiss_interval, kappa_interval
from posterhall.stats.estimates import Interval
from posterhall.stats.shares import wilson

Ints = npt.NDArray[np.int64]
LOWER, UPPER, EVEN = 0, 1, 2
"""Verdict on a question and a pair: for the player of the lower number, of the higher, or for neither."""


@dataclass(frozen=True)
class Position:
    """How far the place of an answer sways a judge."""

    judge: str
    first: Interval | None
    """Share of wins that went to the answer shown first; 1/2 if the place does not matter and every pair was
    shown in both orders. None without a win. The interval (Wilson) takes wins for independent."""
    ties: float
    """Share of verdicts that are ties."""
    unjudged: int
    """Games without a verdict."""
    both: int
    """Questions and pairs judged in both orders. Left out below are those in which the judge said different
    things of the same order."""
    flipped: Interval | None
    """Of those with a winner in either order: the share in which the winner changes with the order."""
    changed: Interval | None
    """Share of them with another verdict in the other order: flips, and ties in one order only."""


def position(verdicts: Verdicts, judge: str) -> Position:
    """Bias by position of one judge.

    Raises:
        DataError: if there is no such judge.
    """
    own = verdicts.of(judge)
    games = own.judged()
    wins = games.decisive()
    units, lower_first = _units(games)
    result = _of_pair(games)
    # By unit and order, what was said: the sums tell whether it was always the same.
    count = int(units.max()) + 1 if len(units) else 0
    said = np.zeros((count, 2, 3), dtype=np.int64)
    np.add.at(said, (units, lower_first.astype(int), result), 1)
    seen = said.sum(axis=2) > 0
    both = seen.all(axis=1)
    kinds = said[both] > 0  # (U, 2, 3)
    steady = (kinds.sum(axis=2) == 1).all(
        axis=1
    )  # a judge who contradicts itself within an order has no flip
    one, other = (np.argmax(kinds[steady, order], axis=1) for order in (0, 1))
    n = int(steady.sum())
    won = (one != EVEN) & (other != EVEN)
    flips = int((won & (one != other)).sum())
    firsts = int((wins.result == FIRST).sum())
    return Position(
        judge=judge,
        first=wilson(firsts, len(wins)) if len(wins) else None,
        ties=float((games.result == TIE).mean()) if len(games) else 0.0,
        unjudged=len(own) - len(games),
        both=int(both.sum()),
        flipped=wilson(flips, int(won.sum())) if won.any() else None,
        changed=wilson(int((one != other).sum()), n) if n else None,
    )


@dataclass(frozen=True)
class Agreement:
    """How far judges agree on questions and pairs that all of them judged."""

    judges: tuple[str, ...]
    n: int
    """Questions and pairs in common."""
    same: float | None
    """Share on which they agree; of more than two, the share of pairs of judges that do."""
    kappa: Interval | None
    """Beyond chance, by jackknife over questions; of Cohen for two, of Fleiss for more. None where chance
    alone makes them agree, or they have nothing in common."""


def agreement(verdicts: Verdicts) -> list[Agreement]:
    """Between any two judges and, of more than two, between all that judged a question and a pair.

    A judge's verdicts on a question and a pair, in either order, count as one: the winner's if it has more
    wins than the other player, else a tie.
    """
    games = verdicts.judged()
    units, _ = _units(games)
    result = _of_pair(games)
    if not len(games):
        return []
    count, people = int(units.max()) + 1, len(games.judges)
    lead = np.zeros((count, people), dtype=np.int64)
    np.add.at(lead, (units, games.judge), np.where(result == LOWER, 1, np.where(result == UPPER, -1, 0)))
    judged = np.zeros((count, people), dtype=bool)
    judged[units, games.judge] = True
    opinion = np.where(lead > 0, LOWER, np.where(lead < 0, UPPER, EVEN))
    question = np.zeros(count, dtype=np.int64)
    question[units] = games.question
    present = [j for j in range(people) if judged[:, j].any()]
    found = []
    for a, b in combinations(present, 2):
        common = judged[:, a] & judged[:, b]
        x, y = opinion[common, a], opinion[common, b]
        found.append(
            Agreement(
                (games.judges[a], games.judges[b]),
                len(x),
                float((x == y).mean()) if len(x) else None,
                kappa_interval(x, y, clusters=question[common]) if len(x) else None,
            )
        )
    if len(present) > 2:
        table = np.stack([((opinion == kind) & judged).sum(axis=1) for kind in (LOWER, UPPER, EVEN)], axis=1)
        several = table.sum(axis=1) > 1
        table, n = table[several], int(several.sum())
        sums = table.sum(axis=1)
        found.append(
            Agreement(
                tuple(games.judges[j] for j in present),
                n,
                float(((table * (table - 1)).sum(axis=1) / (sums * (sums - 1))).mean()) if n else None,
                fleiss_interval(table, clusters=question[several]) if n else None,
            )
        )
    return found


def majority(verdicts: Verdicts, judges: list[str], name: str = "majority") -> Verdicts:
    """With one more judge, who says of each game what more of these judges say than anything else, else tie.

    Games are taken together by question and pair, in whatever order they were shown; the new judge's are in
    the order in which the pair came first.

    Raises:
        DataError: for an unknown judge, or a name that a judge has already.
    """
    if name in verdicts.judges:
        raise DataError(f"a judge is called {name!r} already; give the majority another name")
    wanted = [verdicts.of(judge).judge[:1] for judge in judges]
    games = verdicts.take(np.isin(verdicts.judge, np.concatenate(wanted))).judged()
    units, lower_first = _units(games)
    votes = np.zeros((int(units.max()) + 1 if len(units) else 0, 3), dtype=np.int64)
    np.add.at(votes, (units, _of_pair(games)), 1)
    top = votes.max(axis=1, initial=0)
    alone = (votes == top[:, None]).sum(axis=1) == 1
    opinion = np.where(alone, np.argmax(votes, axis=1) if votes.size else 0, EVEN)
    _, at = np.unique(units, return_index=True)
    chosen = opinion[units[at]]
    result = np.where(chosen == EVEN, TIE, np.where((chosen == LOWER) == lower_first[at], FIRST, SECOND))
    nan = np.full(len(at), np.nan)

    def joined(name: str, more: npt.NDArray[Any]) -> npt.NDArray[Any]:
        old = getattr(verdicts, name)
        return np.concatenate([old, more.astype(old.dtype)])

    return Verdicts(
        verdicts.players,
        verdicts.questions,
        (*verdicts.judges, name),
        first=joined("first", games.first[at]),
        second=joined("second", games.second[at]),
        question=joined("question", games.question[at]),
        judge=joined("judge", np.full(len(at), len(verdicts.judges))),
        result=joined("result", result),
        score_first=joined("score_first", nan),
        score_second=joined("score_second", nan),
        self_play=verdicts.self_play,
        repeated=verdicts.repeated,
    )


def _units(games: Verdicts) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Number of each game's question and pair, and whether the player of the lower number was shown first."""
    lower = np.minimum(games.first, games.second).astype(np.int64)
    upper = np.maximum(games.first, games.second).astype(np.int64)
    key = (games.question.astype(np.int64) * len(games.players) + lower) * len(games.players) + upper
    _, units = np.unique(key, return_inverse=True)
    return units.astype(np.int64), games.first < games.second


def _of_pair(games: Verdicts) -> Ints:
    """Verdicts as LOWER, UPPER or EVEN."""
    upper = (games.result == FIRST) != (games.first < games.second)
    return np.where(games.result == TIE, EVEN, upper.astype(np.int64))
