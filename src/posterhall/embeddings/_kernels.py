"""Kernels of word-vector training: first a *plan* (which rows meet), then its application.

A plan is drawn from a chunk of the corpus without touching the parameters; applying it draws nothing.
So the same two steps serve Hogwild threads (rows are the matrix's own), the deterministic mode and
the parameter server (rows are renumbered into a small private copy), and a test can apply a plan that
it wrote by hand.

A plan of n positions:
    kept   int32 (n,)   input row of each surviving token; the context of i is kept[lo[i]:hi[i]] less i
    lo, hi int32 (n,)   window bounds
    start  int64 (n+1,) outputs of position i are the entries start[i] to start[i+1] of the next three
    rows   int32        output rows: the centre word and its noise words, or the nodes of its path
    signs  float32      +1 where the output should fire, -1 where it should not
    shifts float32      added to the logit (NCE: -log k P_n(w); otherwise 0)
    repeated bool (n,)  the outputs of i name a row twice, so they may not be updated together
Each array holds at least its length plus simd.LANES, since vectors are loaded whole.

Matrices are flat float32 with a row stride that is a multiple of simd.LANES; padding stays zero.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from posterhall import simd
from posterhall.simd import LANES

TILE = 6
"""Output rows updated together: a centre and five noise words; their sums fit in 16 registers."""

_FLUSH = 60
"""Tiles after which the running product of factors in (1, 2] is turned into a logarithm: 16 lanes of
at most 2^60 still fit a float64."""

_AHEAD = 7
"""Positions ahead at which CBOW asks for a context row: it enters windows soon after."""

_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "boundscheck": False, "error_model": "numpy"}
_INLINE: dict[str, Any] = {**_OPTIONS, "inline": "always"}


@njit(**_INLINE)
def _losses(hinge: Any, product: Any, lanes: Any) -> float:
    """Sum over the lanes of hinge + log(product); `lanes` is scratch."""
    simd.store(lanes, 0, product)
    whole = 1.0
    for j in range(LANES):
        whole *= np.float64(lanes[j])
    return np.float64(simd.total(hinge)) + math.log(whole)


@njit(**_INLINE)
def _tile6(
    hidden: Any,
    h: Any,
    into: Any,
    e: Any,
    outputs: Any,
    stride: int,
    rows: Any,
    signs: Any,
    shifts: Any,
    at: Any,
    step: Any,
    hinge: Any,
    product: Any,
) -> Any:
    """Train six outputs against hidden[h : h + stride]; add the step of the hidden vector to into[e:].

    Where these are all outputs, `into` may be the hidden vector itself.
    """
    r0 = np.int64(rows[at]) * stride
    r1 = np.int64(rows[at + 1]) * stride
    r2 = np.int64(rows[at + 2]) * stride
    r3 = np.int64(rows[at + 3]) * stride
    r4 = np.int64(rows[at + 4]) * stride
    r5 = np.int64(rows[at + 5]) * stride
    a0 = simd.zero()
    a1 = simd.zero()
    a2 = simd.zero()
    a3 = simd.zero()
    a4 = simd.zero()
    a5 = simd.zero()
    for x in range(0, stride, LANES):
        v = simd.load(hidden, h + x)
        a0 = simd.fma(v, simd.load(outputs, r0 + x), a0)
        a1 = simd.fma(v, simd.load(outputs, r1 + x), a1)
        a2 = simd.fma(v, simd.load(outputs, r2 + x), a2)
        a3 = simd.fma(v, simd.load(outputs, r3 + x), a3)
        a4 = simd.fma(v, simd.load(outputs, r4 + x), a4)
        a5 = simd.fma(v, simd.load(outputs, r5 + x), a5)
    sign = simd.load(signs, at)
    z = simd.mul(sign, simd.add(simd.totals(a0, a1, a2, a3, a4, a5), simd.load(shifts, at)))
    # An idle lane has neither gradient nor loss.
    tail, below, factor = simd.softplus_parts(simd.keep_six(z, np.float32(88.0)))
    g0, g1, g2, g3, g4, g5 = simd.spread6(simd.mul(simd.mul(tail, sign), simd.splat(step)))
    for x in range(0, stride, LANES):
        v = simd.load(hidden, h + x)
        sum_ = simd.load(into, e + x)
        o = simd.load(outputs, r0 + x)
        sum_ = simd.fma(g0, o, sum_)
        simd.store(outputs, r0 + x, simd.fma(g0, v, o))
        o = simd.load(outputs, r1 + x)
        sum_ = simd.fma(g1, o, sum_)
        simd.store(outputs, r1 + x, simd.fma(g1, v, o))
        o = simd.load(outputs, r2 + x)
        sum_ = simd.fma(g2, o, sum_)
        simd.store(outputs, r2 + x, simd.fma(g2, v, o))
        o = simd.load(outputs, r3 + x)
        sum_ = simd.fma(g3, o, sum_)
        simd.store(outputs, r3 + x, simd.fma(g3, v, o))
        o = simd.load(outputs, r4 + x)
        sum_ = simd.fma(g4, o, sum_)
        simd.store(outputs, r4 + x, simd.fma(g4, v, o))
        o = simd.load(outputs, r5 + x)
        sum_ = simd.fma(g5, o, sum_)
        simd.store(outputs, r5 + x, simd.fma(g5, v, o))
        simd.store(into, e + x, sum_)
    return simd.add(hinge, below), simd.mul(product, factor)


@njit(**_INLINE)
def _tile1(
    hidden: Any,
    h: Any,
    into: Any,
    e: Any,
    outputs: Any,
    stride: int,
    row: Any,
    sign: Any,
    shift: Any,
    step: Any,
    hinge: Any,
    product: Any,
) -> Any:
    """Train one output against hidden[h : h + stride]; as `_tile6`."""
    r = np.int64(row) * stride
    a = simd.zero()
    for x in range(0, stride, LANES):
        a = simd.fma(simd.load(hidden, h + x), simd.load(outputs, r + x), a)
    z = simd.first(sign * (simd.total(a) + shift), np.float32(88.0))
    tail, below, factor = simd.softplus_parts(z)
    g = simd.mul(simd.spread6(tail)[0], simd.splat(step * sign))
    for x in range(0, stride, LANES):
        v = simd.load(hidden, h + x)
        o = simd.load(outputs, r + x)
        simd.store(into, e + x, simd.fma(g, o, simd.load(into, e + x)))
        simd.store(outputs, r + x, simd.fma(g, v, o))
    return simd.add(hinge, below), simd.mul(product, factor)


@njit(**_OPTIONS)
def _many_outputs(
    hidden: Any,
    h: Any,
    error: Any,
    outputs: Any,
    stride: int,
    first: Any,
    last: Any,
    rows: Any,
    signs: Any,
    shifts: Any,
    together: Any,
    step: Any,
    lanes: Any,
) -> float:
    """Train outputs first to last, any number of them, against one hidden vector.

    Adds the step of the hidden vector to `error`, float32 (stride,); returns the loss, the sum of
    -log sigmoid(sign (logit + shift)) (Mikolov et al. 2013, eq. 3 and 4).
    """
    hinge = simd.zero()
    product = simd.splat(np.float32(1.0))
    loss = 0.0
    tiles = 0
    at = first
    while at < last:
        if together and at + TILE <= last:
            hinge, product = _tile6(
                hidden, h, error, 0, outputs, stride, rows, signs, shifts, at, step, hinge, product
            )
            at += TILE
        else:
            hinge, product = _tile1(
                hidden, h, error, 0, outputs, stride, rows[at], signs[at], shifts[at], step, hinge, product
            )
            at += 1
        tiles += 1
        if tiles == _FLUSH:
            loss += _losses(hinge, product, lanes)
            hinge = simd.zero()
            product = simd.splat(np.float32(1.0))
            tiles = 0
    return float(loss + _losses(hinge, product, lanes))


@njit(**_INLINE)
def _prefetch_outputs(outputs: Any, stride: int, rows: Any, before: Any, first: Any, last: Any) -> None:
    """Ask for the rows first to last, less those that stand at the same place after `before`."""
    for p in range(first, last):
        if rows[p] == rows[before + p - first]:
            continue
        base = np.int64(rows[p]) * stride
        for x in range(0, stride, 16):
            simd.prefetch(outputs, base + x)


@njit(**_OPTIONS)
def apply_skipgram(
    inputs: Any,
    outputs: Any,
    stride: int,
    kept: Any,
    lo: Any,
    hi: Any,
    n: int,
    start: Any,
    rows: Any,
    signs: Any,
    shifts: Any,
    repeated: Any,
    step: Any,
) -> tuple[float, int]:
    """Train every (context, centre) pair of a plan at rate `step`; returns (loss, pairs).

    The context word is the input and the centre the output, as the original's code has it; over a
    corpus with symmetric windows these are the same pairs as the formula's (Mikolov et al. 2013, eq. 1
    and 4). The noise words of a centre are shared by its contexts (Ji et al. 2016, "HogBatch").
    """
    error = np.zeros(stride, np.float32)
    lanes = np.zeros(LANES, np.float32)
    loss = 0.0
    pairs = 0
    for i in range(n):
        if i + 2 < n:
            _prefetch_outputs(outputs, stride, rows, start[i + 1], start[i + 2], start[i + 3])
        pairs += hi[i] - lo[i] - 1
        if start[i + 1] - start[i] == TILE and not repeated[i] and hi[i] - lo[i] <= _FLUSH:
            hinge = simd.zero()
            product = simd.splat(np.float32(1.0))
            for c in range(lo[i], hi[i]):
                if c != i:
                    h = np.int64(kept[c]) * stride
                    hinge, product = _tile6(
                        inputs,
                        h,
                        inputs,
                        h,
                        outputs,
                        stride,
                        rows,
                        signs,
                        shifts,
                        start[i],
                        step,
                        hinge,
                        product,
                    )
            loss += _losses(hinge, product, lanes)
            continue
        for c in range(lo[i], hi[i]):
            if c != i:
                h = np.int64(kept[c]) * stride
                error[:] = 0.0
                loss += _many_outputs(
                    inputs,
                    h,
                    error,
                    outputs,
                    stride,
                    start[i],
                    start[i + 1],
                    rows,
                    signs,
                    shifts,
                    not repeated[i],
                    step,
                    lanes,
                )
                for x in range(0, stride, LANES):
                    simd.store(inputs, h + x, simd.add(simd.load(inputs, h + x), simd.load(error, x)))
    return loss, pairs


@njit(**_INLINE)
def gather_context(
    inputs: Any, stride: int, kept: Any, lo: Any, hi: Any, i: Any, scale: Any, hidden: Any
) -> None:
    """hidden = scale times the sum of the context rows of position i."""
    scales = simd.splat(scale)
    x = 0
    while x + 4 * LANES <= stride:  # four vectors at a time share the walk over the window
        v0 = simd.zero()
        v1 = simd.zero()
        v2 = simd.zero()
        v3 = simd.zero()
        for c in range(lo, hi):
            if c != i:
                h = np.int64(kept[c]) * stride + x
                v0 = simd.add(v0, simd.load(inputs, h))
                v1 = simd.add(v1, simd.load(inputs, h + LANES))
                v2 = simd.add(v2, simd.load(inputs, h + 2 * LANES))
                v3 = simd.add(v3, simd.load(inputs, h + 3 * LANES))
        simd.store(hidden, x, simd.mul(v0, scales))
        simd.store(hidden, x + LANES, simd.mul(v1, scales))
        simd.store(hidden, x + 2 * LANES, simd.mul(v2, scales))
        simd.store(hidden, x + 3 * LANES, simd.mul(v3, scales))
        x += 4 * LANES
    while x < stride:
        v0 = simd.zero()
        for c in range(lo, hi):
            if c != i:
                v0 = simd.add(v0, simd.load(inputs, np.int64(kept[c]) * stride + x))
        simd.store(hidden, x, simd.mul(v0, scales))
        x += LANES


@njit(**_INLINE)
def scatter_context(
    inputs: Any, stride: int, kept: Any, lo: Any, hi: Any, i: Any, scale: Any, error: Any
) -> None:
    """Add scale times `error` to each context row of position i."""
    scales = simd.splat(scale)
    for x in range(0, stride, LANES):
        simd.store(error, x, simd.mul(scales, simd.load(error, x)))
    for c in range(lo, hi):
        if c != i:
            h = np.int64(kept[c]) * stride
            for x in range(0, stride, LANES):
                simd.store(inputs, h + x, simd.add(simd.load(error, x), simd.load(inputs, h + x)))


@njit(**_OPTIONS)
def apply_cbow(
    inputs: Any,
    outputs: Any,
    stride: int,
    kept: Any,
    lo: Any,
    hi: Any,
    n: int,
    start: Any,
    rows: Any,
    signs: Any,
    shifts: Any,
    repeated: Any,
    step: Any,
    mean: bool,
    divide: bool,
) -> tuple[float, int]:
    """Train every position of a plan from the sum or `mean` of its context; returns (loss, positions).

    The step of the hidden vector goes whole to every context row, as in the original's code, unless
    `divide` asks for the true gradient of the mean (the error over the number of context words).
    """
    hidden = np.zeros(stride, np.float32)
    error = np.zeros(stride, np.float32)
    lanes = np.zeros(LANES, np.float32)
    one = np.float32(1.0)
    hinge = simd.zero()
    product = simd.splat(one)
    tiles = 0
    loss = 0.0
    trained = 0
    for i in range(n):
        if i + 3 < n:
            _prefetch_outputs(outputs, stride, rows, start[i + 2], start[i + 3], start[i + 4])
        if i + _AHEAD < n:
            base = np.int64(kept[i + _AHEAD]) * stride
            for x in range(0, stride, 16):
                simd.prefetch(inputs, base + x)
        width = hi[i] - lo[i] - 1
        if width < 1:
            continue
        trained += 1
        scale = one / np.float32(width)
        gather_context(inputs, stride, kept, lo[i], hi[i], i, scale if mean else one, hidden)
        for x in range(0, stride, LANES):
            simd.store(error, x, simd.zero())
        if start[i + 1] - start[i] == TILE and not repeated[i]:
            hinge, product = _tile6(
                hidden, 0, error, 0, outputs, stride, rows, signs, shifts, start[i], step, hinge, product
            )
            tiles += 1
            if tiles == _FLUSH:
                loss += _losses(hinge, product, lanes)
                hinge = simd.zero()
                product = simd.splat(one)
                tiles = 0
        else:
            loss += _many_outputs(
                hidden,
                0,
                error,
                outputs,
                stride,
                start[i],
                start[i + 1],
                rows,
                signs,
                shifts,
                not repeated[i],
                step,
                lanes,
            )
        scatter_context(inputs, stride, kept, lo[i], hi[i], i, scale if divide else one, error)
    return loss + _losses(hinge, product, lanes), trained
