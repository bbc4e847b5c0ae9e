"""From scores to findings: the paper's claims and its weak points, on data whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as reference

from posterhall.errors import DataError
from posterhall.scaling.emergence import Toy, analyse, grouped, per_sample, plan, survival, tally
from posterhall.scaling.emergence.planner import least_rate
from posterhall.scaling.emergence.resampling import Resampler, straight
from posterhall.scaling.emergence.series import Row

SCALES = np.logspace(8, 11.5, 12)
TOY = Toy()


def rows(scores, scales=SCALES, task="t", metric="exact_match", **fields):
    return [Row("x", "f", task, metric, x, y, **fields) for x, y in zip(scales, scores, strict=True)]


def one(scores, **fields):
    (finding,) = analyse(rows(scores, **fields))
    return finding


# -- the toy model ----------------------------------------------------------------------------------


def test_toy_formulas():
    assert TOY.cross_entropy(1e8) == 1.0
    assert TOY.p(1e8) == pytest.approx(math.exp(-1))
    assert TOY.accuracy(1e8, 5) == pytest.approx(math.exp(-5))  # .0067, as in the paper's figure
    assert TOY.edit_distance(SCALES, 7) == pytest.approx(7 * (1 - TOY.p(SCALES)))
    with pytest.raises(DataError, match="the loss falls"):
        Toy(alpha=0.25)


def test_same_outputs_sharp_under_exact_match_and_straight_under_edit_distance():
    sharp = one(TOY.accuracy(SCALES, 20))
    straight_line = one(TOY.edit_distance(SCALES, 20), metric="token_edit_distance")
    assert sharp.normalised >= 5
    assert straight_line.normalised == pytest.approx(1, abs=0.1)
    assert straight_line.score > 0  # less distance is improvement


def test_a_hundred_items_see_no_long_answer_and_the_score_is_infinite():
    for seed in range(5):
        found = one(TOY.sampled_accuracy(SCALES, 20, 100, seed=seed), n=100)
        assert found.score == math.inf
        assert "resolution-limited" in found.flags
        assert found.p > 0.05  # a straight improvement of that size would look the same


def test_more_items_lift_every_size_above_zero():
    few, many = (TOY.sampled_accuracy(SCALES, 5, items, seed=0) for items in (100, 100_000))
    assert (few == 0).any()
    assert (many > 0).all()


# -- resolution -------------------------------------------------------------------------------------


def test_items_needed_to_see_a_rate_are_the_closed_forms():
    (found,) = plan(math.exp(-1), [5])
    q = math.exp(-5)
    assert found.rate == pytest.approx(q)
    assert found.items_measured == math.ceil((1 - q) / (q * 0.01))
    assert found.items_measured == pytest.approx(100 / q, rel=0.01)
    # Binomial: the chance of none right in n items is (1 - q)^n.
    assert (
        reference.binom.cdf(0, found.items_seen, q) <= 0.05 < reference.binom.cdf(0, found.items_seen - 1, q)
    )


def test_planned_items_give_the_planned_error():
    rng = np.random.default_rng(0)
    (found,) = plan(0.6, [4], relative_error=0.2)
    accuracy = rng.binomial(found.items_measured, found.rate, 20_000) / found.items_measured
    assert accuracy.std() / found.rate == pytest.approx(0.2, rel=0.05)
    wrong = rng.binomial(4 * found.items_edit_distance, 0.4, 20_000) / found.items_edit_distance
    assert wrong.std() / (4 * 0.4) == pytest.approx(0.2, rel=0.05)
    assert least_rate(found.items_measured, relative_error=0.2) == pytest.approx(found.rate, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"p": 0.0}, "p is 0"),
        ({"p": 1.0}, "p is 1"),
        ({"p": 0.5, "lengths": [0]}, "one token or more"),
        ({"p": 0.5, "relative_error": 0}, "must be positive"),
        ({"p": 0.5, "probability": 1.0}, "probability is 1"),
        ({"p": 1e-10, "lengths": [100]}, "no test can show it"),
    ],
)
def test_plans_that_cannot_be_made_are_refused(arguments, match):
    with pytest.raises(DataError, match=match):
        plan(**arguments)


# -- intervals and tests ----------------------------------------------------------------------------


def test_p_values_are_uniform_where_the_improvement_is_straight():
    rng = np.random.default_rng(3)
    rate = np.linspace(0.1, 0.7, 5)
    scales = np.logspace(8, 10, 5)
    data = [r for i in range(300) for r in rows(rng.binomial(500, rate) / 500, scales, task=f"t{i}", n=500)]
    findings = analyse(data, resamples=200)
    p = np.array([finding.p for finding in findings])
    assert reference.kstest(p, "uniform").pvalue > 0.001
    assert sum(finding.significant for finding in findings) <= 3
    assert [finding.q for finding in findings] == pytest.approx(reference.false_discovery_control(p))


def test_a_sharp_curve_seen_well_is_sharper_than_a_line_and_still_smooth():
    found = one(TOY.sampled_accuracy(SCALES, 20, 100_000, seed=0), n=100_000)
    assert found.significant
    assert found.low > 11
    assert found.verdict == "smooth"


def test_items_are_resampled_together_over_scales():
    rng = np.random.default_rng(0)
    difficulty = rng.normal(size=400)
    ability = np.linspace(-1, 1, 6)
    right = (ability[:, None] > difficulty).astype(float)  # nested: an item once right stays right
    data = [
        Row("x", "f", "t", "acc", 10.0 ** (8 + i), right[i, j], item=str(j))
        for i in range(6)
        for j in range(400)
    ]
    (series,) = grouped(data)
    resampler = Resampler(0, 2000)
    drawn = resampler.scores(series)
    assert drawn.mean(axis=0) == pytest.approx(series.scores, abs=0.005)
    steps = np.diff(drawn, axis=1)
    assert (steps >= 0).all()  # drawn apart, noise would turn some steps round
    share = np.diff(series.scores)
    assert steps.std(axis=0) == pytest.approx(np.sqrt(share * (1 - share) / 400), rel=0.1)
    (finding,) = analyse(data)
    assert finding.method == "items"
    assert finding.low <= finding.score <= finding.high
    assert finding.correlation["constant"] == pytest.approx(
        ((right.sum(axis=0) == 0) | (right.sum(axis=0) == 6)).mean()
    )


def test_items_that_go_together_widen_the_interval():
    rng = np.random.default_rng(4)
    right = (rng.random(60) < np.linspace(0.2, 0.8, 6)[:, None]).astype(float)
    widths = []
    for alone in (True, False):
        data = [
            Row("x", "f", "t", "acc", 10.0**i, right[i, c], item=f"{c}-{k}", cluster="" if alone else str(c))
            for i in range(6)
            for c in range(60)
            for k in range(5)
        ]
        (finding,) = analyse(data)
        assert finding.method == ("items" if alone else "clusters")
        spread = Resampler(0, 2000).scores(finding.series).std(axis=0)
        widths.append(spread.mean())
    assert widths[1] / widths[0] == pytest.approx(math.sqrt(5), rel=0.1)


def test_seeds_give_intervals_to_any_metric():
    rng = np.random.default_rng(1)
    data = [
        Row("x", "f", "t", "nll", x, 3 - i / 4 + rng.normal(0, 0.02), seed=str(s))
        for i, x in enumerate(SCALES[:8])
        for s in range(6)
    ]
    (found,) = analyse(data)
    assert found.method == "seeds"
    assert found.p > 0.05
    assert found.normalised == pytest.approx(1, abs=0.15)
    assert found.series.sign == -1


def test_null_noise_has_the_size_of_the_means_noise():
    rng = np.random.default_rng(2)
    data = [Row("x", "f", "t", "nll", x, rng.normal(), seed=str(s)) for x in SCALES for s in range(8)]
    (series,) = grouped(data)
    drawn = Resampler(0, 4000).noisy(series, straight(series), "null")
    assert drawn.std(axis=0) == pytest.approx(series.errors, rel=0.1)


def test_without_items_seeds_or_counts_there_is_no_p_value_and_that_is_said():
    found = one([3.0, 2.0, 1.5, 1.2], scales=SCALES[:4], metric="nll")
    assert (found.p, found.q, found.significant, found.low) == (None, None, None, None)
    assert "noise-unknown" in found.flags
    given = one([3.0, 2.0, 1.5, 1.2], scales=SCALES[:4], metric="nll", stderr=0.1)
    assert given.p is not None


def test_few_seeds_and_surprises_are_flagged():
    rng = np.random.default_rng(0)
    data = [
        Row("x", "f", "t", "nll", x, 3 - i / 4 + rng.normal(0, 0.01) - (i == 7), seed=str(s))
        for i, x in enumerate(SCALES[:8])
        for s in range(3)
    ]
    (found,) = analyse(data)
    assert set(found.flags) == {"few-seeds", "largest-below-prediction"}
    assert found.prediction.surprise == "below"


def test_few_scales_are_scored_and_not_judged():
    found = one([0.1, 0.2, 0.9], scales=[1, 2, 3], n=100)
    assert found.flags == ("few-scales",)
    assert found.p is None
    assert found.verdict == "too few scales"
    assert found.prediction is None


def test_results_depend_neither_on_the_order_of_series_nor_on_the_others():
    a = rows(TOY.sampled_accuracy(SCALES, 5, 200, seed=0), task="a", n=200)
    b = rows(TOY.sampled_accuracy(SCALES, 2, 200, seed=1), task="b", n=200)
    alone = analyse(a)[0]
    for data in (a + b, b + a, a[::-1] + b):
        found = next(f for f in analyse(data) if f.series.task == "a")
        assert (found.low, found.high, found.p, found.prediction) == (
            alone.low, alone.high, alone.p, alone.prediction,
        )  # fmt: skip
    assert analyse(a, seed=1)[0].high != alone.high


def test_series_of_a_single_scale_are_left_out_and_nothing_is_an_error():
    assert len(analyse(rows([0.1, 0.2], scales=[1, 2]) + rows([0.3], scales=[1], task="u"))) == 1
    with pytest.raises(DataError, match="different family names"):
        analyse(rows([0.3], scales=[1]))
    for bad in ({"resamples": 10}, {"fdr": 0.0}, {"level": 1.0}):
        with pytest.raises(DataError):
            analyse(rows([0.1, 0.2], scales=[1, 2]), **bad)


def test_the_tally_counts_what_looks_emergent_by_metric():
    exact = rows(TOY.sampled_accuracy(SCALES, 20, 100, seed=0), n=100)
    distance = rows(TOY.edit_distance(SCALES, 20), metric="token_edit_distance")
    counted = tally(analyse(exact + distance))
    assert [(row["name"], row["notable"], row["infinite"]) for row in counted] == [
        ("exact_match", 1, 1),
        ("token_edit_distance", 0, 0),
    ]


def test_an_infinite_score_is_null_in_json_and_flagged():
    import json

    from posterhall.config import finite

    found = one(TOY.sampled_accuracy(SCALES, 20, 100, seed=0), n=100).to_dict()
    assert found["score"] == math.inf
    printed = json.loads(json.dumps(finite(found), allow_nan=False))
    assert printed["score"] is None
    assert "resolution-limited" in printed["flags"]


# -- correlation of single items --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "peer"),
    [("pearson", reference.pearsonr), ("spearman", reference.spearmanr), ("kendall", reference.kendalltau)],
)
def test_per_item_correlations_are_scipys(kind, peer):
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (9, 30)).astype(float)  # ties
    scale = np.r_[rng.uniform(1e8, 1e11, 8), 1e9]
    expected = [peer(np.log(scale), scores[:, j])[0] for j in range(30)]
    assert per_sample(scores, scale, kind) == pytest.approx(expected)


def test_items_that_never_change_follow_nothing():
    found = per_sample([[0, 1.0], [0, 2.0], [0, 3.0]], [1, 2, 3])
    assert math.isnan(found[0])
    assert found[1] == pytest.approx(1)
    assert survival(found, [-0.5, 0.0, 0.5, 1.0]).tolist() == [1.0, 0.5, 0.5, 0.0]


def test_correlation_falls_along_the_chain_of_scores():
    from posterhall.metrics import probability

    rng = np.random.default_rng(0)
    scale = np.logspace(8, 11, 10)
    right = np.log(scale / 1e8)[:, None] * rng.uniform(0.2, 1, 300) + rng.normal(0, 0.2, (10, 300))
    wrong = np.log(scale / 1e8)[:, None, None] * rng.uniform(0, 0.9, (300, 3)) + rng.normal(
        0, 0.6, (10, 300, 3)
    )
    logits = np.concatenate([right[..., None], wrong], axis=2) - 8
    chains = [probability.chain(each, np.zeros(300, int)) for each in logits]
    medians = [
        np.nanmedian(np.nan_to_num(per_sample(sign * np.stack([chain[name] for chain in chains]), scale)))
        for name, sign in (("nll", -1), ("p_choices", 1), ("accuracy", 1))
    ]
    assert medians[0] > medians[1] > medians[2]


@pytest.mark.parametrize(
    ("scores", "scale", "kind", "match"),
    [
        ([[1.0], [2.0]], [1, 2], "spearman", "three models"),
        ([[1.0], [2.0], [3.0]], [1, 1, 1], "spearman", "not all equal"),
        ([[1.0], [-math.inf], [3.0]], [1, 2, 3], "spearman", "clip log 0"),
        ([[1.0], [2.0], [3.0]], [1, 2, 3], "phi", "allowed are"),
    ],
)
def test_what_cannot_be_correlated_is_refused(scores, scale, kind, match):
    with pytest.raises(DataError, match=match):
        per_sample(scores, scale, kind)
    with pytest.raises(DataError, match="one an item"):
        survival([], [0])


# -- a real data set --------------------------------------------------------------------------------


def test_linear_autoencoders_of_digits_reconstruct_smoothly_or_suddenly_by_metric():
    datasets = pytest.importorskip("sklearn.datasets")
    x = datasets.load_digits().data / 16.0
    order = np.random.default_rng(0).permutation(len(x))
    train, test = x[order[:1200]], x[order[1200:]]
    test = test - train.mean(axis=0)
    _, _, axes = np.linalg.svd(train - train.mean(axis=0), full_matrices=False)
    widths = [1, 2, 4, 8, 16, 32, 48, 64]
    errors = [np.square(test - test @ axes[:k].T @ axes[:k]).sum(axis=1) for k in widths]
    assert errors[0].mean() == pytest.approx(4.04, abs=0.01)
    mse = one([each.mean() for each in errors], scales=widths, metric="mse")
    within = [(each < 1).mean() for each in errors]
    sudden = one(within, scales=widths, metric="reconstructed", n=len(test))
    assert within[2:5] == pytest.approx([0.003, 0.178, 0.839], abs=0.001)
    assert mse.score == pytest.approx(6.4, abs=0.05)
    assert sudden.score == pytest.approx(298, abs=1)
    assert one([(each < 0.1).mean() for each in errors], scales=widths, metric="r").score == math.inf
