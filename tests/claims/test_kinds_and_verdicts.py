"""The verdict rule, kind by kind, on rows whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.claims import (
    Absolute,
    Equivalent,
    Fit,
    Ordering,
    Paired,
    Ratio,
    Region,
    Relative,
    Row,
    Threshold,
    judge,
    outside,
)
from posterhall.errors import DataError, UsageError
from posterhall.stats import Interval

SPREAD = (-0.02, -0.01, 0.0, 0.01, 0.02)  # five seeds; t interval of the mean: ± 0.0196


def rows(**means: float) -> list[Row]:
    """Five seeds an arm around a mean, with a seed effect of ±1 shared by all arms."""
    return [
        Row(arm, seed, m=mean + (seed - 2) + (SPREAD[seed] if i == 0 else 0.0))
        for i, (arm, mean) in enumerate(means.items())
        for seed in range(5)
    ]


def alone(mean: float, arm: str = "a") -> list[Row]:
    return [Row(arm, seed, m=mean + noise) for seed, noise in enumerate(SPREAD)]


PAIRED = Paired(metric="m", arms=("a", "b"), margin=0.1)
LOWER = Paired(metric="m", arms=("a", "b"), margin=0.1, direction="lower")
NOT_WORSE = Paired(metric="m", arms=("a", "b"), margin=-0.1)


@pytest.mark.parametrize(
    ("kind", "difference", "expected"),
    [
        (PAIRED, 0.2, "supported"),
        (PAIRED, 0.11, "inconclusive"),  # interval reaches below the margin
        (PAIRED, 0.05, "inconclusive"),  # a real effect, smaller than claimed: neither region
        (PAIRED, -0.01, "inconclusive"),
        (PAIRED, -0.2, "refuted"),
        (LOWER, -0.2, "supported"),
        (LOWER, 0.2, "refuted"),
        (LOWER, -0.05, "inconclusive"),
        (NOT_WORSE, -0.05, "supported"),
        (NOT_WORSE, -0.15, "refuted"),
        (NOT_WORSE, -0.1, "inconclusive"),
    ],
)
def test_paired(kind, difference, expected):
    verdict = judge(kind, rows(a=difference, b=0.0))
    assert verdict.verdict == expected
    assert verdict.effect.estimate == pytest.approx(difference)


def test_pairing_by_seed_does_not_depend_on_the_order_of_rows():
    shuffled = rows(a=0.2, b=0.0)
    np.random.default_rng(0).shuffle(shuffled)
    assert judge(PAIRED, shuffled) == judge(PAIRED, rows(a=0.2, b=0.0))
    assert judge(PAIRED, shuffled).effect.half_width < 0.03  # not widened by the seed effect of ±1


def test_no_effect_at_all_refutes_rather_than_supports_a_margin_of_zero():
    kind = Paired(metric="m", arms=("a", "b"))
    same = [Row(arm, seed, m=1.0) for arm in "ab" for seed in range(5)]
    assert judge(kind, same).verdict == "refuted"


def test_paired_by_a_share_of_the_second_arm():
    kind = Paired(metric="m", arms=("a", "b"), margin=Relative(0.1), direction="lower")
    data = [Row("b", s, m=10.0 + s) for s in range(5)]
    for share, expected in ((0.8, "supported"), (0.95, "inconclusive"), (1.1, "refuted")):
        arm = [Row("a", s, m=(10.0 + s) * share * (1 + 0.1 * SPREAD[s])) for s in range(5)]
        verdict = judge(kind, arm + data)
        assert verdict.verdict == expected
        assert verdict.effect.estimate == pytest.approx(share - 1, abs=1e-3)


@pytest.mark.parametrize(
    ("kind", "factor", "expected"),
    [
        (Ratio(metric="m", arms=("a", "b"), at_least=2), 3.0, "supported"),
        (Ratio(metric="m", arms=("a", "b"), at_least=2), 1.5, "inconclusive"),
        (Ratio(metric="m", arms=("a", "b"), at_least=2), 0.9, "refuted"),
        (Ratio(metric="m", arms=("a", "b"), at_least=0.8), 0.9, "supported"),
        (Ratio(metric="m", arms=("a", "b"), at_least=0.8), 0.7, "refuted"),
        (Ratio(metric="m", arms=("a", "b"), at_most=0.5), 0.4, "supported"),
        (Ratio(metric="m", arms=("a", "b"), at_most=0.5), 1.1, "refuted"),
        (Ratio(metric="m", arms=("a", "b"), at_least=2, at_most=10), 4.0, "supported"),
        (Ratio(metric="m", arms=("a", "b"), at_least=2, at_most=10), 20.0, "refuted"),
        (
            Ratio(metric="m", arms=("a", "b"), at_least=2, at_most=10, refuted=Region(high=1)),
            20.0,
            "inconclusive",
        ),
    ],
)
def test_ratio(kind, factor, expected):
    data = [Row("b", s, m=5.0 + s) for s in range(5)]
    data += [Row("a", s, m=factor * (5.0 + s) * (1 + SPREAD[s])) for s in range(5)]
    assert judge(kind, data).verdict == expected


ORDER = Ordering(metric="m", arms=("a", "b", "c"), margin=0.05)


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ({"a": 0.4, "b": 0.2, "c": 0.0}, "supported"),
        ({"a": 0.4, "b": 0.02, "c": 0.0}, "inconclusive"),
        ({"a": 0.0, "b": 0.2, "c": 0.0}, "refuted"),
        ({"c": 0.0, "b": 0.0, "a": 0.2}, "refuted"),  # b and c are exactly equal, which is no order
    ],
)
def test_ordering(means, expected):
    # Noise on the first arm alone would make b - c exact; give each its own.
    data = [
        Row(arm, s, m=mean + 0.5 * SPREAD[(s * (i + 2)) % 5])
        for i, (arm, mean) in enumerate(means.items())
        for s in range(5)
    ]
    if expected == "refuted" and means["b"] == means["c"]:
        data = [Row(arm, s, m=means[arm]) for arm in means for s in range(5)]
    assert judge(ORDER, data).verdict == expected


def test_ordering_where_lower_is_better_is_the_mirror_image():
    mirrored = Ordering(metric="m", arms=("a", "b", "c"), margin=0.05, direction="lower")
    data = rows(a=0.4, b=0.2, c=0.0)
    negated = [Row(r.arm, r.seed, m=-r.number("m")) for r in data]
    assert judge(mirrored, negated).effect == judge(ORDER, data).effect


@pytest.mark.parametrize(
    ("kind", "mean", "expected"),
    [
        (Fit(metric="m", arm="a", low=0.3, high=0.5), 0.4, "supported"),
        (Fit(metric="m", arm="a", low=0.3, high=0.5), 0.49, "inconclusive"),
        (Fit(metric="m", arm="a", low=0.3, high=0.5), 0.6, "refuted"),
        (Fit(metric="m", arm="a", low=0.3, high=0.5), 0.1, "refuted"),
        (Threshold(metric="m", arm="a", at_least=0.9), 0.95, "supported"),
        (Threshold(metric="m", arm="a", at_least=0.9), 0.9, "inconclusive"),
        (Threshold(metric="m", arm="a", at_least=0.9), 0.8, "refuted"),
        (Threshold(metric="m", arm="a", at_most=0.9), 0.8, "supported"),
        (Threshold(metric="m", arm="a", at_least=0.9, refuted=Region(high=0.5)), 0.8, "inconclusive"),
    ],
)
def test_fit_and_threshold(kind, mean, expected):
    assert judge(kind, alone(mean)).verdict == expected


@pytest.mark.parametrize(
    ("kind", "difference", "expected"),
    [
        (Equivalent(metric="m", arms=("a", "b"), margin=Absolute(0.1)), 0.05, "supported"),
        (Equivalent(metric="m", arms=("a", "b"), margin=0.1), -0.09, "inconclusive"),
        (Equivalent(metric="m", arms=("a", "b"), margin=0.1), 0.2, "refuted"),
        (Equivalent(metric="m", arms=("a", "b"), margin=0.1, refuted=outside(0.3)), 0.2, "inconclusive"),
        (Equivalent(metric="m", arms=("a", "b"), margin=0.1, refuted=outside(0.3)), -0.4, "refuted"),
    ],
)
def test_equivalent(kind, difference, expected):
    assert judge(kind, rows(a=difference, b=0.0)).verdict == expected


def test_noise_is_not_equivalence():
    rng = np.random.default_rng(1)
    data = [Row(arm, s, m=rng.normal()) for arm in "ab" for s in range(5)]
    assert judge(Equivalent(metric="m", arms=("a", "b"), margin=0.2), data).verdict == "inconclusive"


def test_equivalent_by_a_share():
    kind = Equivalent(metric="m", arms=("a", "b"), margin=Relative(0.03))
    near = [Row("a", s, m=2.35 + SPREAD[s] / 10) for s in range(5)] + [
        Row("b", s, m=2.3367) for s in range(5)
    ]
    verdict = judge(kind, near)
    assert verdict.verdict == "supported"
    assert verdict.effect.estimate == pytest.approx(2.35 / 2.3367 - 1, abs=1e-4)
    assert kind.show(verdict.effect.estimate) == "+0.569 %"


def test_inconclusive_says_how_many_seeds_would_decide():
    verdict = judge(PAIRED, rows(a=0.11, b=0.0))
    assert verdict.needed is not None
    assert verdict.needed > 5
    assert f"about {verdict.needed} seeds" in verdict.reason
    stuck = judge(PAIRED, rows(a=0.05, b=0.0))
    assert stuck.needed is None
    assert "between the regions" in stuck.reason
    against = judge(PAIRED, rows(a=-0.01, b=0.0))
    assert against.needed is not None  # would be refuted with more seeds


def test_p_values_are_under_five_per_cent_exactly_where_the_interval_lies_inside():
    for mean in np.linspace(-0.3, 0.3, 61):
        verdict = judge(PAIRED, rows(a=float(mean), b=0.0))
        assert (verdict.p_supported < 0.05) == (verdict.verdict == "supported")
        assert (verdict.p_refuted < 0.05) == (verdict.verdict == "refuted")


def test_a_diverged_arm_is_inconclusive_unless_the_claim_said_how_it_counts():
    data = [*rows(a=0.2, b=0.0)[:-1], Row("b", 4, m=math.nan)]
    verdict = judge(PAIRED, data)
    assert (verdict.verdict, verdict.effect) == ("inconclusive", None)
    assert "diverged" in verdict.reason
    assert verdict.diverged == (("b", 1),)
    counted = judge(LOWER, [*rows(a=-0.2, b=0.0)[:-1], Row("b", 4, m=math.inf)], diverged={"m": 2.0})
    assert counted.verdict == "supported"
    assert counted.diverged == (("b", 1),)


def test_a_ratio_of_zero_is_inconclusive_with_the_reason():
    data = [Row(arm, s, m=0.0 if arm == "a" else 1.0) for arm in "ab" for s in range(5)]
    verdict = judge(Ratio(metric="m", arms=("a", "b"), at_least=2), data)
    assert verdict.verdict == "inconclusive"
    assert "positive" in verdict.reason


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (alone(0.0), "no row of arm 'b'"),
        (rows(a=0.0, b=0.0)[:-1], "differ in seeds"),
        ([*rows(a=0.0, b=0.0), Row("a", 0, m=1.0)], "two rows"),
        ([Row(arm, s, other=1.0) for arm in "ab" for s in range(5)], "no metric 'm'"),
    ],
)
def test_rows_that_do_not_fit_the_claim_are_an_error(data, message):
    with pytest.raises(DataError, match=message):
        judge(PAIRED, data)


def items(count: int, gain: float, clusters=None) -> list[Row]:
    rng = np.random.default_rng(2)
    hard = rng.random(count)
    return [
        Row("a", 0, clusters=clusters, m=(rng.random(count) < hard * (1 - gain) + gain)),
        Row("b", 0, clusters=clusters, m=(rng.random(count) < hard)),
    ]


def test_items_of_one_seed_decide_where_items_dominate():
    kind = Paired(metric="m", arms=("a", "b"), margin=0.02)
    verdict = judge(kind, items(400, 0.4), unit="item")
    assert verdict.verdict == "supported"
    assert verdict.effect.n == 400
    assert judge(kind, items(400, 0.0), unit="item").verdict == "inconclusive"
    ratio = Ratio(metric="m", arms=("a", "b"), at_least=1.1)
    assert judge(ratio, items(400, 0.6), unit="item").verdict == "supported"
    assert (
        judge(Threshold(metric="m", arm="a", at_least=0.5), items(400, 0.6), unit="item").verdict
        == "supported"
    )


def test_items_seen_by_several_seeds_are_not_counted_twice():
    one = items(300, 0.4)
    twice = one + [Row(r.arm, 1, m=r["m"]) for r in one]
    kind = Paired(metric="m", arms=("a", "b"))
    first, second = judge(kind, one, unit="item"), judge(kind, twice, unit="item")
    assert second.effect.n == 300
    assert second.effect.half_width == pytest.approx(first.effect.half_width, rel=1e-9)


def test_too_few_clusters_decide_nothing():
    verdict = judge(PAIRED, items(400, 0.9, clusters=[i % 12 for i in range(400)]), unit="item")
    assert verdict.verdict == "inconclusive"
    assert "12 clusters" in verdict.reason


def test_items_must_match_between_arms():
    with pytest.raises(DataError, match="items"):
        judge(PAIRED, [Row("a", 0, m=[1.0] * 40), Row("b", 0, m=[1.0] * 41)], unit="item")
    with pytest.raises(DataError, match="cluster ids"):
        judge(PAIRED, [Row(x, 0, m=[1.0] * 40, clusters=[1, 2]) for x in "ab"], unit="item")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Paired(metric="m", arms=("a", "a")),
        lambda: Paired(metric="m", arms=("a", "b"), direction="up"),
        lambda: Paired(metric="m", arms=("a", "b"), margin=math.nan),
        lambda: Paired(metric="m", arms=("a", "b"), margin=0.1, refuted=Region(high=0.2)),
        lambda: Ratio(metric="m", arms=("a", "b")),
        lambda: Ratio(metric="m", arms=("a", "b"), at_least=-1.0),
        lambda: Ordering(metric="m", arms=("a", "b", "a")),
        lambda: Ordering(metric="m", arms=("a", "b"), margin=-1.0),
        lambda: Fit(metric="m", arm="a", low=2.0, high=1.0),
        lambda: Threshold(metric="m", arm="a"),
        lambda: Equivalent(metric="m", arms=("a", "b"), margin=0.0),
        lambda: Equivalent(metric="m", arms=("a", "b"), margin=0.1, refuted=outside(0.05)),
        lambda: Fit(metric="m", arm="a", low=0.0, high=1.0).over("a", "b"),
    ],
)
def test_kinds_that_could_be_bent_or_mean_nothing_are_refused(make):
    with pytest.raises(UsageError):
        make()


@given(st.floats(-10, 10), st.floats(0, 5), st.floats(-10, 10), st.floats(0.1, 5), st.booleans())
def test_a_region_holds_an_interval_if_it_holds_both_ends(at, half, low, width, closed):
    region = Region(low, low + width, closed)
    interval = Interval(at, at - half, at + half, 0.95, 5, "")
    ends = [
        region.low <= x <= region.high if closed else region.low < x < region.high
        for x in (interval.low, interval.high)
    ]
    assert region.holds(interval) == all(ends)


def test_kinds_say_themselves_in_words():
    assert PAIRED.promise() == "m of a is higher than of b by more than 0.1"
    assert NOT_WORSE.promise() == "m of a is not below b by more than 0.1"
    assert ORDER.promise() == "m: a > b > c, each by more than 0.05"
    assert Ratio(metric="m", arms=("a", "b"), at_least=2).promise() == "m of a is at least 2 times that of b"
    assert Ratio(metric="m", arms=("a", "b"), at_least=2).show(2.5) == "2.5×"
