"""Emergence scores on curves whose scores are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.errors import DataError
from posterhall.metrics import emergence
from posterhall.metrics.emergence import emergence_score, linearity

SCALES = np.logspace(8, 11.5, 12)
P = np.exp(-((SCALES / 1e8) ** -0.25))  # the paper's toy model


def test_toy_accuracy_jumps_and_edit_distance_does_not():
    accuracy = emergence_score(SCALES, P**20)
    distance = emergence_score(SCALES, 20 * (1 - P), higher_is_better=False)
    assert accuracy.score == pytest.approx(73.8, abs=0.05)
    assert distance.score == pytest.approx(10.9, abs=0.05)
    assert accuracy.normalised >= 5
    assert distance.normalised == pytest.approx(1, abs=0.1)


def test_a_hundred_items_make_the_score_infinite():
    sampled = np.random.default_rng(0).binomial(100, P**20) / 100
    result = emergence_score(SCALES, sampled)
    assert result.score == math.inf
    assert result.flags == ("resolution-limited",)


@given(st.integers(2, 40), st.floats(-5, 5).filter(lambda slope: abs(slope) > 1e-3))
def test_a_line_has_the_number_of_its_steps(n, slope):
    x = np.arange(n, dtype=float)
    result = emergence_score(x, slope * x)
    assert result.score == pytest.approx(math.copysign(n - 1, slope))
    assert result.normalised == pytest.approx(math.copysign(1, slope))
    assert linearity(x, slope * x) == pytest.approx(math.copysign(n - 1, slope))


def test_the_median_is_that_of_the_squares():
    # Steps 1 and 3: the root of the median square is sqrt(5), the median step 2.
    assert emergence_score([1, 2, 3], [0, 1, 4]).score == pytest.approx(4 / math.sqrt(5))
    assert linearity([1, 2, 3], [0, 1, 4]) == pytest.approx(4 / math.sqrt(5))
    assert linearity(range(10), [0] * 9 + [1]) == pytest.approx(3)  # one jump: sqrt(n - 1)


@given(
    st.lists(st.floats(-100, 100), min_size=2, max_size=12),
    st.floats(0.01, 100),
    st.floats(-10, 10),
    st.randoms(use_true_random=False),
)
def test_order_of_rows_unit_and_offset_do_not_matter(y, unit, offset, random):
    y = np.round(y, 3)
    x = np.arange(len(y), dtype=float)
    plain = emergence_score(x, y).score
    order = list(range(len(y)))
    random.shuffle(order)
    assert emergence_score(x[order], y[order]).score == plain
    assert emergence_score(x, unit * y).score == pytest.approx(plain)
    distinct = np.unique(y).size == y.size
    if distinct:  # with ties the first extreme counts, whichever way the score is turned
        assert emergence_score(x, -y).score == -plain
        assert emergence_score(x, -y, higher_is_better=False).score == plain


def test_nothing_over_nothing_is_nothing():
    result = emergence_score([1, 2, 3, 4], [0.3] * 4)
    assert (result.score, result.normalised, result.flags) == (0.0, 0.0, ("constant",))
    assert linearity([1, 2, 3], [1, 1, 1]) == 0.0


def test_a_score_that_falls_is_negative_and_flagged():
    result = emergence_score([1, 2, 3], [3.0, 2.0, 1.0])
    assert result.score == -2
    assert result.flags == ("few-scales", "worse-with-scale")
    assert emergence_score([1, 2, 3, 4], [0, 0, 0, -1]).score == -math.inf


def test_many_curves_at_once_are_scored_as_one_by_one():
    curves = np.random.default_rng(1).integers(0, 5, (50, 4, 9)) / 5
    many = emergence.emergence_scores(curves)
    x = np.arange(9)
    assert many.tolist() == [[emergence_score(x, curve).score for curve in row] for row in curves]


def test_duplicate_scales_are_refused_or_averaged():
    with pytest.raises(DataError, match="2 scores at scale 2"):
        emergence_score([1, 2, 2, 3], [0, 1, 3, 4])
    assert emergence_score([1, 2, 2, 3], [0, 1, 3, 4], duplicates="mean").score == 2


@pytest.mark.parametrize(
    ("x", "y", "match"),
    [
        ([1, 2, 3], [0, math.nan, 1], "score 1 is nan"),
        ([1, 2, 3], [0, math.inf, 1], "log 0"),
        ([1, math.nan], [0, 1], "scale 1 is nan"),
        ([1], [0], "1 scale"),
        ([], [], "0 scale"),
        ([1, 2], [1], "one score a scale"),
    ],
)
def test_series_that_have_no_score_are_refused(x, y, match):
    with pytest.raises(DataError, match=match):
        emergence_score(x, y)
