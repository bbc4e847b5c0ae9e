"""Kernels of the full softmax: every output row is read and written for every window."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from posterhall import simd
from posterhall.embeddings._kernels import gather_context, scatter_context
from posterhall.simd import LANES

_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "boundscheck": False, "error_model": "numpy"}


@njit(**_OPTIONS)
def _softmax_step(
    hidden: Any,
    m: int,
    outputs: Any,
    stride: int,
    words: int,
    centre: int,
    step: Any,
    error: Any,
    logits: Any,
) -> float:
    """One step of -log softmax(outputs hidden_c)[centre], summed over m hidden vectors.

    `hidden`, `error` float32 (m * stride,); `logits` float32 (m * words,) is scratch. All m are taken
    at the same parameters, so that every output row is read and written once a window, not once a pair.
    """
    for w in range(words):
        r = w * stride
        for c in range(m):
            a = simd.zero()
            for x in range(0, stride, LANES):
                a = simd.fma(simd.load(hidden, c * stride + x), simd.load(outputs, r + x), a)
            logits[c * words + w] = simd.total(a)
    loss = 0.0
    for c in range(m):
        row = logits[c * words : (c + 1) * words]
        largest = row.max()
        normaliser = 0.0
        target = row[centre]
        for w in range(words):
            row[w] = math.exp(row[w] - largest)
            normaliser += row[w]
        loss += math.log(normaliser) - np.float64(target - largest)
        scale = np.float32(-step / normaliser)
        for w in range(words):
            row[w] *= scale
        row[centre] += step
    for w in range(words):
        r = w * stride
        for c in range(m):
            g = simd.splat(logits[c * words + w])
            for x in range(0, stride, LANES):
                e = c * stride + x
                simd.store(error, e, simd.fma(g, simd.load(outputs, r + x), simd.load(error, e)))
        for c in range(m):
            g = simd.splat(logits[c * words + w])
            for x in range(0, stride, LANES):
                simd.store(
                    outputs, r + x, simd.fma(g, simd.load(hidden, c * stride + x), simd.load(outputs, r + x))
                )
    return loss


@njit(**_OPTIONS)
def apply_softmax(
    inputs: Any,
    outputs: Any,
    stride: int,
    words: int,
    kept: Any,
    lo: Any,
    hi: Any,
    n: int,
    step: Any,
    cbow: bool,
    mean: bool,
    divide: bool,
) -> tuple[float, int]:
    """Train a plan's positions with the full softmax over all `words` (Mikolov et al. 2013, eq. 2)."""
    widest = 1
    for i in range(n):
        widest = max(widest, hi[i] - lo[i] - 1)
    m = 1 if cbow else widest
    hidden = np.zeros(m * stride, np.float32)
    error = np.zeros(m * stride, np.float32)
    logits = np.zeros(m * words, np.float32)
    one = np.float32(1.0)
    loss = 0.0
    trained = 0
    for i in range(n):
        width = hi[i] - lo[i] - 1
        if width < 1:
            continue
        error[:] = 0.0
        if cbow:
            gather_context(
                inputs, stride, kept, lo[i], hi[i], i, one / np.float32(width) if mean else one, hidden
            )
            loss += _softmax_step(hidden, 1, outputs, stride, words, kept[i], step, error, logits)
            scatter_context(
                inputs, stride, kept, lo[i], hi[i], i, one / np.float32(width) if divide else one, error
            )
            trained += 1
            continue
        at = 0
        for c in range(lo[i], hi[i]):
            if c != i:
                h = np.int64(kept[c]) * stride
                hidden[at : at + stride] = inputs[h : h + stride]
                at += stride
        loss += _softmax_step(hidden, width, outputs, stride, words, kept[i], step, error, logits)
        at = 0
        for c in range(lo[i], hi[i]):
            if c != i:
                h = np.int64(kept[c]) * stride
                for x in range(0, stride, LANES):
                    simd.store(inputs, h + x, simd.add(simd.load(inputs, h + x), simd.load(error, at + x)))
                at += stride
        trained += width
    return loss, trained
