"""Kappa against published tables and another implementation, and its intervals by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.errors import DataError
from posterhall.metrics.agreement import fleiss, fleiss_interval, kappa, kappa_interval

# Fleiss (1971), the worked table usually shown for it: 10 subjects, 14 raters, 5 classes; kappa 0.210.
TABLE = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]


def test_kappa_has_its_closed_form():
    # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: p_o 0.7, p_e 0.5
    a = [True] * 25 + [False] * 25
    b = [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15
    assert kappa(a, b) == pytest.approx(0.4)
    assert kappa([True, False], [True, False]) == 1.0
    assert kappa([True, False], [False, True]) == -1.0
    assert kappa([True, True], [True, True]) is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=30))
def test_kappa_is_symmetric_and_at_most_one(pairs):
    a, b = zip(*pairs, strict=True)
    found = kappa(a, b)
    other = kappa(b, a)
    assert (found is None) == (other is None)
    if found is not None:
        assert found == pytest.approx(other, abs=1e-12)
        assert found <= 1 + 1e-12
        if a == b:
            assert found == pytest.approx(1)


def test_kappa_agrees_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    a = rng.integers(0, 3, 400)
    b = np.where(rng.random(400) < 0.4, a, rng.integers(0, 4, 400))
    assert kappa(a, b) == pytest.approx(metrics.cohen_kappa_score(a, b), abs=1e-12)


def test_fleiss_gives_the_published_number():
    assert fleiss(TABLE) == pytest.approx(0.210, abs=5e-4)


def test_fleiss_of_two_raters_is_scotts_pi_and_takes_unequal_numbers():
    # Scott: p_o = 0.7, chance from pooled shares .55 and .45
    table = [[2, 0]] * 20 + [[1, 1]] * 15 + [[0, 2]] * 15
    chance = 0.55**2 + 0.45**2
    assert fleiss(table) == pytest.approx((0.7 - chance) / (1 - chance))
    assert fleiss([[3, 0], [0, 2], [2, 0]]) == 1.0
    assert fleiss([[3, 0], [2, 0]]) is None


def test_intervals_cover_what_is_true():
    # Two judges who say what is so with probability 0.85 each, of two equal classes.
    rng = np.random.default_rng(1)
    truth, hits, widths = 2 * (0.85**2 + 0.15**2) - 1, 0, []
    for _ in range(300):
        right = rng.random(200) < 0.5
        a, b = (np.where(rng.random(200) < 0.85, right, ~right) for _ in range(2))
        interval = kappa_interval(a, b)
        hits += truth in interval
        widths.append(interval.half_width)
    assert 0.92 <= hits / 300 <= 0.98
    assert 0.07 < np.mean(widths) < 0.14  # asymptotic: 1.96 * 0.061


def test_items_that_belong_together_widen_the_interval():
    rng = np.random.default_rng(2)
    a = np.repeat(rng.integers(0, 2, 50), 10)
    b = np.repeat(rng.integers(0, 2, 50), 10)
    apart, together = kappa_interval(a, b), kappa_interval(a, b, clusters=np.repeat(np.arange(50), 10))
    assert together.estimate == apart.estimate
    assert together.half_width > 2.5 * apart.half_width  # sqrt(10) in truth
    assert together.n == 50


def test_one_cluster_bounds_nothing():
    interval = kappa_interval([0, 1, 1], [0, 1, 0], clusters=["x"] * 3)
    assert (interval.low, interval.high) == (-math.inf, math.inf)
    assert fleiss_interval(TABLE).n == 10
    assert fleiss_interval(TABLE).estimate in fleiss_interval(TABLE)


@pytest.mark.parametrize(
    "call",
    [
        lambda: kappa([], []),
        lambda: kappa([1], [1, 0]),
        lambda: kappa_interval([1, 0], [1, 0], clusters=[1]),
        lambda: fleiss([[1, 0], [1, 1]]),
        lambda: fleiss([[2.5, 0], [1, 1]]),
        lambda: fleiss([[-1, 3]]),
        lambda: fleiss([]),
    ],
)
def test_what_is_no_table_of_verdicts_is_refused(call):
    with pytest.raises(DataError):
        call()
