"""The parts of PPO against loops written from the papers' formulas, finite differences, and exact KLs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from posterhall.errors import DataError
from posterhall.objectives import ppo

torch.set_num_threads(1)
RNG = np.random.default_rng(0)


def table(rows=5, width=7, *, seed=0):
    """Random numbers (rows, width) and a mask with answers of every length."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, width + 1, rows)
    lengths[0], lengths[-1] = 1, width
    return rng.normal(size=(rows, width)), np.arange(width) < lengths[:, None], lengths


def as_tensor(values):
    return torch.as_tensor(np.asarray(values))


def loop_gae(rewards, values, lengths, discount, trace):
    """Schulman et al. 2016, eq. 16, as the double sum that it is."""
    advantages = np.zeros_like(rewards)
    for row, length in enumerate(lengths):
        v = [*values[row, :length], 0.0]
        delta = [rewards[row, t] + discount * v[t + 1] - v[t] for t in range(length)]
        for t in range(length):
            advantages[row, t] = sum((discount * trace) ** k * delta[t + k] for k in range(length - t))
    return advantages


@pytest.mark.parametrize("discount", [1.0, 0.9, 0.0])
@pytest.mark.parametrize("trace", [0.0, 0.95, 1.0])
def test_gae_is_the_double_sum_of_the_paper(discount, trace):
    rewards, mask, lengths = table()
    values, _, _ = table(seed=1)
    wanted = loop_gae(rewards, values, lengths, discount, trace)
    outside = np.where(mask, rewards, np.nan), np.where(mask, values, np.inf)  # must not be looked at
    advantages, returns = ppo.gae(*map(as_tensor, outside), as_tensor(mask), discount=discount, trace=trace)
    np.testing.assert_allclose(advantages, wanted, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(returns, np.where(mask, wanted + values, 0), rtol=1e-12, atol=1e-12)


def test_with_trace_1_the_returns_are_the_discounted_rewards_to_go():
    rewards, mask, lengths = table()
    values, _, _ = table(seed=1)
    _, returns = ppo.gae(*map(as_tensor, (rewards, values, mask)), discount=0.8, trace=1.0)
    for row, length in enumerate(lengths):
        for t in range(length):
            togo = sum(0.8 ** (s - t) * rewards[row, s] for s in range(t, length))
            assert returns[row, t].item() == pytest.approx(togo, rel=1e-12)


@given(st.integers(0, 10_000))
def test_both_estimators_have_the_mean_of_the_kl(seed):
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.ones(6), 2)
    kl = float((p * np.log(p / q)).sum())
    for estimator in ("k1", "k3"):
        each = ppo.kl_estimate(as_tensor(np.log(p)), as_tensor(np.log(q)), estimator=estimator).numpy()
        assert (p * each).sum() == pytest.approx(kl, rel=1e-9, abs=1e-12)
        if estimator == "k3":
            assert (each >= 0).all()


def test_k3_of_close_policies_keeps_its_digits():
    gap = 1e-4
    found = ppo.kl_estimate(torch.tensor([0.0]), torch.tensor([gap]), estimator="k3").item()
    assert found == pytest.approx(gap**2 / 2, rel=1e-2)  # exp(x) - 1 - x in float32 would be noise


def test_scores_come_with_the_last_token_and_each_token_pays():
    kl, mask, lengths = table()
    scores = RNG.normal(size=5)
    rewards = ppo.token_rewards(
        as_tensor(scores), as_tensor(np.where(mask, kl, np.nan)), as_tensor(mask), beta=0.3
    ).numpy()
    wanted = np.where(mask, -0.3 * kl, 0)
    for row, length in enumerate(lengths):
        wanted[row, length - 1] += scores[row]
    np.testing.assert_allclose(rewards, wanted, rtol=1e-12)


