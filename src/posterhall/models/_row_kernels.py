"""Products of a few rows with a large matrix, as fast as its weights come from memory.

Generating text is one such product after another, and libraries made for large matrices read weights at two
thirds of the speed that memory has: here each row of weights is read once, from its beginning to its end,
and multiplied with all rows while it is in the first-level cache. Weights are float32, or bfloat16 two to a
word; sums are float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from posterhall.simd import LANES, add, fma, high_halves, load, low_halves, total, zero

OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "boundscheck": False, "error_model": "numpy"}


def _multiply(half: bool) -> Callable[..., Any]:
    """The kernel for bfloat16 weights, or the one for float32."""

    @njit(**OPTIONS)
    def one(x: Any, at: int, weight: Any, place: int, words: int) -> Any:
        """The product of a row with a row of weights: four sums beside each other, as additions take time."""
        a, b, c, d = zero(), zero(), zero(), zero()
        j = 0
        while j + 4 * LANES <= words:
            if half:
                for k in range(j, j + 4 * LANES, 2 * LANES):
                    a = fma(load(x, at + k), low_halves(weight, place + k), a)
                    b = fma(load(x, at + words + k), high_halves(weight, place + k), b)
                    c = fma(load(x, at + k + LANES), low_halves(weight, place + k + LANES), c)
                    d = fma(load(x, at + words + k + LANES), high_halves(weight, place + k + LANES), d)
            else:
                a = fma(load(x, at + j), load(weight, place + j), a)
                b = fma(load(x, at + j + LANES), load(weight, place + j + LANES), b)
                c = fma(load(x, at + j + 2 * LANES), load(weight, place + j + 2 * LANES), c)
                d = fma(load(x, at + j + 3 * LANES), load(weight, place + j + 3 * LANES), d)
            j += 4 * LANES
        while j + LANES <= words:
            if half:
                a = fma(load(x, at + j), low_halves(weight, place + j), a)
                b = fma(load(x, at + words + j), high_halves(weight, place + j), b)
            else:
                a = fma(load(x, at + j), load(weight, place + j), a)
            j += LANES
        return total(add(add(a, b), add(c, d))) + rest(x, at, weight, place, words, j)

    @njit(**OPTIONS)
    def four(
        x: Any, first: int, second: int, third: int, fourth: int, weight: Any, place: int, words: int
    ) -> Any:
        """The products of four rows with a row of weights."""
        a, b, c, d = zero(), zero(), zero(), zero()
        bulk = words // LANES * LANES
        for j in range(0, bulk, LANES):
            w = low_halves(weight, place + j) if half else load(weight, place + j)
            a, b = fma(load(x, first + j), w, a), fma(load(x, second + j), w, b)
            c, d = fma(load(x, third + j), w, c), fma(load(x, fourth + j), w, d)
            if half:
                w, k = high_halves(weight, place + j), words + j
                a, b = fma(load(x, first + k), w, a), fma(load(x, second + k), w, b)
                c, d = fma(load(x, third + k), w, c), fma(load(x, fourth + k), w, d)
        if bulk == words:
            return total(a), total(b), total(c), total(d)
        return (
            total(a) + rest(x, first, weight, place, words, bulk),
            total(b) + rest(x, second, weight, place, words, bulk),
            total(c) + rest(x, third, weight, place, words, bulk),
            total(d) + rest(x, fourth, weight, place, words, bulk),
        )

    @njit(**OPTIONS)
    def rest(x: Any, at: int, weight: Any, place: int, words: int, begin: int) -> Any:
        """What is left at a row's end, entry by entry."""
        found = np.float32(0.0)
        for j in range(begin, words):
            if half:
                word = np.float32(weight[place + j]).view(np.int32)
                found += x[at + j] * np.int32(word << 16).view(np.float32)
                found += x[at + words + j] * np.int32(word & -65536).view(np.float32)
            else:
                found += x[at + j] * weight[place + j]
        return found

    @njit(**OPTIONS)
    def multiply(x: Any, weight: Any, out: Any, first: int, last: int) -> None:
        """out (M, N)[:, first:last] = x W^T.

        Args:
            x: (M, K); of each row the even entries before the odd ones, if weights are bfloat16.
            weight: (N K,), or (N K / 2,) words of two bfloat16.
        """
        rows, inputs = x.shape
        words = inputs // 2 if half else inputs
        x = x.reshape(-1)
        for n in range(first, last):
            if rows == 1:
                out[0, n] = one(x, 0, weight, n * words, words)
            else:
                for m in range(0, rows, 4):
                    # Where there are no four, the last counts several times, and nobody looks.
                    b, c, d = min(m + 1, rows - 1), min(m + 2, rows - 1), min(m + 3, rows - 1)
                    out[m, n], out[b, n], out[c, n], out[d, n] = four(
                        x, m * inputs, b * inputs, c * inputs, d * inputs, weight, n * words, words
                    )

    compiled: Callable[..., Any] = multiply
    return compiled


multiply, multiply_halves = _multiply(False), _multiply(True)
