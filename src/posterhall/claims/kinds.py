"""The shapes a claim can have: what is measured, which region is claimed and which would refute it.

| kind | effect | claimed | refuted (unless the claim says otherwise) |
|---|---|---|---|
| `Paired` | a - b, or a / b - 1 | beyond the margin on the claimed side | no effect, or the other side |
| `Ratio` | a / b | at least or at most a factor | no effect (1), or the other side |
| `Ordering` | smallest adjacent difference, best first | above the margin | a pair is equal or reversed |
| `Fit` | a parameter fitted on each seed | inside an interval | outside it |
| `Threshold` | one arm's metric | at least or at most a number | on the other side of it |
| `Equivalent` | a - b, or a / b - 1 | within the margin | outside it |

Between the claimed and the refuting region lies what decides nothing: a real effect smaller than the
margin neither supports nor refutes "better by more than the margin". `refuted=` replaces the default,
and must not overlap the claimed region.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, Self

import numpy as np

from posterhall import stats
from posterhall.claims.regions import INF, Margin, Region, Relative, beyond
from posterhall.claims.rows import Floats
from posterhall.errors import UsageError
from posterhall.stats.estimates import Scale, log_ratios


class Sample(Protocol):
    """Measurements aligned over units, as `posterhall.claims.verdict` builds them from rows."""

    @property
    def by_item(self) -> bool:
        """Whether units are items (arrays concatenated over seeds) and not seeds."""

    @property
    def clusters(self) -> Sequence[int] | None:
        """The cluster of each item; None for seeds."""

    def values(self, arm: str) -> Floats:
        """The kind's metric for `arm`, one number a unit, units in the same order for every arm."""


