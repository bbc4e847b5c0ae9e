"""The short convolution as one pass over float32 arrays on a CPU, with or without SiLU behind it.

Rows of channels are what the inner loops run over: a token's channels lie together, and stay in the first
cache while its few taps are added up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from posterhall.models._kernels import OPTIONS, exponential

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


@njit(inline="always", **OPTIONS)
def _sums(x: Any, past: Any, weight: Any, bias: Any, reach: Any, b: Any, t: Any, o: Any) -> None:
    """o (W,) = bias + sum over lags of weight[lag] x[t - lag], as far back as reach[b, t] allows."""
    lags, width = weight.shape
    for c in range(width):
        o[c] = bias[c]
    for lag in range(min(lags, reach[b, t] + 1)):
        w = weight[lag]
        row = x[b, t - lag] if t >= lag else past[b, lags - 1 + t - lag]
        for c in range(width):
            o[c] += w[c] * row[c]


@njit(**OPTIONS)
def forward(x: Any, past: Any, weight: Any, bias: Any, reach: Any, silu: Any, out: Any) -> None:
    """out (B, T, W) of x (B, T, W), past (B, K - 1, W), weight (K, W) by lag, bias (W,), reach (B, T)."""
    batch, tokens, width = x.shape
    for b in range(batch):
        for t in range(tokens):
            o = out[b, t]
            _sums(x, past, weight, bias, reach, b, t, o)
            if silu:
                for c in range(width):
                    o[c] = o[c] / (_ONE + exponential(-o[c]))


@njit(**OPTIONS)
def backward(
    x: Any, past: Any, weight: Any, bias: Any, reach: Any, silu: Any,
    grad: Any, grad_x: Any, grad_weight: Any, grad_bias: Any,
) -> None:  # fmt: skip
    """Add up grad_x (B, T, W), grad_weight (K, W) and grad_bias (W,), which begin as zeros."""
    batch, tokens, width = x.shape
    lags = len(weight)
    d, before = np.empty(width, np.float32), np.empty(width, np.float32)
    for b in range(batch):
        for t in range(tokens):
            g = grad[b, t]
            if silu:  # computed once more: cheaper than keeping it
                _sums(x, past, weight, bias, reach, b, t, before)
                for c in range(width):
                    s = _ONE / (_ONE + exponential(-before[c]))
                    d[c] = g[c] * s * (_ONE + before[c] * (_ONE - s))
            else:
                for c in range(width):
                    d[c] = g[c]
            for c in range(width):
                grad_bias[c] += d[c]
            for lag in range(min(lags, reach[b, t] + 1)):
                w, slopes = weight[lag], grad_weight[lag]
                if t >= lag:
                    row, to = x[b, t - lag], grad_x[b, t - lag]
                    for c in range(width):
                        slopes[c] += d[c] * row[c]
                        to[c] += d[c] * w[c]
                else:
                    row = past[b, lags - 1 + t - lag]
                    for c in range(width):
                        slopes[c] += d[c] * row[c]
