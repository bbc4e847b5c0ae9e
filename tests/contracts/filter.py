"""`check_filter`: what every filter must be, whoever wrote it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from posterhall.curation.filters import Filter, Reason
from posterhall.curation.language import parse
from posterhall.errors import DataError

ROWS = 200


def scores_for(filter: Filter, seed: int) -> dict[str, np.ndarray]:
    """Scores with ties, gaps and outliers, of which some rows pass most filters."""
    rng = np.random.default_rng(seed)
    found = {}
    for name in sorted(filter.columns):
        values = rng.choice([0.0, 0.1, 0.5, 1.0, 3.0, 5.0, 60.0, 1e3], ROWS) + rng.choice([0.0, 0.01], ROWS)
        found[name] = np.where(rng.random(ROWS) < 0.05, np.nan, values)
    return found


def check_filter(filter: Filter, *, written: bool = True) -> None:
    """Check that a filter decides about every row, explains every drop, and depends on scores alone.

    Args:
        filter: any filter.
        written: whether its written form belongs to the filter language.
    """
    assert isinstance(filter, Filter)
    assert filter.columns, "a filter looks at something"
    for seed in range(5):
        scores = scores_for(filter, seed)
        before = {name: column.copy() for name, column in scores.items()}
        fitted = filter.fit(scores)
        for name, column in scores.items():
            np.testing.assert_array_equal(column, before[name], err_msg="scores are not to be changed")
        assert fitted.kept.dtype == np.bool_
        assert fitted.kept.shape == (ROWS,)
        np.testing.assert_array_equal(filter.fit(scores).kept, fitted.kept, err_msg="the same again")

        order = np.random.default_rng(seed).permutation(ROWS)
        shuffled = filter.fit({name: column[order] for name, column in scores.items()})
        np.testing.assert_array_equal(shuffled.kept, fitted.kept[order], err_msg="order must not matter")

        for row in np.flatnonzero(~fitted.kept).tolist():
            reason = fitted.reason(row)
            assert isinstance(reason, Reason)
            assert reason.filter.strip()
            assert reason.text.strip()
            assert reason.value is None or isinstance(reason.value, float)
            assert (
                reason.value is None
                or math.isnan(reason.value)
                or any(reason.value == column[row] for column in scores.values())
            )
        missing = dict(scores)
        name, _ = missing.popitem()
        with pytest.raises(DataError, match=name):
            filter.fit(missing)
    empty = filter.fit({name: np.zeros(0) for name in filter.columns})
    assert empty.kept.shape == (0,)
    if written:
        assert parse(str(filter)) == filter
    for combined, expected in (
        (filter & filter, fitted.kept),
        (filter | filter, fitted.kept),
        (filter - filter, np.zeros(ROWS, np.bool_)),
    ):
        np.testing.assert_array_equal(combined.fit(scores).kept, expected)
