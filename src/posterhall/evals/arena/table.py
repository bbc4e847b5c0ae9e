"""A tournament as one report: both ratings with their intervals, wins, judges, relative scores."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from posterhall.errors import DataError
from posterhall.evals.arena import bradley_terry, elo, judges
from posterhall.evals.arena.relative import relative
from posterhall.evals.arena.verdicts import FIRST, NONE, TIE, Repeats, Verdicts
from posterhall.stats.estimates import Interval


@dataclass(frozen=True)
class ArenaSettings:
    """Everything that determines the ratings, beside the verdicts. Defaults: Dettmers et al. 2023, §6.1."""

    ties: Literal["half", "drop"] = "half"
    """half: a tie is half a win for each; drop: it is no game. It moves ratings by tens of points."""
    start: float = 1000.0
    """Elo of every player before, and mean of all ratings, points."""
    k: float = 32.0
    """Most points that a game moves, > 0."""
    base: float = 10.0
    """Odds of a difference of `scale` points, > 1."""
    scale: float = 400.0
    """Points, > 0."""
    orderings: int = 10_000
    """Random orders in which Elo plays the games, >= 1."""
    resamples: int = 1000
    """Of the prompts, for intervals of both ratings, 100 or more; 0: no intervals for Elo, and those of
    Bradley-Terry from the information."""
    ridge: float = 0.0
    """Of Bradley-Terry, >= 0, in logits; above 0, no rating is infinite and groups that never met compare."""
    anchor: str | None = None
    """NAME=POINTS: the player at which Bradley-Terry's ratings hang; none: the mean is `start`."""
    repeats: Repeats = "first"
    """first: what a judge says again of the same answers in the same order is left out; keep: it counts."""
    seed: int = 0
    """Of orderings and resamples."""

    def __post_init__(self) -> None:
        for name in ("k", "scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise DataError(f"{name} is {getattr(self, name)}; it must be above 0")
        if not 1 < self.base < math.inf:
            raise DataError(f"base is {self.base}; it must be above 1")
        if self.orderings < 1:
            raise DataError(f"orderings is {self.orderings}; it must be at least 1")
        if self.resamples != 0 and self.resamples < 100:
            raise DataError(f"resamples is {self.resamples}; it must be 0, for none, or 100 or more")
        if not 0 <= self.ridge < math.inf:
            raise DataError(f"ridge is {self.ridge}; it must be 0 or above")
        self.anchored()

    def anchored(self) -> tuple[str, float] | None:
        """The anchor's name and points."""
        if self.anchor is None:
            return None
        name, equals, points = self.anchor.rpartition("=")
        try:
            at = float(points) if equals else self.start
        except ValueError:
            at = math.nan
        if not math.isfinite(at) or (equals and not name):
            raise DataError(f"anchor is {self.anchor!r}; write a model and its points, as vicuna-13b=1000")
        return (name if equals else points), at


def report(
    verdicts: Verdicts,
    settings: ArenaSettings | None = None,
    *,
    judge: str | None = None,
    reference: str | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """Everything that verdicts say of players and judges.

    Args:
        verdicts: games.
        settings: None means the paper's.
        judge: only this one's verdicts count for ratings and scores; None: all.
        reference: a player; relative scores are taken if it is given.
        threads: of Elo; results do not depend on it.

    Returns:
        rows; games, those that are rated; ties, unjudged, self_play, repeated, counts of rows; prompts;
        settings; players, the best by Bradley-Terry first, each with player, games, wins, ties, losses, elo
        (rating, low, high, ordering_sd, ordering_error) and bradley_terry (rating, error, low, high, bound:
        why a rating is not finite, over_next: points over the next player, with low and high); judges, see
        `judges.Position`; agreement, see `judges.Agreement`; relative, None without a reference.

    Raises:
        DataError: for verdicts that cannot be rated; see `elo.rate` and `bradley_terry.rate`.
    """
    settings = settings or ArenaSettings()
    anchor = settings.anchored()
    everyone, verdicts = verdicts, verdicts if judge is None else verdicts.of(judge)
    relatives = None if reference is None else _relative(verdicts, reference)
    rated = verdicts.decisive() if settings.ties == "drop" else verdicts.judged()
    bt = bradley_terry.rate(
        rated,
        anchor=anchor,
        mean=settings.start,
        base=settings.base,
        scale=settings.scale,
        ridge=settings.ridge,
        resamples=settings.resamples,
        seed=settings.seed,
    )
    points = elo.rate(
        rated,
        start=settings.start,
        k=settings.k,
        base=settings.base,
        scale=settings.scale,
        orderings=settings.orderings,
        resamples=settings.resamples,
        seed=settings.seed,
        threads=threads,
    )
    low, high = bt.interval()
    order = np.argsort(-np.where(np.isnan(bt.rating), -np.inf, bt.rating), kind="stable")
    tally = _tally(verdicts)
    players = []
    for place, i in enumerate(order):
        next_ = int(order[place + 1]) if place + 1 < len(order) else None
        players.append(
            {
                "player": verdicts.players[i],
                **tally[int(i)],
                "elo": {
                    "rating": float(points.rating[i]),
                    "low": float(points.low[i]),
                    "high": float(points.high[i]),
                    "ordering_sd": float(points.ordering_sd[i]),
                    "ordering_error": float(points.ordering_error[i]),
                },
                "bradley_terry": {
                    "rating": float(bt.rating[i]),
                    "error": float(bt.error[i]),
                    "low": float(low[i]),
                    "high": float(high[i]),
                    "bound": _bound(float(bt.rating[i])),
                    "over_next": None if next_ is None else _gap(bt.difference(int(i), next_)),
                },
            }
        )
    judged = verdicts.judged()
    present = [name for j, name in enumerate(everyone.judges) if (everyone.judge == j).any()]
    return {
        "rows": len(verdicts) + verdicts.self_play + verdicts.repeated,
        "games": len(rated),
        "ties": int((verdicts.result == TIE).sum()),
        "unjudged": int((verdicts.result == NONE).sum()),
        "self_play": verdicts.self_play,
        "repeated": verdicts.repeated,
        "prompts": len(np.unique(judged.question)),
        "settings": asdict(settings),
        "players": players,
        "judges": [_judge(judges.position(everyone, name)) for name in present],
        "agreement": [
            {"judges": list(each.judges), "n": each.n, "same": each.same, "kappa": _interval(each.kappa)}
            for each in judges.agreement(everyone)
        ],
        "relative": relatives,
    }


def _tally(verdicts: Verdicts) -> list[dict[str, int]]:
    games, count = verdicts.judged(), len(verdicts.players)
    tied = games.result == TIE
    winner = np.where(games.result == FIRST, games.first, games.second)[~tied]
    loser = np.where(games.result == FIRST, games.second, games.first)[~tied]
    wins, losses = np.bincount(winner, minlength=count), np.bincount(loser, minlength=count)
    ties = np.bincount(np.concatenate([games.first[tied], games.second[tied]]), minlength=count)
    return [
        {"games": int(w + t + l), "wins": int(w), "ties": int(t), "losses": int(l)}
        for w, t, l in zip(wins, ties, losses, strict=True)
    ]


def _bound(rating: float) -> str | None:
    """Why a rating is not finite; None if it is."""
    if math.isnan(rating):
        return "not comparable"
    return "undefeated" if rating == math.inf else "winless" if rating == -math.inf else None


def _gap(found: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip(("points", "low", "high"), found, strict=True))


def _judge(found: judges.Position) -> dict[str, Any]:
    return {
        "judge": found.judge or None,
        "first": _interval(found.first),
        "ties": found.ties,
        "unjudged": found.unjudged,
        "both": found.both,
        "flipped": _interval(found.flipped),
        "changed": _interval(found.changed),
    }


def _relative(verdicts: Verdicts, reference: str) -> dict[str, Any]:
    found = relative(verdicts, reference)
    return {
        "reference": reference,
        "players": [
            {
                "player": each.player,
                "games": each.games,
                **(_interval(each.score) or {}),
                "shown_first": each.shown_first,
                "shown_second": each.shown_second,
            }
            for each in found
        ],
    }


def _interval(found: Interval | None) -> dict[str, Any] | None:
    return (
        None
        if found is None
        else {
            "estimate": found.estimate,
            "low": found.low,
            "high": found.high,
            "n": found.n,
        }
    )
