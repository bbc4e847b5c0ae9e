"""The selective scan as one pass each way, for float32 arrays on a CPU, 16 channels at a time.

Forward, everything between the projections: softplus of the step, the recurrence, the skip and the gate; a
channel block's states stay in the first-level cache. Backward, states are computed anew, from a copy kept
every `KEEP` tokens, so memory never holds a state for each token: two blocks of channels and two entries of
the state at a time, through a chunk and back, so that what flows from token to token stays in registers, and
sums over channels are read and written once for all four. Arrays are contiguous but where a row distance is
an argument.

Rows b of a batch and slices of channels are independent tasks; each has its own sums for what all channels
share (B, C), so results do not depend on who computes them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from posterhall.models.mixers._lanes import (
    WIDTH,
    fold,
    load,
    power,
    sigmoid,
    softplus,
    softplus_slope,
    splat,
    spread,
    store,
)

KEEP = 64
"""Tokens from one kept state to the next. With fewer, filling the processor's pipeline shows (16: a quarter
slower backward); what is held of a chunk meanwhile fits the second-level cache."""
SLICE = 512
"""Channels of a task."""
_PAIR = 2 * WIDTH
"""Channels that the backward pass takes at a time."""
_HALF = WIDTH // 2
_ROOM = KEEP * _PAIR
# What the backward pass holds of each token of a chunk and each channel of a pair: d, d x, the gradient of
# C h + D x, C h + D x, the gradients of d x and d, x, the slope of softplus, and the gate's slope.
_STEP, _PUSH, _ERROR, _OUT, _TO_PUSH, _TO_STEP, _INPUT, _RISE, _GATE = [i * _ROOM for i in range(9)]

OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "boundscheck": False, "error_model": "numpy"}
_ONE = np.float32(1.0)
_ZERO = np.float32(0.0)
_LN2, _LOG2E = np.float32(0.6931471805599453), np.float32(1.4426950408889634)


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
        a: (N, E), negative.
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
            store(rates, n * WIDTH, load(a, n * width + e) * _LOG2E)
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
    grad_skip: Any, grad_bias: Any, grad_state: Any,
) -> None:  # fmt: skip
    """Gradients of `scan`, for a row b and channels first to before last; its other arguments as there.

    Args:
        grad: (R, T, E), of y.
        grad_x, grad_delta, grad_gate: (R, T, E), written.
        grad_a: (R, N, E), of A itself, written for each row.
        grad_inputs, grad_outputs: (T, N) of this task, written.
        grad_skip, grad_bias: (R, E), written for each row.
        grad_state: (R, N, E), of the state afterwards; becomes that of the one before.
    """
    width, size = x.shape[2], a.shape[0]
    even = size + size % 2  # the state's entries are taken two by two
    pairs = (last - first + _PAIR - 1) // _PAIR
    block = even * _PAIR
    later, slopes = _scratch(pairs * block), _scratch(pairs * block)  # of the state behind the chunk; of a
    rates, told = _scratch(block), _scratch(9 * _ROOM)
    states, decays = _scratch(KEEP * 2 * _PAIR), _scratch(KEEP * 2 * _PAIR)
    sums = _scratch(KEEP * even * _HALF)  # for B and C: four lanes of each of two entries
    b_chunk, c_chunk = _scratch(KEEP * even), _scratch(KEEP * even)
    begins = np.zeros(KEEP, np.bool_)
    for e in range(first, last, WIDTH):
        store(grad_skip, b * width + e, splat(_ZERO))
        store(grad_bias, b * width + e, splat(_ZERO))
        place = (e - first) // _PAIR * block + (e - first) % _PAIR
        for n in range(size):
            store(later, place + n * _PAIR, load(grad_state, (b * size + n) * width + e))
    grad_inputs[length:] = _ZERO
    grad_outputs[length:] = _ZERO
    for chunk in range((length - 1) // KEEP, -1, -1):
        start = chunk * KEEP
        count = min(KEEP, length - start)
        sums[:] = _ZERO
        for i in range(count):
            begins[i] = fresh.shape[0] > 0 and fresh[b, start + i]
            for n in range(size):
                b_chunk[i * even + n] = inputs[b, start + i, n]
                c_chunk[i * even + n] = outputs[b, start + i, n]
        for pair in range(pairs):
            e = first + pair * _PAIR
            sides = 2 if e + WIDTH < last else 1
            for side in range(2):
                lane = side * WIDTH
                for n in range(size):
                    rate = load(a, n * width + e + lane) * _LOG2E if side < sides else splat(_ZERO)
                    store(rates, n * _PAIR + lane, rate)
                if side < sides:
                    _tell(
                        b, start, count, e, lane, x, delta, gate, gate_row, skip, bias, grad, told, grad_skip
                    )
                else:  # there are no such channels: nothing comes of them
                    for i in range(count):
                        store(told, _STEP + i * _PAIR + lane, splat(_ZERO))
                        store(told, _PUSH + i * _PAIR + lane, splat(_ZERO))
                        store(told, _ERROR + i * _PAIR + lane, splat(_ZERO))
            place = ((b * kept.shape[1] + chunk) * size) * width + e
            for n in range(0, even, 2):
                _there_and_back(
                    count, sides, min(2, size - n), kept, place + n * width, width, rates, n * _PAIR,
                    begins, b_chunk, c_chunk, even, n, told, states, decays, sums, later, slopes,
                    pair * block + n * _PAIR,
                )  # fmt: skip
            for side in range(sides):
                _ask(b, start, count, e, side * WIDTH, skip, told, grad_x, grad_delta, grad_gate, grad_bias)
        for i in range(count):
            for n in range(size):
                fours = sums[(i * even + n - n % 2) * _HALF + n % 2 * 4 :]
                grad_inputs[start + i, n] = fours[:4].sum()
                grad_outputs[start + i, n] = fours[_HALF : _HALF + 4].sum()
    for e in range(first, last, WIDTH):
        place = (e - first) // _PAIR * block + (e - first) % _PAIR
        for n in range(size):
            store(grad_a, (b * size + n) * width + e, load(slopes, place + n * _PAIR))
            store(grad_state, (b * size + n) * width + e, load(later, place + n * _PAIR))


@njit(**OPTIONS)
def _tell(
    b: int, start: int, count: int, e: int, lane: int, x: Any, delta: Any, gate: Any, gate_row: int,
    skip: Any, bias: Any, grad: Any, told: Any, grad_skip: Any,
) -> None:  # fmt: skip
    """Write down what does not depend on the state, of 16 channels and a chunk's tokens."""
    tokens, width = x.shape[1], x.shape[2]
    e += lane
    d_skip, d_bias = load(skip, e), load(bias, e)
    skip_sum = load(grad_skip, b * width + e)
    for i in range(count):
        row, spot = b * tokens + start + i, i * _PAIR + lane
        at = row * width + e
        step, rise = softplus_slope(load(delta, at) + d_bias)
        u, z, slope = load(x, at), load(gate, row * gate_row + e), load(grad, at)
        s = sigmoid(z)
        error = slope * z * s
        store(told, _STEP + spot, step)
        store(told, _RISE + spot, rise)
        store(told, _INPUT + spot, u)
        store(told, _PUSH + spot, step * u)
        store(told, _ERROR + spot, error)
        store(told, _GATE + spot, slope * s * (z * (splat(_ONE) - s) + _ONE))
        store(told, _OUT + spot, d_skip * u)
        store(told, _TO_PUSH + spot, splat(_ZERO))
        store(told, _TO_STEP + spot, splat(_ZERO))
        skip_sum = skip_sum + error * u
    store(grad_skip, b * width + e, skip_sum)


