"""Kernels of the parameter server: rows out of a shard and into it, and plans cut into windows.

Row numbers are int32. Matrices of values are float32 and C-contiguous. Rows may be stored longer than the
table is wide, by zeros, in a shard (`stored_length`) as in a private copy (the training kernels' stride).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from posterhall import simd
from posterhall.simd import LANES

_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "boundscheck": False, "error_model": "numpy"}

ACCEPTED, OUT_OF_RANGE, NOT_FINITE, REPEATED = range(4)
"""Verdicts of `inspect`."""


@njit(**_OPTIONS, inline="always")
def _fetch(values: Any, width: int, rows: Any, i: int) -> None:
    """Have the cache load row rows[i], if there is one: rows lie too scattered for it to guess."""
    if i < rows.shape[0]:
        at = np.int64(rows[i]) * width
        for x in range(0, width, 16):
            simd.prefetch(values, at + x)


@njit(**_OPTIONS)
def gather(values: Any, stored: int, rows: Any, into: Any, twin: Any, stride: int) -> None:
    """into[i] = twin[i] = values[rows[i]] for rows of `stored` in `values` and `stride` in the others.

    All three are flat. The shorter of both lengths is copied: what lies behind a table's width is zero.
    """
    width = min(stored, stride)
    for i in range(rows.shape[0]):
        _fetch(values, stored, rows, i + 4)
        a = np.int64(rows[i]) * stored
        b = i * stride
        x = 0
        while x + LANES <= width:
            row = simd.load(values, a + x)
            simd.store(into, b + x, row)
            simd.store(twin, b + x, row)
            x += LANES
        while x < width:
            into[b + x] = twin[b + x] = values[a + x]
            x += 1


@njit(**_OPTIONS)
def largest_row(rows: Any, limit: int) -> int:
    """Index of a row outside 0 .. limit - 1, or -1."""
    for i in range(rows.shape[0]):
        if rows[i] < 0 or rows[i] >= limit:
            return i
    return -1


@njit(**_OPTIONS)
def inspect(rows: Any, limit: int, bits: Any, stamps: Any, stamp: int) -> tuple[int, int]:
    """Look for what a push must not hold; returns (verdict, index of the row at fault).

    `bits` uint32 is the difference's memory, (n, at least width): a float32 is NaN or infinite if and
    only if its exponent bits are all set. `stamps` int64 (limit,) marks the rows seen under `stamp`.
    """
    for i in range(rows.shape[0]):
        r = rows[i]
        if r < 0 or r >= limit:
            return OUT_OF_RANGE, i
        if stamps[r] == stamp:
            return REPEATED, i
        stamps[r] = stamp
        worst = np.uint32(0)
        for j in range(bits.shape[1]):
            worst = max(worst, bits[i, j] & np.uint32(0x7FFFFFFF))
        if worst >= np.uint32(0x7F800000):
            return NOT_FINITE, i
    return ACCEPTED, -1


@njit(**_OPTIONS)
def clip_rows(delta: Any, longest: Any) -> int:
    """Shorten the rows longer than `longest` to that length, in place; returns how many."""
    shortened = 0
    for i in range(delta.shape[0]):
        squares = 0.0
        for j in range(delta.shape[1]):
            squares += np.float64(delta[i, j]) * np.float64(delta[i, j])
        if squares > longest * longest:
            shortened += 1
            factor = np.float32(longest / np.sqrt(squares))
            for j in range(delta.shape[1]):
                delta[i, j] *= factor
    return shortened


@njit(**_OPTIONS)
def add_rows(values: Any, rows: Any, delta: Any) -> None:
    """values[rows[i], :width] += delta[i], float32 (n, width)."""
    width = delta.shape[1]
    for i in range(rows.shape[0]):
        r = rows[i]
        for j in range(width):
            values[r, j] += delta[i, j]


@njit(**_OPTIONS)
def add_progress(values: Any, stored: int, rows: Any, now: Any, before: Any, stride: int) -> None:
    """values[rows[i]] += now[i] - before[i] for rows of `stored` in `values` and `stride` in the others.

    All three are flat, and zero behind the table's width.
    """
    width = min(stored, stride)
    minus = simd.splat(np.float32(-1.0))
    for i in range(rows.shape[0]):
        _fetch(values, stored, rows, i + 4)
        a = np.int64(rows[i]) * stored
        b = i * stride
        x = 0
        while x + LANES <= width:
            step = simd.fma(minus, simd.load(before, b + x), simd.load(now, b + x))
            simd.store(values, a + x, simd.add(simd.load(values, a + x), step))
            x += LANES
        while x < width:
            values[a + x] += now[b + x] - before[b + x]
            x += 1


@njit(**_OPTIONS)
def adagrad_rows(
    values: Any, squares: Any, rows: Any, delta: Any, inverse_rate: Any, gamma: Any, epsilon: Any
) -> None:
    """One Adagrad step on each row, from the difference `delta` that a worker made at its own rate.

    g = -delta / rate; squares += g^2; values -= gamma g / sqrt(squares) (Dean et al. 2012, section 4.1).
    """
    width = delta.shape[1]
    for i in range(rows.shape[0]):
        r = rows[i]
        for j in range(width):
            up = delta[i, j] * inverse_rate
            total = squares[r, j] + up * up
            squares[r, j] = total
            values[r, j] += gamma * up / np.sqrt(total + epsilon)


@njit(**_OPTIONS)
def changed_rows(now: Any, before: Any, delta: Any, index: Any) -> int:
    """Rows in which `now` differs from `before`, and by how much; returns how many.

    `delta` float32 (n, width) receives the differences one after the other, `index` int32 (n,) the
    rows' numbers, ascending.
    """
    width = delta.shape[1]
    found = 0
    for i in range(now.shape[0]):
        changed = False
        for j in range(width):
            if now[i, j] != before[i, j]:  # true of NaN, too: the server shall see it
                changed = True
                break
        if changed:
            for j in range(width):
                delta[found, j] = now[i, j] - before[i, j]
            index[found] = i
            found += 1
    return found


@njit(**_OPTIONS)
def group(found: Any, shard_of: Any, local_of: Any, ends: Any, rank: Any, rows: Any, local: Any) -> None:
    """Order rows by shard, keeping their order within one.

    `found` int32 (n,) rows; `shard_of` int16 and `local_of` int32 by row. Fills `ends` int64
    (shards + 1,) with the bounds of each shard's part, `rank` with the new place of found[i], and
    `rows` and `local` with the rows and their numbers within the shard, in the new order.
    """
    ends[:] = 0
    for i in range(found.shape[0]):
        ends[shard_of[found[i]] + 1] += 1
    for s in range(1, ends.shape[0]):
        ends[s] += ends[s - 1]
    at = ends[:-1].copy()
    for i in range(found.shape[0]):
        row = found[i]
        place = at[shard_of[row]]
        at[shard_of[row]] += 1
        rank[i] = place
        rows[place] = row
        local[place] = local_of[row]


@njit(**_OPTIONS)
def add_at(into: Any, places: Any, delta: Any) -> None:
    """into[places[i], :width] += delta[i]."""
    for i in range(places.shape[0]):
        p = places[i]
        for j in range(delta.shape[1]):
            into[p, j] += delta[i, j]


@njit(**_OPTIONS)
def add_known(into: Any, rows: Any, place_of: Any, held: Any) -> None:
    """into[i, :width] += held[place_of[rows[i]]] where that place is not negative."""
    for i in range(rows.shape[0]):
        p = place_of[rows[i]]
        if p >= 0:
            for j in range(held.shape[1]):
                into[i, j] += held[p, j]


@njit(**_OPTIONS)
def relabel(ids: Any, n: int, rank: Any) -> None:
    """ids[i] = rank[ids[i]] for i < n."""
    for i in range(n):
        ids[i] = rank[ids[i]]


@njit(**_OPTIONS)
def window_bounds(lo: Any, hi: Any, first: int, last: int) -> tuple[int, int]:
    """First and last + 1 of the tokens that positions first to last - 1 meet."""
    begin, end = first, last
    for i in range(first, last):
        begin = min(begin, lo[i])
        end = max(end, hi[i])
    return begin, end


@njit(**_OPTIONS)
def cut_plan(
    kept: Any, lo: Any, hi: Any, start: Any, rows: Any, signs: Any, shifts: Any, repeated: Any,
    first: int, last: int, begin: int, end: int,
    to_kept: Any, to_lo: Any, to_hi: Any, to_start: Any, to_rows: Any, to_signs: Any, to_shifts: Any,
    to_repeated: Any, at: int, behind: int,
) -> None:  # fmt: skip
    """Copy positions first to last - 1 of a plan, with the tokens begin to end - 1 that they meet.

    The copy begins at position `at` and output `behind`. Its positions that only serve as context have
    an empty window and no outputs.
    """
    moved = at - begin
    base = start[first] - behind
    for i in range(begin, end):
        k = i + moved
        to_kept[k] = kept[i]
        inside = first <= i < last
        to_lo[k] = lo[i] + moved if inside else k
        to_hi[k] = hi[i] + moved if inside else k + 1
        to_repeated[k] = inside and repeated[i]
        to_start[k] = start[min(max(i, first), last)] - base
    to_start[end + moved] = start[last] - base
    for p in range(start[first], start[last]):
        to_rows[p - base] = rows[p]
        to_signs[p - base] = signs[p]
        to_shifts[p - base] = shifts[p]
