"""The drift of a topic, and the drawing of words from rows of weights (numba, releases the GIL)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def drift(steps: Any, rho: Any) -> None:
    """In place: row t becomes rho row t-1 + row t; (n, d) float32."""
    for t in range(1, steps.shape[0]):
        for k in range(steps.shape[1]):
            steps[t, k] += rho * steps[t - 1, k]


@njit(cache=True, nogil=True)
def choose(weights: Any, uniform: Any, hold: Any, out: Any) -> None:
    """``out[i]`` = j with probability ``weights[i // hold, j]`` / row sum.

    Args:
        weights: (rows, W) float32, >= 0, rows not all zero.
        uniform: (n,) float64 in [0, 1), n <= rows x hold.
        hold: draws from each row.
        out: (n,) int32.
    """
    rows, words = weights.shape
    cumulative = np.empty(words, np.float64)
    for row in range(rows):
        total = 0.0
        for j in range(words):
            total += weights[row, j]
            cumulative[j] = total
        for i in range(row * hold, min((row + 1) * hold, uniform.size)):
            goal = uniform[i] * total
            low = 0
            high = words - 1
            while low < high:
                middle = (low + high) >> 1
                if cumulative[middle] > goal:
                    high = middle
                else:
                    low = middle + 1
            out[i] = low