@dataclass(frozen=True, kw_only=True)
class Kind(ABC):
    """What all kinds share.

    Attributes:
        metric: the metric's name in every row.
        refuted: region, or regions, that would refute the claim; None takes the kind's default.
    """

    metric: str
    refuted: Region | tuple[Region, ...] | None = None

    def __post_init__(self) -> None:
        for region in self.refutation:
            if region.overlaps(self.claimed):
                raise UsageError(
                    f"{type(self).__name__}: refuting region {region} overlaps the claimed {self.claimed}; "
                    "an interval must not be able to lie in both"
                )

    @property
    def name(self) -> str:
        """The metric as words."""
        return self.metric.replace("_", " ")

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The arms that are compared."""

    @property
    @abstractmethod
    def claimed(self) -> Region:
        """Effects that the claim promises."""

    @abstractmethod
    def default_refutation(self) -> tuple[Region, ...]:
        """Effects that refute it unless the claim says otherwise."""

    @abstractmethod
    def estimate(self, sample: Sample) -> stats.Estimate:
        """The effect with its sampling distribution."""

    @abstractmethod
    def over(self, *arms: str) -> Self:
        """The same test on other arms: how a negative control is usually made."""

    @abstractmethod
    def promise(self) -> str:
        """The claimed region in words."""

    @abstractmethod
    def effect(self) -> str:
        """What the effect is, in a few words."""

    @property
    def refutation(self) -> tuple[Region, ...]:
        """The regions that refute: as declared, or the default."""
        if self.refuted is None:
            return self.default_refutation()
        return (self.refuted,) if isinstance(self.refuted, Region) else tuple(self.refuted)

    @property
    def relative(self) -> bool:
        """Whether effects are shares, shown in per cent."""
        return False

    @property
    def signed(self) -> bool:
        """Whether effects are differences, shown with their sign."""
        return True

    def show(self, value: float) -> str:
        """An effect as text."""
        if self.relative:
            return f"{short(100 * value, signed=True)} %"
        return short(value, signed=self.signed)


def _margin(margin: Margin) -> tuple[float, bool]:
    value = margin if isinstance(margin, int | float) else margin.value
    if not math.isfinite(value):
        raise UsageError(f"margin {value} is not a number; name the smallest effect that matters")
    return float(value), isinstance(margin, Relative)


def _pair(arms: tuple[str, ...], kind: str) -> tuple[str, str]:
    if len(arms) != 2 or arms[0] == arms[1]:
        raise UsageError(f"{kind} compares two different arms; it was given {arms}")
    return arms[0], arms[1]


def _mean(sample: Sample, values: Floats, method: str) -> stats.Estimate:
    if sample.by_item:
        return stats.clustered(values, sample.clusters, "mean", seed=0)
    return stats.student(values, method=method)


def _contrast(sample: Sample, a: str, b: str, scale: Scale) -> stats.Estimate:
    """a - b, a / b or a / b - 1, paired by unit."""
    x, y = sample.values(a), sample.values(b)
    if scale == "plain":
        return _mean(sample, x - y, "Student t over seeds, paired")
    if sample.by_item:
        return stats.clustered(np.stack([x, y], axis=1), sample.clusters, scale, seed=0)
    return stats.student(log_ratios(x, y), scale=scale, method="Student t over seeds, paired log ratio")


def _by(margin: Margin) -> str:
    value, relative = _margin(margin)
    return f"{100 * value:g} %" if relative else f"{value:g}"


@dataclass(frozen=True, kw_only=True)
class Paired(Kind):
    """The first arm is higher (or lower) than the second by more than a margin.

    The effect is always first minus second (``Relative``: first / second - 1). A margin below zero
    makes it a test of non-inferiority: "not worse by more than that".
    """

    arms: tuple[str, str]
    margin: Margin = 0.0
    direction: Literal["higher", "lower"] = "higher"

    def __post_init__(self) -> None:
        _pair(self.arms, "Paired")
        if self.direction not in ("higher", "lower"):
            raise UsageError(f"direction {self.direction!r}; allowed: higher, lower")
        super().__post_init__()

    @property
    def names(self) -> tuple[str, ...]:
        return self.arms

    @property
    def relative(self) -> bool:
        return isinstance(self.margin, Relative)

    @property
    def claimed(self) -> Region:
        value, _ = _margin(self.margin)
        return (
            Region(low=value, closed=False)
            if self.direction == "higher"
            else Region(high=-value, closed=False)
        )

    def default_refutation(self) -> tuple[Region, ...]:
        value = min(0.0, _margin(self.margin)[0])
        return (Region(high=value) if self.direction == "higher" else Region(low=0.0 - value),)

    def estimate(self, sample: Sample) -> stats.Estimate:
        return _contrast(sample, *self.arms, "relative" if self.relative else "plain")

    def over(self, *arms: str) -> Self:
        return replace(self, arms=_pair(arms, "Paired"))

    def promise(self) -> str:
        value, _ = _margin(self.margin)
        a, b = self.arms
        if value < 0:
            worse = "below" if self.direction == "higher" else "above"
            return f"{self.name} of {a} is not {worse} {b} by more than {_by(self.margin).lstrip('-')}"
        more = f" by more than {_by(self.margin)}" if value else ""
        return f"{self.name} of {a} is {self.direction} than of {b}{more}"

    def effect(self) -> str:
        a, b = self.arms
        return f"{self.name}: {a} ÷ {b} − 1" if self.relative else f"{self.name}: {a} − {b}"


@dataclass(frozen=True, kw_only=True)
class Ratio(Kind):
    """The first arm's metric is at least, or at most, so many times the second's (geometric mean)."""

    arms: tuple[str, str]
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        _pair(self.arms, "Ratio")
        _limits(self.at_least, self.at_most, "Ratio")
        if min(x for x in (self.at_least, self.at_most) if x is not None) <= 0:
            raise UsageError("Ratio: a factor must be positive")
        super().__post_init__()

    @property
    def names(self) -> tuple[str, ...]:
        return self.arms

    @property
    def signed(self) -> bool:
        return False

    @property
    def claimed(self) -> Region:
        return Region(
            0.0 if self.at_least is None else self.at_least, INF if self.at_most is None else self.at_most
        )

    def default_refutation(self) -> tuple[Region, ...]:
        regions = []
        if self.at_least is not None:  # "at least twice" is refuted by no gain at all, not by 1.9
            regions.append(
                Region(0.0, 1.0) if self.at_least > 1 else Region(0.0, self.at_least, closed=False)
            )
        if self.at_most is not None:
            regions.append(Region(low=1.0) if self.at_most < 1 else Region(low=self.at_most, closed=False))
        return tuple(regions)

    def estimate(self, sample: Sample) -> stats.Estimate:
        return _contrast(sample, *self.arms, "ratio")

    def over(self, *arms: str) -> Self:
        return replace(self, arms=_pair(arms, "Ratio"))

    def promise(self) -> str:
        factor = _range(self.at_least, self.at_most)
        return f"{self.name} of {self.arms[0]} is {factor} times that of {self.arms[1]}"

    def effect(self) -> str:
        return f"{self.name}: {self.arms[0]} ÷ {self.arms[1]}"

    def show(self, value: float) -> str:
        return f"{short(value)}×"


@dataclass(frozen=True, kw_only=True)
class Ordering(Kind):
    """Each arm is better than the next by more than a margin, best first.

    The effect is the smallest adjacent difference, counted positive where the order holds. Its
    interval is that of `posterhall.stats.Smallest`: no correction is needed to conclude that all
    pairs hold, and Bonferroni's is made to conclude that one is reversed.
    """

    arms: tuple[str, ...]
    margin: float = 0.0
    direction: Literal["higher", "lower"] = "higher"

    def __post_init__(self) -> None:
        if len(self.arms) < 2 or len(set(self.arms)) != len(self.arms):
            raise UsageError(
                f"Ordering needs two or more different arms, best first; it was given {self.arms}"
            )
        if self.direction not in ("higher", "lower"):
            raise UsageError(f"direction {self.direction!r}; allowed: higher, lower (is better)")
        if not 0 <= self.margin < INF:
            raise UsageError(f"Ordering: margin {self.margin} must be zero or more")
        super().__post_init__()

    @property
    def names(self) -> tuple[str, ...]:
        return self.arms

    @property
    def claimed(self) -> Region:
        return Region(low=self.margin, closed=False)

    def default_refutation(self) -> tuple[Region, ...]:
        return (Region(high=0.0),)

    def estimate(self, sample: Sample) -> stats.Estimate:
        pairs = list(zip(self.arms, self.arms[1:], strict=False))
        if self.direction == "lower":
            pairs = [(worse, better) for better, worse in pairs]
        return stats.Smallest(tuple(_contrast(sample, a, b, "plain") for a, b in pairs))

    def over(self, *arms: str) -> Self:
        return replace(self, arms=tuple(arms))

    def promise(self) -> str:
        sign = " > " if self.direction == "higher" else " < "
        more = f", each by more than {self.margin:g}" if self.margin else ""
        return f"{self.name}: {sign.join(self.arms)}{more}"

    def effect(self) -> str:
        return f"{self.name}: smallest step in {' › '.join(self.arms)}"


@dataclass(frozen=True, kw_only=True)
class Fit(Kind):
    """A parameter fitted on each seed lies, on average, between two numbers."""

    arm: str
    low: float
    high: float

    @property
    def names(self) -> tuple[str, ...]:
        return (self.arm,)

    @property
    def signed(self) -> bool:
        return False

    @property
    def claimed(self) -> Region:
        return Region(self.low, self.high)

    def default_refutation(self) -> tuple[Region, ...]:
        return beyond(self.low, self.high)

    def estimate(self, sample: Sample) -> stats.Estimate:
        return _mean(sample, sample.values(self.arm), "Student t over seeds")

    def over(self, *arms: str) -> Self:
        return replace(self, arm=_single(arms, "Fit"))

    def promise(self) -> str:
        return f"{self.name} of {self.arm} lies between {self.low:g} and {self.high:g}"

    def effect(self) -> str:
        return f"{self.name}: {self.arm}"


@dataclass(frozen=True, kw_only=True)
class Threshold(Kind):
    """One arm's metric is at least, or at most, a number."""

    arm: str
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        _limits(self.at_least, self.at_most, "Threshold")
        super().__post_init__()

    @property
    def names(self) -> tuple[str, ...]:
        return (self.arm,)

    @property
    def signed(self) -> bool:
        return False

    @property
    def claimed(self) -> Region:
        return Region(
            -INF if self.at_least is None else self.at_least, INF if self.at_most is None else self.at_most
        )

    def default_refutation(self) -> tuple[Region, ...]:
        return beyond(self.claimed.low, self.claimed.high)

    def estimate(self, sample: Sample) -> stats.Estimate:
        return _mean(sample, sample.values(self.arm), "Student t over seeds")

    def over(self, *arms: str) -> Self:
        return replace(self, arm=_single(arms, "Threshold"))

    def promise(self) -> str:
        return f"{self.name} of {self.arm} is {_range(self.at_least, self.at_most)}"

    def effect(self) -> str:
        return f"{self.name}: {self.arm}"


