"""Elo over random orderings, with what the ordering leaves undecided and what the prompts leave undecided.

Elo depends on the order in which games are played, and a tournament of answers has none; so the games are
played in many random orders, and the mean is reported (Dettmers et al. 2023, §6.1). The spread of that mean
over orderings says nothing about other prompts: for that the prompts are resampled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from posterhall.devices import cores
from posterhall.errors import DataError
from posterhall.evals.arena import _kernels
from posterhall.evals.arena.verdicts import Verdicts
from posterhall.seeds import derive

Floats = npt.NDArray[np.float64]
ROUNDS = 4
"""Times `LANES` orderings of each resample; what noise they leave is taken off the spread."""


@dataclass(frozen=True)
class Elo:
    """Ratings, in the order of the verdicts' players; all shapes (P,), all in points."""

    rating: Floats
    """Mean over orderings."""
    ordering_sd: Floats
    """Standard deviation over orderings of one ordering's rating."""
    ordering_error: Floats
    """Of the mean, from ordering alone: ordering_sd / sqrt(orderings). Not an interval for the player."""
    low: Floats
    high: Floats
    """95 % interval, prompts resampled; NaN without resamples or with fewer than two prompts."""
    orderings: int
    resamples: int


def rate(
    verdicts: Verdicts,
    *,
    start: float = 1000.0,
    k: float = 32.0,
    base: float = 10.0,
    scale: float = 400.0,
    orderings: int = 10_000,
    resamples: int = 1000,
    seed: int = 0,
    threads: int | None = None,
) -> Elo:
    """Rate the players.

    A game changes both ratings by K (s - e), s = 1, 1/2 or 0, e = 1 / (1 + base^((R' - R) / scale)).

    Args:
        verdicts: games; those without a verdict do not count. Ties count half: take them out before
            (`Verdicts.decisive`) to leave them out.
        start: of every player, points; the mean of all ratings stays there.
        k: most points a game moves, > 0 (paper: 32).
        base, scale: a difference of `scale` points is odds of `base` to 1 (paper: 10 and 400).
        orderings: >= 1 (paper: 10,000).
        resamples: of the prompts, for the interval; 0 for none.
        seed: of orderings and resamples; results do not depend on `threads`.
        threads: None: all cores.

    Raises:
        DataError: for no game, a value out of range, or over 32,768 players.
    """
    if not (k > 0 and base > 1 and scale > 0 and orderings >= 1 and resamples >= 0):
        raise DataError(
            f"k {k}, base {base}, scale {scale}, orderings {orderings}, resamples {resamples}: k and scale "
            "must be above 0, base above 1, orderings at least 1, resamples at least 0"
        )
    players = len(verdicts.players)
    if players > _kernels.MOST_PLAYERS:
        raise DataError(f"{players:,} players; Elo takes at most {_kernels.MOST_PLAYERS:,}")
    games = verdicts.judged()
    if not len(games):
        raise DataError("no game with a verdict: there is nothing to rate")
    packed, offsets = _packed(games)
    points = scale / math.log(base)
    threads = threads or cores()

    lanes = _kernels.LANES
    blocks = -(-orderings // lanes)
    sums, squares = np.zeros((2, blocks, players))
    key = np.uint64(derive(seed, "arena", "elo orderings"))

    def play(begin: int, end: int) -> None:
        count = min(end * lanes, orderings) - begin * lanes
        _kernels.orderings(packed, players, k / points, key, begin * lanes, count, sums, squares)

    _shared(play, blocks, threads)
    mean = sums.sum(axis=0) / orderings
    spread = np.sqrt(np.maximum(0.0, squares.sum(axis=0) / orderings - mean**2))
    rating = start + points * mean
    low = high = np.full(players, np.nan)
    if resamples and len(offsets) > 2:
        low, high = _interval(packed, offsets, players, k / points, mean, resamples, seed, threads)
    sd = points * spread
    return Elo(
        rating=rating,
        ordering_sd=sd,
        ordering_error=sd / math.sqrt(orderings),
        low=start + points * low,
        high=start + points * high,
        orderings=orderings,
        resamples=resamples,
    )


def _packed(games: Verdicts) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """The games sorted by prompt, each a number, and where each prompt's begin."""
    order = np.argsort(games.question, kind="stable")
    first, second = games.first[order].astype(np.uint32), games.second[order].astype(np.uint32)
    packed = first << np.uint32(17) | second << np.uint32(2) | games.result[order].astype(np.uint32)
    starts = np.flatnonzero(np.diff(games.question[order], prepend=-1))
    return packed.astype(np.uint32), np.append(starts, len(packed)).astype(np.int64)


def _interval(
    packed: npt.NDArray[np.uint32],
    offsets: npt.NDArray[np.int64],
    players: int,
    step: float,
    mean: Floats,
    resamples: int,
    seed: int,
    threads: int,
) -> tuple[Floats, Floats]:
    means, noise = np.empty((2, resamples, players))
    key = np.uint64(derive(seed, "arena", "elo prompts"))

    def draw(begin: int, end: int) -> None:
        _kernels.resampled(packed, offsets, players, step, key, begin, end, ROUNDS, means, noise)

    _shared(draw, resamples, threads)
    # A resample's mean is over few orderings: their noise, which is known, is taken off the spread.
    variance = means.var(axis=0)
    own = np.divide(noise.mean(axis=0), variance, out=np.ones(players), where=variance > 0)
    around = (means - means.mean(axis=0)) * np.sqrt(np.clip(1 - own, 0, None))
    low, high = np.quantile(around, [0.025, 0.975], axis=0)
    return mean + low, mean + high


def _shared(work: Callable[[int, int], None], total: int, threads: int) -> None:
    """Call work(begin, end) for pieces of range(total), in threads."""
    pieces = np.linspace(0, total, min(total, threads * 4) + 1).astype(int)
    with ThreadPoolExecutor(threads, thread_name_prefix="posterhall-elo") as pool:
        list(pool.map(work, pieces[:-1].tolist(), pieces[1:].tolist()))
