"""Student t estimates over independent units (seeds): plain, paired, as a ratio, the smallest of several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from posterhall.errors import DataError

Floats = npt.NDArray[np.float64]
Scale = Literal["plain", "ratio", "relative"]


@dataclass(frozen=True)
class Interval:
    """An estimate with its two-sided confidence interval.

    Attributes:
        estimate: the point estimate, in the unit of the values.
        low, high: ends of the interval; infinite where the data cannot bound it (a single value).
        level: nominal coverage, in (0, 1).
        n: independent units behind it (seeds, clusters, items).
        method: how it was computed, in words.
    """

    estimate: float
    low: float
    high: float
    level: float
    n: int
    method: str

    @property
    def half_width(self) -> float:
        """Half the interval's width."""
        return (self.high - self.low) / 2

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.estimate:.4g} [{self.low:.4g}, {self.high:.4g}]"


@runtime_checkable
class Estimate(Protocol):
    """A point estimate that knows its sampling distribution."""

    @property
    def estimate(self) -> float:
        """The point estimate."""

    @property
    def n(self) -> int:
        """Independent units behind it."""

    def interval(self, level: float = 0.95) -> Interval:
        """Two-sided interval at `level`."""

    def tail(self, bound: float, side: Literal["below", "above"]) -> float:
        """One-sided p-value of the hypothesis that the true value lies at or `side` of `bound`.

        It agrees with `interval`: it is under (1 - level) / 2 exactly if the interval at `level`
        excludes the bound on that side.
        """

    def needed(self, low: float, high: float, level: float = 0.95) -> int | None:
        """Units at which an interval of this spread would fit inside (low, high); None if never."""


def checked_level(level: float) -> float:
    """Return `level` if it is a probability strictly between 0 and 1."""
    if not 0.0 < level < 1.0:
        raise DataError(f"level {level!r} is not a confidence level; give a number between 0 and 1, as 0.95")
    return level


def finite(values: npt.ArrayLike, name: str = "values") -> Floats:
    """Return `values` as a non-empty 1-D float64 array; reject NaN and infinities by position."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise DataError(f"{name} has shape {array.shape}; a non-empty one-dimensional sequence is needed")
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise DataError(
            f"{name}[{bad[0]}] is {array[bad[0]]}; an interval needs finite numbers. "
            "Decide how a diverged run counts before averaging over it."
        )
    return array


def paired(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return both samples as finite arrays of one length (pair i is unit i of both)."""
    x, y = finite(a, "a"), finite(b, "b")
    if x.size != y.size:
        raise DataError(f"a has {x.size} values and b {y.size}; pairs need one of each per seed")
    return x, y


def t_quantile(p: float, df: float) -> float:
    """Quantile of Student's t, infinite where there are no degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(df, p)) if df >= 1 else math.copysign(math.inf, p - 0.5)


def t_cdf(t: float, df: float) -> float:
    """Distribution function of Student's t; 1/2 (nothing known) without degrees of freedom."""
    from scipy.special import stdtr

    return float(stdtr(df, t)) if df >= 1 else 0.5


