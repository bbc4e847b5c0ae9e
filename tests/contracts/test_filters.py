"""Every filter against the contract, and the contract against filters that break it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from filter import check_filter

from posterhall.curation.filters import Filter, Fitted, Reason, band, bottom, threshold, top
from posterhall.curation.language import parse
from posterhall.curation.presets import PRESETS
from posterhall.curation.scores import NAMES


@pytest.mark.parametrize("comparison", ["<", "<=", ">", ">=", "==", "!="])
def test_thresholds(comparison):
    check_filter(threshold("words", comparison, 3))


@pytest.mark.parametrize(
    "filter", [top("s", 0.1), bottom("s", 0.25), top("s", 1.0), band("s", 25, 75)], ids=str
)
def test_shares(filter):
    check_filter(filter)


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    check_filter(PRESETS[name])
    assert PRESETS[name].columns <= set(NAMES)


@pytest.mark.parametrize(
    "text", ["a top 50% & b < 3", "a > 1 | b bottom 5% - c != 0", "(a < 1 | b < 1) - a band 5-95%"]
)
def test_combinations(text):
    check_filter(parse(text))


@dataclass(frozen=True)
class Even(Filter):
    """A filter of one's own: scores that round to an even number."""

    column: str
    wrong: str = ""

    @property
    def columns(self):
        return frozenset({self.column})

    def fit(self, scores):
        from posterhall.errors import DataError

        if self.column not in scores:
            raise DataError(f"no score '{self.column}'")
        values = scores[self.column]
        kept = np.nan_to_num(values, nan=1).round() % 2 == 0
        if self.wrong == "first row":
            kept[:1] = True
        if self.wrong == "changes":
            values += 1
        if self.wrong == "type":
            kept = kept.astype(int)
        text = "" if self.wrong == "no reason" else "odd"
        return Fitted(kept, lambda row: Reason(str(self), float(values[row]), text))

    def __str__(self):
        return f"even({self.column})"


def test_a_filter_of_ones_own():
    check_filter(Even("s"), written=False)


@pytest.mark.parametrize("wrong", ["first row", "changes", "type", "no reason"])
def test_the_contract_catches_what_breaks_it(wrong):
    with pytest.raises(AssertionError):
        check_filter(Even("s", wrong), written=False)


def test_the_contract_asks_for_the_written_form():
    from posterhall.errors import UsageError

    with pytest.raises((AssertionError, UsageError)):
        check_filter(Even("s"))
