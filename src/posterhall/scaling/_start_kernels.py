"""Starts for the fit of Chinchilla's law: given both exponents, the rest is a small linear problem.

Variable projection: over a grid of (alpha, beta) the best E, A, B >= 0 are solved for, and only the grid's
valleys are handed to the minimiser (numba; releases the GIL). Least absolute residuals are approached by
reweighting, since the objective is all but that and a handful of outliers would pull squares astray.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_PASSES = 4
_ABSENT = -46.0
"""ln of a term that is not there."""


@njit(cache=True, nogil=True, error_model="numpy")
def _solve(normal: Any, right: Any, used: Any, out: Any) -> bool:
    """Solve the normal equations for the columns in the bit mask `used`; False if singular or not > 0."""
    columns = np.empty(3, np.int64)
    size = 0
    for j in range(3):
        out[j] = 0.0
        if used >> j & 1:
            columns[size] = j
            size += 1
    m = np.empty((size, size + 1))
    for i in range(size):
        for j in range(size):
            m[i, j] = normal[columns[i], columns[j]]
        m[i, size] = right[columns[i]]
    for i in range(size):
        pivot = i
        for k in range(i + 1, size):
            if abs(m[k, i]) > abs(m[pivot, i]):
                pivot = k
        if abs(m[pivot, i]) < 1e-14 * normal[columns[i], columns[i]]:
            return False
        for j in range(size + 1):
            m[i, j], m[pivot, j] = m[pivot, j], m[i, j]
        for k in range(i + 1, size):
            factor = m[k, i] / m[i, i]
            for j in range(i, size + 1):
                m[k, j] -= factor * m[i, j]
    for i in range(size - 1, -1, -1):
        total = m[i, size]
        for j in range(i + 1, size):
            total -= m[i, j] * out[columns[j]]
        out[columns[i]] = total / m[i, i]
        if not out[columns[i]] > 0.0:
            return False
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _nonnegative(normal: Any, right: Any, best: Any) -> None:
    """Least squares with three non-negative unknowns: the best of the seven sets that may be positive."""
    trial = np.empty(3)
    lowest = np.inf
    best[:] = 0.0
    for used in range(1, 8):
        if _solve(normal, right, used, trial):
            value = 0.0  # the sum of squares less that of the targets
            for i in range(3):
                value -= trial[i] * right[i]
            if value < lowest:
                lowest = value
                best[:] = trial


@njit(cache=True, nogil=True, error_model="numpy")
def grid(n: Any, d: Any, loss: Any, weights: Any, delta: Any, alphas: Any, betas: Any, out: Any) -> Any:
    """Fit E, A and B on every pair of exponents.

    Args:
        n, d: (runs,), centred ln parameters and ln tokens.
        loss: (runs,), > 0.
        weights: (runs,), how often each run counts.
        delta: where residuals of ln L stop being squared.
        alphas, betas: the grid.
        out: (alphas, betas, 3), is filled with ln A, ln B (of the centred terms) and ln E.

    Returns:
        (alphas, betas): the sum of Huber's residuals, relative to the loss.
    """
    count = n.size
    values = np.empty((alphas.size, betas.size))
    column = np.ones((3, count))
    normal = np.empty((3, 3))
    right = np.empty(3)
    best = np.empty(3)
    emphasis = np.empty(count)
    second = np.empty((betas.size, count))
    for k in range(betas.size):
        for i in range(count):
            second[k, i] = np.exp(-betas[k] * d[i]) / loss[i]
    for i in range(count):
        column[2, i] = 1.0 / loss[i]  # relative to the loss, every target is one
    for h in range(alphas.size):
        for i in range(count):
            column[0, i] = np.exp(-alphas[h] * n[i]) / loss[i]
        for k in range(betas.size):
            column[1] = second[k]
            emphasis[:] = weights
            for _ in range(_PASSES):
                normal[:] = 0.0
                right[:] = 0.0
                for i in range(count):
                    w = emphasis[i]
                    x, y, z = column[0, i], column[1, i], column[2, i]
                    normal[0, 0] += w * x * x
                    normal[0, 1] += w * x * y
                    normal[0, 2] += w * x * z
                    normal[1, 1] += w * y * y
                    normal[1, 2] += w * y * z
                    normal[2, 2] += w * z * z
                    right[0] += w * x
                    right[1] += w * y
                    right[2] += w * z
                normal[1, 0], normal[2, 0], normal[2, 1] = normal[0, 1], normal[0, 2], normal[1, 2]
                _nonnegative(normal, right, best)
                total = 0.0
                for i in range(count):
                    miss = abs(best[0] * column[0, i] + best[1] * column[1, i] + best[2] * column[2, i] - 1.0)
                    emphasis[i] = weights[i] / max(miss, delta)
                    total += weights[i] * (
                        0.5 * miss * miss if miss <= delta else delta * (miss - 0.5 * delta)
                    )
            values[h, k] = total
            for j in range(3):
                out[h, k, j] = np.log(best[j]) if best[j] > 0.0 else _ABSENT
    return values
