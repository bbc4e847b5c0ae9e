"""Best-of-n: the best of n answers by a reward, what it can be expected to be, and how far it leads away.

Whatever the reward, the best of n draws of a model is a policy of its own (Stiennon et al. 2020; Rafailov et
al. 2023, §6); where all its answers are known, `posterhall.metrics.frontier.best_of` has its distribution.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from posterhall.errors import DataError

Floats = NDArray[np.float64]


def best(rewards: npt.ArrayLike) -> int:
    """Where the highest reward is; the first of equal ones.

    Raises:
        DataError: for none, or one that is not finite.
    """
    return int(np.argmax(_finite(rewards, "rewards")))


def expected_best(rewards: npt.ArrayLike) -> Floats:
    """The expected highest reward of k draws, for k = 1 to n, from n draws.

    The mean over all subsets of k, sum_i C(i - 1, k - 1) / C(n, k) r_(i) with r_(1) <= ... <= r_(n): unbiased
    for every distribution, as pass@k is for rewards of 0 and 1 (Chen et al. 2021, eq. 1).

    Args:
        rewards: (n,) of independent draws for one prompt, n >= 1.

    Returns:
        (n,); the first is the mean, the last the highest.
    """
    ordered = np.sort(_finite(rewards, "rewards"))
    n = len(ordered)
    sizes = np.arange(1, n + 1)
    expected = np.zeros(n)
    # The share of subsets of k whose best is the i-th, from the highest down: k / n, then times
    # (i - k) / (i - 1); no binomials, which overflow.
    share = sizes / n
    for i in range(n, 0, -1):
        expected += share * ordered[i - 1]
        share = share * np.maximum(i - sizes, 0) / max(i - 1, 1)
    return expected


def kl_bound(n: int) -> float:
    """log n - (n - 1) / n: at least KL(best of n || model), whatever model and reward (Beirami et al. 2024).

    It is the KL itself where no two draws are equally good; for models of few outcomes it is far above.
    """
    _check_draws(n)
    return math.log(n) - (n - 1) / n


def _check_draws(n: int) -> None:
    if n < 1:
        raise DataError(f"n is {n}; it must be at least 1")


def _finite(values: npt.ArrayLike, name: str) -> Floats:
    found = np.asarray(values, np.float64)
    if found.ndim != 1 or not found.size or not np.isfinite(found).all():
        raise DataError(f"{name} of shape {found.shape}; give one or more finite numbers in a row")
    return found
