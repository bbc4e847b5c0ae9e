"""From band keys to pairs that may be near duplicates, and joining the pairs that are (numba).

A bucket is two or more texts with the same key in a band. Buckets come as a flat array: bucket b is
``members[starts[b] : starts[b + 1]]``, ascending.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def sort(values: Any) -> None:
    """Sort integers in place (Shell's sort: numba's own takes seconds to compile)."""
    n = values.size
    gap = n // 2
    while gap > 0:
        for i in range(gap, n):
            value = values[i]
            j = i
            while j >= gap and values[j - gap] > value:
                values[j] = values[j - gap]
                j -= gap
            values[j] = value
        gap = 1 if gap == 2 else gap * 5 // 11


@njit(cache=True, nogil=True)
def equal(order: Any, hashes: Any, head: Any) -> None:
    """For each row of ``hashes`` (n, 2) write the first equal one to ``head``, which holds 0 to n - 1.

    ``order`` are the rows in the order of their first halves.
    """
    n = order.size
    i = 0
    while i < n:
        j = i + 1
        while j < n and hashes[order[j], 0] == hashes[order[i], 0]:
            j += 1
        if j - i > 1:
            run = order[i:j].copy()
            sort(run)
            for k in range(1, run.size):
                for earlier in range(k):
                    # Halves of unequal texts agree once in 2^64 pairs: nearly always the first is equal.
                    if hashes[run[earlier], 1] == hashes[run[k], 1]:
                        head[run[k]] = run[earlier]
                        break
        i = j


@njit(cache=True, nogil=True)
def runs(sorted_keys: Any, order: Any, members: Any, starts: Any) -> Any:
    """Buckets of one band: runs of equal keys, written to ``members`` and ``starts``.

    ``order`` (n,) are the texts in the order of their keys. Both outputs hold n + 1 values.

    Returns:
        (buckets, members written).
    """
    buckets = 0
    used = 0
    n = order.size
    i = 0
    while i < n:
        j = i + 1
        while j < n and sorted_keys[j] == sorted_keys[i]:
            j += 1
        if j - i > 1:
            starts[buckets] = used
            members[used : used + j - i] = order[i:j]
            sort(members[used : used + j - i])
            buckets += 1
            used += j - i
        i = j
    starts[buckets] = used
    return buckets, used


@njit(cache=True, nogil=True)
def bucket_hashes(members: Any, starts: Any, out: Any) -> None:
    """A hash of the members of each bucket: bands often bring the same texts together."""
    for b in range(out.size):
        h = np.uint64(0x9E3779B97F4A7C15)
        for i in range(starts[b], starts[b + 1]):
            h = (h ^ np.uint64(members[i])) * np.uint64(0xD6E8FEB86659FD93)
            h ^= h >> np.uint64(32)
        out[b] = h


@njit(cache=True, nogil=True)
def find(parent: Any, i: Any) -> Any:
    """The head of i's cluster; paths are halved on the way."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True, nogil=True)
def unite(parent: Any, first: Any, second: Any) -> None:
    """Join the clusters of each pair; the head of a cluster is its first text."""
    for pair in range(first.size):
        a = find(parent, first[pair])
        b = find(parent, second[pair])
        if a != b:
            parent[max(a, b)] = min(a, b)


@njit(cache=True, nogil=True)
def heads(parent: Any) -> None:
    """Let every text point straight to the head of its cluster."""
    for i in range(parent.size):
        parent[i] = find(parent, i)


@njit(cache=True, nogil=True)
def _alike(marks: Any, a: Any, b: Any, least: Any) -> Any:
    x = marks[a]
    y = marks[b]
    same = 0
    for k in range(x.size):
        same += x[k] == y[k]
    return same >= least


@njit(cache=True, nogil=True)
def alike(marks: Any, first: Any, second: Any, least: Any, out: Any) -> None:
    """Whether each pair has at least ``least`` equal marks."""
    for pair in range(first.size):
        out[pair] = _alike(marks, first[pair], second[pair], least)


@njit(cache=True, nogil=True)
def all_heads(parent: Any, texts: Any) -> Any:
    """`find` of each."""
    out = np.empty(texts.size, np.int64)
    for i in range(texts.size):
        out[i] = find(parent, texts[i])
    return out


@njit(cache=True, nogil=True)
def alike_at_all(members: Any, starts: Any, marks: Any, least: Any, window: Any, flags: Any) -> None:
    """Flag each text that has ``least`` equal marks with another of a bucket, at most ``window`` away.

    Neighbours are looked at first, so that this stays linear in a large bucket of duplicates.
    """
    for b in range(starts.size - 1):
        low, high = starts[b], starts[b + 1]
        for i in range(low, high):
            a = members[i]
            distance = 1
            while not flags[a] and distance <= min(window, max(i - low, high - 1 - i)):
                for j in (i - distance, i + distance):
                    if low <= j < high and _alike(marks, a, members[j], least):
                        flags[a] = True
                        flags[members[j]] = True
                distance += 1


@njit(cache=True, nogil=True)
def pairs(
    members: Any,
    starts: Any,
    marks: Any,
    least: Any,
    window: Any,
    parent: Any,
    state: Any,
    first: Any,
    second: Any,
) -> Any:
    """Pairs within buckets that are alike by their marks and not yet in one cluster.

    Goes on from ``state`` (bucket, place, place before it) until the outputs are full; a text is paired with
    the ``window`` before it. Returns the number of pairs; the work is done when ``state[0]`` is the number
    of buckets.
    """
    count = 0
    b, i, j = state[0], state[1], state[2]
    while b < starts.size - 1:
        low, high = starts[b], starts[b + 1]
        while i < high:
            a = members[i]
            home = find(parent, a)
            floor = max(low, i - window)
            while j >= floor:
                other = members[j]
                if find(parent, other) != home and _alike(marks, a, other, least):
                    if count == first.size:
                        state[0], state[1], state[2] = b, i, j
                        return count
                    first[count] = other
                    second[count] = a
                    count += 1
                j -= 1
            i += 1
            j = i - 1
        b += 1
        if b < starts.size - 1:
            i = starts[b] + 1
            j = starts[b]
    state[0] = b
    return count


@njit(cache=True, nogil=True)
def best_edge(first: Any, second: Any, value: Any, match: Any, similarity: Any) -> None:
    """For each text the most similar one it was found equal to; of equals the first in order."""
    for pair in range(first.size):
        for side in range(2):
            a = first[pair] if side == 0 else second[pair]
            b = second[pair] if side == 0 else first[pair]
            v = value[pair]
            if v > similarity[a] or (v == similarity[a] and (match[a] < 0 or b < match[a])):
                similarity[a] = v
                match[a] = b
