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
def _at_least(sets: Any, starts: Any, first: Any, second: Any, threshold: Any) -> Any:
    """Jaccard similarity of two sorted sets, or -1 as soon as it cannot reach the threshold."""
    a, a_end = starts[first], starts[first + 1]
    b, b_end = starts[second], starts[second + 1]
    size = (a_end - a) + (b_end - b)
    # J >= t needs t (|A| + |B|) / (1 + t) in common; one less, since that is rounded.
    spare = size - 2 * (np.int64(threshold * size / (1 + threshold)) - 1)
    both = 0
    while a < a_end and b < b_end:
        x, y = sets[a], sets[b]
        if x == y:
            both += 1
        else:
            spare -= 1
            if spare < 0:
                return -1.0
        a += x <= y
        b += y <= x
    value = both / (size - both)
    return value if value >= threshold else -1.0


@njit(cache=True, nogil=True)
def join(
    members: Any,
    starts: Any,
    begin: Any,
    end: Any,
    marks: Any,
    least: Any,
    window: Any,
    sets: Any,
    edges: Any,
    row: Any,
    threshold: Any,
    refused: Any,
    parent: Any,
    match: Any,
    similarity: Any,
) -> Any:
    """Compare the texts of buckets ``begin`` to ``end - 1``, and join those that are duplicates.

    A text is compared with the ``window`` before it in its bucket, nearest first, that are alike by their
    marks and not in its cluster yet: in a bucket of duplicates that is one, for each.

    Args:
        sets, edges, row: shingles, where each set begins, and the set of each text.
        refused: (a power of two,) uint64, zeros: pairs that were compared in vain, so that those that meet in
            many bands are mostly compared once.
        parent: clusters, see `find`; the head of a cluster is its first text.
        match, similarity: of each text the most similar one that it was found equal to; of equals the first.

    Returns:
        pairs compared.
    """
    compared = 0
    n = np.uint64(parent.size)
    for bucket in range(begin, end):
        low = starts[bucket]
        for i in range(low + 1, starts[bucket + 1]):
            a = members[i]
            home = find(parent, a)
            for j in range(i - 1, max(low, i - window) - 1, -1):
                b = members[j]
                other = find(parent, b)
                if other == home or not _alike(marks, a, b, least):
                    continue
                pair = np.uint64(a) * n + np.uint64(b)
                slot = np.int64((pair * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)) & (refused.size - 1)
                if refused[slot] == pair:
                    continue
                compared += 1
                value = _at_least(sets, edges, row[a], row[b], threshold)
                if value < 0:
                    refused[slot] = pair
                    continue
                parent[max(home, other)] = min(home, other)
                home = min(home, other)
                for x, y in ((a, b), (b, a)):
                    if value > similarity[x] or (value == similarity[x] and (match[x] < 0 or y < match[x])):
                        similarity[x] = value
                        match[x] = y
    return compared
