"""Scores of answers relative to a reference model's (Dettmers et al. 2023, §6.1, after Vicuna).

A judge gives both answers a score; a model's relative score is what its answers got over what the reference's
answers to the same prompts got. Each order of showing them is summed by itself and the mean of the two is
taken, so that a judge who favours the first place favours neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from posterhall.errors import DataError
from posterhall.evals.arena.verdicts import Verdicts
from posterhall.seeds import derive
from posterhall.stats import clustered
from posterhall.stats.estimates import Interval


@dataclass(frozen=True)
class Relative:
    """A model against the reference."""

    player: str
    score: Interval
    """1: as much as the reference. BCa bootstrap over prompts; infinite ends for a single prompt."""
    shown_first: float | None
    """The same of the games in which this model was shown first; None without any."""
    shown_second: float | None
    games: int


def relative(verdicts: Verdicts, reference: str, *, resamples: int = 2000, seed: int = 0) -> list[Relative]:
    """Every model that was scored beside the reference, the best first.

    Args:
        verdicts: games with scores; games without do not count.
        reference: a player.
        resamples: for the interval, >= 100.
        seed: of the resamples.

    Raises:
        DataError: for an unknown reference, no scored game with it, a negative score, or a reference whose
            scores are all 0.
    """
    own = verdicts.player(reference)
    scored = verdicts.take(~np.isnan(verdicts.score_first) & ~np.isnan(verdicts.score_second))
    if (scored.score_first < 0).any() or (scored.score_second < 0).any():
        raise DataError("a score is negative; relative scores are ratios of sums and need scores from 0 on")
    found = []
    for number, name in enumerate(verdicts.players):
        if number == own:
            continue
        first = (scored.first == number) & (scored.second == own)
        second = (scored.first == own) & (scored.second == number)
        if not first.any() and not second.any():
            continue
        # A row a game: the model's score and the reference's, if it was shown first; and if second.
        values = np.zeros((len(scored), 4))
        values[first, 0], values[first, 1] = scored.score_first[first], scored.score_second[first]
        values[second, 2], values[second, 3] = scored.score_second[second], scored.score_first[second]
        games = first | second
        values, prompts = values[games], scored.question[games]
        whole = values.sum(axis=0)
        if (first.any() and whole[1] == 0) or (second.any() and whole[3] == 0):
            raise DataError(f"every score of {reference} beside {name} is 0; there is nothing to divide by")
        found.append(
            Relative(
                name,
                _interval(values, prompts, resamples, derive(seed, "arena", "relative", name)),
                float(whole[0] / whole[1]) if first.any() else None,
                float(whole[2] / whole[3]) if second.any() else None,
                int(games.sum()),
            )
        )
    if not found:
        raise DataError(
            f"no game with {reference} has scores; relative scores need columns score_a and score_b"
        )
    return sorted(found, key=lambda each: -each.score.estimate)


def _ratio(values: npt.NDArray[np.float64]) -> float:
    sums = values.sum(axis=0)
    ratios = [sums[i] / sums[i + 1] for i in (0, 2) if sums[i + 1] > 0]
    return float(np.mean(ratios)) if ratios else np.nan


def _interval(
    values: npt.NDArray[np.float64], prompts: npt.NDArray[np.int32], resamples: int, seed: int
) -> Interval:
    estimate = _ratio(values)
    n = len(np.unique(prompts))
    if n < 2:
        return Interval(estimate, -np.inf, np.inf, 0.95, n, "one prompt")
    # Sums by prompt are all that the ratio needs, and there are fewer of them.
    _, inverse = np.unique(prompts, return_inverse=True)
    sums = np.zeros((n, values.shape[1]))
    np.add.at(sums, inverse, values)
    return clustered(sums, None, _ratio, seed=seed, resamples=resamples).interval()
