"""Filters: which rows to keep by their scores, composable, and the reason for each row that goes.

    keep = bottom("perplexity", 0.25) & threshold("words", ">=", 50) - threshold("digits", ">", 0.3)
    fitted = keep.fit(scores)
    fitted.kept                     # (rows,) bool
    fitted.reason(7)                # why row 7 goes

`&` keeps what both keep, `|` what either keeps, and `a - b` what a keeps and b does not. Shares and bands
are of all rows that have a score, whatever the rest of the expression says; to take a share of what another
filter left, apply one after the other. Quantiles are exact: a column is sorted in memory, 8 bytes a row.

A row without a score (NaN) is kept by no filter on that score, and takes no part in its quantiles.
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from posterhall.errors import DataError, UsageError, did_you_mean

Scores = Mapping[str, NDArray[np.float64]]
Comparison = Literal["<", "<=", ">", ">=", "==", "!="]

_OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True)
class Reason:
    """Why a row was dropped.

    Attributes:
        filter: the filter, as it would be written.
        value: the row's score; NaN if it has none, None if no single score decided.
        text: in words.
    """

    filter: str
    value: float | None
    text: str


@dataclass(frozen=True)
class Fitted:
    """What a filter decided about the rows it was fitted on.

    Attributes:
        kept: (rows,) bool.
        explain: from a row that is not kept to the reason.
    """

    kept: NDArray[np.bool_]
    explain: Callable[[int], Reason]

    def reason(self, row: int) -> Reason:
        """Why a row goes.

        Raises:
            UsageError: if it stays.
        """
        if self.kept[row]:
            raise UsageError(f"row {row} is kept; only dropped rows have a reason")
        return self.explain(row)


class Filter(ABC):
    """Keeps rows by their scores. A filter of your own has `columns`, `fit` and `__str__`."""

    binds: ClassVar[int] = 3
    """How tightly its written form holds together: 1 for |, 2 for & and -, 3 for a single filter."""

    @property
    @abstractmethod
    def columns(self) -> frozenset[str]:
        """The scores it looks at."""

    @abstractmethod
    def fit(self, scores: Scores) -> Fitted:
        """Decide about rows.

        Args:
            scores: columns of the same length, float64.

        Raises:
            DataError: if a column is missing.
        """

    @abstractmethod
    def __str__(self) -> str:
        """As the filter language writes it (see `posterhall.curation.language`)."""

    def __and__(self, other: Filter) -> Filter:
        return And(self, other)

    def __or__(self, other: Filter) -> Filter:
        return Or(self, other)

    def __sub__(self, other: Filter) -> Filter:
        return Minus(self, other)

    def _within(self, inner: Filter, *, tighter: bool = False) -> str:
        loose = inner.binds < self.binds or (tighter and inner.binds == self.binds)
        return f"({inner})" if loose else str(inner)


@dataclass(frozen=True)
class Threshold(Filter):
    """Rows whose score compares so with a number."""

    column: str
    comparison: Comparison
    value: float

    def __post_init__(self) -> None:
        _check_column(self.column)
        if self.comparison not in get_args(Comparison):
            raise UsageError(
                f"comparison is {self.comparison!r}; allowed are {', '.join(get_args(Comparison))}"
            )
        if not math.isfinite(self.value):
            raise UsageError(f"the threshold of {self.column} is {self.value}; it must be a finite number")

    @property
    def columns(self) -> frozenset[str]:
        """See `Filter`."""
        return frozenset({self.column})

    def fit(self, scores: Scores) -> Fitted:
        """See `Filter`."""
        values = _scores(scores, self.column)
        kept = _OPERATIONS[self.comparison](values, self.value) & ~np.isnan(values)
        return Fitted(kept, lambda row: _said(self, values[row], f"not {self.comparison} {self.value:g}"))

    def __str__(self) -> str:
        return f"{self.column} {self.comparison} {_number(self.value)}"


@dataclass(frozen=True)
class Share(Filter):
    """The share of rows with the highest or the lowest scores, ties at the end included.

    Of n rows with a score, the ceil(fraction n) best and whatever equals the last of them: a row's fate
    depends on its score, not on its place.
    """

    column: str
    side: Literal["top", "bottom"]
    fraction: float

    def __post_init__(self) -> None:
        _check_column(self.column)
        if self.side not in ("top", "bottom"):
            raise UsageError(f"side is {self.side!r}; allowed are top and bottom")
        if not 0 < self.fraction <= 1:
            hint = f" Did you mean {self.fraction / 100:g}?" if 1 < self.fraction <= 100 else ""
            raise UsageError(
                f"{self.side} of {self.column} is {self.fraction}; a fraction lies in (0, 1].{hint}"
            )

    @property
    def columns(self) -> frozenset[str]:
        """See `Filter`."""
        return frozenset({self.column})

    def fit(self, scores: Scores) -> Fitted:
        """See `Filter`."""
        values = _scores(scores, self.column)
        known = values[~np.isnan(values)]
        if known.size == 0:
            cut = math.nan
        else:
            many = max(_whole(self.fraction * known.size, math.ceil), 1)
            place = many - 1 if self.side == "bottom" else known.size - many
            cut = float(np.partition(known, place)[place])
        if self.side == "bottom":
            return Fitted(values <= cut, lambda row: _said(self, values[row], f"above {cut:.6g}"))
        return Fitted(values >= cut, lambda row: _said(self, values[row], f"below {cut:.6g}"))

    def __str__(self) -> str:
        return f"{self.column} {self.side} {_percent(self.fraction)}%"


@dataclass(frozen=True)
class Band(Filter):
    """Rows whose score lies between two of its quantiles, both ends and ties included.

    Of n scores in ascending order, kept are those from the value at place floor(low n) to the value at
    place ceil(high n) - 1, places counted from 0: at least the share high - low, and more only where
    equal values straddle an end.
    """

    column: str
    low: float
    high: float

    def __post_init__(self) -> None:
        _check_column(self.column)
        if not 0 <= self.low < self.high <= 1:
            raise UsageError(
                f"the band of {self.column} goes from {100 * self.low:g} % to {100 * self.high:g} %; it must "
                "lie between 0 % and 100 %, the lower end first"
            )

    @property
    def columns(self) -> frozenset[str]:
        """See `Filter`."""
        return frozenset({self.column})

    def fit(self, scores: Scores) -> Fitted:
        """See `Filter`."""
        values = _scores(scores, self.column)
        known = values[~np.isnan(values)]
        low = high = math.nan
        if known.size:
            first = min(_whole(self.low * known.size, math.floor), known.size - 1)
            last = max(_whole(self.high * known.size, math.ceil) - 1, first)
            known.partition((first, last))
            low, high = float(known[first]), float(known[last])
        kept = (values >= low) & (values <= high)
        return Fitted(kept, lambda row: _said(self, values[row], f"outside {low:.6g} to {high:.6g}"))

    def __str__(self) -> str:
        return f"{self.column} band {_percent(self.low)}-{_percent(self.high)}%"


class _Pair(Filter):
    sign: ClassVar[str]

    def __init__(self, left: Filter, right: Filter) -> None:
        for each in (left, right):
            if not isinstance(each, Filter):
                raise UsageError(f"{each!r} is no filter; combine filters with &, | and -")
        self.left, self.right = left, right

    @property
    def columns(self) -> frozenset[str]:
        """See `Filter`."""
        return self.left.columns | self.right.columns

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.sign, self.left, self.right))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.left!r}, {self.right!r})"

    def __str__(self) -> str:
        return f"{self._within(self.left)} {self.sign} {self._within(self.right, tighter=True)}"


class And(_Pair):
    """What both filters keep; the reason is that of the first that drops."""

    sign = "&"
    binds = 2

    def fit(self, scores: Scores) -> Fitted:
        """See `Filter`."""
        left, right = self.left.fit(scores), self.right.fit(scores)
        return Fitted(
            left.kept & right.kept, lambda row: right.explain(row) if left.kept[row] else left.explain(row)
        )


class Or(_Pair):
    """What either filter keeps; the reason names both."""

    sign = "|"
    binds = 1

    def fit(self, scores: Scores) -> Fitted:
        """See `Filter`."""
        left, right = self.left.fit(scores), self.right.fit(scores)

        def explain(row: int) -> Reason:
            one, two = left.explain(row), right.explain(row)
            value = one.value if self.left.columns == self.right.columns else None
            return Reason(str(self), value, f"{one.text}; and {two.text}")

        return Fitted(left.kept | right.kept, explain)


class Minus(_Pair):
    """What the first filter keeps and the second does not."""

    sign = "-"
    binds = 2

    def fit(self, scores: Scores) -> Fitted:
        """See `Filter`."""
        left, right = self.left.fit(scores), self.right.fit(scores)

        def explain(row: int) -> Reason:
            if not left.kept[row]:
                return left.explain(row)
            names = sorted(self.right.columns)
            value = float(scores[names[0]][row]) if len(names) == 1 else None
            return Reason(f"- {self._within(self.right, tighter=True)}", value, f"is in: {self.right}")

        return Fitted(left.kept & ~right.kept, explain)


def threshold(column: str, comparison: Comparison, value: float) -> Filter:
    """Rows whose score compares so with a number: ``threshold("words", ">=", 50)``."""
    return Threshold(column, comparison, float(value))


def top(column: str, fraction: float) -> Filter:
    """The share of rows with the highest scores; `fraction` in (0, 1]. Ties at the end are kept."""
    return Share(column, "top", fraction)


def bottom(column: str, fraction: float) -> Filter:
    """The share of rows with the lowest scores; `fraction` in (0, 1]. Ties at the end are kept."""
    return Share(column, "bottom", fraction)


def band(column: str, low: float, high: float) -> Filter:
    """Rows between two percentiles of a score, 0 to 100: ``band("perplexity", 25, 75)``."""
    return Band(column, low / 100, high / 100)


def keep(filter: Filter, scores: Scores) -> Fitted:
    """Fit a filter that must leave something.

    Raises:
        DataError: if there are no rows, or none would be kept; the message has the range of each score.
    """
    fitted = filter.fit(scores)
    if fitted.kept.any():
        return fitted
    if fitted.kept.size == 0:
        raise DataError("the pool is empty: there is nothing to filter")
    seen = "; ".join(f"{name}: {_range(scores[name])}" for name in sorted(filter.columns))
    raise DataError(f"'{filter}' would keep none of {fitted.kept.size:,} rows. Seen: {seen}. Loosen it")


def _range(values: NDArray[np.float64]) -> str:
    known = values[~np.isnan(values)]
    if known.size == 0:
        return "no row has this score"
    missing = values.size - known.size
    low, middle, high = known.min(), np.median(known), known.max()
    return f"{low:.6g} to {high:.6g}, median {middle:.6g}" + (f", {missing:,} without" if missing else "")


def _scores(scores: Scores, column: str) -> NDArray[np.float64]:
    if column not in scores:
        near = did_you_mean(column, scores) or f" There are: {', '.join(scores) or 'none'}."
        raise DataError(f"no score '{column}'.{near}")
    return np.asarray(scores[column], np.float64)


def _said(filter: Threshold | Share | Band, value: float, text: str) -> Reason:
    known = not math.isnan(value)
    what = f"{filter.column} {value:.6g} is {text}" if known else f"no score '{filter.column}'"
    return Reason(str(filter), float(value), what)


def _check_column(column: str) -> None:
    if not column.isidentifier():
        raise UsageError(f"{column!r} is no name of a score: letters, digits and _, no digit first")


def _whole(value: float, rounded: Callable[[float], int]) -> int:
    """Rounded, where a hair beside a whole number (0.07 * 100 is above 7) counts as that number."""
    near = round(value)
    return near if abs(value - near) < 1e-9 * max(1.0, abs(value)) else rounded(value)


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def _percent(fraction: float) -> str:
    """The percentage whose hundredth is the fraction, to the last digit."""
    text = f"{100 * Decimal(repr(fraction)):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
