"""Numba kernel that numbers equal 128-bit keys in the order in which they come."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def number(table: Any, counts: Any, keys: Any, out: Any) -> Any:
    """Count each key and tell how often it came before; returns how many keys are new.

    Open addressing with linear probing. The keys are cryptographic hashes, so their low bits serve as
    the place.

    Args:
        table: (S, 2) uint64, S a power of two, more than the number of distinct keys.
        counts: (S,) int64; 0 marks an empty place.
        keys: (n, 2) uint64.
        out: (n,) int64, how often the key was seen before.
    """
    mask = np.uint64(table.shape[0] - 1)
    fresh = 0
    for i in range(keys.shape[0]):
        low, high = keys[i, 0], keys[i, 1]
        at = np.int64(low & mask)
        while counts[at] != 0 and (table[at, 0] != low or table[at, 1] != high):
            at = np.int64((np.uint64(at) + np.uint64(1)) & mask)
        if counts[at] == 0:
            table[at, 0] = low
            table[at, 1] = high
            fresh += 1
        out[i] = counts[at]
        counts[at] += 1
    return fresh


@njit(cache=True, nogil=True)
def rehash(old: Any, old_counts: Any, table: Any, counts: Any) -> None:
    """Move all keys and their counts to a larger, empty table."""
    mask = np.uint64(table.shape[0] - 1)
    for i in range(old.shape[0]):
        if old_counts[i] == 0:
            continue
        at = np.int64(old[i, 0] & mask)
        while counts[at] != 0:
            at = np.int64((np.uint64(at) + np.uint64(1)) & mask)
        table[at, 0] = old[i, 0]
        table[at, 1] = old[i, 1]
        counts[at] = old_counts[i]
