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
from posterhall.stats.estimates import Interval, t_quantile

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Relative:
    """A model against the reference."""

    player: str
    score: Interval
    """1: as much as the reference. Jackknife over prompts; infinite ends for a single prompt."""
    shown_first: float | None
    """The same of the games in which this model was shown first; None without any."""
    shown_second: float | None
    games: int


def relative(verdicts: Verdicts, reference: str) -> list[Relative]:
    """Every model that was scored beside the reference, the best first.

    Args:
        verdicts: games with scores; games without do not count.
        reference: a player.

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
                _interval(values, prompts),
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


def _interval(values: Floats, prompts: npt.NDArray[np.int32]) -> Interval:
    _, inverse = np.unique(prompts, return_inverse=True)
    n = int(inverse.max()) + 1
    sums = np.zeros((n, 4))
    np.add.at(sums, inverse, values)
    whole = sums.sum(axis=0)
    estimate = float(_ratio(whole[None])[0])
    if n < 2:
        return Interval(estimate, -np.inf, np.inf, 0.95, n, "one prompt")
    without = _ratio(whole - sums)
    without = np.where(np.isnan(without), estimate, without)
    error = float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))
    half = t_quantile(0.975, n - 1) * error
    return Interval(estimate, max(0.0, estimate - half), estimate + half, 0.95, n, "jackknife over prompts")


def _ratio(sums: Floats) -> Floats:
    """Mean of both orders' ratios, or the only one's, of rows (B, 4); NaN where there is neither."""
    above, below = sums[:, [0, 2]], sums[:, [1, 3]]
    known = below > 1e-9
    ratios = np.divide(above, below, out=np.zeros_like(above), where=known)
    count = known.sum(axis=1)
    return np.asarray(np.where(count > 0, ratios.sum(axis=1) / np.maximum(1, count), np.nan))