@dataclass(frozen=True)
class StudentT:
    """A mean with its standard error, on the scale where it is roughly normal.

    Attributes:
        mean: mean on the working scale (a log ratio where `scale` is not plain).
        se: its standard error, >= 0; zero if all units agree exactly.
        n: units; n - 1 degrees of freedom.
        scale: ``plain``; ``ratio``: results are exp(.); ``relative``: results are exp(.) - 1.
        method: words for the report.
    """

    mean: float
    se: float
    n: int
    scale: Scale = "plain"
    method: str = "Student t over seeds"

    def _out(self, x: float) -> float:
        if self.scale == "plain":
            return x
        if x > 700:  # exp overflows: only reached by infinite or absurd bounds
            return math.inf
        return math.exp(x) if self.scale == "ratio" else math.expm1(x)

    def _in(self, x: float) -> float:
        if self.scale == "plain" or (math.isinf(x) and x > 0):
            return x
        ratio = x if self.scale == "ratio" else 1.0 + x
        return math.log(ratio) if ratio > 0 else -math.inf

    @property
    def estimate(self) -> float:
        """The mean, back on the scale of the result."""
        return self._out(self.mean)

    def interval(self, level: float = 0.95) -> Interval:
        """mean ± t_{n-1} · se, back-transformed; infinite with a single unit."""
        half = t_quantile((1 + checked_level(level)) / 2, self.n - 1)
        half = half * self.se if self.n > 1 else math.inf
        return Interval(
            self.estimate,
            self._out(self.mean - half),
            self._out(self.mean + half),
            level,
            self.n,
            self.method,
        )

    def tail(self, bound: float, side: Literal["below", "above"]) -> float:
        """One-sided t test against `bound`."""
        at = self._in(bound)
        distance = self.mean - at if side == "below" else at - self.mean
        if math.isinf(at):
            return 0.0 if distance > 0 else 1.0
        if self.n < 2:
            return 0.5
        if self.se == 0:
            return 0.0 if distance > 0 else 1.0
        return t_cdf(-distance / self.se, self.n - 1)

    def needed(self, low: float, high: float, level: float = 0.95) -> int | None:
        """Smallest n, at this spread, whose half width reaches the nearer boundary."""
        distance = min(self.mean - self._in(low), self._in(high) - self.mean)
        return units_for(distance, self.se * math.sqrt(self.n), level) if self.n > 1 else None


def units_for(distance: float, spread: float, level: float, *, limit: int = 1_000_000) -> int | None:
    """Smallest n >= 2 with t_{n-1} · spread / sqrt(n) < distance; None if none up to `limit`.

    The half width falls with n throughout, so bisection finds it.
    """
    if not distance > 0:
        return None

    def fits(n: int) -> bool:
        return t_quantile((1 + level) / 2, n - 1) * spread / math.sqrt(n) < distance

    if fits(2):
        return 2
    if not fits(limit):
        return None
    low, high = 2, limit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def student(
    values: npt.ArrayLike, *, scale: Scale = "plain", method: str = "Student t over seeds"
) -> StudentT:
    """Estimate of the mean of `values` (already on the working scale of `scale`)."""
    x = finite(values)
    # ptp first: np.std of equal numbers can be 1e-17 instead of 0, which is not a spread.
    spread = float(np.std(x, ddof=1)) if x.size > 1 and np.ptp(x) > 0 else 0.0
    return StudentT(float(np.mean(x)), spread / math.sqrt(x.size), int(x.size), scale, method)


