"""Double quantisation: the scales of blocks, quantised themselves (Dettmers et al. 2023, QLoRA, §3).

The mean of all scales is taken off, and what is left is quantised in blocks of 256 to the 8-bit dynamic map.
That makes the error of a scale absolute: where a tensor's rows span several orders of magnitude, small rows
lose their scale altogether. So the error is measured, and a tensor where it is too large keeps its scales.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posterhall.errors import DataError
from posterhall.quantize import _kernels
from posterhall.quantize.codebooks import Codebook, codebook

Floats = NDArray[np.float32]

BLOCK = 256
"""Scales that share a scale."""
LIMIT = 0.1
"""Largest relative error of a scale that is let pass: about that of NF4 itself."""


@dataclass(frozen=True, eq=False)
class DoubleScales:
    """Quantised scales of blocks."""

    packed: NDArray[np.uint8]
    """(blocks,): a code each."""
    scales: Floats
    """(ceil(blocks / block),): the largest deviation from the mean in each block of scales."""
    offset: float
    """The mean, a float32."""
    code: Codebook
    """Of 8 bits."""
    block: int = BLOCK
    """Scales that share one of `scales`."""

    @property
    def nbytes(self) -> int:
        """Bytes held, the codebook not counted."""
        return self.packed.nbytes + self.scales.nbytes + 4

    def restore(self) -> Floats:
        """The scales, (blocks,)."""
        out = np.empty(len(self.packed), np.float32)
        full = len(out) // self.block * self.block
        table = self.code.table
        for begin, end, size in ((0, full, self.block), (full, len(out), len(out) - full)):
            if end > begin:
                blocks = (end - begin) // size
                first = begin // self.block
                _kernels.decode(
                    self.packed[begin:end].reshape(blocks, size), 8, table,
                    self.scales[first : first + blocks], out[begin:end].reshape(blocks, size),
                )  # fmt: skip
        out += np.float32(self.offset)
        return out


def quantize_scales(scales: Floats, *, offset: float | None = None) -> DoubleScales:
    """Quantise the scales of blocks.

    Args:
        scales: (blocks,), finite and not negative.
        offset: what is taken off; their mean by default. It is summed in float64 here; bitsandbytes sums in
            float32 in an order that depends on the threads, so the last bits can differ.

    Returns:
        Each with the nearest code. bitsandbytes' CPU library takes a code that can be one to three
        off near a midpoint (it rounds to 16 bits first).
    """
    code = codebook("dynamic8")
    mean = np.float32(np.mean(scales, dtype=np.float64) if offset is None else offset)
    rest = np.asarray(scales, np.float32) - mean
    packed = np.empty(len(rest), np.uint8)
    tops = np.empty(-(-len(rest) // BLOCK), np.float32)
    full = len(rest) // BLOCK * BLOCK
    bounds, filler = code.bounds(), code.code_of_zero()
    for begin, end, size in ((0, full, BLOCK), (full, len(rest), len(rest) - full)):
        if end > begin:
            blocks = (end - begin) // size
            bad = _kernels.encode(
                rest[begin:end].reshape(blocks, size), 8, bounds, code.patterns, filler, False,
                tops[begin // BLOCK : begin // BLOCK + blocks], packed[begin:end].reshape(blocks, size),
            )  # fmt: skip
            if bad != _kernels.GOOD:
                raise DataError("a scale is not finite; scales are the largest magnitudes of finite weights")
    return DoubleScales(packed, tops, float(mean), code)


def worst_error(scales: Floats, restored: Floats) -> float:
    """The largest relative error of a scale, over blocks that are not all zero; 0 if all are."""
    return float(_kernels.worst(scales, restored))
