"""Which words are kept and which serve as noise: tables drawn from by the kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from posterhall.embeddings._plan_kernels import ALWAYS


def keep_probability(counts: NDArray[np.int64], subsample: float, formula: str) -> NDArray[np.float64]:
    """Probability that an occurrence of each word survives subsampling.

    With f = count / total and threshold t: sqrt(t / f) in the paper (Mikolov et al. 2013, eq. 5) and
    sqrt(t / f) + t / f in its code, which keeps everything up to f = 2.618 t.

    Args:
        counts: int64 (V,).
        subsample: t >= 0; 0 keeps everything.
        formula: "paper" or "code".

    Returns:
        float64 (V,), in (0, 1].
    """
    if subsample == 0:
        return np.ones(len(counts))
    ratio = subsample * counts.sum() / np.maximum(counts, 1)
    kept: NDArray[np.float64] = np.sqrt(ratio) + (ratio if formula == "code" else 0.0)
    return np.minimum(1.0, kept)


def keep_thresholds(probability: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Probabilities as thresholds for a uniform 32-bit draw; 1 becomes `ALWAYS`, which draws nothing."""
    scaled = np.minimum(np.floor(probability * 2.0**32), 2.0**32 - 2)
    thresholds: NDArray[np.uint32] = np.where(probability >= 1.0, ALWAYS, scaled.astype(np.uint32))
    return thresholds


def noise_distribution(counts: NDArray[np.int64], exponent: float) -> NDArray[np.float64]:
    """P_n(w) in proportion to count ** exponent, float64 (V,) summing to 1 (paper, section 2.2)."""
    weight: NDArray[np.float64] = np.maximum(counts, 1).astype(np.float64) ** exponent
    probability: NDArray[np.float64] = weight / weight.sum()
    return probability


def alias_table(probability: NDArray[np.float64]) -> tuple[NDArray[np.uint32], NDArray[np.int32]]:
    """Walker's alias method: a table to draw from `probability` in constant time.

    Exact up to 2^-32, and 8 bytes a word where the original's table has 400 MB whatever the vocabulary.

    Returns:
        thresholds uint32 (V,) and aliases int32 (V,): draw a slot uniformly and a 32-bit number; take
        the slot where the number does not exceed its threshold, else its alias.
    """
    return _alias_table(np.ascontiguousarray(probability, np.float64))  # type: ignore[no-any-return]


@njit(cache=True)
def _alias_table(probability: Any) -> Any:
    n = probability.shape[0]
    mass = probability * n
    alias = np.arange(n).astype(np.int32)
    small = np.empty(n, np.int64)
    large = np.empty(n, np.int64)
    n_small = 0
    n_large = 0
    for i in range(n):
        if mass[i] < 1.0:
            small[n_small] = i
            n_small += 1
        else:
            large[n_large] = i
            n_large += 1
    while n_small > 0 and n_large > 0:
        n_small -= 1
        low = small[n_small]
        high = large[n_large - 1]
        alias[low] = high
        mass[high] -= 1.0 - mass[low]
        if mass[high] < 1.0:
            n_large -= 1
            small[n_small] = high
            n_small += 1
    for i in range(n_small):
        mass[small[i]] = 1.0
    for i in range(n_large):
        mass[large[i]] = 1.0
    thresholds = np.empty(n, np.uint32)
    for i in range(n):
        thresholds[i] = np.uint32(min(mass[i] * 4294967296.0, 4294967295.0))
    return thresholds, alias
