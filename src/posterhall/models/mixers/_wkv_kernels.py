"""RWKV-4's weighted average as one pass each way, for float32 arrays on a CPU, a block of channels at a time.

Numerators and denominators are held as a mantissa and a shared exponent (the running maximum), so that no
exponential overflows, in the backward pass neither: there the exponent is the least that comes later.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from posterhall.models._kernels import OPTIONS, exponential

_BLOCK = 32
"""Channels at a time: in the backward pass, their states after all tokens fit in the second-level cache."""
_ZERO, _ONE, _NEVER = np.float32(0.0), np.float32(1.0), np.float32(1e30)


@njit(**OPTIONS)
def forward(decay: Any, bonus: Any, keys: Any, values: Any, lengths: Any, state: Any, out: Any) -> None:
    """out_t = (a + e^(u + k_t) v_t) / (b + e^(u + k_t)), then a, b <- e^-w a + e^(k_t) v_t, e^-w b + e^(k_t).

    Args:
        decay, bonus: (D,), w > 0 and u.
        keys, values: (B, T, D).
        lengths: (B,) real tokens of each row.
        state: (B, 3, D), mantissas of a and b and their exponent before, and afterwards.
        out: (B, T, D), written for real tokens.
    """
    rows, _, width = keys.shape
    for row in range(rows):
        for start in range(0, width, _BLOCK):
            part = slice(start, min(start + _BLOCK, width))
            w, u = decay[part], bonus[part]
            a, b, p = state[row, 0, part], state[row, 1, part], state[row, 2, part]
            for t in range(lengths[row]):
                k, v, o = keys[row, t, part], values[row, t, part], out[row, t, part]
                for j in range(len(w)):
                    most = max(p[j], u[j] + k[j])
                    old, new = exponential(p[j] - most), exponential(u[j] + k[j] - most)
                    o[j] = (old * a[j] + new * v[j]) / (old * b[j] + new)
                for j in range(len(w)):
                    left = p[j] - w[j]
                    most = max(left, k[j])
                    old, new = exponential(left - most), exponential(k[j] - most)
                    a[j] = old * a[j] + new * v[j]
                    b[j] = old * b[j] + new
                    p[j] = most


@njit(**OPTIONS)
def backward(
    decay: Any, bonus: Any, keys: Any, values: Any, grad: Any,
    to_decay: Any, to_bonus: Any, to_keys: Any, to_values: Any,
) -> None:  # fmt: skip
    """Gradients of `forward` from nothing; padding, which comes last, has to have a gradient of 0 in `grad`.

    Args:
        grad: (B, T, D), of out.
        to_decay, to_bonus: (B, D), zeros before.
        to_keys, to_values: (B, T, D), written.
    """
    rows, tokens, width = keys.shape
    kept = np.empty((tokens, 3, _BLOCK), np.float32)
    later = np.empty((3, _BLOCK), np.float32)
    for row in range(rows):
        for start in range(0, width, _BLOCK):
            part = slice(start, min(start + _BLOCK, width))
            w, u = decay[part], bonus[part]
            size = len(w)
            # States before each token, as in `forward`.
            kept[0, :2] = _ZERO
            kept[0, 2] = -_NEVER
            for t in range(tokens - 1):
                k, v = keys[row, t, part], values[row, t, part]
                a, b, p = kept[t, 0], kept[t, 1], kept[t, 2]
                next_a, next_b, next_p = kept[t + 1, 0], kept[t + 1, 1], kept[t + 1, 2]
                for j in range(size):
                    left = p[j] - w[j]
                    most = max(left, k[j])
                    old, new = exponential(left - most), exponential(k[j] - most)
                    next_a[j] = old * a[j] + new * v[j]
                    next_b[j] = old * b[j] + new
                    next_p[j] = most
            # Gradients of a and b after token t: mantissas, and an exponent with its sign turned.
            later[:2] = _ZERO
            later[2] = _NEVER
            to_a, to_b, s = later[0], later[1], later[2]
            slope_w, slope_u = to_decay[row, part], to_bonus[row, part]
            for t in range(tokens - 1, -1, -1):
                k, v, g = keys[row, t, part], values[row, t, part], grad[row, t, part]
                a, b, p = kept[t, 0], kept[t, 1], kept[t, 2]
                to_k, to_v = to_keys[row, t, part], to_values[row, t, part]
                for j in range(size):
                    most = max(p[j], u[j] + k[j])
                    old, new = exponential(p[j] - most), exponential(u[j] + k[j] - most)
                    inverse = _ONE / (old * b[j] + new)
                    y = (old * a[j] + new * v[j]) * inverse
                    to_top = g[j] * inverse
                    to_bottom = -to_top * y
                    pushed = exponential(k[j] - s[j])
                    direct = new * (to_top * v[j] + to_bottom)
                    to_v[j] = new * to_top + pushed * to_a[j]
                    to_k[j] = direct + pushed * (to_a[j] * v[j] + to_b[j])
                    slope_u[j] += direct
                    slope_w[j] -= exponential(p[j] - w[j] - s[j]) * (to_a[j] * a[j] + to_b[j] * b[j])
                    least = min(most, w[j] + s[j])
                    here, behind = exponential(least - most), exponential(least - w[j] - s[j])
                    to_a[j] = here * to_top + behind * to_a[j]
                    to_b[j] = here * to_bottom + behind * to_b[j]
                    s[j] = least
