"""Spearman's rank correlation with an interval."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from posterhall.errors import DataError
from posterhall.stats.estimates import Floats, Interval, checked_level, paired


def _ranks(x: Floats) -> Floats:
    """Ranks from 1, ties at their average."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse])


def spearman(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Spearman's rho, ties at average rank; NaN if either side is constant.

    Raises:
        DataError: if lengths differ or a value is not finite.
    """
    a, b = paired(x, y)
    u, v = _ranks(a), _ranks(b)
    u, v = u - u.mean(), v - v.mean()
    norm = math.sqrt(float(u @ u) * float(v @ v))
    return min(1.0, max(-1.0, float(u @ v) / norm)) if norm > 0 else math.nan


def spearman_interval(x: npt.ArrayLike, y: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Spearman's rho with Fisher's z and the variance (1 + rho²/2) / (n - 3) of Bonett & Wright 2000.

    That variance holds to |rho| of about 0.95. At |rho| = 1, where z does not exist, the open end is
    computed from half a step (one exchanged neighbour pair) below it.

    Args:
        x, y: the two scores of each item, shape (n,), n >= 4, neither constant.

    Raises:
        DataError: with fewer than four pairs, or if one side is constant.
    """
    from scipy.special import ndtri

    a, _ = paired(x, y)
    rho = spearman(x, y)
    n = int(a.size)
    if n < 4:
        raise DataError(f"{n} pairs; an interval of a rank correlation needs four or more")
    if math.isnan(rho):
        raise DataError("one of the two scores is constant, so no rank correlation exists")
    step = 6 / (n * (n * n - 1))
    inner = math.copysign(min(abs(rho), 1 - step), rho)
    z = math.atanh(inner)
    half = float(ndtri((1 + checked_level(level)) / 2)) * math.sqrt((1 + inner * inner / 2) / (n - 3))
    low = -1.0 if rho == -1.0 else math.tanh(z - half)
    high = 1.0 if rho == 1.0 else math.tanh(z + half)
    return Interval(rho, low, high, level, n, "Fisher z, Bonett–Wright variance")
