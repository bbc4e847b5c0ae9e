"""Best-of-n against enumeration of all draws, and the bound of its KL."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.errors import DataError
from posterhall.metrics import frontier
from posterhall.models import best_of


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_expected_best_is_the_mean_over_all_subsets(n):
    rewards = np.random.default_rng(n).integers(0, 4, n).astype(float)  # with ties
    found = best_of.expected_best(rewards)
    for k in range(1, n + 1):
        wanted = np.mean([max(each) for each in itertools.combinations(rewards, k)])
        assert found[k - 1] == pytest.approx(wanted, rel=1e-12)


def test_of_rewards_0_and_1_it_is_pass_at_k():
    n, right = 200, 13
    found = best_of.expected_best([1.0] * right + [0.0] * (n - right))
    for k in (1, 10, 100, 200):
        wanted = 1 - math.comb(n - right, k) / math.comb(n, k)
        assert found[k - 1] == pytest.approx(wanted, rel=1e-10)


@given(st.integers(0, 1000))
def test_chances_are_those_of_all_draws(seed):
    rng = np.random.default_rng(seed)
    p, rewards, n = rng.dirichlet(np.ones(4)), rng.integers(0, 3, 4).astype(float), 3
    wanted = np.zeros(4)
    for draw in itertools.product(range(4), repeat=n):
        taken = max(draw, key=lambda each: rewards[each])  # the first of equal ones
        wanted[taken] += np.prod(p[list(draw)])
    np.testing.assert_allclose(np.exp(frontier.best_of(np.log(p), rewards, n))[0], wanted, rtol=1e-10)
    kl = float((wanted * np.log(wanted / p)).sum())
    assert _kl(p, rewards, n) == pytest.approx(kl, rel=1e-8, abs=1e-12)
    assert kl <= best_of.kl_bound(n) + 1e-12


def _kl(p, rewards, n):
    return frontier.divergence(frontier.best_of(np.log(p), rewards, n), np.log(p))


@pytest.mark.parametrize("n", [1, 4, 16, 128])
def test_of_many_different_outcomes_the_kl_is_the_bound(n):
    size = 200_000
    found = _kl(np.full(size, 1 / size), np.arange(size), n)
    assert found == pytest.approx(best_of.kl_bound(n), abs=2e-3)
    assert _kl(np.full(5, 0.2), np.ones(5), n) == pytest.approx(0, abs=1e-12)  # nothing to choose


def test_the_first_of_equal_rewards_is_the_best_and_bad_input_is_refused():
    assert best_of.best([0.0, 2.0, 2.0]) == 1
    for call in (
        lambda: best_of.best([]),
        lambda: best_of.best([1.0, math.nan]),
        lambda: best_of.expected_best([math.inf]),
        lambda: best_of.kl_bound(0),
    ):
        with pytest.raises(DataError):
            call()
