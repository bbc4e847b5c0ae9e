"""The decoder's elementwise steps as one pass each, for float32 arrays on a CPU.

Torch would take 3 to 8 passes, and short inner loops for the halves of a head. One thread each: with few
threads, one pass by one of them costs less than many by all (and nothing to hand over); `_ops` decides.
Loops run over rows taken as views, which is what lets LLVM vectorise them.
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
    # Sums may be reordered, products and sums contracted; NaN and infinity keep their meaning.
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},
}
_ONE, _HALF = np.float32(1.0), np.float32(0.5)
_LOG2E = np.float32(1.4426950408889634)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_LEAST, _MOST = np.float32(-87.0), np.float32(87.0)
# exp(f) = 1 + f + f^2 P(f) on |f| <= ln(2) / 2, to 1e-7 (the coefficients of Cephes' expf).
_P0, _P1, _P2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
_P3, _P4, _P5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
_BIAS, _MANTISSA = np.int32(127), np.int32(23)


@njit(inline="always", **OPTIONS)
def exponential(x: Any) -> Any:
    """exp(x) to 1e-7 within float32's range, without a call, so that the loop around it is vectorised."""
    y = min(max(x, _LEAST), _MOST)
    n = np.floor(y * _LOG2E + _HALF)
    f = y - n * _LN2_HIGH - n * _LN2_LOW
    p = ((((_P0 * f + _P1) * f + _P2) * f + _P3) * f + _P4) * f + _P5
    power = np.int32((np.int32(n) + _BIAS) << _MANTISSA).view(np.float32)
    return (p * f * f + f + _ONE) * power


@njit(inline="always", **OPTIONS)
def _sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)) to 2e-7."""
    return _ONE / (_ONE + exponential(-x))


@njit(**OPTIONS)
def rms_norm(x: Any, gain: Any, eps: Any, out: Any, inverse: Any) -> None:
    """out (M, D) = gain x / sqrt(mean(x^2) + eps); inverse (M,) keeps 1 / sqrt(...)."""
    rows, dim = x.shape
    for i in range(rows):
        a, o = x[i], out[i]
        total = np.float32(0.0)
        for j in range(dim):
            total += a[j] * a[j]
        r = _ONE / np.sqrt(total / np.float32(dim) + eps)
        inverse[i] = r
        for j in range(dim):
            o[j] = a[j] * r * gain[j]


@njit(**OPTIONS)
def rms_norm_backward(
    x: Any, gain: Any, inverse: Any, grad: Any, grad_x: Any, grad_gain: Any, block: Any
) -> None:
    """grad_x = r g dy - x r^3 <g dy, x> / D, and grad_gain += r x dy; other arguments as of `rms_norm`.

    grad_gain is (ceil(M / block), D): each block of rows has a sum of its own.
    """
    rows, dim = x.shape
    for i in range(rows):
        a, d, o, r, sums = x[i], grad[i], grad_x[i], inverse[i], grad_gain[i // block]
        along = np.float32(0.0)
        for j in range(dim):
            along += a[j] * d[j] * gain[j]
        c = along * r * r * r / np.float32(dim)
        for j in range(dim):
            sums[j] += r * a[j] * d[j]
            o[j] = r * gain[j] * d[j] - c * a[j]


@njit(**OPTIONS)
def swiglu(gate_up: Any, out: Any) -> None:
    """out (M, F) = silu(gate) up of gate_up (M, 2 F)."""
    rows, width = out.shape
    for i in range(rows):
        gate, up, o = gate_up[i, :width], gate_up[i, width:], out[i]
        for j in range(width):
            o[j] = gate[j] * _sigmoid(gate[j]) * up[j]


@njit(**OPTIONS)
def swiglu_backward(gate_up: Any, grad: Any, out: Any) -> None:
    """out (M, 2 F) = the gradient of `swiglu`'s argument, from that of its result (M, F)."""
    rows, width = grad.shape
    for i in range(rows):
        gate, up, d = gate_up[i, :width], gate_up[i, width:], grad[i]
        d_gate, d_up = out[i, :width], out[i, width:]
        for j in range(width):
            s = _sigmoid(gate[j])
            a = gate[j] * s
            d_up[j] = d[j] * a
            d_gate[j] = d[j] * up[j] * (s + a - a * s)


@njit(**OPTIONS)
def rotate(x: Any, cos: Any, sin: Any, turning: int, out: Any) -> None:
    """Turn the first heads of x (B, T, N, H) by their position's angles, copy the others.

    cos, sin: (B or 1, T, H / 2).
    """
    batch, tokens, heads, size = x.shape
    half = size // 2
    shared = cos.shape[0] == 1
    for b in range(batch):
        for t in range(tokens):
            c, s = cos[0 if shared else b, t], sin[0 if shared else b, t]
            for n in range(turning):
                first, second = x[b, t, n, :half], x[b, t, n, half:]
                out_first, out_second = out[b, t, n, :half], out[b, t, n, half:]
                for j in range(half):
                    f, g = first[j], second[j]
                    out_first[j] = f * c[j] - g * s[j]
                    out_second[j] = g * c[j] + f * s[j]
            for n in range(turning, heads):
                out[b, t, n] = x[b, t, n]
