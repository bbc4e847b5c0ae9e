"""Numba kernels that number the distinct n-grams of a text: pack, sort by radix, rank."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from posterhall.curation._ngram_kernels import BEGIN

_DIGIT = 11  # bits: 2048 counters stay in the first-level cache


@njit(cache=True, nogil=True)
def pack(stream: Any, numbers: Any, length: Any, shift: Any, keys: Any, places: Any) -> Any:
    """Keys of the n-grams of `length` words that lie within one sentence; returns how many there are.

    Args:
        stream: (n,) int32 word numbers; each sentence begins with BEGIN.
        numbers: (n,) int32, number of the n-gram of length - 1 words that ends at each place.
        shift: bits of a word number.
        keys: (n,) int64, filled with (number of the context << shift) | word.
        places: (n,) int32, filled with where the n-gram ends.
    """
    filled = 0
    since = 0
    for t in range(stream.shape[0]):
        if stream[t] == BEGIN:
            since = 0
            continue
        since += 1
        if since >= length - 1:
            keys[filled] = (np.int64(numbers[t - 1]) << shift) | np.int64(stream[t])
            places[filled] = t
            filled += 1
    return filled


@njit(cache=True, nogil=True)
def sort(keys: Any, places: Any, keys_too: Any, places_too: Any, n: Any, bits: Any) -> Any:
    """Sort the first n keys of so many bits, with their places; returns whether into the second pair."""
    counts = np.empty(1 << _DIGIT, np.int64)
    swapped = False
    for low in range(0, bits, _DIGIT):
        counts[:] = 0
        for i in range(n):
            counts[(keys[i] >> low) & ((1 << _DIGIT) - 1)] += 1
        total = 0
        for digit in range(1 << _DIGIT):
            count = counts[digit]
            counts[digit] = total
            total += count
        for i in range(n):
            digit = (keys[i] >> low) & ((1 << _DIGIT) - 1)
            to = counts[digit]
            counts[digit] = to + 1
            keys_too[to] = keys[i]
            places_too[to] = places[i]
        keys, keys_too = keys_too, keys
        places, places_too = places_too, places
        swapped = not swapped
    return swapped


@njit(cache=True, nogil=True)
def rank(keys: Any, places: Any, n: Any, numbers: Any, firsts: Any) -> Any:
    """Number sorted keys, equal ones alike; returns how many are distinct.

    Args:
        numbers: (stream,) int32, filled at the places.
        firsts: (n + 1,) int64, filled with where each distinct key begins.
    """
    distinct = 0
    for i in range(n):
        if i == 0 or keys[i] != keys[i - 1]:
            firsts[distinct] = i
            distinct += 1
        numbers[places[i]] = distinct - 1
    firsts[distinct] = n
    return distinct
