"""The small picture beside a verdict: an interval on a line, against the claimed and refuting regions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posterhall.claims.kinds import short


@dataclass(frozen=True)
class Span:
    """A stretch of the line, in per cent of its length."""

    start: float
    width: float


@dataclass(frozen=True)
class Tick:
    """A labelled place on the line, in per cent."""

    at: float
    label: str


@dataclass(frozen=True)
class Strip:
    """Where everything lies, in per cent from the left; the template draws it.

    Attributes:
        estimate: the point estimate; None if there is none.
        interval: its 95 % interval, cut at the line's ends.
        claimed: the claimed region.
        refuting: the refuting regions.
        ticks: finite ends of the regions, with their values; those too close to another are left out.
    """

    estimate: float | None
    interval: Span | None
    claimed: Span
    refuting: tuple[Span, ...]
    ticks: tuple[Tick, ...]


def strip(
    test: Mapping[str, Any],
    effect: float | None,
    interval: Sequence[float] | None,
) -> Strip:
    """Lay out an interval against the regions of a stored test (`posterhall.claims.kinds.to_json`)."""
    ratio = test["kind"] == "Ratio"

    def place(x: float | None, infinite: float) -> float:
        """On the line's own scale: logarithmic for ratios."""
        if x is None:
            return infinite
        return (math.log(x) if x > 0 else -math.inf) if ratio else x

    regions = [
        tuple(place(x, inf) for x, inf in zip(r, _ENDS, strict=True))
        for r in [test["claimed"], *test["refuted"]]
    ]
    seen = [x for region in regions for x in region if math.isfinite(x)]
    if effect is not None and interval is not None:
        seen += [x for x in (place(v, math.nan) for v in (effect, *interval)) if math.isfinite(x)]
    low, high = min(seen), max(seen)
    spread = high - low or max(abs(high), 1.0)
    low, high = low - 0.18 * spread, high + 0.18 * spread

    def percent(x: float) -> float:
        return round(100 * (min(max(x, low), high) - low) / (high - low), 2)

    def span(a: float, b: float) -> Span:
        return Span(percent(a), round(percent(b) - percent(a), 2))

    known = effect is not None and interval is not None
    return Strip(
        percent(place(effect, math.nan)) if known else None,
        span(*(place(v, inf) for v, inf in zip(interval or (), _ENDS, strict=True))) if known else None,
        span(*regions[0]),
        tuple(span(*region) for region in regions[1:]),
        _ticks(test, percent, place),
    )


_ENDS = (-math.inf, math.inf)


def _ticks(
    test: Mapping[str, Any], percent: Callable[[float], float], place: Callable[[float | None, float], float]
) -> tuple[Tick, ...]:
    """The regions' finite ends, the claimed one's first, at least a tenth of the line apart."""
    ticks: list[Tick] = []
    for value in [x for region in [test["claimed"], *test["refuted"]] for x in region if x is not None]:
        where = place(value, math.nan)
        if math.isfinite(where) and all(abs(percent(where) - t.at) > 11 for t in ticks):
            label = f"{short(100 * value, signed=True)} %" if test["relative"] else short(value)
            ticks.append(Tick(percent(where), f"{label}×" if test["kind"] == "Ratio" else label))
    return tuple(ticks)