@dataclass(frozen=True, kw_only=True)
class Equivalent(Kind):
    """Two arms differ by less than a margin, either way: "a matches b".

    The two-sided 95 % interval inside the margin is a test by two one-sided tests at 2.5 % each.
    """

    arms: tuple[str, str]
    margin: Margin

    def __post_init__(self) -> None:
        _pair(self.arms, "Equivalent")
        if _margin(self.margin)[0] <= 0:
            raise UsageError(f"Equivalent: margin {_by(self.margin)} must be positive")
        super().__post_init__()

    @property
    def names(self) -> tuple[str, ...]:
        return self.arms

    @property
    def relative(self) -> bool:
        return isinstance(self.margin, Relative)

    @property
    def claimed(self) -> Region:
        value, _ = _margin(self.margin)
        return Region(-value, value)

    def default_refutation(self) -> tuple[Region, ...]:
        return beyond(self.claimed.low, self.claimed.high)

    def estimate(self, sample: Sample) -> stats.Estimate:
        return _contrast(sample, *self.arms, "relative" if self.relative else "plain")

    def over(self, *arms: str) -> Self:
        return replace(self, arms=_pair(arms, "Equivalent"))

    def promise(self) -> str:
        return f"{self.name} of {self.arms[0]} is within {_by(self.margin)} of that of {self.arms[1]}"

    def effect(self) -> str:
        a, b = self.arms
        return f"{self.name}: {a} ÷ {b} − 1" if self.relative else f"{self.name}: {a} − {b}"


