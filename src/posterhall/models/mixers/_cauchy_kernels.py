"""Sums of fractions at many frequencies, in real arithmetic, for `_cauchy`.

The loops run over frequencies, in blocks that stay in the first cache while all poles pass over them.
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
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},
}
_BLOCK = 256


@njit(inline="always", **OPTIONS)
def _invert(s: Any, o: Any, square: Any, real: Any, width: Any, r_re: Any, r_im: Any) -> None:
    """r = 1 / ((square o^2 - s^2) - 2 i real s o)."""
    for k in range(width):
        re, im = square * o[k] * o[k] - s[k] * s[k], -2.0 * real * s[k] * o[k]
        inverse = 1.0 / (re * re + im * im)
        r_re[k], r_im[k] = re * inverse, -im * inverse


@njit(**OPTIONS)
def forward(
    sines: Any, cosines: Any, alpha: Any, beta: Any, square: Any, real: Any, out_re: Any, out_im: Any
) -> None:
    """out (H, J, K) += sum over n of (alpha o + i beta s) r; alpha, beta (H, J, N), square, real (H, N)."""
    channels, sums, states = alpha.shape
    count = len(sines)
    r_re, r_im = np.empty(_BLOCK), np.empty(_BLOCK)
    for h in range(channels):
        for first in range(0, count, _BLOCK):
            last = min(first + _BLOCK, count)
            width = last - first
            s, o = sines[first:last], cosines[first:last]
            for n in range(states):
                _invert(s, o, square[h, n], real[h, n], width, r_re, r_im)
                for j in range(sums):
                    a, b = alpha[h, j, n], beta[h, j, n]
                    re, im = out_re[h, j, first:last], out_im[h, j, first:last]
                    for k in range(width):
                        re[k] += a * o[k] * r_re[k] - b * s[k] * r_im[k]
                        im[k] += a * o[k] * r_im[k] + b * s[k] * r_re[k]


@njit(**OPTIONS)
def backward(
    sines: Any, cosines: Any, alpha: Any, beta: Any, square: Any, real: Any, grad_re: Any, grad_im: Any,
    to_alpha: Any, to_beta: Any, to_square: Any, to_real: Any,
) -> None:  # fmt: skip
    """Add up the gradients of `forward`'s arguments, from that of its result (real and imaginary part)."""
    channels, sums, states = alpha.shape
    count = len(sines)
    r_re, r_im, w_re, w_im = np.empty(_BLOCK), np.empty(_BLOCK), np.empty(_BLOCK), np.empty(_BLOCK)
    for h in range(channels):
        for first in range(0, count, _BLOCK):
            last = min(first + _BLOCK, count)
            width = last - first
            s, o = sines[first:last], cosines[first:last]
            for n in range(states):
                _invert(s, o, square[h, n], real[h, n], width, r_re, r_im)
                for k in range(width):
                    w_re[k], w_im[k] = 0.0, 0.0
                for j in range(sums):
                    a, b = alpha[h, j, n], beta[h, j, n]
                    g_re, g_im = grad_re[h, j, first:last], grad_im[h, j, first:last]
                    along_a, along_b = 0.0, 0.0
                    for k in range(width):
                        along_a += o[k] * (g_re[k] * r_re[k] + g_im[k] * r_im[k])
                        along_b += s[k] * (g_im[k] * r_re[k] - g_re[k] * r_im[k])
                        # The conjugate of the gradient times the numerator.
                        w_re[k] += g_re[k] * a * o[k] + g_im[k] * b * s[k]
                        w_im[k] += g_re[k] * b * s[k] - g_im[k] * a * o[k]
                    to_alpha[h, j, n] += along_a
                    to_beta[h, j, n] += along_b
                along_square, along_real = 0.0, 0.0
                for k in range(width):
                    q_re = r_re[k] * r_re[k] - r_im[k] * r_im[k]
                    q_im = 2.0 * r_re[k] * r_im[k]
                    along_square -= o[k] * o[k] * (w_re[k] * q_re - w_im[k] * q_im)
                    along_real -= 2.0 * s[k] * o[k] * (w_re[k] * q_im + w_im[k] * q_re)
                to_square[h, n] += along_square
                to_real[h, n] += along_real
