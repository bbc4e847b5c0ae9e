"""Codebooks: the few numbers between -1 and 1 that a quantised weight may be, times its block's scale.

    nf4 = codebook("nf4")
    mine = codebook([-1, -0.3, 0, 0.3, 1])

What is known of them: NF4 is what QLoRA released, not what its Eq. 4 prints (that one is infinite at both
ends, see `normal_float`); bitsandbytes' FP4 is not the FP4 of the Open Compute Project (`e2m1`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from posterhall.errors import DataError, did_you_mean

Tie = Literal["down", "up"]
Floats = NDArray[np.float32]

NF4_OFFSET = 929 / 960
"""Where the outermost quantile of NF4 lies: the mean of 1 - 1/32 and 1 - 1/30, the middles of the last of
16 and of 15 bins. A quantile of 1 would be infinite; the released type uses this, written as 0.9677083."""

_NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023,
    1.0,
)  # fmt: skip
_AF4 = (
    -1.0, -0.69441008, -0.51243739, -0.3736951, -0.25607552, -0.14982478, -0.04934812, 0.0, 0.04273164,
    0.12934483, 0.21961274, 0.31675666, 0.42563882, 0.55496234, 0.72424863, 1.0,
)  # fmt: skip
_FP4_BY_BITS = (0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0)
_E2M1_BY_BITS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_E3M0_BY_BITS = (0.0, *(2.0**k for k in range(-2, 5)))
MOST = 256
"""Values that fit a code of 8 bits."""


@dataclass(frozen=True, eq=False)
class Codebook:
    """Values, and the bit pattern that stands for each.

    Made by `codebook`, which checks what it is given.
    """

    name: str
    """As in `NAMES`, or "custom"."""
    bits: int
    """Of a code, 1 to 8."""
    ranked: Floats
    """The values in increasing order, shape (n,), 2 <= n <= 2^bits; the largest magnitude is 1."""
    patterns: NDArray[np.uint8]
    """(n,): the code of each of `ranked`."""

    @functools.cached_property
    def table(self) -> Floats:
        """(2^bits,): the value of each code; 0 for a code that is never written."""
        table = np.zeros(1 << self.bits, np.float32)
        table[self.patterns] = self.ranked
        return table

    @property
    def values(self) -> Floats:
        """The distinct values, in increasing order."""
        return np.unique(self.ranked)

    def bounds(self, tie: Tie = "down") -> Floats:
        """(2^bits - 1,): a scaled weight has the rank of as many bounds as lie below it.

        They are the midpoints of neighbours, in float32, then infinity. A weight on a midpoint goes to the
        lower value (`down`: what bitsandbytes does) or the upper one (`up`).
        """
        middles = (self.ranked[:-1] + self.ranked[1:]) / np.float32(2)
        if tie == "up":
            middles = np.nextafter(middles, np.float32(-np.inf))
        elif tie != "down":
            raise DataError(f"tie is {tie!r}; it must be 'down' or 'up'")
        bounds = np.full((1 << self.bits) - 1, np.inf, np.float32)
        bounds[: len(middles)] = middles
        return bounds

    def code_of_zero(self, tie: Tie = "down") -> int:
        """What a weight of 0 becomes, which is also what fills the last byte."""
        return int(self.patterns[np.searchsorted(self.bounds(tie), np.float32(0.0))])


def codebook(
    given: str | Codebook | ArrayLike, *, normalize: bool = False, partial: bool = False
) -> Codebook:
    """A codebook by its name, or from your own values.

    Args:
        given: one of `NAMES`, or 2 to 256 values in increasing order, or a codebook (returned as it is).
        normalize: divide your values by their largest magnitude; without it that must be 1.
        partial: accept values without 0 (zeros do not stay zero), -1 or 1 (weights there saturate).

    Raises:
        DataError: for a name that is not known; for values that are not finite, increasing and distinct, or
            that lack what a codebook should have.
    """
    if isinstance(given, Codebook):
        return given
    if isinstance(given, str):
        if given not in NAMES:
            raise DataError(
                f"no codebook {given!r};{did_you_mean(given, NAMES)} There are {', '.join(NAMES)}; "
                "or give the values"
            )
        return _made(given)
    try:
        values = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        raise DataError(f"a codebook is a name or a list of numbers, not {given!r:.60}") from None
    if values.ndim != 1 or not 2 <= len(values) <= MOST:
        raise DataError(f"a codebook has 2 to {MOST} values in one row; this one has shape {values.shape}")
    if not np.isfinite(values).all():
        at = int(np.flatnonzero(~np.isfinite(values))[0])
        raise DataError(f"value {at} of the codebook is {values[at]}; all must be finite")
    largest = float(np.abs(values).max())
    if normalize and largest > 0:
        values = values / largest
    elif largest != 1.0:
        raise DataError(
            f"the largest magnitude in the codebook is {largest:g}; it must be 1, because a block is divided "
            "by its largest weight. Divide the values, or pass normalize=True"
        )
    ranked = values.astype(np.float32)
    steps = np.diff(ranked)
    if (steps <= 0).any():
        at = int(np.argmax(steps <= 0))
        wrong = "repeats" if steps[at] == 0 else "is not above"
        raise DataError(
            f"value {at + 1} of the codebook ({ranked[at + 1]:g}) {wrong} value {at} ({ranked[at]:g}); "
            "values must be distinct and in increasing order. Sort them"
        )
    missing = [f"{each:g}" for each in (-1.0, 0.0, 1.0) if each not in ranked]
    if missing and not partial:
        raise DataError(
            f"the codebook lacks {' and '.join(missing)}: zeros would not stay zero, or the largest weights "
            "of a block would be cut. Add the values, or pass partial=True if that is meant"
        )
    return _ranked("custom", ranked)


def normal_float(bits: int = 4, offset: float = NF4_OFFSET) -> Floats:
    """The values of NormalFloat, constructed from quantiles of N(0, 1).

    2^(bits-1) positive values, the quantiles of as many evenly spaced probabilities from 1/2 (not taken,
    it is 0) to `offset`; 2^(bits-1) - 1 negative ones likewise; and 0; all over the largest. So both halves
    are quantiles, and 0 is exact. QLoRA's Eq. 4 as printed takes quantiles from 0 to 1, which are infinite.
    bitsandbytes' own comment speaks of eight negative values; there are seven.

    Args:
        bits: 2 to 8.
        offset: the outermost probability, between 1/2 and 1.

    Returns:
        2^bits values in increasing order; for 4 bits the released constants to 2e-7.
    """
    if not 2 <= bits <= 8:
        raise DataError(f"bits is {bits}; NormalFloat has 2 to 8")
    if not 0.5 < offset < 1:
        raise DataError(f"offset is {offset:g}; it must lie between 1/2 and 1, where quantiles are finite")
    half = 1 << (bits - 1)
    positive = ndtri(np.linspace(offset, 0.5, half + 1)[:-1])
    negative = -ndtri(np.linspace(offset, 0.5, half)[:-1])
    values = np.sort(np.concatenate([positive, negative, [0.0]]))
    scaled: Floats = (values / values.max()).astype(np.float32)
    return scaled


def dynamic_map(*, signed: bool = True) -> Floats:
    """The 8-bit dynamic data type (Dettmers 2016) with which bitsandbytes stores scales and optimiser states.

    A code has a sign, a decimal exponent written in unary, and what bits are left for a fraction: seven
    decades, the e-th of them from the top with half as many steps as the one above it. Each step is
    represented by its middle. With 0 and 1 that makes 256 values; -1 is not among them. (Not the FP8 E4M3
    that QLoRA's text names.)

    Returns:
        (256,) in increasing order.
    """
    values = [0.0, 1.0]
    for exponent in range(7):
        steps = 1 << (exponent if signed else exponent + 1)
        # float32 throughout, so that the values are those that files hold, bit for bit.
        edges = _even_steps(steps)
        middles = (edges[:-1] + edges[1:]) / np.float32(2)
        decade = (np.float32(10.0 ** (exponent - 6)) * middles).tolist()
        values += decade
        if signed:
            values += [-each for each in decade]
    return np.sort(np.array(values, np.float32))


def _even_steps(steps: int) -> Floats:
    """0.1 to 1 in even steps, counted from the nearer end, as float32 (how torch's linspace rounds)."""
    start, end = np.float32(0.1), np.float32(1.0)
    step = (end - start) / np.float32(steps)
    at = np.arange(steps + 1)
    # A product and a sum rounded once, as fused instructions do it.
    low = (np.float64(start) + np.float64(step) * at).astype(np.float32)
    high = (np.float64(end) - np.float64(step) * (steps - at)).astype(np.float32)
    return np.where(at < (steps + 1) // 2, low, high).astype(np.float32)


def _ranked(name: str, values: Any) -> Codebook:
    """A codebook whose codes are the ranks of its values."""
    ranked = np.asarray(values, np.float32)
    bits = max(1, (len(ranked) - 1).bit_length())
    return Codebook(name, bits, ranked, np.arange(len(ranked), dtype=np.uint8))


def _signed(name: str, magnitudes: Sequence[float], *, minus_zero: bool) -> Codebook:
    """A floating-point type of 4 bits: 3 for the magnitude, and the highest for the sign."""
    upper = np.asarray(magnitudes, np.float32) / np.float32(max(magnitudes))
    codes = [*range(9, 16), *([8] if minus_zero else []), *range(8)]
    values = np.concatenate([upper, -upper])
    # Of the two zeros the positive one ranks first: a weight of 0 is written as +0, a rounded one as -0.
    order = sorted(codes, key=lambda code: (values[code], code))
    return Codebook(name, 4, np.abs(values[order]) * np.sign(values[order]), np.array(order, np.uint8))


def _integers(bits: int) -> Codebook:
    most = (1 << (bits - 1)) - 1
    return _ranked(f"int{bits}", np.arange(-most, most + 1) / most)


_MAKERS: dict[str, Callable[[], Codebook]] = {
    "nf4": lambda: _ranked("nf4", _NF4),
    "fp4": lambda: _signed("fp4", _FP4_BY_BITS, minus_zero=True),
    "e2m1": lambda: _signed("e2m1", _E2M1_BY_BITS, minus_zero=False),
    "e3m0": lambda: _signed("e3m0", _E3M0_BY_BITS, minus_zero=False),
    "af4": lambda: _ranked("af4", _AF4),
    **{f"int{bits}": functools.partial(_integers, bits) for bits in range(2, 9)},
    "dynamic8": lambda: _ranked("dynamic8", dynamic_map()),
}

NAMES = tuple(_MAKERS)
"""`nf4` (QLoRA), `fp4` (bitsandbytes), `e2m1` (OCP FP4), `e3m0`, `af4` (Yoshida 2023, made for blocks of 64),
`int2` to `int8` (symmetric: one code is not used), `dynamic8`."""


@functools.cache
def _made(name: str) -> Codebook:
    return _MAKERS[name]()
