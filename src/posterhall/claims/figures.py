"""What a claim wants drawn, said without a drawing library.

A claim returns a `Figure` of panels, a panel holds marks; `posterhall.report` draws it. The numbers
travel inside, so a stored figure can be drawn again without the claim's code.

>>> rows = [Row("k=1", s, loss=1.0 + s / 10) for s in range(5)] + [Row("k=8", s, loss=2.0) for s in range(5)]
>>> line = Line.of(rows, "loss", {1: "k=1", 8: "k=8"}, label="SGD")
>>> Figure(Panel(line, x=Axis("replicas", log=True), y=Axis("test loss")), caption="Staleness costs.")
... # doctest: +ELLIPSIS
Figure(...)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from posterhall import stats
from posterhall.claims.rows import Row
from posterhall.errors import DataError

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Axis:
    """An axis: its label with unit, whether it is logarithmic or in per cent, and its limits."""

    label: str = ""
    log: bool = False
    percent: bool = False
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Line:
    """Points joined by a line, with the 95 % interval as a band where low and high are given."""

    label: str
    x: Numbers
    y: Numbers
    low: Numbers = ()
    high: Numbers = ()
    dashed: bool = False
    markers: bool = True

    @classmethod
    def of(
        cls, rows: Iterable[Row], metric: str, arms: Mapping[float, str], *, label: str, dashed: bool = False
    ) -> Line:
        """Mean and interval over seeds of `metric`, with one arm at each x."""
        kept = list(rows)
        means = [_interval(_seeds(kept, metric, arm)) for arm in arms.values()]
        return cls(
            label,
            tuple(float(x) for x in arms),
            tuple(m.estimate for m in means),
            tuple(m.low for m in means),
            tuple(m.high for m in means),
            dashed,
        )


@dataclass(frozen=True)
class Points:
    """Unjoined points."""

    label: str
    x: Numbers
    y: Numbers


@dataclass(frozen=True)
class Strip:
    """One row a category: every seed a dot, their mean and 95 % interval above them."""

    categories: tuple[str, ...]
    values: tuple[Numbers, ...]
    label: str = ""

    @classmethod
    def of(
        cls, rows: Iterable[Row], metric: str, arms: Sequence[str] | Mapping[str, str], *, label: str = ""
    ) -> Strip:
        """All seeds of `metric` for each arm; a mapping gives arms the names to show."""
        kept = list(rows)
        names = dict(arms) if isinstance(arms, Mapping) else {arm: arm for arm in arms}
        return cls(tuple(names.values()), tuple(tuple(_seeds(kept, metric, arm)) for arm in names), label)


@dataclass(frozen=True)
class Bars:
    """Bars over categories, with intervals; several in one panel stand side by side."""

    label: str
    categories: tuple[str, ...]
    y: Numbers
    low: Numbers = ()
    high: Numbers = ()

    @classmethod
    def of(cls, rows: Iterable[Row], metric: str, arms: Mapping[str, str], *, label: str) -> Bars:
        """Mean and interval over seeds of `metric`; `arms` maps a category to its arm."""
        kept = list(rows)
        means = [_interval(_seeds(kept, metric, arm)) for arm in arms.values()]
        return cls(
            label,
            tuple(arms),
            tuple(m.estimate for m in means),
            tuple(m.low for m in means),
            tuple(m.high for m in means),
        )


@dataclass(frozen=True)
class Reference:
    """A straight line at a value, as chance or a claimed bound; not for the paper's own numbers."""

    value: float
    label: str
    axis: Literal["x", "y"] = "y"


@dataclass(frozen=True)
class Band:
    """A shaded range of an axis, as the claimed region."""

    low: float
    high: float
    label: str
    axis: Literal["x", "y"] = "y"


Mark: TypeAlias = Line | Points | Strip | Bars | Reference | Band
_MARKS: dict[str, type[Any]] = {m.__name__: m for m in (Line, Points, Strip, Bars, Reference, Band)}


