"""Allocation against closed forms, published numbers and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterhall.errors import DataError
from posterhall.scaling import PUBLISHED, Chinchilla, DataConstrained, FitSettings, OverfittingPenalty, views
from posterhall.scaling.allocate import closed_form

FOUR = ("A", "B", "alpha", "beta")


def test_ten_to_the_22_on_25_billion_unique_tokens():
    found = DataConstrained().allocate(1e22, 25e9, draws=False)
    assert found.params == pytest.approx(7.026e9, rel=1e-3)
    assert found.tokens == pytest.approx(237.21e9, rel=1e-3)
    assert found.epochs == pytest.approx(9.488, rel=1e-3)
    assert found.loss == pytest.approx(2.2221293, abs=1e-7)


def test_galactica_by_exact_solve():
    found = DataConstrained().allocate(6 * 120e9 * 450e9, 106e9, draws=False)
    assert (found.params / 1e9, found.tokens / 1e12, found.epochs) == pytest.approx(
        (38.2, 1.415, 13.35), rel=2e-3
    )


def test_gopher_with_fresh_tokens():
    found = DataConstrained().allocate(5.76e23, draws=False)
    assert found.params == pytest.approx(69.96e9, rel=1e-3)
    assert found.tokens == pytest.approx(1.372e12, rel=1e-3)
    assert found.epochs == 1


@given(
    a=st.floats(2, 8),
    b=st.floats(2, 9),
    alpha=st.floats(0.1, 0.8),
    beta=st.floats(0.1, 0.8),
    flops=st.floats(18, 25),
)
@settings(max_examples=40)
def test_chinchillas_solve_is_the_closed_form(a, b, alpha, beta, flops):
    values = {"E": 1.7, "A": np.exp(a), "B": np.exp(b), "alpha": alpha, "beta": beta}
    n, d = closed_form(10**flops, **{k: values[k] for k in FOUR})
    if not (n > 2 and d > 2):
        return
    found = Chinchilla(values).allocate(10**flops)
    assert (found.params, found.tokens) == pytest.approx((n, d), rel=1e-4)
    assert found.loss == pytest.approx(1.7 + values["A"] * n**-alpha + values["B"] * d**-beta, rel=1e-12)


def test_strongly_limited_tokens_are_not_clipped_near_chinchillas_optimum():
    flops, unique = 1e24, 1e9
    law = DataConstrained()
    _, tokens = closed_form(flops, **{k: PUBLISHED["c4"].values[k] for k in FOUR})
    found = law.allocate(flops, unique, draws=False)
    grid = np.geomspace(1e6, flops / 6e3, 200_001)
    loss = law.loss(flops / 6 / grid, grid, unique)
    assert found.loss <= loss.min() + 1e-12
    assert found.tokens < tokens / 3  # where a scan within a factor of three stops


def test_where_loss_rises_with_epochs_a_larger_model_is_better():
    values = {**PUBLISHED["c4"].values, "P": 0.05}
    law = OverfittingPenalty({k: values[k] for k in ("E", *FOUR, "P")}, one=True)
    free, limited = law.allocate(1e21), law.allocate(1e21, 1e9)
    grid = np.geomspace(1e8, 1e13, 200_001)
    assert limited.loss == pytest.approx(law.loss(1e21 / 6 / grid, grid, 1e9).min(), abs=1e-9)
    assert limited.loss > free.loss
    assert limited.params > free.params


def test_with_the_penalty_a_large_budget_goes_into_one_pass_of_a_larger_model():
    values = {"E": 2.0413, "A": 506.3, "B": 21682.0, "alpha": 0.3381, "beta": 0.4686}
    law = OverfittingPenalty(
        {**values, "P": 0.0559, "delta": 0.349, "kappa": 0.7065}
    )  # fitted to the 182 runs
    small, large = law.allocate(1e22, 25e9), law.allocate(6e22, 25e9)
    assert 5 < small.epochs < 10
    assert (large.epochs, large.tokens) == (1, 25e9)
    assert large.params == pytest.approx(4e11)


def test_published_constants_come_with_the_width_of_the_lives():
    found = DataConstrained().allocate(1e22, 25e9)
    low, high = found.interval["epochs"]
    assert found.draws == 200
    assert low < 9.488 < high
    assert high / low > 2
    assert any("epochs" in flag for flag in found.flags)


def test_a_law_without_repetition_says_so():
    found = Chinchilla().allocate(1e22, 25e9)
    assert found.epochs > 1
    assert "takes repeated tokens for fresh ones" in found.flags[0]


def test_an_answer_far_beyond_the_runs_is_flagged():
    n, d = (x.ravel() for x in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(1e9, 1e10, 5)))
    loss = Chinchilla().loss(n, d)
    law = Chinchilla().fit(
        {"params": n, "tokens": d, "loss": loss}, settings=FitSettings(bootstrap=0, held_out=0)
    )
    assert law.allocate(6 * 1e8 * 2e9).flags == ()
    flags = law.allocate(1e24).flags
    assert any(flag.startswith("extrapolation: flops 1e+24 is 16667 times") for flag in flags)


@pytest.mark.parametrize(
    ("flops", "unique", "said"),
    [
        (0, None, "flops"),
        (float("nan"), None, "flops"),
        (1e20, -1, "unique_tokens"),
        (1e20, 0, "unique_tokens"),
    ],
)
def test_budgets_that_are_none(flops, unique, said):
    with pytest.raises(DataError, match=said):
        DataConstrained().allocate(flops, unique)


def test_a_negative_exponent_has_no_optimum():
    law = Chinchilla({"E": 1.0, "A": 1.0, "B": 100.0, "alpha": -0.1, "beta": 0.3})
    with pytest.raises(DataError, match="the fewer parameters the better"):
        law.allocate(1e20)


def test_contours_and_frontier_agree_with_the_law():
    law = DataConstrained()
    plane = views.contours(law, unique_tokens=25e9, tokens=(25e9, 5e11), params=(1e9, 1e10), points=5)
    assert plane.loss[2, 3] == pytest.approx(float(law.loss(plane.params[2], plane.tokens[3], 25e9)))
    line = views.frontier(law, (1e20, 1e23), 25e9, points=4)
    assert (np.diff(line.loss) < 0).all()
    assert 6 * line.params * line.tokens == pytest.approx(line.flops)
    with pytest.raises(DataError, match="no range"):
        views.contours(law, tokens=(5, 5), params=(1e9, 1e10))
