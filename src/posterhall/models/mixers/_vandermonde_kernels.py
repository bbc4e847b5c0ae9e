"""Powers of complex numbers as tables of real ones, for `_vandermonde`.

Chains of products in float64: one multiplication a power instead of an exponential, and more exact than
float32's exponential of a long phase. The states of a channel lie together and are what the loops run over.
"""

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


@njit(inline="always", **OPTIONS)
def _begin(z: Any, stride: Any, p_re: Any, p_im: Any, w_re: Any, w_im: Any) -> None:
    """p = 1 and w = exp(stride z), all (N,)."""
    for n in range(len(z)):
        size, phase = np.exp(stride * z[n].real), stride * z[n].imag
        w_re[n], w_im[n] = size * np.cos(phase), size * np.sin(phase)
        p_re[n], p_im[n] = 1.0, 0.0


@njit(inline="always", **OPTIONS)
def _further(p_re: Any, p_im: Any, w_re: Any, w_im: Any) -> None:
    """p *= w."""
    for n in range(len(p_re)):
        re = p_re[n] * w_re[n] - p_im[n] * w_im[n]
        p_im[n] = p_re[n] * w_im[n] + p_im[n] * w_re[n]
        p_re[n] = re


@njit(**OPTIONS)
def powers(z: Any, out: Any) -> None:
    """out (H, Q, 2N) = [Re w^b, Im w^b] for b < Q, of w = exp(z), z (H, N) complex128."""
    channels, count, _ = out.shape
    states = z.shape[1]
    p_re, p_im, w_re, w_im = np.empty(states), np.empty(states), np.empty(states), np.empty(states)
    for h in range(channels):
        _begin(z[h], 1.0, p_re, p_im, w_re, w_im)
        for b in range(count):
            re, im = out[h, b, :states], out[h, b, states:]
            for n in range(states):
                re[n], im[n] = p_re[n], p_im[n]
            _further(p_re, p_im, w_re, w_im)


@njit(**OPTIONS)
def weighted(z: Any, stride: Any, c: Any, out: Any) -> None:
    """out (H, R, A, 2N) = 2 [Re, -Im] of c w^(a stride) for a < A, with c (R, H, N) complex128."""
    channels, rows, count, _ = out.shape
    states = z.shape[1]
    p_re, p_im, w_re, w_im = np.empty(states), np.empty(states), np.empty(states), np.empty(states)
    for h in range(channels):
        _begin(z[h], stride, p_re, p_im, w_re, w_im)
        for a in range(count):
            for r in range(rows):
                re, im, own = out[h, r, a, :states], out[h, r, a, states:], c[r, h]
                for n in range(states):
                    c_re, c_im = 2.0 * own[n].real, 2.0 * own[n].imag
                    re[n] = c_re * p_re[n] - c_im * p_im[n]
                    im[n] = -(c_re * p_im[n] + c_im * p_re[n])
            _further(p_re, p_im, w_re, w_im)


@njit(**OPTIONS)
def gathered(z: Any, stride: Any, sums: Any, moments: Any, zeroth: Any, first: Any) -> None:
    """zeroth (R, H, N) = sum over a of w^(a stride) S_a; first: of w^(a stride) (a stride S_a + M_a).

    sums and moments: (H, R, A, 2N), real parts then imaginary parts of S and M.
    """
    channels, rows, count, _ = sums.shape
    states = z.shape[1]
    p_re, p_im, w_re, w_im = np.empty(states), np.empty(states), np.empty(states), np.empty(states)
    zero_re, zero_im = np.empty((rows, states)), np.empty((rows, states))
    one_re, one_im = np.empty((rows, states)), np.empty((rows, states))
    for h in range(channels):
        _begin(z[h], stride, p_re, p_im, w_re, w_im)
        zero_re[:], zero_im[:], one_re[:], one_im[:] = 0.0, 0.0, 0.0, 0.0
        for a in range(count):
            at = a * stride
            for r in range(rows):
                s_re, s_im = sums[h, r, a, :states], sums[h, r, a, states:]
                m_re, m_im = moments[h, r, a, :states], moments[h, r, a, states:]
                z_re, z_im, o_re, o_im = zero_re[r], zero_im[r], one_re[r], one_im[r]
                for n in range(states):
                    z_re[n] += p_re[n] * s_re[n] - p_im[n] * s_im[n]
                    z_im[n] += p_re[n] * s_im[n] + p_im[n] * s_re[n]
                    t_re, t_im = at * s_re[n] + m_re[n], at * s_im[n] + m_im[n]
                    o_re[n] += p_re[n] * t_re - p_im[n] * t_im
                    o_im[n] += p_re[n] * t_im + p_im[n] * t_re
            _further(p_re, p_im, w_re, w_im)
        for r in range(rows):
            for n in range(states):
                zeroth[r, h, n] = complex(zero_re[r, n], zero_im[r, n])
                first[r, h, n] = complex(one_re[r, n], one_im[r, n])