@njit(**OPTIONS)
def _there_and_back(
    count: int, sides: int, entries: int, kept: Any, place: int, width: int, rates: Any, m: int,
    begins: Any, inputs: Any, outputs: Any, even: int, n: int, told: Any, states: Any, decays: Any,
    sums: Any, later: Any, slopes: Any, behind: int,
) -> None:  # fmt: skip
    """Two entries n of the states of two blocks of channels: h anew through a chunk, and gradients back.

    The first digit of a name is the entry, the second the block; where one is not there (sides, entries),
    it is all zeros.
    """
    h00, h01, h10, h11 = load(kept, place), splat(_ZERO), splat(_ZERO), splat(_ZERO)
    if sides == 2:
        h01 = load(kept, place + WIDTH)
    if entries == 2:
        h10 = load(kept, place + width)
        if sides == 2:
            h11 = load(kept, place + width + WIDTH)
    r00, r01 = load(rates, m), load(rates, m + WIDTH)
    r10, r11 = load(rates, m + _PAIR), load(rates, m + _PAIR + WIDTH)
    for i in range(count):
        at, spot = i * _PAIR, i * 2 * _PAIR
        s0, s1 = load(told, _STEP + at), load(told, _STEP + at + WIDTH)
        d00, d01, d10, d11 = power(s0 * r00), power(s1 * r01), power(s0 * r10), power(s1 * r11)
        if begins[i]:
            d00, d01, d10, d11 = splat(_ZERO), splat(_ZERO), splat(_ZERO), splat(_ZERO)
        store(decays, spot, d00)
        store(decays, spot + WIDTH, d01)
        store(decays, spot + _PAIR, d10)
        store(decays, spot + _PAIR + WIDTH, d11)
        store(states, spot, h00)
        store(states, spot + WIDTH, h01)
        store(states, spot + _PAIR, h10)
        store(states, spot + _PAIR + WIDTH, h11)
        p0, p1 = load(told, _PUSH + at), load(told, _PUSH + at + WIDTH)
        b0, b1 = spread(inputs, i * even + n), spread(inputs, i * even + n + 1)
        h00, h01, h10, h11 = (
            d00 * h00 + p0 * b0,
            d01 * h01 + p1 * b0,
            d10 * h10 + p0 * b1,
            d11 * h11 + p1 * b1,
        )
        c0, c1 = spread(outputs, i * even + n), spread(outputs, i * even + n + 1)
        store(told, _OUT + at, load(told, _OUT + at) + h00 * c0 + h10 * c1)
        store(told, _OUT + at + WIDTH, load(told, _OUT + at + WIDTH) + h01 * c0 + h11 * c1)
    l00, l01 = load(later, behind), load(later, behind + WIDTH)
    l10, l11 = load(later, behind + _PAIR), load(later, behind + _PAIR + WIDTH)
    g00, g01 = load(slopes, behind), load(slopes, behind + WIDTH)
    g10, g11 = load(slopes, behind + _PAIR), load(slopes, behind + _PAIR + WIDTH)
    for i in range(count - 1, -1, -1):
        at, spot, place = i * _PAIR, i * 2 * _PAIR, (i * even + n) * _HALF
        e0, e1 = load(told, _ERROR + at), load(told, _ERROR + at + WIDTH)
        to_c = fold(e0 * h00 + e1 * h01, e0 * h10 + e1 * h11)
        c0, c1 = spread(outputs, i * even + n), spread(outputs, i * even + n + 1)
        l00, l01, l10, l11 = l00 + e0 * c0, l01 + e1 * c0, l10 + e0 * c1, l11 + e1 * c1
        p0, p1 = load(told, _PUSH + at), load(told, _PUSH + at + WIDTH)
        to_b = fold(l00 * p0 + l01 * p1, l10 * p0 + l11 * p1)
        store(sums, place, load(sums, place) + fold(to_b, to_c))
        b0, b1 = spread(inputs, i * even + n), spread(inputs, i * even + n + 1)
        store(told, _TO_PUSH + at, load(told, _TO_PUSH + at) + l00 * b0 + l10 * b1)
        store(told, _TO_PUSH + at + WIDTH, load(told, _TO_PUSH + at + WIDTH) + l01 * b0 + l11 * b1)
        l00, l01 = l00 * load(decays, spot), l01 * load(decays, spot + WIDTH)
        l10, l11 = l10 * load(decays, spot + _PAIR), l11 * load(decays, spot + _PAIR + WIDTH)
        h00, h01 = load(states, spot), load(states, spot + WIDTH)
        h10, h11 = load(states, spot + _PAIR), load(states, spot + _PAIR + WIDTH)
        q00, q01, q10, q11 = l00 * h00, l01 * h01, l10 * h10, l11 * h11
        s0, s1 = load(told, _STEP + at), load(told, _STEP + at + WIDTH)
        g00, g01, g10, g11 = g00 + q00 * s0, g01 + q01 * s1, g10 + q10 * s0, g11 + q11 * s1
        store(told, _TO_STEP + at, load(told, _TO_STEP + at) + q00 * r00 + q10 * r10)
        store(told, _TO_STEP + at + WIDTH, load(told, _TO_STEP + at + WIDTH) + q01 * r01 + q11 * r11)
    store(later, behind, l00)
    store(later, behind + WIDTH, l01)
    store(later, behind + _PAIR, l10)
    store(later, behind + _PAIR + WIDTH, l11)
    store(slopes, behind, g00)
    store(slopes, behind + WIDTH, g01)
    store(slopes, behind + _PAIR, g10)
    store(slopes, behind + _PAIR + WIDTH, g11)


