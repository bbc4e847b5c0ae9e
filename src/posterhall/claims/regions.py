"""Margins, and regions of effects: what an interval must lie inside."""

from __future__ import annotations

import math
from dataclasses import dataclass

from posterhall import stats
from posterhall.errors import UsageError

INF = math.inf


@dataclass(frozen=True)
class Absolute:
    """A margin in the metric's own unit."""

    value: float


@dataclass(frozen=True)
class Relative:
    """A margin as a share of the second arm: ``Relative(0.03)`` is 3 %. Needs positive metrics."""

    value: float


Margin = float | Absolute | Relative


@dataclass(frozen=True)
class Region:
    """A range of effects. `closed` says whether its finite ends belong to it."""

    low: float = -INF
    high: float = INF
    closed: bool = True

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise UsageError(f"region from {self.low} to {self.high} is empty; low must be below high")

    def holds(self, interval: stats.Interval) -> bool:
        """Whether the whole interval lies inside."""
        if self.closed:
            return self.low <= interval.low and interval.high <= self.high
        # Where the region is unbounded, an infinite end of the interval is inside.
        above = self.low < interval.low or self.low == -INF
        return above and (interval.high < self.high or self.high == INF)

    def overlaps(self, other: Region) -> bool:
        """Whether some effect lies in both."""
        low, high = max(self.low, other.low), min(self.high, other.high)
        return low < high or (low == high and self.closed and other.closed)

    def p_value(self, estimate: stats.Estimate) -> float:
        """Smallest error at which the estimate's two-sided interval lies inside: under .05 at 95 %."""
        below = estimate.tail(self.low, "below") if self.low > -INF else 0.0
        above = estimate.tail(self.high, "above") if self.high < INF else 0.0
        return min(1.0, 2 * max(below, above))


def beyond(low: float, high: float) -> tuple[Region, ...]:
    """What lies on the sides of an interval, its ends excluded; nothing beyond an infinite end."""
    below = (Region(high=low, closed=False),) if low > -INF else ()
    return below + ((Region(low=high, closed=False),) if high < INF else ())


def outside(margin: float) -> tuple[Region, ...]:
    """Both sides beyond a margin, to refute an equivalence: ``refuted=outside(0.05)``."""
    return beyond(-margin, margin)
