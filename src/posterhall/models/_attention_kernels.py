"""Attention of one new token a row over keys and values of different length, for float32 arrays on a CPU.

Torch's attention takes a rectangle and a mask: every row pays for the longest, and the mask and the
positions are tensors to be made. Here each row costs what it is long, and rotation, writing down and
attending are one call, whose overhead is what a small model's step would otherwise consist of.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from posterhall.models._kernels import OPTIONS, exponential


@njit(**OPTIONS)
def attend(qkv: Any, cos: Any, sin: Any, keys: Any, values: Any, past: Any, heads: int, out: Any) -> None:
    """Turn a token's queries and keys, write down its keys and values, and attend to all of its row.

    Args:
        qkv: (B, heads + 2 kv_heads, H).
        cos, sin: (L, H / 2), by position.
        keys, values: (R >= B, kv_heads, L, H); row b gets one more, at past[b].
        past: (B,) tokens of each row so far.
        heads: query heads.
        out: (B, heads, H), written.
    """
    rows, width, size = qkv.shape
    kv_heads = (width - heads) // 2
    group = heads // kv_heads
    half = size // 2
    scale = np.float32(1.0 / np.sqrt(np.float64(size)))
    longest = 0
    for row in range(rows):
        longest = max(longest, past[row] + 1)
    weights = np.empty(longest, np.float32)
    query = np.empty(size, np.float32)
    for row in range(rows):
        at = past[row]
        turn_cos, turn_sin = cos[at], sin[at]
        for head in range(kv_heads):
            read, told = keys[row, head], values[row, head]
            key, value = read[at], told[at]
            given, said = qkv[row, heads + head], qkv[row, heads + kv_heads + head]
            for i in range(half):
                first, second = given[i], given[i + half]
                key[i] = first * turn_cos[i] - second * turn_sin[i]
                key[i + half] = second * turn_cos[i] + first * turn_sin[i]
            for i in range(size):
                value[i] = said[i]
            for inner in range(group):
                asked = qkv[row, head * group + inner]
                for i in range(half):
                    first, second = asked[i] * scale, asked[i + half] * scale
                    query[i] = first * turn_cos[i] - second * turn_sin[i]
                    query[i + half] = second * turn_cos[i] + first * turn_sin[i]
                most = np.float32(-np.inf)
                for place in range(at + 1):
                    other = read[place]
                    dot = np.float32(0.0)
                    for i in range(size):
                        dot += query[i] * other[i]
                    weights[place] = dot
                    most = max(most, dot)
                for place in range(at + 1):
                    weights[place] = exponential(weights[place] - most)
                total = np.float32(0.0)
                for place in range(at + 1):
                    total += weights[place]
                result = out[row, head * group + inner]
                for i in range(size):
                    result[i] = np.float32(0.0)
                for place in range(at + 1):
                    other, weight = told[place], weights[place]
                    for i in range(size):
                        result[i] += weight * other[i]
                inverse = np.float32(1.0) / total
                for i in range(size):
                    result[i] *= inverse
