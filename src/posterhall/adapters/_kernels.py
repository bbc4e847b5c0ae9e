"""Dropout as one pass over float32 numbers, whose mask is a function of a key and the place of a number."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_FIRST, _SECOND = np.uint32(0x21F0AAAD), np.uint32(0xD35A2D97)
_16, _15 = np.uint32(16), np.uint32(15)


@njit(inline="always")
def _mixed(h: Any) -> Any:
    """A bijection of 32 bits, each output bit of which depends evenly on each input bit (Wellons 2018,
    "lowbias32"). numba widens products; the casts keep them at 32 bits, where they vectorise."""
    h = np.uint32(np.uint32(h ^ (h >> _16)) * _FIRST)
    h = np.uint32(np.uint32(h ^ (h >> _15)) * _SECOND)
    return np.uint32(h ^ (h >> _15))


@njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")
def drop(x: Any, low: Any, high: Any, bound: Any, factor: Any, out: Any) -> None:
    """out = factor x where what the key (low, high) and the place give is below the bound, else 0.

    Args:
        x, out: (N,) float32, may be the same.
        low, high: halves of the key, uint32.
        bound: of 2^32, uint32.
        factor: float32.
    """
    zero = np.float32(0.0)
    for i in range(len(x)):
        h = _mixed(np.uint32(np.uint32(i) ^ low))
        h = _mixed(np.uint32(h + high))
        out[i] = x[i] * factor if h < bound else zero