@njit(**OPTIONS)
def _ask(
    b: int, start: int, count: int, e: int, lane: int, skip: Any, told: Any,
    grad_x: Any, grad_delta: Any, grad_gate: Any, grad_bias: Any,
) -> None:  # fmt: skip
    """Gradients of 16 channels and a chunk's tokens, once all entries of the state have been gone through."""
    tokens, width = grad_x.shape[1], grad_x.shape[2]
    e += lane
    d_skip, bias_sum = load(skip, e), load(grad_bias, b * width + e)
    for i in range(count):
        at, spot = (b * tokens + start + i) * width + e, i * _PAIR + lane
        d_push = load(told, _TO_PUSH + spot)
        store(grad_gate, at, load(told, _GATE + spot) * load(told, _OUT + spot))
        store(grad_x, at, d_push * load(told, _STEP + spot) + load(told, _ERROR + spot) * d_skip)
        # Rates are in powers of two.
        d_step = load(told, _TO_STEP + spot) * _LN2 + d_push * load(told, _INPUT + spot)
        d_raised = d_step * load(told, _RISE + spot)
        store(grad_delta, at, d_raised)
        bias_sum = bias_sum + d_raised
    store(grad_bias, b * width + e, bias_sum)


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
    grad_inputs: Any, grad_outputs: Any, grad_skip: Any, grad_bias: Any, grad_state: Any,
) -> None:  # fmt: skip
    """`scan_backward` for all rows and channels; grad_inputs, grad_outputs: (R, tasks of a row, T, N)."""
    width = x.shape[2]
    for b in range(len(lengths)):
        for part in range(grad_inputs.shape[1]):
            scan_backward(
                b, part * SLICE, min(part * SLICE + SLICE, width), lengths[b], x, delta, gate, gate_row, a,
                inputs, outputs, skip, bias, fresh, kept, grad, grad_x, grad_delta, grad_gate, grad_a,
                grad_inputs[b, part], grad_outputs[b, part], grad_skip, grad_bias, grad_state,
            )  # fmt: skip
