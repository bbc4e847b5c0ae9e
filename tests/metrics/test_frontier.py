"""The frontier of reward against divergence, and distributions whose place under it is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from scipy.special import logsumexp

from posterhall.errors import DataError, PosterhallError
from posterhall.metrics import frontier
from posterhall.metrics.frontier import Frontier


def distribution(rng, prompts, answers, sharp=1.0):
    logits = rng.normal(size=(prompts, answers)) * sharp
    return logits - logsumexp(logits, axis=1, keepdims=True)


def test_two_answers_have_the_frontier_that_algebra_gives():
    # q = (1/2, 1/2), rewards 0 and 1: a policy that takes the good one with p expects p at log 2 - H(p).
    of = Frontier(np.log([0.5, 0.5]), [0.0, 1.0])
    for p in (0.5, 0.6, 0.9, 0.999):
        kl = math.log(2) + p * math.log(p) + (1 - p) * math.log(1 - p)
        assert of.bound(kl) == pytest.approx(p, abs=1e-7)
    assert of.reference == 0.5
    assert of.most_reward == of.bound(math.log(2)) == of.bound(50.0) == 1.0
    assert of.most_kl == pytest.approx(math.log(2))


def test_the_tilted_reference_is_the_policy_of_the_papers_eq_4():
    rng = np.random.default_rng(0)
    logq, reward = distribution(rng, 3, 40), rng.normal(size=(3, 40))
    for beta in (0.05, 0.4, 3.0):
        logp = logq + reward / beta
        logp -= logsumexp(logp, axis=1, keepdims=True)
        kl, worth = Frontier(logq, reward).tilted(beta)
        assert kl == pytest.approx(frontier.divergence(logp, logq), abs=1e-12)
        assert worth == pytest.approx(frontier.expected(logp, reward), abs=1e-12)


def test_the_bound_is_the_least_over_beta_found_by_another_search():
    rng = np.random.default_rng(1)
    logq, reward = distribution(rng, 2, 30), rng.normal(size=(2, 30))

    def dual(log_beta, kl):
        beta = math.exp(log_beta)
        return beta * (kl + logsumexp(logq + reward / beta, axis=1).mean())

    for kl in (1e-4, 0.03, 0.5, 1.5):
        least = optimize.minimize_scalar(dual, args=(kl,), bounds=(-8, 12), method="bounded").fun
        assert Frontier(logq, reward).bound(kl) == pytest.approx(least, abs=1e-6)


def test_the_frontier_is_what_constrained_optimisation_finds():
    rng = np.random.default_rng(2)
    logq, reward = distribution(rng, 1, 6), rng.normal(size=(1, 6))
    start, kl = np.exp(logq[0]), 0.3
    found = optimize.minimize(
        lambda p: -p @ reward[0],
        start,
        method="SLSQP",
        bounds=[(1e-12, 1)] * 6,
        constraints=[
            {"type": "eq", "fun": lambda p: p.sum() - 1},
            {"type": "ineq", "fun": lambda p: kl - (p * (np.log(p) - logq[0])).sum()},
        ],
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert -found.fun == pytest.approx(Frontier(logq, reward).bound(kl), abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    prompts=st.integers(1, 3),
    answers=st.integers(2, 12),
    levels=st.integers(1, 5),
    sharp=st.floats(0.1, 6),
)
def test_no_policy_lies_above_it(seed, prompts, answers, levels, sharp):
    rng = np.random.default_rng(seed)
    logq = distribution(rng, prompts, answers)
    reward = rng.integers(0, levels, (prompts, answers)).astype(float)  # with ties
    of = Frontier(logq, reward)
    logp = distribution(rng, prompts, answers, sharp)
    assert of.gap(frontier.divergence(logp, logq), frontier.expected(logp, reward)) >= -1e-9
    for beta in (0.03, 0.5, 20.0):
        assert of.gap(*of.tilted(beta)) == pytest.approx(0, abs=1e-6)


def test_what_lies_above_is_an_error_of_measurement():
    of = Frontier(np.log([0.5, 0.5]), [0.0, 1.0])
    with pytest.raises(PosterhallError, match="above what any policy can reach"):
        of.gap(0.0, 0.6)
    with pytest.raises(PosterhallError, match="above"):
        of.gap(0.1, math.nan)
    assert of.gap(0.0, 0.5 + 1e-9) == pytest.approx(0, abs=1e-8)


def test_beta_is_the_price_at_its_divergence():
    rng = np.random.default_rng(3)
    of = Frontier(distribution(rng, 2, 50), rng.normal(size=(2, 50)))
    for beta in (0.1, 1.0, 7.0):
        assert of.beta(of.tilted(beta)[0]) == pytest.approx(beta, rel=1e-6)


def test_equal_rewards_have_a_flat_frontier():
    of = Frontier(np.log([0.25, 0.75]), [2.0, 2.0])
    assert [of.bound(kl) for kl in (0.0, 0.1, 9.0)] == [2.0, 2.0, 2.0]


def test_an_answer_that_never_comes_changes_nothing():
    with_it = Frontier([math.log(0.5), math.log(0.5), -math.inf], [0.0, 1.0, math.inf])
    without = Frontier(np.log([0.5, 0.5]), [0.0, 1.0])
    assert with_it.bound(0.2) == without.bound(0.2)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_best_of_n_is_what_enumerating_all_draws_gives(n):
    rng = np.random.default_rng(4)
    logq = distribution(rng, 1, 4)
    score = np.array([[1.0, 0.0, 1.0, 2.0]])  # two are tied
    q = np.exp(logq[0])
    best = np.zeros(4)
    for draws in np.ndindex(*(4,) * n):
        chance = np.prod(q[list(draws)])
        top = [d for d in draws if score[0, d] == score[0, list(draws)].max()]
        for each in top:
            best[each] += chance / len(top)
    np.testing.assert_allclose(np.exp(frontier.best_of(logq, score, n))[0], best, atol=1e-12)


def test_best_of_n_without_ties_costs_the_known_divergence():
    # Many equally likely answers: KL comes to log n - (n - 1) / n (Beirami et al. 2024), from below.
    answers = 100_000
    logq = np.full((1, answers), -math.log(answers))
    for n in (1, 4, 64, 128):
        kl = frontier.divergence(frontier.best_of(logq, np.arange(answers)[None], n), logq)
        known = math.log(n) - (n - 1) / n
        assert kl <= known + 1e-12
        assert kl == pytest.approx(known, abs=0.002)


def test_best_of_very_many_is_the_best():
    logq = np.log([[0.9, 0.1 - 1e-7, 1e-7]])
    p = np.exp(frontier.best_of(logq, [[0.0, 1.0, 2.0]], 10**9))
    np.testing.assert_allclose(p[0], [0, 0, 1], atol=1e-9)
    assert np.exp(frontier.best_of(logq, [[0.0, 1.0, 2.0]], 10**4)).sum() == pytest.approx(1, abs=1e-12)


def test_best_of_n_leaves_out_what_never_comes():
    logq = np.array([[math.log(0.5), math.log(0.5), -math.inf]])
    np.testing.assert_allclose(np.exp(frontier.best_of(logq, [[0.0, 1.0, 9.0]], 2))[0], [0.25, 0.75, 0])


def test_divergence_by_hand_and_where_there_is_none():
    p, q = np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]])
    assert frontier.divergence(p, q) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert frontier.divergence(q, q) == 0.0
    assert frontier.divergence([[0.0, -math.inf]], q) == pytest.approx(math.log(4))
    assert math.isinf(frontier.divergence(q, [[0.0, -math.inf]]))


def test_the_envelope_mixes_policies_and_never_falls():
    at = [0.0, 0.5, 1.0, 2.0, 3.0, 9.0]
    found = frontier.attainable([0.0, 1.0, 1.5, 3.0, 4.0], [0.2, 0.6, 0.3, 0.8, 0.1], at)
    # (1.5, 0.3) lies below the chord, (4, 0.1) is worse than stopping before.
    np.testing.assert_allclose(found, [0.2, 0.4, 0.6, 0.7, 0.8, 0.8])


def test_mixtures_reach_the_envelope():
    rng = np.random.default_rng(5)
    logq, reward = distribution(rng, 2, 20), rng.normal(size=(2, 20))
    two = [distribution(rng, 2, 20) for _ in range(2)]
    kls = [frontier.divergence(each, logq) for each in two]
    rewards = [frontier.expected(each, reward) for each in two]
    for share in (0.2, 0.5, 0.9):
        mixed = np.log(share * np.exp(two[0]) + (1 - share) * np.exp(two[1]))
        assert frontier.divergence(mixed, logq) <= share * kls[0] + (1 - share) * kls[1] + 1e-12
        assert frontier.expected(mixed, reward) == pytest.approx(
            share * rewards[0] + (1 - share) * rewards[1]
        )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Frontier(np.log([0.5, 0.4]), [0, 1]), "row 0: probabilities sum to 0.9"),
        (lambda: Frontier(np.log([0.5, 0.5]), [0, math.nan]), "row 0: a reward is not finite"),
        (lambda: Frontier(np.log([0.5, 0.5]), [0, 1, 2]), "both must be"),
        (lambda: Frontier(np.zeros((0, 2)), np.zeros((0, 2))), "one of each at least"),
        (lambda: Frontier([0.0], [1.0]).bound(-0.1), "at least 0"),
        (lambda: Frontier([0.0], [1.0]).bound(math.nan), "at least 0"),
        (lambda: Frontier([0.0], [1.0]).tilted(0.0), "above 0"),
        (lambda: frontier.best_of([0.0], [1.0], 0), "at least 1"),
        (lambda: frontier.best_of([0.0], [1.0, 2.0], 1), "both must be"),
        (lambda: frontier.divergence([0.0], [0.0, 1.0]), "both must be"),
        (lambda: frontier.expected([0.0], [0.0, 1.0]), "both must be"),
        (lambda: frontier.attainable([0.5], [1.0], [0.0]), "begin with the reference"),
        (lambda: frontier.attainable([0.0, math.nan], [1.0, 1.0], [0.0]), "finite"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(DataError, match=words):
        call()
