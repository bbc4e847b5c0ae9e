"""Causal attention over texts and trees of texts, with its gradients, for float32 arrays on a CPU.

softmax(Q K^T / sqrt(H)) V in blocks (Dao et al. 2022, alg. 1 and 4): no matrix of weights is kept. What torch
does in a product of two rectangles and a mask is here only what is seen: of a block on the diagonal its lower
half, of a branch its trunk and itself. Queries and keys are turned by their positions while they are brought
into place, and their gradients turned back when they are written down.

A text is cut into stretches: its trunk with the first branch, in which each token sees what is before it, and
every further branch, which sees the trunk too. What one head of keys of one text needs is a task of its own,
and writes what no other task writes: results do not depend on who does which.

Blocks are `BLOCK` queries by `BLOCK` keys, and matrices lie in memory as `_tiles` likes them. A stretch
begins at a whole tile; between the end of one and the beginning of the next are places that nobody sees.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from posterhall.models import _kernels
from posterhall.models._kernels import exponential
from posterhall.models._tiles import COLUMNS, ROWS, greater, greatest, multiply, multiply_add
from posterhall.models.mixers._lanes import WIDTH, load, power, splat, store, total

BLOCK = 2 * COLUMNS
"""Queries, and keys, that meet at a time."""
OPTIONS: dict[str, Any] = {**_kernels.OPTIONS, "fastmath": {"contract", "nsz"}}
"""Without another order of sums, in which `power` would lose what it rounds off."""
_LOG2E, _LN2 = np.float32(1.4426950408889634), np.float32(0.6931471805599453)
_NEVER = np.float32(-1e30)
"""A product that weighs nothing: finite, so that differences of two of them are numbers."""


@njit(inline="always", **OPTIONS)
def _rounded(count: int) -> int:
    """Up to whole tiles."""
    return (count + COLUMNS - 1) // COLUMNS * COLUMNS


def needed(places: int, size: int) -> int:
    """Numbers of scratch memory for a text of so many places, in whole cache lines."""
    return 6 * places * size + 3 * BLOCK * size + 2 * BLOCK * BLOCK + 2 * BLOCK


@njit(**OPTIONS)
def _places(stretches: Any) -> int:
    """Places of a text."""
    places = 0
    for n in range(len(stretches)):
        places += _rounded(stretches[n, 1] - stretches[n, 0])
    return places


@njit(**OPTIONS)
def _cut(room: Any, entries: int) -> Any:
    """So many numbers of memory, and the rest."""
    return room[:entries], room[entries:]


@njit(**OPTIONS)
def _turn(qkv: Any, token: int, head: int, cos: Any, sin: Any, factor: Any, out: Any, at: int) -> None:
    """Write a token's query or key, turned and times a factor, to `out` from `at` on."""
    given = qkv[token, head]
    c, s = cos[token % len(cos)], sin[token % len(sin)]
    half = len(c)
    for i in range(0, half, WIDTH):
        first, second = load(given, i) * factor, load(given, half + i) * factor
        store(out, at + i, first * load(c, i) - second * load(s, i))
        store(out, at + half + i, second * load(c, i) + first * load(s, i))


@njit(**OPTIONS)
def _turn_back(given: Any, at: int, cos: Any, sin: Any, token: int, factor: Any, out: Any) -> None:
    """Write a gradient (of neighbouring numbers from `at` on) times a factor, turned back, to a row."""
    c, s = cos[token % len(cos)], sin[token % len(sin)]
    half = len(c)
    for i in range(0, half, WIDTH):
        first, second = load(given, at + i) * factor, load(given, at + half + i) * factor
        store(out, i, first * load(c, i) + second * load(s, i))
        store(out, half + i, second * load(c, i) - first * load(s, i))


