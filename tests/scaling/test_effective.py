"""What repeated tokens are worth: the paper's numbers, the limits, and the laws that are one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.errors import DataError
from posterhall.scaling import PUBLISHED, effective_data, effective_params, useful_params
from posterhall.scaling.effective import balance, worth

C4 = PUBLISHED["c4"].values
REPEATS = st.floats(0, 1e4)
LIVES = st.floats(1e-3, 1e9)


@pytest.mark.parametrize(("epochs", "share"), [(4, 0.931), (16, 0.661), (44, 0.351)])
def test_the_papers_shares_of_fresh_data(epochs, share):
    found = effective_data(1e9, epochs * 1e9, C4["R_D"]) / (epochs * 1e9)
    assert found == pytest.approx(share, abs=5e-4)


def test_c4_can_use_one_parameter_for_about_twenty_tokens():
    u = 1e11
    useful = useful_params(u, **{k: C4[k] for k in ("A", "B", "alpha", "beta")})
    assert float(useful) / u == pytest.approx(0.050987, rel=2e-5)


def test_chinchillas_balance_is_that_of_the_closed_form():
    # d/dN of A N^-alpha + B (C / 6N)^-beta is 0 at N = G (C/6)^(beta / (alpha + beta)).
    g = balance(A=400.0, B=2000.0, alpha=0.3, beta=0.4)
    half = 1e20
    n = g * half ** (0.4 / 0.7)
    slope = [400 * (n * (1 + s)) ** -0.3 + 2000 * (half / (n * (1 + s))) ** -0.4 for s in (-1e-3, 0, 1e-3)]
    assert slope[1] < min(slope[0], slope[2])


@pytest.mark.parametrize("decay", ["exponential", "geometric", "explicit"])
class TestEveryDecay:
    def test_an_endless_life_loses_nothing(self, decay):
        assert effective_data(1e9, 5e9, math.inf, decay) == 5e9
        assert float(effective_data(1e9, 5e9, 1e12, decay)) == pytest.approx(5e9, rel=1e-10)

    def test_no_life_brings_nothing(self, decay):
        assert effective_data(1e9, 5e9, 0.0, decay) == 1e9
        assert float(effective_data(1e9, 5e9, 1e-9, decay)) == pytest.approx(1e9, rel=1e-8)

    @given(repeats=REPEATS, life=LIVES)
    def test_it_lies_between_nothing_and_fresh_and_grows(self, decay, repeats, life):
        value = float(worth(repeats, life, decay))
        assert 0 <= value <= repeats * (1 + 1e-12) + 1e-300
        assert value <= float(worth(repeats + 1, life, decay)) + 1e-9
        assert value <= life * (1 + 1e-12)


@given(k=st.floats(1e-3, 5), epochs=st.integers(1, 60))
def test_the_explicit_law_is_a_geometric_sum(k, epochs):
    total = sum(math.exp(-k * i) for i in range(epochs))  # 1 + e^-k + ..., the definition
    found = float(effective_data(1.0, float(epochs), 1 / math.expm1(k), "explicit"))
    assert found == pytest.approx(total, rel=1e-9)


@given(delta=st.floats(0.01, 0.9), repeats=st.integers(0, 60))
def test_the_geometric_law_in_the_papers_letters(delta, repeats):
    paper = (1 - delta) * (1 - (1 - delta) ** repeats) / delta
    assert float(worth(repeats, (1 - delta) / delta, "geometric")) == pytest.approx(
        paper, rel=1e-9, abs=1e-12
    )


def test_fewer_parameters_than_the_data_can_use_all_count():
    assert effective_params(1e8, 1e9, 5.0) == 1e8


def test_a_balance_needs_positive_exponents():
    with pytest.raises(DataError, match="above 0"):
        balance(A=1.0, B=1.0, alpha=-0.1, beta=0.3)
