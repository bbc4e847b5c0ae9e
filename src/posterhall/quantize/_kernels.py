"""Blocks of float32 to packed codes and back (numba; every kernel releases the GIL).

A block is a row: arrays are (blocks, block) and (blocks, bytes of a block), and loops run over a row taken
as a view, which is what lets LLVM vectorise them. Codes are packed without gaps, the highest bit first, so
that of two codes of 4 bits the first is the higher half of the byte.

`scales` holds the largest magnitude of each block. It is found on the integers behind the floats, whose order
is that of the magnitudes once the sign is masked; one above `_INFINITY` is a NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from posterhall.quantize import _permute_kernels as permute

OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "boundscheck": False, "error_model": "numpy"}
GOOD = -1
_MAGNITUDE, _INFINITY = np.int32(0x7FFFFFFF), np.int32(0x7F800000)
_ONE, _ZERO = np.float32(1.0), np.float32(0.0)
_SMALLEST = np.float32(1e-37)
"""Scales below this have no good reciprocal in float32."""


@njit(**OPTIONS)
def _largest(row: Any) -> Any:
    """Bits of the largest magnitude of float32 `row`."""
    bits = row.view(np.int32)
    most = np.int32(0)
    for i in range(bits.size):
        most = np.int32(max(most, bits[i] & _MAGNITUDE))
    return most


@njit(**OPTIONS)
def _encode_pairs(row: Any, inverse: Any, bounds: Any, begin: Any, ranks: Any, out: Any) -> None:
    """Ranks of row[begin:] times `inverse`, two to a byte; the row is of even length."""
    b0, b1, b2, b3, b4 = bounds[0], bounds[1], bounds[2], bounds[3], bounds[4]
    b5, b6, b7, b8, b9 = bounds[5], bounds[6], bounds[7], bounds[8], bounds[9]
    b10, b11, b12, b13, b14 = bounds[10], bounds[11], bounds[12], bounds[13], bounds[14]
    for i in range(begin, row.size):
        value = row[i] * inverse
        # Selecting the next bound keeps four comparisons an entry, without a jump or a look-up.
        a = value > b7
        b = value > (b11 if a else b3)
        c = value > ((b13 if b else b9) if a else (b5 if b else b1))
        upper = (b14 if c else b12) if b else (b10 if c else b8)
        lower = (b6 if c else b4) if b else (b2 if c else b0)
        d = value > (upper if a else lower)
        ranks[i] = (
            np.uint8(a) * np.uint8(8) + np.uint8(b) * np.uint8(4) + np.uint8(c) * np.uint8(2) + np.uint8(d)
        )
    for i in range(begin >> 1, row.size >> 1):
        out[i] = np.uint8((ranks[2 * i] << np.uint8(4)) | ranks[2 * i + 1])


def _encode4(wide: bool) -> Callable[..., Any]:
    @njit(**OPTIONS)
    def encode4(x: Any, bounds: Any, pairs: Any, mapped: Any, scales: Any, out: Any) -> Any:
        """Quantise x (B, S) into out (B, S / 2) with codes of 4 bits; S is even.

        bounds: (18,), see `permute.encode32`. pairs: (256,), the byte of two codes for that of two ranks,
        used if `mapped`. Returns the first block that holds a NaN or an infinity, or GOOD.
        """
        blocks, size = x.shape
        ranks = np.empty(size, np.uint8)
        scaled = np.empty(size, np.float32)
        bulk = size // 32 * 32 if wide else 0
        for block in range(blocks):
            row, packed = x[block], out[block]
            most = _largest(row)
            if most >= _INFINITY:
                return block
            scale = np.int32(most).view(np.float32)
            scales[block] = scale
            if scale >= _SMALLEST:
                inverse = _ONE / scale
            else:
                for i in range(size):
                    scaled[i] = row[i] / scale if scale > _ZERO else _ZERO
                row, inverse = scaled, _ONE
            if wide:
                for i in range(0, bulk, 32):
                    permute.encode32(row, i, inverse, bounds, packed, i >> 1)
            if bulk < size:
                _encode_pairs(row, inverse, bounds, bulk, ranks, packed)
            if mapped:
                for i in range(size >> 1):
                    packed[i] = pairs[packed[i]]
        return GOOD

    compiled: Callable[..., Any] = encode4
    return compiled


def _decode4(wide: bool) -> Callable[..., Any]:
    @njit(**OPTIONS)
    def decode4(packed: Any, table: Any, scales: Any, out: Any) -> None:
        """out (B, S) = the values of packed (B, S / 2), codes of 4 bits, times the scales."""
        blocks, size = out.shape
        bulk = size // 32 * 32 if wide else 0
        for block in range(blocks):
            row, codes, scale = out[block], packed[block], scales[block]
            if wide:
                for i in range(0, bulk, 32):
                    permute.decode32(codes, i >> 1, scale, table, row, i)
            for i in range(bulk >> 1, size >> 1):
                code = codes[i]
                row[2 * i] = table[code >> 4] * scale
                row[2 * i + 1] = table[code & 15] * scale

    compiled: Callable[..., Any] = decode4
    return compiled


encode4_plain, decode4_plain = _encode4(False), _decode4(False)
encode4 = _encode4(True) if permute.HERE else encode4_plain
decode4 = _decode4(True) if permute.HERE else decode4_plain


@njit(**OPTIONS)
def encode(
    x: Any, bits: Any, bounds: Any, patterns: Any, filler: Any, reciprocal: Any, scales: Any, out: Any
) -> Any:
    """Quantise x (B, S) into out (B, ceil(S bits / 8)) with codes of any width.

    bounds: (2^bits - 1,). patterns: the code of each rank. filler: the code that fills the last byte.
    reciprocal: multiply by 1 / scale instead of dividing by it. Returns as `encode4`.
    """
    blocks, size = x.shape
    scaled = np.empty(size, np.float32)
    ranks = np.empty(size, np.uint32)
    for block in range(blocks):
        row, packed = x[block], out[block]
        most = _largest(row)
        if most >= _INFINITY:
            return block
        scale = np.int32(most).view(np.float32)
        scales[block] = scale
        if scale == _ZERO:
            scaled[:] = _ZERO
        elif reciprocal and scale >= _SMALLEST:
            inverse = _ONE / scale
            for i in range(size):
                scaled[i] = row[i] * inverse
        else:
            for i in range(size):
                scaled[i] = row[i] / scale
        ranks[:] = 0
        step = np.uint32(1) << np.uint32(bits - 1)
        while (
            step > 0
        ):  # all entries at once, a bit of the rank at a time; unsigned, so that it is vectorised
            for i in range(size):
                rank = ranks[i] + step
                ranks[i] = rank if scaled[i] > bounds[rank - np.uint32(1)] else ranks[i]
            step >>= np.uint32(1)
        _pack(ranks, bits, patterns, filler, packed)
    return GOOD


@njit(**OPTIONS)
def _pack(ranks: Any, bits: Any, patterns: Any, filler: Any, out: Any) -> None:
    if bits == 8:
        for i in range(ranks.size):
            out[i] = patterns[ranks[i]]
        return
    held, have, at = np.int64(0), 0, 0
    for i in range(ranks.size):
        held = (held << bits) | np.int64(patterns[ranks[i]])
        have += bits
        if have >= 8:
            have -= 8
            out[at] = np.uint8(held >> have)
            held &= (1 << have) - 1
            at += 1
    while have > 0:  # the byte is filled with codes of zero
        held = (held << bits) | np.int64(filler)
        have += bits
        if have >= 8:
            out[at] = np.uint8(held >> (have - 8))
            return


@njit(**OPTIONS)
def decode(packed: Any, bits: Any, table: Any, scales: Any, out: Any) -> None:
    """out (B, S) = the values of packed (B, ceil(S bits / 8)), codes of any width, times the scales."""
    blocks, size = out.shape
    mask = (1 << bits) - 1
    for block in range(blocks):
        row, codes, scale = out[block], packed[block], scales[block]
        if bits == 8:
            for i in range(size):
                row[i] = table[codes[i]] * scale
            continue
        held, have, at = np.int64(0), 0, 0
        for i in range(size):
            if have < bits:
                held = ((held << 8) | np.int64(codes[at])) & 0xFFFF
                have += 8
                at += 1
            have -= bits
            row[i] = table[(held >> have) & mask] * scale


@njit(**OPTIONS)
def unpack(packed: Any, bits: Any, out: Any) -> None:
    """Codes of packed bytes, one to an entry of out (N,)."""
    mask = (1 << bits) - 1
    held, have, at = np.int64(0), 0, 0
    for i in range(out.size):
        if have < bits:
            held = ((held << 8) | np.int64(packed[at])) & 0xFFFF
            have += 8
            at += 1
        have -= bits
        out[i] = (held >> have) & mask


@njit(**OPTIONS)
def worst(true: Any, near: Any) -> Any:
    """The largest |near - true| / true over entries (N,) with true > 0; 0 if there are none."""
    most = _ZERO
    for i in range(true.size):
        off = abs(near[i] - true[i]) / true[i] if true[i] > _ZERO else _ZERO
        most = off if off > most else most
    return most


@njit(**OPTIONS)
def round_to_bfloat16(values: Any, out: Any) -> None:
    """The upper halves of float32 `values`, rounded to nearest, ties to even; out (N,) uint16."""
    bits = values.view(np.uint32)
    for i in range(bits.size):
        b = bits[i]
        out[i] = np.uint16((b + np.uint32(0x7FFF) + ((b >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))