def _single(arms: Sequence[str], kind: str) -> str:
    if len(arms) != 1:
        raise UsageError(f"{kind} measures one arm; it was given {tuple(arms)}")
    return arms[0]


def _limits(at_least: float | None, at_most: float | None, kind: str) -> None:
    given = [x for x in (at_least, at_most) if x is not None]
    if not given or not all(math.isfinite(x) for x in given):
        raise UsageError(f"{kind} needs at_least, at_most or both as finite numbers")


def _range(at_least: float | None, at_most: float | None) -> str:
    if at_least is None:
        return f"at most {at_most:g}"
    return f"at least {at_least:g}" if at_most is None else f"between {at_least:g} and {at_most:g}"


def short(value: float, *, signed: bool = False) -> str:
    """A number in three figures, without an exponent where it can be read without: 0.946, +12,300."""
    sign = "+" if signed else ""
    if 999.5 <= abs(value) < 1e7:
        return f"{value:{sign},.0f}"
    return f"{value:{sign}.3g}"


def to_json(kind: Kind) -> Mapping[str, object]:
    """The parts of a kind that a report shows, without its class."""

    def region(r: Region) -> list[float | None]:
        return [None if math.isinf(x) else x for x in (r.low, r.high)]

    return {
        "kind": type(kind).__name__,
        "metric": kind.metric,
        "arms": list(kind.names),
        "effect": kind.effect(),
        "promise": kind.promise(),
        "claimed": region(kind.claimed),
        "refuted": [region(r) for r in kind.refutation],
        "relative": kind.relative,
    }
