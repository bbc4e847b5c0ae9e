"""Lines for the figures of claims: means over seeds of what rows hold as lists."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from posterhall import stats
from posterhall.claims.figures import Line
from posterhall.claims.rows import Row


def numbers(row: Row, metric: str) -> tuple[float, ...]:
    """A metric of a row that is a list."""
    value = row[metric]
    return value if isinstance(value, tuple) else (value,)


def mean_line(
    rows: Iterable[Row], arm: str, x: Sequence[float], metric: str, *, label: str, markers: bool = True
) -> Line:
    """Mean and 95 % interval over seeds of a list that each row of an arm holds, against x.

    A value that is not finite is left out; where fewer than two seeds are left there is no interval.
    """
    lists = [row[metric] for row in rows if row.arm == arm]
    means, lows, highs = [], [], []
    for i in range(len(x)):
        values = [v[i] for v in lists if isinstance(v, tuple) and i < len(v) and math.isfinite(v[i])]
        interval = stats.mean_interval(values) if len(values) > 1 else None
        means.append(math.fsum(values) / len(values) if values else math.nan)
        lows.append(interval.low if interval else math.nan)
        highs.append(interval.high if interval else math.nan)
    return Line(label, tuple(map(float, x)), tuple(means), tuple(lows), tuple(highs), markers=markers)


def median_line(rows: Iterable[Row], arm: str, x: Sequence[float], metric: str, *, label: str) -> Line:
    """Median over seeds of a list that each row of an arm holds, for values that a few seeds would drown."""
    lists = [row[metric] for row in rows if row.arm == arm]
    columns = [
        [v[i] for v in lists if isinstance(v, tuple) and i < len(v) and math.isfinite(v[i])]
        for i in range(len(x))
    ]
    medians = tuple(statistics.median(column) if column else math.nan for column in columns)
    return Line(label, tuple(map(float, x)), medians)


def arms_of(rows: Iterable[Row]) -> list[str]:
    """The arms in order of first appearance."""
    return list(dict.fromkeys(row.arm for row in rows))