def test_answers_without_an_end_pay_for_it():
    scores = torch.tensor([1.0, 2.0, -1.0])
    ended = torch.tensor([True, False, False])
    assert ppo.without_end(scores, ended, 0.5).tolist() == [1.0, 1.5, -1.5]
    with pytest.raises(DataError, match="at least 0"):
        ppo.without_end(scores, ended, -1.0)


def numpy_policy_loss(logp, old, advantages, mask, clip):
    total, taken = 0.0, 0
    for each in np.argwhere(mask):
        at = tuple(each)
        ratio = math.exp(logp[at] - old[at])
        bounded = min(max(ratio, 1 - clip), 1 + clip)
        total -= min(ratio * advantages[at], bounded * advantages[at])
        taken += bounded * advantages[at] < ratio * advantages[at]
    return total / mask.sum(), taken / mask.sum()


def numpy_value_loss(values, old, returns, mask, clip):
    total = 0.0
    for each in np.argwhere(mask):
        at = tuple(each)
        held = min(max(values[at], old[at] - clip), old[at] + clip)
        total += max((values[at] - returns[at]) ** 2, (held - returns[at]) ** 2)
    return total / (2 * mask.sum())


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("clip", [0.05, 0.2, 1.5])
def test_losses_and_gradients_against_loops_and_finite_differences(clip, masked):
    now, mask, _ = table(seed=3)
    old = now + RNG.normal(scale=0.3, size=now.shape)
    goal, _, _ = table(seed=4)
    given_mask = as_tensor(mask) if masked else None
    counted = mask if masked else np.ones_like(mask)
    for ours, reference in (
        (ppo.policy_loss, lambda x: numpy_policy_loss(x, old, goal, counted, clip)[0]),
        (ppo.value_loss, lambda x: numpy_value_loss(x, old, goal, counted, clip)),
    ):
        leaf = as_tensor(now).clone().requires_grad_()
        loss, _ = ours(leaf, as_tensor(old), as_tensor(goal), given_mask, clip=clip)
        assert loss.item() == pytest.approx(reference(now), rel=1e-10)
        (gradient,) = torch.autograd.grad(loss, leaf)
        for at in ((0, 0), (1, 1), (4, 6), (4, 2)):
            step = np.zeros_like(now)
            step[at] = 1e-6
            slope = (reference(now + step) - reference(now - step)) / 2e-6
            assert gradient[at].item() == pytest.approx(slope, rel=1e-5, abs=1e-9)
    _, metrics = ppo.policy_loss(as_tensor(now), as_tensor(old), as_tensor(goal), given_mask, clip=clip)
    assert metrics["clip_share"].item() == pytest.approx(numpy_policy_loss(now, old, goal, counted, clip)[1])


def test_at_the_old_policy_the_gradient_is_that_of_reinforce():
    now, mask, _ = table()
    goal, _, _ = table(seed=1)
    leaf = as_tensor(now).clone().requires_grad_()
    loss, metrics = ppo.policy_loss(leaf, as_tensor(now), as_tensor(goal), as_tensor(mask))
    (gradient,) = torch.autograd.grad(loss, leaf)
    np.testing.assert_allclose(gradient, np.where(mask, -goal, 0) / mask.sum(), rtol=1e-12)
    assert metrics["clip_share"] == 0
    assert metrics["ratio"] == 1
    assert metrics["update_kl"] == 0


def test_a_token_made_far_likelier_gives_no_nan():
    leaf = torch.tensor([-1.0, -200.0, -1.0], requires_grad=True)
    old = torch.tensor([-200.0, -1.0, -1.0])
    for sign in (1.0, -1.0):
        loss, _ = ppo.policy_loss(leaf, old, sign * torch.ones(3))
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()


def test_leave_one_out_subtracts_the_mean_of_the_others():
    scores = RNG.normal(size=(4, 3))
    found = ppo.leave_one_out(as_tensor(scores)).numpy()
    for p in range(4):
        for s in range(3):
            others = [scores[p, o] for o in range(3) if o != s]
            assert found[p, s] == pytest.approx(scores[p, s] - np.mean(others), rel=1e-12)


