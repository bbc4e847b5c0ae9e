"""What quantising costs: the error, and how well the codes are used."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.errors import DataError
from posterhall.quantize._arrays import Source
from posterhall.quantize.blockwise import Quantized

_PIECE = 1 << 20


@dataclass(frozen=True)
class ErrorReport:
    """Errors of a quantised array against the original, and the use of its codes."""

    code: str
    """Name of the codebook."""
    block: int
    """Entries that share a scale."""
    bits_per_parameter: float
    """Bits held for an entry."""
    relative_rmse: float
    """sqrt(sum of squared errors / sum of squares); 0 for an array of zeros."""
    mean_abs: float
    """Mean magnitude of the error, in units of the weights."""
    max_abs: float
    """Largest magnitude of the error, in units of the weights."""
    snr_db: float
    """Signal to noise, -20 log10 of relative_rmse, in dB; infinity where there is no error."""
    entropy_bits: float
    """Entropy of the distribution of codes, in bits: with a width of 4, at most 4. NF4 is said to put equal
    mass into each bin; under scales by the largest of a block it does not: 3.88 on N(0, 1) at 64."""
    mass: tuple[float, ...]
    """Share of the entries that has each value of the codebook, in increasing order of the values."""
    double_error: float | None
    """Largest relative error of a scale by double quantisation, if that was asked for."""
    double_kept: bool
    """Whether the scales are quantised."""

    def __str__(self) -> str:
        """A few lines for people."""
        lines = [
            f"{self.code}, blocks of {self.block}: {self.bits_per_parameter:.4f} bits a parameter",
            f"relative RMSE {self.relative_rmse:.4f}, SNR {self.snr_db:.2f} dB, "
            f"mean |error| {self.mean_abs:.4g}, largest {self.max_abs:.4g}",
            f"entropy of the codes {self.entropy_bits:.3f} bits, bins from {min(self.mass):.3f} to "
            f"{max(self.mass):.3f}",
        ]
        if self.double_error is not None:
            kept = "kept" if self.double_kept else "not kept: scales stay float32"
            lines.append(f"double quantisation: scales off by at most {self.double_error:.2%}; {kept}")
        return "\n".join(lines)


def measure(x: Any, quantized: Quantized) -> ErrorReport:
    """Compare an array with what it was quantised to.

    Args:
        x: the array or tensor that was quantised.
        quantized: the result.

    Raises:
        DataError: if the shapes differ.
    """
    source = Source(x)
    if source.shape != quantized.shape:
        raise DataError(f"the array has shape {source.shape}, the quantised one {quantized.shape}")
    restored = quantized.dequantize().reshape(-1)
    squares = errors = absolute = largest = 0.0
    for begin in range(0, len(restored), _PIECE):  # in pieces: float64 of a whole layer is large
        end = min(begin + _PIECE, len(restored))
        own = source.floats(begin, end).astype(np.float64)
        off = np.abs(restored[begin:end] - own)
        squares += float(own @ own)
        errors += float(off @ off)
        absolute += float(off.sum())
        largest = max(largest, float(off.max()))
    mass = _mass(quantized)
    used = mass[mass > 0]
    relative = math.sqrt(errors / squares) if squares else 0.0
    return ErrorReport(
        code=quantized.code.name,
        block=quantized.block,
        bits_per_parameter=quantized.bits_per_parameter,
        relative_rmse=relative,
        mean_abs=absolute / quantized.size,
        max_abs=largest,
        snr_db=-20 * math.log10(relative) if relative else math.inf,
        entropy_bits=max(0.0, float(-(used * np.log2(used)).sum())),
        mass=tuple(mass.tolist()),
        double_error=quantized.double_error,
        double_kept=not isinstance(quantized.scales, np.ndarray),
    )


def _mass(quantized: Quantized) -> NDArray[np.float64]:
    """Share of each distinct value; the two zeros of a floating-point code are one."""
    book = quantized.code
    counts = np.bincount(quantized.codes().reshape(-1), minlength=len(book.table))
    values = book.values
    where = np.searchsorted(values, book.ranked)
    mass = np.zeros(len(values))
    np.add.at(mass, where, counts[book.patterns])
    return mass / quantized.size
