"""Smooth against break: known curves get their verdict, and chance gets its share."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import curve_fit

from posterhall.errors import DataError
from posterhall.scaling.emergence import Toy, compare, predict_largest
from posterhall.scaling.emergence._separable import fit, foretell
from posterhall.scaling.emergence.curves import MODELS

SCALES = np.logspace(8, 11.5, 12)
DECADES = np.log10(SCALES)
TOY = Toy()
BY_NAME = {model.name: model for model in MODELS}


def noisy(curve, sd=0.01, seed=0):
    return curve + np.random.default_rng(seed).normal(0, sd, len(curve))


@pytest.mark.parametrize("length", [1, 5, 20])
def test_the_toy_model_is_smooth_under_every_metric_without_noise(length):
    for curve, bounds in (
        (TOY.accuracy(SCALES, length), (0, 1)),
        (TOY.edit_distance(SCALES, length), None),
        (TOY.cross_entropy(SCALES), None),
    ):
        assert compare(SCALES, curve, bounds=bounds).verdict == "smooth"


def test_a_true_transition_is_a_break_under_accuracy_and_under_loss():
    known = DECADES > 9.6
    accuracy = noisy(np.where(known, 0.95, 0.05))
    loss = noisy(np.where(known, 0.1, 3.0) - 0.05 * DECADES, 0.05)
    for curve, sd in ((accuracy, 0.01), (loss, 0.05)):
        found = compare(SCALES, curve, noise=np.full(12, sd))
        assert found.verdict == "break"
        assert found.best("break").name == "jump"
        assert found.best("break").held_out < 0.5 * found.best("smooth").held_out
        assert found.p < 0.05


def test_a_kink_is_a_break_of_slopes():
    found = compare(SCALES, noisy(0.5 * np.maximum(DECADES - 9.8, 0)), noise=np.full(12, 0.01))
    assert found.verdict == "break"
    assert found.best("break").name == "two segments"


def test_smooth_curves_with_noise_are_rarely_called_breaks_and_jumps_mostly_are():
    verdicts = {"smooth": [], "jump": []}
    for seed in range(14):
        rng = np.random.default_rng(seed)
        smooth = TOY.accuracy(SCALES, 5)
        jump = np.where(rng.uniform(9.2, 10.2) < DECADES, 0.9, 0.05)
        for name, rate in (("smooth", smooth), ("jump", jump)):
            scores = rng.binomial(1000, rate) / 1000
            noise = np.sqrt(rate * (1 - rate) / 1000)
            verdicts[name].append(compare(SCALES, scores, noise=noise, bounds=(0, 1), resamples=40).verdict)
    assert verdicts["smooth"].count("break") <= 2  # 1 to 5 of 100
    assert verdicts["jump"].count("break") >= 9  # 84 of 100


def test_order_and_unit_of_scale_do_not_matter():
    scores = noisy(TOY.accuracy(SCALES, 5), 0.02)
    order = np.random.default_rng(3).permutation(12)
    noise = np.linspace(0.01, 0.03, 12)
    plain = compare(SCALES, scores, noise=noise)
    assert compare(SCALES[order], scores[order], noise=noise[order]) == plain
    other = compare(SCALES * 1e-6, scores, noise=noise)
    assert [m.name for m in other.models] == [m.name for m in plain.models]
    assert [m.held_out for m in other.models] == pytest.approx([m.held_out for m in plain.models])


def test_too_few_scales_have_no_verdict():
    found = compare(SCALES[:5], [0, 0, 0, 0, 1])
    assert (found.verdict, found.p, found.models) == ("too few scales", None, ())


def test_the_sigmoid_fit_is_as_good_as_scipys():
    u = np.linspace(0, 1, 12)
    y = noisy(0.1 + 0.8 / (1 + np.exp(-(u - 0.55) / 0.12)), 0.02)

    def curve(u, low, height, middle, width):
        return low + height / (1 + np.exp(-(u - middle) / width))

    best, _ = curve_fit(curve, u, y, p0=(0.1, 0.8, 0.5, 0.1))
    peer = float(np.square(curve(u, *best) - y).sum())
    assert fit(BY_NAME["sigmoid"], u, y).rss == pytest.approx(peer, rel=1e-3)


@pytest.mark.parametrize("name", ["line", "parabola"])
def test_polynomials_are_numpys(name):
    u, y = np.linspace(0, 1, 9), noisy(np.linspace(0, 1, 9), 0.1)
    expected = np.polyval(np.polyfit(u, y, BY_NAME[name].degree), [1.1, 1.3])
    assert fit(BY_NAME[name], u, y).predict(np.array([1.1, 1.3])) == pytest.approx(expected)
    assert foretell(BY_NAME[name], u, y[None], np.array([1.1, 1.3]))[0] == pytest.approx(expected)


def test_a_power_law_is_met_exactly_and_foretold():
    loss = 1.7 + 3 * SCALES**-0.1
    found = predict_largest(SCALES, loss)
    assert found.model == "power law"
    assert found.predicted == pytest.approx(loss[-1], rel=1e-5)


def test_the_interval_of_a_prediction_covers_smooth_curves_and_a_jump_surprises():
    outside = 0
    for seed in range(40):
        rate = TOY.accuracy(SCALES, 5)
        scores = np.random.default_rng(seed).binomial(1000, rate) / 1000
        noise = np.sqrt(rate * (1 - rate) / 1000)
        found = predict_largest(SCALES, scores, noise=noise, bounds=(0, 1), resamples=300)
        assert found.low <= found.predicted <= found.high
        outside += found.surprise != "none"
    assert outside <= 8  # 3 to 9 of 100
    late = noisy(np.r_[np.full(11, 0.02), 0.9], 0.005)
    assert predict_largest(SCALES, late, noise=np.full(12, 0.005)).surprise == "above"


@pytest.mark.parametrize(
    ("x", "y", "options", "match"),
    [
        ([0, 1, 2, 3, 4, 5], range(6), {}, "must be positive"),
        ([1, 1, 2, 3, 4, 5], range(6), {}, "2 scores at scale 1"),
        (range(1, 7), range(6), {"noise": [0, 0, 0, 0, 0, -1]}, "not negative"),
    ],
)
def test_series_that_cannot_be_compared_are_refused(x, y, options, match):
    for function in (compare, predict_largest):
        with pytest.raises(DataError, match=match):
            function(x, y, **options)


def test_foretelling_needs_four_smaller_scales():
    with pytest.raises(DataError, match="four smaller"):
        predict_largest([1, 2, 3, 4], [1, 2, 3, 4])


def test_a_constant_curve_foretells_itself():  # exact match 0 at every size
    found = predict_largest([1e6, 1e7, 1e8, 1e9, 1e10, 1e11], np.zeros(6))
    assert (found.predicted, found.low, found.high, found.surprise) == (0.0, 0.0, 0.0, "none")
