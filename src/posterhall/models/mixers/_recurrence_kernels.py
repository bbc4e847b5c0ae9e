"""The recurrence x_t = a x_{t-1} + v_t, token after token; loops run over the poles."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

OPTIONS: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "boundscheck": False,
    "error_model": "numpy",
    "fastmath": {"contract", "nsz"},
}


@njit(**OPTIONS)
def forward(a: Any, x: Any, begin: Any) -> None:
    """x (B, T, 2, P), in place of v; a (2, P), begin (B, 2, P): real parts, then imaginary parts."""
    batch, tokens, _, states = x.shape
    a_re, a_im = a[0], a[1]
    for b in range(batch):
        p_re, p_im = begin[b, 0], begin[b, 1]
        for t in range(tokens):
            re, im = x[b, t, 0], x[b, t, 1]
            for n in range(states):
                re[n] += a_re[n] * p_re[n] - a_im[n] * p_im[n]
                im[n] += a_re[n] * p_im[n] + a_im[n] * p_re[n]
            p_re, p_im = re, im


@njit(**OPTIONS)
def backward(a: Any, x: Any, begin: Any, grad: Any, to_a: Any, to_begin: Any) -> None:
    """grad (B, T, 2, P) becomes that of v; adds up to_a (2, P) float64 and fills to_begin (B, 2, P)."""
    batch, tokens, _, states = x.shape
    a_re, a_im = a[0], a[1]
    slope_re, slope_im = np.zeros(states), np.zeros(states)
    for b in range(batch):
        for t in range(tokens - 1, -1, -1):
            re, im = grad[b, t, 0], grad[b, t, 1]
            if t < tokens - 1:
                q_re, q_im = grad[b, t + 1, 0], grad[b, t + 1, 1]
                for n in range(states):
                    re[n] += a_re[n] * q_re[n] + a_im[n] * q_im[n]
                    im[n] += a_re[n] * q_im[n] - a_im[n] * q_re[n]
            p_re, p_im = (x[b, t - 1, 0], x[b, t - 1, 1]) if t > 0 else (begin[b, 0], begin[b, 1])
            for n in range(states):
                slope_re[n] += re[n] * p_re[n] + im[n] * p_im[n]
                slope_im[n] += im[n] * p_re[n] - re[n] * p_im[n]
        re, im, o_re, o_im = grad[b, 0, 0], grad[b, 0, 1], to_begin[b, 0], to_begin[b, 1]
        for n in range(states):
            o_re[n] = a_re[n] * re[n] + a_im[n] * im[n]
            o_im[n] = a_re[n] * im[n] - a_im[n] * re[n]
    for n in range(states):
        to_a[0, n], to_a[1, n] = slope_re[n], slope_im[n]