def log_ratios(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    """log(a / b) by pairs; both must be positive."""
    x, y = paired(a, b)
    for name, values in (("a", x), ("b", y)):
        bad = np.flatnonzero(values <= 0)
        if bad.size:
            raise DataError(
                f"{name}[{bad[0]}] is {values[bad[0]]:.6g}; a ratio needs positive numbers. "
                "Compare by difference instead."
            )
    return np.asarray(np.log(x / y))


def mean_interval(values: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Student t interval of the mean.

    Args:
        values: one number a unit, shape (n,), finite. With n = 1 the interval is infinite.
        level: coverage in (0, 1).

    Raises:
        DataError: if `values` is empty, not one-dimensional or not finite.
    """
    return student(values).interval(level)


def paired_interval(a: npt.ArrayLike, b: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Student t interval of the mean of a - b, paired by position (seed).

    Pairing removes what a seed does to both arms; it is what makes five seeds enough.

    Raises:
        DataError: if lengths differ or a value is not finite.
    """
    x, y = paired(a, b)
    return student(x - y, method="Student t over seeds, paired").interval(level)


def ratio_interval(a: npt.ArrayLike, b: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Interval of the geometric mean of a / b: Student t on paired log ratios, back-transformed.

    Raises:
        DataError: if lengths differ or a value is not finite and positive.
    """
    method = "Student t over seeds, paired log ratio"
    return student(log_ratios(a, b), scale="ratio", method=method).interval(level)


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests (TOST) of a paired difference against (low, high).

    Attributes:
        interval: two-sided interval of the difference at `level`.
        p_low, p_high: one-sided p-values against "difference <= low" and "difference >= high".
        p: the larger of them; equivalence at significance alpha needs p < alpha.
        equivalent: the two-sided interval lies inside the margin. At level 0.95 that is TOST at
            0.025 a side, stricter than the customary 0.05; it is the rule of every verdict here.
    """

    interval: Interval
    p_low: float
    p_high: float
    p: float
    equivalent: bool


def equivalence(
    a: npt.ArrayLike, b: npt.ArrayLike, *, low: float, high: float, level: float = 0.95
) -> Equivalence:
    """Test that the mean paired difference a - b lies between `low` and `high`.

    Schuirmann 1987. "No significant difference" is not equivalence; this is.

    Raises:
        DataError: if low >= high, lengths differ or a value is not finite.
    """
    if not low < high:
        raise DataError(f"margin ({low}, {high}) is empty; low must be below high")
    x, y = paired(a, b)
    difference = student(x - y, method="Student t over seeds, paired")
    interval = difference.interval(level)
    p_low, p_high = difference.tail(low, "below"), difference.tail(high, "above")
    inside = low < interval.low and interval.high < high
    return Equivalence(interval, p_low, p_high, max(p_low, p_high), inside)


def seeds_needed(interval: Interval, *, low: float = -math.inf, high: float = math.inf) -> int | None:
    """Seeds at which a t interval of the same spread would lie inside (low, high).

    Args:
        interval: a plain Student t interval over n >= 2 seeds, as `mean_interval` or `paired_interval`
            return it.
        low, high: the region's ends.

    Returns:
        The smallest such number (>= 2), or None if the estimate itself lies outside the region, or so
        near its edge that a million seeds would not do.
    """
    if interval.n < 2:
        return None
    half = t_quantile((1 + interval.level) / 2, interval.n - 1)
    spread = interval.half_width / half * math.sqrt(interval.n)
    distance = min(interval.estimate - low, high - interval.estimate)
    return units_for(distance, spread, interval.level)


@dataclass(frozen=True)
class Smallest:
    """The smallest of several effects, for "each of these is better than the next".

    Lower end: the smallest of the parts' own lower ends. It needs no correction: it exceeds the
    smallest true effect only if the interval of *that* part errs (intersection–union test).
    Upper end: the smallest of the parts' upper ends with the error divided by their number
    (Bonferroni), since any part may err downwards.
    """

    parts: Sequence[Estimate]

    @property
    def estimate(self) -> float:
        """The smallest point estimate."""
        return min(part.estimate for part in self.parts)

    @property
    def n(self) -> int:
        """Units behind the thinnest part."""
        return min(part.n for part in self.parts)

    def _corrected(self, level: float) -> float:
        return 1 - (1 - level) / len(self.parts)

    def interval(self, level: float = 0.95) -> Interval:
        """Interval of the smallest effect; see the class."""
        low = min(part.interval(level).low for part in self.parts)
        high = min(part.interval(self._corrected(level)).high for part in self.parts)
        method = f"smallest of {len(self.parts)}: {self.parts[0].interval(level).method}"
        return Interval(self.estimate, low, high, level, self.n, method)

    def tail(self, bound: float, side: Literal["below", "above"]) -> float:
        """One-sided p-value for the smallest effect."""
        tails = [part.tail(bound, side) for part in self.parts]
        return max(tails) if side == "below" else min(1.0, min(tails) * len(tails))

    def needed(self, low: float, high: float, level: float = 0.95) -> int | None:
        """Units needed: by the most demanding part for a lower end, by the weakest link for an upper."""
        counts: list[int | None] = []
        if not math.isinf(low):
            counts += [part.needed(low, math.inf, level) for part in self.parts]
        if not math.isinf(high):
            below = [part.needed(-math.inf, high, self._corrected(level)) for part in self.parts]
            counts.append(min((n for n in below if n is not None), default=None))
        known = [n for n in counts if n is not None]
        return max(known) if known and len(known) == len(counts) else None