def test_groups_are_normalised_by_their_own_deviation():
    scores = RNG.normal(size=(4, 5)) * [[1], [10], [100], [0.01]]
    found = ppo.group_normalised(as_tensor(scores)).numpy()
    wanted = (scores - scores.mean(1, keepdims=True)) / (scores.std(1, ddof=1, keepdims=True) + 1e-4)
    np.testing.assert_allclose(found, wanted, rtol=1e-10)


def test_rewards_that_say_nothing_give_no_gradient():
    same = torch.full((3, 4), 0.1)  # 0.1 x 4 / 4 is not 0.1 in float32
    mask = torch.ones(3, 4, dtype=torch.bool)
    assert not ppo.leave_one_out(same).any()
    assert not ppo.group_normalised(same).any()
    assert not ppo.whiten(same, mask).any()
    assert not ppo.whiten(torch.tensor([[3.0]])).any()  # a single number has no deviation


def test_whitened_advantages_have_mean_0_and_deviation_1():
    values, mask, _ = table()
    found = ppo.whiten(as_tensor(np.where(mask, 50 + 7 * values, np.nan)), as_tensor(mask)).numpy()
    assert found[mask].mean() == pytest.approx(0, abs=1e-12)
    assert found[mask].std(ddof=1) == pytest.approx(1, rel=1e-6)
    assert not found[~mask].any()


def test_explained_variance_is_r_squared_of_the_values():
    values, mask, _ = table()
    returns = 2 + values * 0.7 + 0.1 * RNG.normal(size=values.shape)
    found = ppo.explained_variance(*map(as_tensor, (values, returns, mask))).item()
    residual = (returns - values)[mask]
    assert found == pytest.approx(1 - residual.var() / returns[mask].var(), rel=1e-10)
    assert ppo.explained_variance(as_tensor(returns), as_tensor(returns)).item() == 1
    assert math.isnan(ppo.explained_variance(as_tensor(values), torch.ones(5, 7).double()).item())


def test_the_price_moves_towards_the_target_by_a_bounded_step():
    assert ppo.adapted(0.1, 6.0, 6.0) == 0.1
    assert ppo.adapted(0.1, 6.6, 6.0) == pytest.approx(0.1 * 1.01)
    assert ppo.adapted(0.1, 600.0, 6.0) == pytest.approx(0.1 * 1.02)
    assert ppo.adapted(0.1, 0.0, 6.0) == pytest.approx(0.1 * 0.98)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda x, m: ppo.kl_estimate(x, x, estimator="k2"), "k1 or k3"),
        (lambda x, m: ppo.token_rewards(x[:, 0], x, m, beta=0.0), "beta is 0.0"),
        (lambda x, m: ppo.token_rewards(x[:, 0], x, m, beta=math.nan), "beta is nan"),
        (lambda x, m: ppo.token_rewards(x, x, m, beta=1.0), "give one each"),
        (lambda x, m: ppo.gae(x, x, ~m), "mask of shape"),
        (lambda x, m: ppo.gae(x, x[:1], m), "shapes differ"),
        (lambda x, m: ppo.gae(x, x, m, discount=1.1), "discount is 1.1"),
        (lambda x, m: ppo.policy_loss(x, x, x, clip=0.0), "clip is 0.0"),
        (lambda x, m: ppo.policy_loss(x[:0], x[:0], x[:0]), "empty"),
        (lambda x, m: ppo.leave_one_out(x[:, :1]), "at least 2 answers"),
        (lambda x, m: ppo.group_normalised(x[0]), "at least 2 answers"),
        (lambda x, m: ppo.adapted(0.1, math.nan, 6.0), "finite"),
    ],
)
def test_what_cannot_be_is_refused(call, said):
    values, mask, _ = table()
    with pytest.raises(DataError, match=said):
        call(as_tensor(values), as_tensor(mask))
