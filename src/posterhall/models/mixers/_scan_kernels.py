"""The selective scan as one pass each way, for float32 arrays on a CPU, 16 channels at a time.

Forward, everything between the projections: softplus of the step, the recurrence, the skip and the gate; a
channel block's states stay in the first-level cache. Backward, states are computed anew, from a copy kept
every `KEEP` tokens, so memory never holds a state for each token. Arrays are contiguous but where a row
distance is an argument.

Rows b of a batch and slices of channels are independent tasks; each has its own sums for what all channels
share (B, C), so results do not depend on who computes them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from posterhall.models.mixers._lanes import WIDTH, load, power, sigmoid, softplus, splat, spread, store, total

KEEP = 16
"""Tokens from one kept state to the next."""
SLICE = 512
"""Channels of a task."""

OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "boundscheck": False, "error_model": "numpy"}
_ONE = np.float32(1.0)
_ZERO = np.float32(0.0)
_LN2 = np.float32(0.6931471805599453)


@njit(**OPTIONS)
def _scratch(count: int) -> Any:
    """Room for so many numbers, zeros, that begins with a cache line: else half the vectors lie in two."""
    room = np.zeros(count + WIDTH, np.float32)
    first = (-room.ctypes.data % (4 * WIDTH)) // 4
    return room[first : first + count]


@njit(**OPTIONS)
def scan(
    b: int, first: int, last: int, length: int, x: Any, delta: Any, gate: Any, gate_row: int,
    a: Any, inputs: Any, outputs: Any, skip: Any, bias: Any, fresh: Any, state: Any, kept: Any, y: Any,
) -> None:  # fmt: skip
    """Row b, channels first to before last: y = (C h + D x) silu(z), h = exp(d A) h + d B x, d = softplus.

    Args:
        length: tokens of the row; what is behind them is not touched.
        x, delta, y: (R, T, E); delta before bias and softplus.
        gate: z, flat: entry (b, t, e) is number (b T + t) gate_row + e.
        a: (N, E), A log2(e): negative.
        inputs, outputs: (R, T, N), B and C.
        skip, bias: (E,), D and what is added to delta.
        fresh: (R, T) bool, true where a document begins; or (0, 0).
        state: (R, N, E) h before, and afterwards.
        kept: (R, ceil(T / KEEP), N, E) takes every KEEP-th state; or (0, 0, 0, 0).
    """
    tokens, width = x.shape[1], x.shape[2]
    size = a.shape[0]
    resets, keeps = fresh.shape[0] > 0, kept.shape[0] > 0
    h, rates = _scratch(size * WIDTH), _scratch(size * WIDTH)
    for e in range(first, last, WIDTH):
        for n in range(size):
            store(h, n * WIDTH, load(state, (b * size + n) * width + e))
            store(rates, n * WIDTH, load(a, n * width + e))
        d_skip, d_bias = load(skip, e), load(bias, e)
        for t in range(length):
            if keeps and t % KEEP == 0:
                at = (b * kept.shape[1] + t // KEEP) * size
                for n in range(size):
                    store(kept, (at + n) * width + e, load(h, n * WIDTH))
            if resets and fresh[b, t]:
                h[:] = _ZERO
            at, told = (b * tokens + t) * width + e, (b * tokens + t) * size
            step, u = softplus(load(delta, at) + d_bias), load(x, at)
            z = load(gate, (b * tokens + t) * gate_row + e)
            push, total_y = step * u, d_skip * u
            for n in range(size):
                now = power(step * load(rates, n * WIDTH)) * load(h, n * WIDTH) + push * spread(
                    inputs, told + n
                )
                store(h, n * WIDTH, now)
                total_y = total_y + now * spread(outputs, told + n)
            store(y, at, total_y * z * sigmoid(z))
        for n in range(size):
            store(state, (b * size + n) * width + e, load(h, n * WIDTH))


@njit(**OPTIONS)
def scan_backward(
    b: int, first: int, last: int, length: int, x: Any, delta: Any, gate: Any, gate_row: int,
    a: Any, inputs: Any, outputs: Any, skip: Any, bias: Any, fresh: Any, kept: Any, grad: Any,
    grad_x: Any, grad_delta: Any, grad_gate: Any, grad_a: Any, grad_inputs: Any, grad_outputs: Any,
    grad_skip: Any, grad_bias: Any,
) -> None:  # fmt: skip
    """Gradients of `scan`, for a row b and channels first to before last; its other arguments as there.

    Args:
        grad: (R, T, E), of y.
        grad_x, grad_delta, grad_gate: (R, T, E), written.
        grad_a: (R, N, E), of A itself, written for each row.
        grad_inputs, grad_outputs: (T, N) of this task, zeros before.
        grad_skip, grad_bias: (R, E), written for each row.
    """
    tokens, width = x.shape[1], x.shape[2]
    size = a.shape[0]
    resets = fresh.shape[0] > 0
    row = size * WIDTH
    channels = last - first
    later = _scratch(size * channels)  # of the state behind the chunk, for each channel block
    slopes = _scratch(size * channels)  # of a
    rates = _scratch(row)
    states, decays = _scratch((KEEP + 1) * row), _scratch(KEEP * row)
    into, out = _scratch(KEEP * row), _scratch(KEEP * row)
    steps, rises = _scratch(KEEP * WIDTH), _scratch(KEEP * WIDTH)
    errors = _scratch(KEEP * WIDTH)
    for e in range(first, last):
        grad_skip[b, e] = grad_bias[b, e] = _ZERO
    for chunk in range((length - 1) // KEEP, -1, -1):
        start = chunk * KEEP
        stop = min(start + KEEP, length)
        into[:] = _ZERO
        out[:] = _ZERO
        for e in range(first, last, WIDTH):
            block = (e - first) * size
            d_skip, d_bias = load(skip, e), load(bias, e)
            for n in range(size):
                store(rates, n * WIDTH, load(a, n * width + e))
                store(states, n * WIDTH, load(kept, ((b * kept.shape[1] + chunk) * size + n) * width + e))
            for t in range(start, stop):
                i = t - start
                at, told = (b * tokens + t) * width + e, (b * tokens + t) * size
                raised = load(delta, at) + d_bias
                step, u = softplus(raised), load(x, at)
                z = load(gate, (b * tokens + t) * gate_row + e)
                push, y = step * u, d_skip * u
                anew = resets and fresh[b, t]
                for n in range(size):
                    decay = power(step * load(rates, n * WIDTH))
                    if anew:
                        decay = splat(_ZERO)
                    now = decay * load(states, i * row + n * WIDTH) + push * spread(inputs, told + n)
                    store(decays, i * row + n * WIDTH, decay)
                    store(states, (i + 1) * row + n * WIDTH, now)
                    y = y + now * spread(outputs, told + n)
                s, g = sigmoid(z), load(grad, at)
                store(steps, i * WIDTH, step)
                store(rises, i * WIDTH, sigmoid(raised))
                store(errors, i * WIDTH, g * z * s)
                store(grad_gate, at, g * y * s * (z * (splat(_ONE) - s) + _ONE))
            skip_sum, bias_sum = load(grad_skip, b * width + e), load(grad_bias, b * width + e)
            for t in range(stop - 1, start - 1, -1):
                i = t - start
                at, told = (b * tokens + t) * width + e, (b * tokens + t) * size
                step, u, error = load(steps, i * WIDTH), load(x, at), load(errors, i * WIDTH)
                push = step * u
                d_push, d_step = splat(_ZERO), splat(_ZERO)
                for n in range(size):
                    spot, place = i * row + n * WIDTH, block + n * WIDTH
                    d_now = load(later, place) + error * spread(outputs, told + n)
                    store(out, spot, load(out, spot) + error * load(states, spot + row))
                    store(into, spot, load(into, spot) + d_now * push)
                    d_push = d_push + d_now * spread(inputs, told + n)
                    d_now = d_now * load(decays, spot)
                    store(later, place, d_now)
                    d_rate = d_now * load(states, spot)
                    store(slopes, place, load(slopes, place) + d_rate * step)
                    d_step = d_step + d_rate * load(rates, n * WIDTH)
                d_raised = (d_step * _LN2 + d_push * u) * load(rises, i * WIDTH)
                store(grad_delta, at, d_raised)
                store(grad_x, at, d_push * step + error * d_skip)
                skip_sum, bias_sum = skip_sum + error * u, bias_sum + d_raised
            store(grad_skip, b * width + e, skip_sum)
            store(grad_bias, b * width + e, bias_sum)
        for t in range(start, stop):
            for n in range(size):
                spot = (t - start) * row + n * WIDTH
                grad_inputs[t, n] += total(load(into, spot))
                grad_outputs[t, n] += total(load(out, spot))
    for e in range(first, last, WIDTH):
        for n in range(size):
            store(grad_a, (b * size + n) * width + e, load(slopes, (e - first) * size + n * WIDTH))


@njit(**OPTIONS)
def scan_rows(
    lengths: Any, x: Any, delta: Any, gate: Any, gate_row: int, a: Any, inputs: Any, outputs: Any, skip: Any,
    bias: Any, fresh: Any, state: Any, kept: Any, y: Any,
) -> None:  # fmt: skip
    """`scan` for all rows and channels; lengths: (R,)."""
    for b in range(len(lengths)):
        scan(
            b, 0, x.shape[2], lengths[b], x, delta, gate, gate_row, a, inputs, outputs, skip, bias, fresh,
            state, kept, y,
        )  # fmt: skip


@njit(**OPTIONS)
def scan_backward_rows(
    lengths: Any, x: Any, delta: Any, gate: Any, gate_row: int, a: Any, inputs: Any, outputs: Any, skip: Any,
    bias: Any, fresh: Any, kept: Any, grad: Any, grad_x: Any, grad_delta: Any, grad_gate: Any, grad_a: Any,
    grad_inputs: Any, grad_outputs: Any, grad_skip: Any, grad_bias: Any,
) -> None:  # fmt: skip
    """`scan_backward` for all rows and channels; grad_inputs, grad_outputs: (R, tasks of a row, T, N)."""
    width = x.shape[2]
    for b in range(len(lengths)):
        for part in range(grad_inputs.shape[1]):
            scan_backward(
                b, part * SLICE, min(part * SLICE + SLICE, width), lengths[b], x, delta, gate, gate_row, a,
                inputs, outputs, skip, bias, fresh, kept, grad, grad_x, grad_delta, grad_gate, grad_a,
                grad_inputs[b, part], grad_outputs[b, part], grad_skip, grad_bias,
            )  # fmt: skip
