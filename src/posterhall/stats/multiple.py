"""Many tests at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from posterhall.errors import DataError
from posterhall.stats.estimates import Floats


def holm(p_values: npt.ArrayLike) -> Floats:
    """Holm's step-down adjusted p-values, in the order given (Holm 1979).

    Rejecting where the adjusted value is at most alpha keeps the chance of any false rejection among
    all of them at alpha, whatever their dependence.

    Args:
        p_values: shape (m,), each in [0, 1]; may be empty.

    Raises:
        DataError: if a value is not a probability.
    """
    p = _probabilities(p_values)
    order = np.argsort(p, kind="stable")
    steps = p[order] * np.arange(p.size, 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted


def benjamini_hochberg(p_values: npt.ArrayLike) -> Floats:
    """Benjamini–Hochberg adjusted p-values ("q"), in the order given (Benjamini & Hochberg 1995).

    Rejecting where the adjusted value is at most alpha keeps the expected share of false rejections
    among all rejections at alpha, for tests that are independent or positively dependent. The thing
    for screening many; `holm` for claims that each must stand.

    Args:
        p_values: shape (m,), each in [0, 1]; may be empty.

    Raises:
        DataError: if a value is not a probability.
    """
    p = _probabilities(p_values)
    order = np.argsort(p, kind="stable")
    steps = p[order] * p.size / np.arange(1, p.size + 1)
    adjusted = np.empty_like(p)
    # From the largest down: a smaller p is never adjusted above a larger one.
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(steps[::-1])[::-1])
    return adjusted


def _probabilities(p_values: npt.ArrayLike) -> Floats:
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise DataError(f"p-values {p.tolist()} must be a flat list of numbers from 0 to 1")
    return p