@dataclass(frozen=True, init=False)
class Panel:
    """One set of axes and the marks in it."""

    marks: tuple[Mark, ...]
    x: Axis
    y: Axis
    title: str

    def __init__(self, *marks: Mark, x: Axis | None = None, y: Axis | None = None, title: str = "") -> None:
        if not marks:
            raise DataError("a panel needs at least one mark")
        for mark in marks:
            _check(mark)
        kinds = {type(m) for m in marks} & {Strip, Bars}
        if len(kinds) > 1 or (kinds and any(isinstance(m, Line | Points) for m in marks)):
            raise DataError(
                "a panel has categories (Strip or Bars) or a number (Line, Points) across, not both"
            )
        object.__setattr__(self, "marks", tuple(marks))
        object.__setattr__(self, "x", x or Axis())
        object.__setattr__(self, "y", y or Axis())
        object.__setattr__(self, "title", title)


@dataclass(frozen=True, init=False)
class Figure:
    """Panels side by side, with one caption saying what is to be seen."""

    panels: tuple[Panel, ...]
    caption: str

    def __init__(self, *panels: Panel, caption: str = "") -> None:
        if not panels:
            raise DataError("a figure needs at least one panel")
        object.__setattr__(self, "panels", tuple(panels))
        object.__setattr__(self, "caption", caption)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; numbers that are not finite become null and are not drawn."""
        return {
            "caption": self.caption,
            "panels": [
                {
                    "title": p.title,
                    "x": dataclasses.asdict(p.x),
                    "y": dataclasses.asdict(p.y),
                    "marks": [{"mark": type(m).__name__, **_plain(dataclasses.asdict(m))} for m in p.marks],
                }
                for p in self.panels
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Figure:
        """Inverse of `to_json`.

        Raises:
            DataError: if a field is missing, unknown or of the wrong shape.
        """
        try:
            return cls(
                *(
                    Panel(
                        *(_mark(m) for m in p["marks"]), x=Axis(**p["x"]), y=Axis(**p["y"]), title=p["title"]
                    )
                    for p in data["panels"]
                ),
                caption=data["caption"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"not a stored figure: {error!r}") from None


def _mark(data: Mapping[str, Any]) -> Mark:
    fields = {k: _numbers(v) for k, v in data.items() if k != "mark"}
    mark: Mark = _MARKS[data["mark"]](**fields)
    return mark


def _numbers(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_numbers(x) for x in value)
    return math.nan if value is None else value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _check(mark: Mark) -> None:
    if isinstance(mark, Line | Bars):
        across = mark.x if isinstance(mark, Line) else mark.categories
        lengths = {len(across), len(mark.y), *(len(v) for v in (mark.low, mark.high) if v)}
        if len(lengths) > 1:
            raise DataError(f"'{mark.label}': x, y, low and high differ in length")
    if isinstance(mark, Points) and len(mark.x) != len(mark.y):
        raise DataError(f"'{mark.label}': {len(mark.x)} x for {len(mark.y)} y")
    if isinstance(mark, Strip) and len(mark.categories) != len(mark.values):
        raise DataError(f"{len(mark.values)} rows for {len(mark.categories)} categories")


def _seeds(rows: Iterable[Row], metric: str, arm: str) -> list[float]:
    values = [row.number(metric) for row in sorted(rows, key=lambda r: r.seed) if row.arm == arm]
    if not values:
        raise DataError(f"no row of arm '{arm}' to draw")
    return values


def _interval(values: Sequence[float]) -> stats.Interval:
    """Interval over the seeds that stayed finite; none where fewer than two did."""
    kept = [v for v in values if math.isfinite(v)]
    if not kept:
        return stats.Interval(math.nan, math.nan, math.nan, 0.95, 0, "")
    interval = stats.mean_interval(kept)
    if len(kept) < 2:
        return dataclasses.replace(interval, low=math.nan, high=math.nan)
    return interval


def default(rows: Sequence[Row], metric: str, arms: Sequence[str]) -> Figure:
    """Every arm with its seeds, mean and interval."""
    shown = [arm for arm in dict.fromkeys(arms) if any(row.arm == arm for row in rows)]
    finite = any(np.isfinite(_seeds(rows, metric, arm)).any() for arm in shown)
    if not shown or not finite:
        raise DataError(f"nothing finite to draw of metric '{metric}'")
    name = metric.replace("_", " ")
    return Figure(
        Panel(Strip.of(rows, metric, shown), x=Axis(name)),
        caption=f"{name[:1].upper()}{name[1:]} by arm: dots are seeds, bars the 95 % interval of their mean.",
    )