@njit(**OPTIONS)
def _columns(rows: Any, places: int, size: int, out: Any) -> None:
    """Rows (places, size) as tiles of `COLUMNS` rows, in each of which size comes first."""
    for tile in range(places // COLUMNS):
        for i in range(size):
            to = (tile * size + i) * COLUMNS
            for j in range(COLUMNS):
                out[to + j] = rows[(tile * COLUMNS + j) * size + i]


@njit(**OPTIONS)
def _bring(
    qkv: Any, cos: Any, sin: Any, stretches: Any, heads: int, head: int, keys: Any, values: Any
) -> int:
    """Keys and values of a text as rows (places, H), stretch by stretch; returns the places."""
    size = qkv.shape[2]
    kv_heads = (qkv.shape[1] - heads) // 2
    one = np.float32(1.0)
    place = 0
    for n in range(len(stretches)):
        for token in range(stretches[n, 0], stretches[n, 1]):
            _turn(qkv, token, heads + head, cos, sin, one, keys, place * size)
            given = qkv[token, heads + kv_heads + head]
            for i in range(0, size, WIDTH):
                store(values, place * size + i, load(given, i))
            place += 1
        end = _rounded(place)
        keys[place * size : end * size] = 0.0
        values[place * size : end * size] = 0.0
        place = end
    return place


@njit(**OPTIONS)
def _seen(causal: bool, row: int, begin: int, width: int) -> int:
    """Keys of a block beginning at key `begin` that query `row` of the same stretch sees."""
    if not causal:
        return width
    return max(0, min(width, row - begin + 1))


@njit(**OPTIONS)
def attend(
    qkv: Any, cos: Any, sin: Any, stretches: Any, trunk: int, heads: int, head: int, room: Any, out: Any,
    logs: Any,
) -> None:  # fmt: skip
    """What all queries of one head of keys read from a text.

    Args:
        qkv: (M, heads + 2 kv_heads, H), H a multiple of `COLUMNS`.
        cos, sin: (L, H / 2), of token m at m modulo L.
        stretches: (S, 2) first token and the one after the last; the first one holds the trunk.
        trunk: tokens that the further stretches see too.
        heads: query heads.
        head: of the keys.
        room: scratch memory, of as many numbers as `needed` says at least.
        out: (M, heads, H), written for the text's tokens and the queries' heads.
        logs: (M, heads), written: log2 of the sum of the exponentials, which `attend_backward` takes.
    """
    size = qkv.shape[2]
    group = heads // ((qkv.shape[1] - heads) // 2)
    scale = _LOG2E / np.float32(np.sqrt(np.float64(size)))
    places = _places(stretches)
    entries, block = places * size, BLOCK * size
    keys, room = _cut(room, entries)
    values, room = _cut(room, entries)
    columns, room = _cut(room, entries)
    queries, room = _cut(room, block)
    sums, room = _cut(room, block)
    weights, room = _cut(room, ROWS * BLOCK)
    tops, room = _cut(room, BLOCK)
    totals, room = _cut(room, BLOCK)
    _bring(qkv, cos, sin, stretches, heads, head, keys, values)
    _columns(keys, places, size, columns)
    begin = 0
    for n in range(len(stretches)):
        first, length = stretches[n, 0], stretches[n, 1] - stretches[n, 0]
        for at in range(0, length, BLOCK):
            rows = min(BLOCK, length - at)
            for inner in range(head * group, (head + 1) * group):
                for row in range(rows):
                    _turn(qkv, first + at + row, inner, cos, sin, scale, queries, row * size)
                tops[:] = _NEVER
                totals[:] = 0.0
                sums[:] = 0.0
                if n > 0:
                    _read(
                        queries, columns, values, 0, trunk, False, at, rows, size, weights, tops, totals, sums
                    )
                _read(
                    queries,
                    columns,
                    values,
                    begin,
                    at + rows,
                    True,
                    at,
                    rows,
                    size,
                    weights,
                    tops,
                    totals,
                    sums,
                )
                for row in range(rows):
                    told, share = out[first + at + row, inner], np.float32(1.0) / totals[row]
                    for i in range(0, size, WIDTH):
                        store(told, i, load(sums, row * size + i) * share)
                    logs[first + at + row, inner] = tops[row] + np.log2(totals[row])
        begin += _rounded(length)


@njit(**OPTIONS)
def _read(
    queries: Any, columns: Any, values: Any, begin: int, count: int, causal: bool, at: int, rows: int,
    size: int, weights: Any, tops: Any, totals: Any, sums: Any,
) -> None:  # fmt: skip
    """Let a block of queries, `at` of which is the first's number, read keys from place `begin` on."""
    for key in range(0, count, BLOCK):
        width = min(BLOCK, count - key)
        for strip in range(0, rows, ROWS):
            most = _seen(causal, at + min(strip + ROWS, rows) - 1, key, width)
            if most == 0:
                continue
            for tile in range(0, most, COLUMNS):
                multiply(
                    queries, strip * size, size, 1, columns, (begin + key + tile) * size, COLUMNS, size,
                    weights, tile, BLOCK,
                )  # fmt: skip
            for row in range(strip, min(strip + ROWS, rows)):
                seen = _seen(causal, at + row, key, width)
                _weigh(weights, (row - strip) * BLOCK, seen, _rounded(most), tops, totals, sums, row, size)
            for column in range(0, size, COLUMNS):
                multiply_add(
                    weights, 0, BLOCK, 1, values, (begin + key) * size + column, size, most,
                    sums, strip * size + column, size,
                )  # fmt: skip


@njit(**OPTIONS)
def _weigh(
    weights: Any, at: int, seen: int, width: int, tops: Any, totals: Any, sums: Any, row: int, size: int
) -> None:
    """Make weights of a query's products, and of its sums so far what they are beside the new ones."""
    for i in range(at + seen, at + width):
        weights[i] = _NEVER
    if seen > 0:
        most = load(weights, at)
        for i in range(at + WIDTH, at + width, WIDTH):
            most = greater(load(weights, i), most)
        top = max(tops[row], greatest(most))
        least, whole = splat(top), splat(np.float32(0.0))
        for i in range(at, at + width, WIDTH):
            weight = power(load(weights, i) - least)
            store(weights, i, weight)
            whole = whole + weight
        if top > tops[row]:
            share = exponential((tops[row] - top) * _LN2)
            totals[row] *= share
            for i in range(row * size, (row + 1) * size, WIDTH):
                store(sums, i, load(sums, i) * share)
        totals[row] += total(whole)
        tops[row] = top
    for i in range(at + seen, at + width):
        weights[i] = 0.0


@njit(**OPTIONS)
def attend_backward(
    qkv: Any, cos: Any, sin: Any, stretches: Any, trunk: int, heads: int, head: int, room: Any, out: Any,
    logs: Any, grad: Any, grad_qkv: Any,
) -> None:  # fmt: skip
    """Gradients of `attend`, from grad (M, heads, H) to grad_qkv as qkv; other arguments as there."""
    size = qkv.shape[2]
    kv_heads = (qkv.shape[1] - heads) // 2
    group = heads // kv_heads
    scale = np.float32(1.0 / np.sqrt(np.float64(size)))
    places = _places(stretches)
    entries, block = places * size, BLOCK * size
    keys, room = _cut(room, entries)
    values, room = _cut(room, entries)
    columns, room = _cut(room, entries)
    value_columns, room = _cut(room, entries)
    grad_keys, room = _cut(room, entries)
    grad_values, room = _cut(room, entries)
    queries, room = _cut(room, block)
    grad_queries, room = _cut(room, block)
    slopes, room = _cut(room, block)
    weights, room = _cut(room, BLOCK * BLOCK)
    changes, room = _cut(room, BLOCK * BLOCK)
    level, room = _cut(room, BLOCK)
    mean, room = _cut(room, BLOCK)
    _bring(qkv, cos, sin, stretches, heads, head, keys, values)
    _columns(keys, places, size, columns)
    _columns(values, places, size, value_columns)
    grad_keys[:] = 0.0
    grad_values[:] = 0.0
    begin = 0
    for n in range(len(stretches)):
        first, length = stretches[n, 0], stretches[n, 1] - stretches[n, 0]
        for at in range(0, length, BLOCK):
            rows = min(BLOCK, length - at)
            for inner in range(head * group, (head + 1) * group):
                for row in range(rows):
                    token = first + at + row
                    _turn(qkv, token, inner, cos, sin, scale * _LOG2E, queries, row * size)
                    given, said, along = grad[token, inner], out[token, inner], splat(np.float32(0.0))
                    for i in range(0, size, WIDTH):
                        slope = load(given, i)
                        store(slopes, row * size + i, slope)
                        along = along + slope * load(said, i)
                    level[row], mean[row] = logs[token, inner], total(along)
                grad_queries[:] = 0.0
                if n > 0:
                    _slope(
                        queries, slopes, keys, columns, value_columns, 0, trunk, False, at, rows, size, level,
                        mean, weights, changes, grad_queries, grad_keys, grad_values,
                    )  # fmt: skip
                _slope(
                    queries, slopes, keys, columns, value_columns, begin, at + rows, True, at, rows, size,
                    level, mean, weights, changes, grad_queries, grad_keys, grad_values,
                )  # fmt: skip
                for row in range(rows):
                    token = first + at + row
                    _turn_back(grad_queries, row * size, cos, sin, token, scale, grad_qkv[token, inner])
        begin += _rounded(length)
    place = 0
    for n in range(len(stretches)):
        for token in range(stretches[n, 0], stretches[n, 1]):
            # Queries came times scale / ln 2.
            _turn_back(grad_keys, place * size, cos, sin, token, _LN2, grad_qkv[token, heads + head])
            told = grad_qkv[token, heads + kv_heads + head]
            for i in range(0, size, WIDTH):
                store(told, i, load(grad_values, place * size + i))
            place += 1
        place = _rounded(place)


@njit(**OPTIONS)
def _slope(
    queries: Any, slopes: Any, keys: Any, columns: Any, value_columns: Any, begin: int, count: int,
    causal: bool, at: int, rows: int, size: int, level: Any, mean: Any, weights: Any, changes: Any,
    grad_queries: Any, grad_keys: Any, grad_values: Any,
) -> None:  # fmt: skip
    """The backward pass of `_read`: adds to the gradients of queries, keys and values."""
    for key in range(0, count, BLOCK):
        width, place = min(BLOCK, count - key), begin + key
        for strip in range(0, rows, ROWS):
            last = min(strip + ROWS, rows)
            most = _seen(causal, at + last - 1, key, width)
            for tile in range(0, most, COLUMNS):
                there = (place + tile) * size
                to = strip * BLOCK + tile
                multiply(queries, strip * size, size, 1, columns, there, COLUMNS, size, weights, to, BLOCK)
                multiply(
                    slopes, strip * size, size, 1, value_columns, there, COLUMNS, size, changes, to, BLOCK
                )
            for row in range(strip, last):
                line, end = row * BLOCK, row * BLOCK + _rounded(most)
                top, along = splat(level[row]), splat(mean[row])
                for i in range(line, end, WIDTH):
                    weight = power(load(weights, i) - top)
                    store(weights, i, weight)
                    store(changes, i, weight * (load(changes, i) - along))
                for i in range(line + _seen(causal, at + row, key, width), end):
                    weights[i] = 0.0
                    changes[i] = 0.0
            if most > 0:
                for column in range(0, size, COLUMNS):
                    multiply_add(
                        changes, strip * BLOCK, BLOCK, 1, keys, place * size + column, size, most,
                        grad_queries, strip * size + column, size,
                    )  # fmt: skip
        for strip in range(0, width, ROWS):
            # The first block of queries in which one sees one of these keys.
            begun = max(0, key + strip - at) // ROWS * ROWS if causal else 0
            deep, to = rows - begun, (place + strip) * size
            for column in range(0, size, COLUMNS):
                multiply_add(
                    weights, begun * BLOCK + strip, 1, BLOCK, slopes, begun * size + column, size, deep,
                    grad_values, to + column, size,
                )  # fmt: skip
                multiply_add(
                    changes, begun * BLOCK + strip, 1, BLOCK, queries, begun * size + column, size, deep,
                    grad_keys, to + column, size,
                )  # fmt: skip
