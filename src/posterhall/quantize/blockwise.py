"""Blockwise quantisation: every run of `block` weights in row-major order has a scale of its own.

    q = quantize(weights, "nf4", double=True)
    q.dequantize(out=buffer)

A weight is divided by the largest magnitude of its block and becomes the nearest value of a codebook. Any
shape will do: rows need not be a multiple of the block, the last block may be shorter, and codes are packed
without gaps (two to a byte with 4 bits, the first in the higher half).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posterhall.errors import DataError
from posterhall.extras import torch
from posterhall.quantize import _kernels, _sharing
from posterhall.quantize._arrays import Source, Target
from posterhall.quantize.codebooks import Codebook, Tie, codebook
from posterhall.quantize.double import BLOCK as DOUBLE_BLOCK
from posterhall.quantize.double import LIMIT, DoubleScales, quantize_scales, worst_error

Floats = NDArray[np.float32]

LARGEST_BLOCK = 1 << 16
_PIECE = 1 << 16
"""Entries converted at a time where they are not float32: they stay in the cache."""


@dataclass(frozen=True, eq=False)
class Quantized:
    """Codes and scales of an array."""

    packed: NDArray[np.uint8]
    """(ceil(N bits / 8),): the codes of all N entries, without gaps, the highest bit first."""
    scales: Floats | DoubleScales
    """(ceil(N / block),): the largest magnitude of each block, or these quantised."""
    shape: tuple[int, ...]
    """Of the array."""
    dtype: str
    """Of the array: float32, bfloat16, float16 or float64."""
    block: int
    """Entries that share a scale."""
    code: Codebook
    """What codes stand for."""
    double_error: float | None = None
    """Where double quantisation was asked for: the largest relative error of a scale that it made, or would
    have made (then `scales` are plain)."""

    @property
    def size(self) -> int:
        """Entries N of the array."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes held, the codebook not counted."""
        return self.packed.nbytes + self.scales.nbytes

    @property
    def bits_per_parameter(self) -> float:
        """Bits held for an entry of the array, the one number a tensor has for all (the offset) included."""
        return 8 * self.nbytes / self.size

    def plain_scales(self) -> Floats:
        """(ceil(N / block),) float32, restored if they are quantised."""
        return self.scales.restore() if isinstance(self.scales, DoubleScales) else self.scales

    def codes(self) -> NDArray[np.uint8]:
        """The code of each entry, of the array's shape."""
        out = np.empty(self.size, np.uint8)
        _kernels.unpack(self.packed, self.code.bits, out)
        return out.reshape(self.shape)

    def dequantize(self, out: Any = None, *, threads: int | None = None) -> Any:
        """The array again, rounded as it was.

        Args:
            out: a contiguous array or CPU tensor of the shape, of float32, bfloat16, float16 or float64, to
                write to. Fresh memory costs several times as much as filling it: give one and use it again.
            threads: to use; by default as many as torch uses, or as there are cores.

        Returns:
            `out`, or a new array of float32.

        Raises:
            DataError: if `out` has another shape, or cannot be written to as it lies.
        """
        if out is None:
            out = np.empty(self.shape, np.float32)
        self._decode(Target(out, self.shape), 0, self.size, self.plain_scales(), _sharing.count(threads))
        return out

    def tensor(self, dtype: Any = None, *, threads: int | None = None) -> torch.Tensor:
        """A new tensor of torch, of the array's own type or another (a `torch.dtype`)."""
        kind = getattr(torch, self.dtype) if dtype is None else dtype
        filled: torch.Tensor = self.dequantize(torch.empty(self.shape, dtype=kind), threads=threads)
        return filled

    def decode_rows(
        self, first: int, last: int, out: Any, *, scales: Floats | None = None, threads: int | None = None
    ) -> None:
        """Restore the rows from `first` to `last` (not included) alone.

        Args:
            first: its first entry must be the first of a block.
            last: its first entry too, unless it is the number of rows.
            out: as of `dequantize`, of shape (last - first, ...).
            scales: `plain_scales()`, if you have them.
            threads: as of `dequantize`.

        Raises:
            DataError: if the rows are not there, or begin or end inside a block.
        """
        rows, width = (self.shape or (1,))[0], math.prod(self.shape[1:])
        if (
            not 0 <= first < last <= rows
            or first * width % self.block
            or (last < rows and last * width % self.block)
        ):
            raise DataError(
                f"rows {first} to {last} of {rows}, of {width} entries each: they must be there, and begin "
                f"and end with a block of {self.block}"
            )
        own = self.plain_scales() if scales is None else scales
        target = Target(out, (last - first, *self.shape[1:]))
        self._decode(target, first * width, last * width, own, _sharing.count(threads))

    def _decode(self, target: Target, begin: int, end: int, scales: Floats, threads: int) -> None:
        """Entries begin to end, whole blocks except at the end, to the front of `target`."""
        size, bits, table = self.block, self.code.bits, self.code.table
        first, blocks = begin // size, (end - begin) // size
        width = size * bits // 8

        def work(here: int, there: int) -> int:
            rows = there - here
            packed = self.packed[(first + here) * width : (first + there) * width].reshape(rows, width)
            own = scales[first + here : first + there]
            if direct:
                values = target.flat[here * size : there * size].reshape(rows, size)
            else:
                values = np.empty((rows, size), np.float32)
            if bits == 4:
                _kernels.decode4(packed, table, own, values)
            else:
                _kernels.decode(packed, bits, table, own, values)
            if not direct:
                target.write(here * size, values.reshape(-1))
            return -1

        direct = target.dtype == "float32"
        _sharing.share(work, blocks, size, threads, blocks if direct else max(1, _PIECE // size))
        left = end - begin - blocks * size
        if left:
            tail = np.empty((1, left), np.float32)
            packed = self.packed[(first + blocks) * width :].reshape(1, -1)
            _kernels.decode(packed, bits, table, scales[first + blocks : first + blocks + 1], tail)
            target.write(blocks * size, tail[0])


def quantize(
    x: Any,
    code: str | Codebook | ArrayLike = "nf4",
    *,
    block: int = 64,
    double: bool = False,
    tie: Tie = "down",
    limit: float = LIMIT,
    threads: int | None = None,
) -> Quantized:
    """Quantise an array in blocks.

    NF4 and FP4 come out bit for bit as from bitsandbytes 0.50: whole blocks are multiplied by the reciprocal
    of their scale, a last shorter one is divided by it. Blocks with a scale below 1e-37 are divided too, so
    that they keep their values; bitsandbytes loses them.

    Args:
        x: an array, or a tensor of torch, of float32, bfloat16, float16 or float64 (taken as float32), of any
            shape that is not empty.
        code: the name of a codebook, or one of your own; see `codebook`.
        block: entries that share a scale: a multiple of 8, at most 65,536. QLoRA has 64.
        double: quantise the scales too: 4.127 bits a parameter instead of 4.5.
        tie: where a weight goes that lies midway between two values; `down` is bitsandbytes' rule.
        limit: the largest relative error of a scale at which `double` is kept, > 0; infinity always does.
        threads: to use; by default as many as torch uses, or as there are cores.

    Raises:
        DataError: for a number that is not finite (with its place), an empty array, numbers that are not
            floating-point, an unknown or unfit codebook, or settings out of range.
    """
    book = codebook(code)
    if not 8 <= block <= LARGEST_BLOCK or block % 8:
        raise DataError(f"block is {block}; it must be a multiple of 8 from 8 to {LARGEST_BLOCK}")
    if not limit > 0:
        raise DataError(f"limit is {limit}; it must be above 0")
    source = Source(x)
    size = math.prod(source.shape)
    packed = np.empty(-(-size * book.bits // 8), np.uint8)
    scales = np.empty(-(-size // block), np.float32)
    _encode(source, book, block, tie, packed, scales, _sharing.count(threads))
    if not double:
        return Quantized(packed, scales, source.shape, source.dtype, block, book)
    nested = quantize_scales(scales)
    error = worst_error(scales, nested.restore())
    kept: Floats | DoubleScales = nested if error <= limit else scales
    return Quantized(packed, kept, source.shape, source.dtype, block, book, double_error=error)


def bits_per_parameter(bits: int = 4, block: int = 64, *, double: bool = False) -> float:
    """Bits a parameter costs, for tensors that are a whole number of blocks.

    4 bits in blocks of 64: 4 + 32 / 64 = 4.5, and with double quantisation
    4 + 8 / 64 + 32 / (64 · 256) = 4.126953125.
    """
    return bits + (8 / block + 32 / (block * DOUBLE_BLOCK) if double else 32 / block)


def _encode(
    source: Source,
    book: Codebook,
    block: int,
    tie: Tie,
    packed: NDArray[np.uint8],
    scales: Floats,
    threads: int,
) -> None:
    bits, size = book.bits, math.prod(source.shape)
    blocks, width = size // block, block * bits // 8
    bounds, filler = book.bounds(tie), book.code_of_zero(tie)
    mapped = bool((book.patterns != np.arange(len(book.patterns))).any())
    if bits == 4:
        padded = np.full(18, np.inf, np.float32)
        padded[:15] = bounds
        patterns = np.resize(book.patterns, 16)
        pairs = np.bitwise_or.outer(patterns << 4, patterns).reshape(-1)

    def work(here: int, there: int) -> int:
        values = source.floats(here * block, there * block).reshape(there - here, block)
        out = packed[here * width : there * width].reshape(there - here, width)
        own = scales[here:there]
        if bits == 4:
            bad = _kernels.encode4(values, padded, pairs, mapped, own, out)
        else:
            bad = _kernels.encode(values, bits, bounds, book.patterns, filler, False, own, out)
        return int(bad) + here if bad != _kernels.GOOD else -1

    direct = source.dtype == "float32"
    bad = _sharing.share(work, blocks, block, threads, blocks if direct else max(1, _PIECE // block))
    if bad >= 0:
        raise source.refuse(bad * block, (bad + 1) * block)
    left = size - blocks * block
    if left:
        tail = source.floats(blocks * block, size).reshape(1, left)
        out = packed[blocks * width :].reshape(1, -1)
        own = scales[blocks:]
        if _kernels.encode(tail, bits, bounds, book.patterns, filler, False, own, out) != _kernels.GOOD:
            raise source.refuse(blocks * block, size)
