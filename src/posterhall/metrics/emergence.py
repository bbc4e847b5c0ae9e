"""How suddenly a score rises with scale: BIG-bench's breakthroughness and linearity, made honest.

Schaeffer et al. 2023, §4, sort the scores y by scale and compute

    ES = sign(argmax y - argmin y) · (max y - min y) / sqrt(median_i (y_i - y_{i-1})²).

It is not free of the number of scales n: a straight line, nothing emergent about it, has ES = n - 1.
So `normalised` is ES / (n - 1), which is 1 for a line. And it divides by zero as soon as half of the
steps are exactly 0, which coarse tests do to small models: such a score is infinite and flagged
``resolution-limited``, for it says more about the test than about the models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from posterhall.errors import DataError

Floats = npt.NDArray[np.float64]
Duplicates = Literal["refuse", "mean"]

ENOUGH_SCALES = 4
"""Fewer make the median one of three steps or less: flagged ``few-scales``."""


@dataclass(frozen=True)
class EmergenceScore:
    """An emergence score with what is needed to read it.

    Attributes:
        score: ES; positive if the score improves with scale, 0 if it never changes, ±inf if at least
            half of the steps are 0.
        normalised: ES / (n - 1): 1 for a straight line whatever n is.
        scales: n, distinct scales.
        flags: ``resolution-limited`` (infinite), ``few-scales`` (n < 4), ``worse-with-scale`` (negative),
            ``constant``.
    """

    score: float
    normalised: float
    scales: int
    flags: tuple[str, ...]


def ordered(
    x: npt.ArrayLike, y: npt.ArrayLike, *, duplicates: Duplicates = "refuse"
) -> tuple[Floats, Floats]:
    """Scales and scores in the order of scale.

    Args:
        x: scales (parameters, FLOP), (m,), finite, in any order.
        y: scores, (m,), finite.
        duplicates: of several scores at one scale, ``refuse`` raises, ``mean`` averages.

    Returns:
        Distinct scales, rising, and their scores, both (n,).

    Raises:
        DataError: for unequal lengths, fewer than two scales, NaN or infinity, or duplicate scales.
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise DataError(f"scales have shape {a.shape}, scores {b.shape}; give one score a scale")
    for name, values in (("scale", a), ("score", b)):
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise DataError(
                f"{name} {bad[0]} is {values[bad[0]]}; leave out models without a score, and score log 0 "
                "(probability 0) in a metric that is bounded"
            )
    scales, where, counts = np.unique(a, return_inverse=True, return_counts=True)
    if duplicates not in ("refuse", "mean"):
        raise DataError(f"duplicates {duplicates!r}; allowed are refuse and mean")
    if duplicates == "refuse" and scales.size < a.size:
        twice = scales[counts > 1][0]
        raise DataError(
            f"{counts.max()} scores at scale {twice:g}. Are two families, or seeds, in one series? "
            'Separate them, or average with duplicates="mean"'
        )
    if scales.size < 2:
        raise DataError(
            f"{scales.size} scale(s); change with scale needs two at least, and four to mean much"
        )
    return scales, np.bincount(where, weights=b) / counts


def emergence_scores(y: npt.ArrayLike) -> Floats:
    """ES along the last axis of scores that are in order of scale and high for good.

    Args:
        y: (..., n), n >= 2, finite.

    Returns:
        (...); 0/0 is 0 (nothing changed), x/0 is ±inf. Of equal extremes the smaller scale counts.
    """
    scores = np.asarray(y, dtype=np.float64)
    sign, spread = _span(scores)
    # The root of the median square, not the median step: for an even number of steps they differ.
    step = np.sqrt(np.median(np.square(np.diff(scores, axis=-1)), axis=-1))
    return _quotient(sign * spread, step)


def _span(scores: Floats) -> tuple[Floats, Floats]:
    sign = np.sign(scores.argmax(axis=-1) - scores.argmin(axis=-1)).astype(np.float64)
    return sign, np.asarray(np.ptp(scores, axis=-1))


def _quotient(top: Floats, bottom: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(top == 0, 0.0, top / bottom)


def emergence_score(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    higher_is_better: bool = True,
    duplicates: Duplicates = "refuse",
) -> EmergenceScore:
    """Emergence score of one metric of one model family on one task.

    Args:
        x: scale of each model, (m,), in any order.
        y: its score, (m,).
        higher_is_better: False turns the score round (losses, distances), so that a positive ES always
            means improvement.
        duplicates: see `ordered`.

    Raises:
        DataError: see `ordered`.
    """
    scales, scores = ordered(x, y, duplicates=duplicates)
    n = scales.size
    score = float(emergence_scores(scores if higher_is_better else -scores))
    flags = []
    if np.isinf(score):
        flags.append("resolution-limited")
    if n < ENOUGH_SCALES:
        flags.append("few-scales")
    if score < 0:
        flags.append("worse-with-scale")
    if np.ptp(scores) == 0:
        flags.append("constant")
    return EmergenceScore(score, score / (n - 1), n, tuple(flags))


def linearity(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    higher_is_better: bool = True,
    duplicates: Duplicates = "refuse",
) -> float:
    """BIG-bench's linearity: as ES, but over the root of the *mean* squared step.

    At most n - 1 in absolute value, which equal steps in one direction reach; a single jump between n
    equal scores has sqrt(n - 1). 0 if nothing changes.

    Args and errors: as `emergence_score`.
    """
    _, scores = ordered(x, y, duplicates=duplicates)
    sign, spread = _span(scores if higher_is_better else -scores)
    step = np.sqrt(np.mean(np.square(np.diff(scores))))
    return float(_quotient(sign * spread, np.asarray(step)))
