"""Wilson's interval against scipy's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from posterhall.errors import DataError
from posterhall.stats.shares import wilson


@given(st.integers(1, 500), st.data(), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_interval_is_that_of_scipy(n, data, level):
    successes = data.draw(st.integers(0, n))
    ours = wilson(successes, n, level)
    theirs = binomtest(successes, n).proportion_ci(level, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert ours.estimate == successes / n


def test_none_and_all_reach_the_ends():
    assert wilson(0, 7).low == 0.0
    assert wilson(7, 7).high == 1.0


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 2)])
def test_shares_that_are_none(successes, n):
    with pytest.raises(DataError):
        wilson(successes, n)
