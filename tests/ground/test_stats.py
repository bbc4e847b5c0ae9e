"""Intervals against scipy, published tables and simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from posterhall.errors import DataError
from posterhall.stats import (
    Smallest,
    bca_interval,
    benjamini_hochberg,
    bootstrap,
    cluster_bootstrap,
    clustered,
    equivalence,
    holm,
    mean_interval,
    paired_interval,
    ratio_interval,
    seeds_needed,
    spearman,
    spearman_interval,
    student,
)

# Student 1908: extra hours of sleep under two drugs, ten patients. R's `t.test(paired = TRUE)` prints
# t = -4.0621, p = 0.002833, 95 % interval -2.4598858 to -0.7001142.
DRUG_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
DRUG_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_paired_interval_is_that_of_students_own_paper():
    interval = paired_interval(DRUG_1, DRUG_2)
    assert interval.estimate == pytest.approx(-1.58)
    assert (interval.low, interval.high) == pytest.approx((-2.4598858, -0.7001142), abs=1e-7)
    assert interval.n == 10


def test_p_value_agrees_with_students_paper_and_with_the_interval():
    difference = student(np.subtract(DRUG_1, DRUG_2))
    assert 2 * difference.tail(0.0, "above") == pytest.approx(0.002833, abs=1e-6)
    assert difference.tail(difference.interval(0.95).high, "above") == pytest.approx(0.025)
    assert difference.tail(difference.interval(0.9).low, "below") == pytest.approx(0.05)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30), st.sampled_from([0.8, 0.95, 0.99]))
def test_mean_interval_is_scipys(values, level):
    ours = mean_interval(values, level)
    if np.ptp(values) > 1e-6 * max(1.0, np.abs(values).max()):
        low, high = reference.t.interval(level, len(values) - 1, np.mean(values), reference.sem(values))
        assert (ours.low, ours.high) == pytest.approx((low, high), rel=1e-9, abs=1e-9)
    assert ours.low <= ours.estimate <= ours.high


def test_one_seed_bounds_nothing():
    interval = mean_interval([3.0])
    assert (interval.estimate, interval.low, interval.high) == (3.0, -math.inf, math.inf)
    assert ratio_interval([2.0], [1.0]).low == 0.0
    assert student([3.0]).tail(0.0, "below") == 0.5


def test_equal_values_have_no_spread_at_all():
    interval = mean_interval([0.1] * 7)  # np.std gives 1e-17 here
    assert interval.low == interval.high == interval.estimate


@pytest.mark.parametrize("bad", [[], [1.0, math.nan], [math.inf], [[1.0]]])
def test_values_that_cannot_carry_an_interval_are_refused(bad):
    with pytest.raises(DataError):
        mean_interval(bad)


def test_a_diverged_value_is_named_by_position():
    with pytest.raises(DataError, match=r"a\[1\] is nan"):
        paired_interval([1.0, math.nan], [1.0, 2.0])


def test_ratio_is_geometric_and_symmetric():
    a, b = [2.0, 8.0, 4.0], [1.0, 1.0, 1.0]
    forth, back = ratio_interval(a, b), ratio_interval(b, a)
    assert forth.estimate == pytest.approx(4.0)
    assert (forth.low, forth.high) == pytest.approx((1 / back.high, 1 / back.low))
    low, high = reference.t.interval(0.95, 2, np.log(4), reference.sem(np.log(a)))
    assert (forth.low, forth.high) == pytest.approx((math.exp(low), math.exp(high)))


def test_ratio_of_a_loss_of_zero_is_refused():
    with pytest.raises(DataError, match="difference"):
        ratio_interval([1.0, 0.0], [1.0, 1.0])


def test_relative_scale_is_the_ratio_less_one():
    logs = np.log([1.02, 1.05, 1.03])
    ratio, relative = student(logs, scale="ratio"), student(logs, scale="relative")
    assert relative.estimate == pytest.approx(ratio.estimate - 1)
    assert relative.interval().high == pytest.approx(ratio.interval().high - 1)
    assert relative.tail(0.0, "below") == pytest.approx(ratio.tail(1.0, "below"))


def test_equivalence_needs_the_interval_inside_the_margin():
    rng = np.random.default_rng(0)
    a = rng.normal(0, 1, 20)
    b = a + rng.normal(0.0, 0.1, 20)
    assert equivalence(a, b, low=-0.2, high=0.2).equivalent
    assert not equivalence(a, b, low=-0.01, high=0.01).equivalent
    noisy = equivalence(a, rng.normal(0, 1, 20), low=-0.2, high=0.2)
    assert not noisy.equivalent  # not significantly different, and yet not equivalent


def test_equivalence_p_values_are_the_two_one_sided_t_tests():
    result = equivalence(DRUG_1, DRUG_2, low=-3.0, high=1.0)
    difference = np.subtract(DRUG_1, DRUG_2)
    p_low = reference.ttest_1samp(difference, -3.0, alternative="greater").pvalue
    p_high = reference.ttest_1samp(difference, 1.0, alternative="less").pvalue
    assert (result.p_low, result.p_high) == pytest.approx((p_low, p_high))
    assert result.p == max(result.p_low, result.p_high)
    assert result.equivalent == (result.p < 0.025)


@pytest.mark.parametrize("n", [5, 8])
def test_t_interval_covers_at_its_level(n):
    rng = np.random.default_rng(n)
    draws = rng.normal(2.0, 3.0, size=(4000, n))
    hit = np.mean([2.0 in mean_interval(row) for row in draws])
    assert 0.94 < hit < 0.96


def test_smallest_of_several_covers_and_is_not_fooled_by_one_weak_link():
    rng = np.random.default_rng(3)
    true = np.array([0.0, 0.1, 2.0])
    hits = 0
    for _ in range(1500):
        parts = [student(rng.normal(m, 1.0, 8)) for m in true]
        hits += 0.0 in Smallest(parts).interval()
    assert hits / 1500 > 0.94
    weak = Smallest([student([1.0, 1.1, 0.9]), student([0.1, -0.1, 0.05])])
    assert weak.interval().low < 0 < weak.estimate


def test_smallest_p_value_agrees_with_its_interval():
    rng = np.random.default_rng(4)
    both = Smallest([student(rng.normal(1, 1, 9)), student(rng.normal(1.2, 1, 9))])
    interval = both.interval(0.95)
    assert both.tail(interval.low, "below") == pytest.approx(0.025)
    assert both.tail(interval.high, "above") == pytest.approx(0.025)


@pytest.mark.parametrize("statistic", [np.mean, np.median, np.std])
def test_bca_agrees_with_scipys(statistic):
    data = np.random.default_rng(5).exponential(size=60)
    ours = bca_interval(data, statistic, seed=1, resamples=8000)
    theirs = reference.bootstrap(
        (data,), statistic, method="BCa", n_resamples=8000, rng=np.random.default_rng(1)
    ).confidence_interval
    width = theirs.high - theirs.low
    slack = 0.1 if statistic is np.median else 0.04  # a median of 60 takes few values
    assert abs(ours.low - theirs.low) < slack * width
    assert abs(ours.high - theirs.high) < slack * width


def test_bca_of_a_normal_mean_nears_the_closed_form():
    data = np.random.default_rng(6).normal(size=400)
    ours = bca_interval(data, seed=2, resamples=8000)
    half = 1.959964 * data.std() / math.sqrt(400)
    assert ours.low == pytest.approx(data.mean() - half, abs=0.05 * half)
    assert ours.high == pytest.approx(data.mean() + half, abs=0.05 * half)


def test_bootstrap_statistic_without_axis_gives_the_same_interval():
    data = np.random.default_rng(7).normal(size=50)
    assert bca_interval(data, np.mean, seed=3).low == pytest.approx(
        bca_interval(data, lambda x: float(np.mean(x)), seed=3).low, abs=0.05
    )


def test_bootstrap_p_value_agrees_with_its_interval():
    data = np.random.default_rng(8).exponential(size=80)
    distribution = bootstrap(data, np.mean, seed=4, resamples=8000)
    interval = distribution.interval(0.95)
    assert distribution.tail(interval.low, "below") == pytest.approx(0.025, abs=0.002)
    assert distribution.tail(interval.high, "above") == pytest.approx(0.025, abs=0.002)
    assert distribution.tail(-100.0, "below") < 0.001
    assert distribution.tail(-math.inf, "below") == 0.0


def test_constant_items_have_an_interval_of_no_width():
    interval = cluster_bootstrap(np.ones(40), None, seed=0)
    assert (interval.low, interval.high) == (1.0, 1.0)


def test_clusters_widen_the_interval_as_their_items_agree():
    rng = np.random.default_rng(9)
    effect = rng.normal(size=40)
    clusters = np.repeat(np.arange(40), 25)
    values = effect[clusters] + 0.1 * rng.normal(size=1000)
    naive, honest = cluster_bootstrap(values, None, seed=1), cluster_bootstrap(values, clusters, seed=1)
    assert honest.half_width > 4 * naive.half_width  # sqrt(25) = 5 if items agreed exactly
    assert honest.half_width == pytest.approx(1.96 * effect.std() / math.sqrt(40), rel=0.15)
    assert honest.n == 40


def test_cluster_bootstrap_covers_where_the_naive_one_does_not():
    rng = np.random.default_rng(10)
    clusters = np.repeat(np.arange(40), 5)
    honest = naive = 0
    for i in range(160):
        values = rng.normal(size=40)[clusters] + 0.3 * rng.normal(size=200)
        honest += 0.0 in cluster_bootstrap(values, clusters, seed=i, resamples=500)
        naive += 0.0 in cluster_bootstrap(values, None, seed=i, resamples=500)
    assert honest / 160 > 0.90
    assert naive / 160 < 0.75


def test_cluster_statistic_by_name_and_by_function_agree():
    rng = np.random.default_rng(11)
    clusters = rng.integers(0, 30, 200)
    pairs = rng.uniform(1, 2, size=(200, 2))
    by_name = clustered(pairs, clusters, "ratio", seed=5, resamples=400)
    by_call = clustered(
        pairs, clusters, lambda rows: rows[:, 0].sum() / rows[:, 1].sum(), seed=5, resamples=400
    )
    np.testing.assert_allclose(by_name.replicates, by_call.replicates)
    assert by_name.acceleration == pytest.approx(by_call.acceleration)
    relative = clustered(pairs, clusters, "relative", seed=5, resamples=400)
    np.testing.assert_allclose(relative.replicates, by_name.replicates - 1)


def test_a_ratio_that_divides_by_nothing_is_refused():
    with pytest.raises(DataError, match="not finite"):
        cluster_bootstrap(np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0]]), None, "ratio", seed=0)


@pytest.mark.parametrize(
    ("values", "clusters", "message"),
    [
        ([1.0, 2.0], [1, 1], "two"),
        ([1.0, 2.0], [1], "one an item"),
        ([1.0, math.nan], [1, 2], "finite"),
    ],
)
def test_clusters_that_cannot_be_resampled_are_refused(values, clusters, message):
    with pytest.raises(DataError, match=message):
        cluster_bootstrap(values, clusters, seed=0)


def test_holm_on_a_worked_example():
    # Wikipedia's and R's p.adjust(c(.01, .04, .03, .005), "holm"): .03 .06 .06 .02
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]).tolist() == [1.0, 1.0]
    assert holm([]).size == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_order_and_lies_between_raw_and_bonferroni(p):
    adjusted = holm(p)
    assert (adjusted >= np.array(p) - 1e-15).all()
    assert (adjusted <= np.minimum(1, np.array(p) * len(p)) + 1e-15).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


def test_holm_refuses_what_is_no_probability():
    with pytest.raises(DataError):
        holm([0.5, 1.5])


def test_seeds_needed_is_the_first_number_at_which_the_interval_fits():
    interval = mean_interval([0.2, 1.4, -0.3, 0.9, 0.6])
    n = seeds_needed(interval, low=0.0)
    spread = np.std([0.2, 1.4, -0.3, 0.9, 0.6], ddof=1)

    def half(m):
        return reference.t.ppf(0.975, m - 1) * spread / math.sqrt(m)

    assert n is not None
    assert half(n) < interval.estimate <= half(n - 1)


def test_no_number_of_seeds_moves_an_estimate_that_lies_outside():
    interval = mean_interval([0.2, 1.4, -0.3, 0.9, 0.6])
    assert seeds_needed(interval, low=1.0) is None
    assert seeds_needed(mean_interval([1.0]), low=0.0) is None


def test_seeds_needed_on_the_scale_of_a_ratio_and_of_a_bootstrap():
    logs = np.log([1.2, 1.6, 1.1, 1.9, 1.3])
    assert student(logs, scale="ratio").needed(1.0, math.inf) == seeds_needed(mean_interval(logs), low=0.0)
    data = np.random.default_rng(12).normal(0.1, 1.0, 50)
    n = bootstrap(data, np.mean, seed=1).needed(0.0, math.inf)
    expected = (1.96 * data.std() / data.mean()) ** 2
    assert n == pytest.approx(expected, rel=0.1)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=4, max_size=40))
def test_spearman_is_scipys_with_ties(pairs):
    x, y = np.array(pairs, dtype=float).T
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert math.isnan(spearman(x, y))
    else:
        assert spearman(x, y) == pytest.approx(reference.spearmanr(x, y).statistic, abs=1e-12)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8])
def test_spearman_interval_covers(rho):
    rng = np.random.default_rng(13)
    true = 6 / math.pi * math.asin(rho / 2)  # Spearman's rho of a bivariate normal
    hits = 0
    for _ in range(1500):
        x = rng.normal(size=50)
        y = rho * x + math.sqrt(1 - rho * rho) * rng.normal(size=50)
        hits += true in spearman_interval(x, y)
    assert 0.93 < hits / 1500 < 0.975


def test_a_perfect_rank_correlation_still_has_an_open_end():
    interval = spearman_interval([1, 2, 3, 4, 5, 6], [2, 4, 8, 16, 32, 64])
    assert interval.estimate == interval.high == 1.0
    assert interval.low < 0.95
    with pytest.raises(DataError, match="constant"):
        spearman_interval([1, 1, 1, 1], [1, 2, 3, 4])
    with pytest.raises(DataError, match="four"):
        spearman_interval([1, 2, 3], [1, 2, 3])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_benjamini_hochberg_is_scipys(p_values):
    adjusted = benjamini_hochberg(p_values)
    assert adjusted == pytest.approx(reference.false_discovery_control(p_values), abs=1e-12)
    assert (adjusted <= holm(p_values) + 1e-12).all()


def test_benjamini_hochberg_of_nothing_and_of_no_probabilities():
    assert benjamini_hochberg([]).size == 0
    with pytest.raises(DataError, match="from 0 to 1"):
        benjamini_hochberg([0.5, math.nan])
