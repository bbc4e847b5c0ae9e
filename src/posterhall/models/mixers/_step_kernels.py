"""One token of Mamba between its large projections, as one call.

What a small model's step consists of, and a large one's beside reading its weights, is calling things.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from posterhall.models._row_kernels import multiply, multiply_halves
from posterhall.models.mixers._lanes import WIDTH, load, power, sigmoid, softplus, spread, store

OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "boundscheck": False, "error_model": "numpy"}
_ZERO = np.float32(0.0)
_LOG2E = np.float32(1.4426950408889634)


@njit(**OPTIONS)
def mamba(
    both: Any, past: Any, told: Any, select: Any, steps: Any, half: bool, a: Any, state: Any,
    moved: Any, after: Any, y: Any,
) -> None:  # fmt: skip
    """y (R, E): the convolution with SiLU, what it selects, and the scan, for one token of each row.

    Args:
        both: (R, 2 E), the token's x, and z.
        past: (R, K - 1, E), x of the tokens before, the newest last.
        told: (K + 3, E): the convolution's weights by lag and its bias, then D, and the bias of steps.
        select: (rank + 2 N, E) flat, steps: (E, rank) flat; words of two bfloat16 if half.
        a: (N, E), negative.
        state: (R, N, E), h.
        moved, after: of the shapes of past and state, which they are afterwards.
    """
    rows, width = y.shape
    lags, size = past.shape[1] + 1, a.shape[0]
    rank = len(steps) * (2 if half else 1) // width
    u, delta = np.empty((1, width), np.float32), np.empty((1, width), np.float32)
    picked, first = np.empty((1, rank + 2 * size), np.float32), np.empty((1, rank), np.float32)
    flat, raised, chosen = u.reshape(-1), delta.reshape(-1), picked.reshape(-1)
    for b in range(rows):
        for e in range(0, width, WIDTH):
            newest = load(both, b * 2 * width + e)
            total = load(told, lags * width + e) + load(told, e) * newest
            for lag in range(1, lags):
                place = (b * (lags - 1) + lags - 1 - lag) * width + e
                earlier = load(past, place)
                total = total + load(told, lag * width + e) * earlier
                if lag < lags - 1:
                    store(moved, place - width, earlier)
            store(flat, e, total * sigmoid(total))
            if lags > 1:
                store(moved, (b * (lags - 1) + lags - 2) * width + e, newest)
        _product(u, select, half, picked)
        first[0, :] = picked[0, :rank]
        _product(first, steps, half, delta)
        for e in range(0, width, WIDTH):
            step = softplus(load(raised, e) + load(told, (lags + 2) * width + e))
            x, z = load(flat, e), load(both, (2 * b + 1) * width + e)
            push, total = step * x, load(told, (lags + 1) * width + e) * x
            for n in range(size):
                place = (b * size + n) * width + e
                now = power(step * (load(a, n * width + e) * _LOG2E)) * load(state, place)
                now = now + push * spread(chosen, rank + n)
                store(after, place, now)
                total = total + now * spread(chosen, rank + size + n)
            store(y, b * width + e, total * z * sigmoid(z))


@njit(**OPTIONS)
def _product(x: Any, weight: Any, half: bool, out: Any) -> None:
    """out (1, N) = x (1, K) W^T."""
    if half:
        inputs = x.shape[1]
        turned = np.empty((1, inputs), np.float32)
        for i in range(inputs // 2):
            turned[0, i], turned[0, inputs // 2 + i] = x[0, 2 * i], x[0, 2 * i + 1]
        multiply_halves(turned, weight, out, 0, out.shape[1])
    else:
        multiply(x, weight, out, 0, out.shape[1])
