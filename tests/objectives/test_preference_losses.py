"""Preference losses against mpmath with 50 digits, closed forms, and each other."""

from __future__ import annotations

import itertools
import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posterhall.errors import DataError
from posterhall.objectives import preference as losses
from posterhall.objectives.reward import bradley_terry

torch.set_num_threads(1)
mpmath.mp.dps = 50
MARGINS = (-4000.0, -750.0, -40.0, -20.5, -3.0, -1e-9, 0.0, 1e-9, 0.7, 5.0, 19.9, 36.0, 41.0, 800.0, 4000.0)


def pair(h, dtype=torch.float64):
    """Four leaves (1,) whose h is exactly this, with log-probabilities of a real size."""
    values = (-250.0 + h, -250.0, -250.0, -250.0)
    return [torch.tensor([each], dtype=dtype, requires_grad=True) for each in values]


def log_sigmoid(x):
    return -mpmath.log1p(mpmath.exp(-mpmath.mpf(x)))


def sigmoid(x):
    return 1 / (1 + mpmath.exp(-mpmath.mpf(x)))


def dpo_value(h, beta, e):
    x = mpmath.mpf(beta) * mpmath.mpf(h)
    value = -(1 - mpmath.mpf(e)) * log_sigmoid(x) - mpmath.mpf(e) * log_sigmoid(-x)
    slope = beta * (-(1 - mpmath.mpf(e)) * sigmoid(-x) + mpmath.mpf(e) * sigmoid(x))
    return value, slope


def robust_value(h, beta, e):
    x, e = mpmath.mpf(beta) * mpmath.mpf(h), mpmath.mpf(e)
    value = (-(1 - e) * log_sigmoid(x) + e * log_sigmoid(-x)) / (1 - 2 * e)
    return value, beta * (-(1 - e) * sigmoid(-x) - e * sigmoid(x)) / (1 - 2 * e)


def ipo_value(h, beta, _):
    gap = mpmath.mpf(h) - 1 / (2 * mpmath.mpf(beta))
    return gap**2, 2 * gap


def hinge_value(h, beta, _):
    x = mpmath.mpf(beta) * mpmath.mpf(h)
    return max(mpmath.mpf(0), 1 - x), -beta if x < 1 else 0


@pytest.mark.parametrize("h", MARGINS)
@pytest.mark.parametrize(
    ("loss", "value", "more"),
    [
        (losses.dpo, dpo_value, {}),
        (losses.dpo, dpo_value, {"label_smoothing": 0.2}),
        (losses.robust_dpo, robust_value, {"label_smoothing": 0.2}),
        (losses.ipo, ipo_value, {}),
        (losses.hinge, hinge_value, {}),
    ],
)
@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_loss_and_gradient_are_exact_at_every_margin(loss, value, more, h, beta):
    inputs = pair(h)
    found, _ = loss(*inputs, beta=beta, **more)
    exact_h = (inputs[0] - inputs[2] - (inputs[1] - inputs[3])).item()  # h after rounding of the inputs
    wanted, slope = value(exact_h, beta, more.get("label_smoothing", 0.0))
    least = 1e-14 if loss is losses.ipo else 1e-300  # 0 at h = 1 / (2 beta), but for beta's own rounding
    assert found.item() == pytest.approx(float(wanted), rel=1e-9, abs=least)
    got = torch.autograd.grad(found, inputs, allow_unused=True)
    for gradient, sign in zip(got, (1, -1, -1, 1), strict=True):
        assert gradient.item() == pytest.approx(sign * float(slope), rel=1e-9, abs=least)


@pytest.mark.parametrize("h", MARGINS)
def test_float32_stays_finite_and_close(h):
    inputs = pair(h, torch.float32)
    for loss in (losses.dpo, losses.ipo, losses.hinge, losses.robust_dpo):
        found, metrics = loss(*inputs)
        gradient = torch.autograd.grad(found, inputs[0])[0]
        double, _ = loss(*(each.double() for each in inputs))
        assert math.isfinite(found.item())
        assert math.isfinite(gradient.item())
        assert found.item() == pytest.approx(double.item(), rel=1e-5, abs=1e-6)
        assert all(math.isfinite(float(each)) for each in metrics.values())


def test_loss_at_the_reference_is_ln_2():
    loss, metrics = losses.dpo(*(torch.tensor([-3.0, -7.5], dtype=torch.float64),) * 4, beta=0.3)
    assert loss.item() == math.log(2)
    assert metrics["reward_accuracy"] == 0.5  # a tie is neither right nor wrong
    assert metrics["gradient_weight"] == 0.5


def random_pairs(seed=0, rows=6):
    draw = torch.Generator().manual_seed(seed)
    return [
        (-30 + 10 * torch.randn(rows, dtype=torch.float64, generator=draw)).requires_grad_() for _ in range(4)
    ]


def test_metrics_are_those_of_the_definitions():
    chosen, rejected, reference_chosen, reference_rejected = random_pairs()
    _, metrics = losses.dpo(chosen, rejected, reference_chosen, reference_rejected, beta=0.4)
    won = [0.4 * (a - b) for a, b in zip(chosen.tolist(), reference_chosen.tolist(), strict=True)]
    lost = [0.4 * (a - b) for a, b in zip(rejected.tolist(), reference_rejected.tolist(), strict=True)]
    assert metrics["reward_chosen"].item() == pytest.approx(sum(won) / 6)
    assert metrics["reward_rejected"].item() == pytest.approx(sum(lost) / 6)
    assert metrics["reward_margin"].item() == pytest.approx((sum(won) - sum(lost)) / 6)
    right = sum(a > b for a, b in zip(won, lost, strict=True))
    assert 0 < right < 6
    assert metrics["reward_accuracy"].item() == pytest.approx(right / 6)
    assert metrics["logp_chosen"].item() == pytest.approx(chosen.mean().item())
    assert not any(each.requires_grad for each in metrics.values())


def test_without_a_reference_the_loss_forgets_it_and_the_rewards_do_not():
    inputs = random_pairs()
    free, metrics = losses.dpo(*inputs, reference_free=True)
    zero = torch.zeros(6, dtype=torch.float64)
    assert free.item() == pytest.approx(losses.dpo(*inputs[:2], zero, zero)[0].item(), rel=1e-12)
    assert metrics["reward_margin"] == losses.dpo(*inputs)[1]["reward_margin"]


def test_robust_loss_is_unbiased_under_flipped_labels():
    chosen, rejected, *references = random_pairs()
    e = 0.3
    straight, _ = losses.robust_dpo(chosen, rejected, *references, label_smoothing=e)
    flipped, _ = losses.robust_dpo(rejected, chosen, *references[::-1], label_smoothing=e)
    clean, _ = losses.dpo(chosen, rejected, *references)
    assert ((1 - e) * straight + e * flipped).item() == pytest.approx(clean.item(), rel=1e-12)


def test_ipo_a_token_divides_log_ratios_by_length():
    chosen, rejected, reference_chosen, reference_rejected = random_pairs()
    long, short = torch.tensor([5, 9, 1, 2, 30, 7]), torch.tensor([3, 3, 8, 1, 12, 40])
    found, _ = losses.ipo(
        chosen, rejected, reference_chosen, reference_rejected,
        normalisation="mean", chosen_lengths=long, rejected_lengths=short, beta=0.2,
    )  # fmt: skip
    wanted = ((chosen - reference_chosen) / long - (rejected - reference_rejected) / short - 2.5) ** 2
    assert found.item() == pytest.approx(wanted.mean().item(), rel=1e-12)
    with pytest.raises(DataError, match="tokens of each"):
        losses.ipo(chosen, rejected, reference_chosen, reference_rejected, normalisation="mean")


def ranking_probability(h):
    """Plackett-Luce's chance of this order: one is drawn after the other without replacement."""
    left, chance = [mpmath.exp(each) for each in h], mpmath.mpf(1)
    while left:
        chance *= left[0] / sum(left)
        left.pop(0)
    return chance


@pytest.mark.parametrize("k", [2, 3, 5])
def test_plackett_luce_is_the_chance_of_the_ranking_and_chances_add_to_one(k):
    draw = torch.Generator().manual_seed(k)
    policy = torch.randn(1, k, dtype=torch.float64, generator=draw) * 6
    reference = torch.randn(1, k, dtype=torch.float64, generator=draw) * 6
    h = (0.5 * (policy - reference))[0]
    total = 0.0
    for order in itertools.permutations(range(k)):
        loss, _ = losses.plackett_luce(policy[:, list(order)], reference[:, list(order)], beta=0.5)
        wanted = ranking_probability([mpmath.mpf(h[i].item()) for i in order])
        assert math.exp(-loss.item()) == pytest.approx(float(wanted), rel=1e-9)
        total += math.exp(-loss.item())
    assert total == pytest.approx(1.0)


@pytest.mark.parametrize("h", MARGINS)
def test_a_ranking_of_two_is_dpo_with_its_gradients(h):
    inputs = pair(h)
    policy, reference = (torch.stack(each, 1) for each in (inputs[:2], inputs[2:]))
    ranked, metrics = losses.plackett_luce(policy, reference, beta=0.1)
    paired, wanted = losses.dpo(*inputs, beta=0.1)
    assert ranked.item() == pytest.approx(paired.item(), rel=1e-9, abs=1e-13)
    got = torch.stack(torch.autograd.grad(ranked, inputs))
    torch.testing.assert_close(got, torch.stack(torch.autograd.grad(paired, inputs)), rtol=1e-9, atol=1e-14)
    for name in ("reward_margin", "reward_accuracy", "logp_chosen", "logp_rejected"):
        assert metrics[name].item() == pytest.approx(wanted[name].item())


def test_padded_rankings_are_those_of_their_answers_whatever_the_padding_holds():
    policy, reference, bare, other = (
        torch.randn(1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(4)
    )
    padded = torch.cat((policy, torch.tensor([[-math.inf, math.nan]]).double()), 1).requires_grad_()
    both = torch.cat((padded, torch.cat((bare, bare[:, :2]), 1)))
    reference_both = torch.cat((reference, torch.zeros(1, 2).double()), 1)
    reference_both = torch.cat((reference_both, torch.cat((other, other[:, :2]), 1)))
    loss, metrics = losses.plackett_luce(both, reference_both, counts=torch.tensor([4, 6]))
    first, one = losses.plackett_luce(policy, reference)
    second, two = losses.plackett_luce(both[1:].detach(), reference_both[1:])
    assert loss.item() == pytest.approx((first + second).item() / 2, rel=1e-12)
    for name, value in metrics.items():
        assert value.item() == pytest.approx((one[name] + two[name]).item() / 2)
    gradient = torch.autograd.grad(loss, padded)[0]
    assert gradient[0, :4].abs().min() > 0
    assert gradient[0, 4:].tolist() == [0, 0]


def test_a_ranking_is_not_the_product_of_its_pairs():
    policy = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64)
    reference = torch.zeros_like(policy)
    ranked, _ = losses.plackett_luce(policy, reference, beta=1.0)
    zero = torch.zeros(1, dtype=torch.float64)
    paired = sum(
        losses.dpo(policy[:, i], policy[:, j], zero, zero, beta=1.0)[0]
        for i, j in itertools.combinations(range(3), 2)
    )
    assert ranked.item() < paired.item() - 0.03


def test_fine_tuning_and_unlikelihood_are_mean_log_probabilities():
    chosen, rejected, *_ = random_pairs()
    assert losses.preferred_ft(chosen)[0].item() == pytest.approx(-chosen.mean().item())
    found, _ = losses.unlikelihood(chosen, rejected, alpha=0.25)
    assert found.item() == pytest.approx((-chosen + 0.25 * rejected).mean().item())


def test_simpo_and_orpo_are_their_formulas():
    lengths = torch.tensor([4, 2, 7, 11, 5, 1]), torch.tensor([3, 9, 7, 2, 8, 6])
    chosen, rejected, *_ = random_pairs()
    simple, _ = losses.simpo(chosen, rejected, *lengths, beta=2.5, gamma=1.4)
    odds, _ = losses.orpo(chosen, rejected, *lengths, weight=0.2)
    wanted_simple, wanted_odds = [], []
    for w, l, m, n in zip(
        chosen.tolist(), rejected.tolist(), *(each.tolist() for each in lengths), strict=True
    ):
        won, lost = mpmath.mpf(w) / m, mpmath.mpf(l) / n
        wanted_simple.append(-log_sigmoid(2.5 * (won - lost) - mpmath.mpf(1.4)))
        ratio = mpmath.log(
            mpmath.exp(won) / (1 - mpmath.exp(won)) / (mpmath.exp(lost) / (1 - mpmath.exp(lost)))
        )
        wanted_odds.append(-won - mpmath.mpf(0.2) * log_sigmoid(ratio))
    assert simple.item() == pytest.approx(float(sum(wanted_simple) / 6), rel=1e-12)
    assert odds.item() == pytest.approx(float(sum(wanted_odds) / 6), rel=1e-12)


@pytest.mark.parametrize("logp", [-4000.0, -1.0, -1e-12, 0.0])
def test_orpo_is_finite_from_certain_to_impossible_answers(logp):
    chosen = torch.tensor([logp], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor([-1.0], dtype=torch.float64)
    one = torch.ones(1, dtype=torch.long)
    loss, _ = losses.orpo(chosen, rejected, one, one)
    assert math.isfinite(loss.item())
    assert math.isfinite(torch.autograd.grad(loss, chosen)[0].item())


def test_kto_weighs_good_against_bad_from_the_reference_point():
    policy, reference, *_ = random_pairs()
    good = torch.tensor([True, False, True, True, False, True])
    found, metrics = losses.kto(
        policy, reference, good, beta=0.3, kl=torch.tensor(1.5), desirable_weight=0.5, undesirable_weight=2.0
    )
    wanted = []
    for p, q, is_good in zip(policy.tolist(), reference.tolist(), good.tolist(), strict=True):
        x = 0.3 * (mpmath.mpf(p) - mpmath.mpf(q) - 1.5)
        wanted.append(0.5 * (1 - sigmoid(x)) if is_good else 2 * (1 - sigmoid(-x)))
    assert found.item() == pytest.approx(float(sum(wanted) / 6), rel=1e-12)
    assert metrics["kl"] == 1.5
    # No gradient through the reference point: pushing all answers up is still worth something.
    shifted, _ = losses.kto(policy, reference, torch.ones(6, dtype=torch.bool))
    assert (torch.autograd.grad(shifted, policy)[0] < 0).all()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(-3000, 0)] * 4), min_size=1, max_size=5),
    st.floats(0.01, 5.0),
)
def test_every_paired_loss_prefers_a_greater_margin(rows, beta):
    chosen, rejected, rc, rr = torch.tensor(rows, dtype=torch.float64).unbind(1)
    for loss in (losses.dpo, losses.robust_dpo, losses.hinge):
        low, _ = loss(chosen, rejected, rc, rr, beta=beta)
        high, _ = loss(chosen + 1.0, rejected, rc, rr, beta=beta)
        assert high <= low + 1e-12


def test_bradley_terry_with_margin_and_centring():
    won, lost = torch.tensor([1.0, -0.5, 2.0]).double(), torch.tensor([0.0, 0.5, 2.0]).double()
    loss, metrics = bradley_terry(won, lost, margin=torch.tensor([0.5, 0.0, 1.0]).double(), centring=0.01)
    gaps = (0.5, -1.0, -1.0)
    wanted = sum(-log_sigmoid(gap) for gap in gaps) / 3 + (1 + 0 + 16) * 0.01 / 3
    assert loss.item() == pytest.approx(float(wanted), rel=1e-12)
    assert metrics["reward_accuracy"] == 0.5
    far, _ = bradley_terry(torch.tensor([-4000.0]), torch.tensor([4000.0]))
    assert far.item() == 8000.0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda x: losses.dpo(x, x, x, x, beta=0.0), "beta is 0.0"),
        (lambda x: losses.dpo(x, x, x, x, beta=math.nan), "beta is nan"),
        (lambda x: losses.dpo(x, x, x, x, label_smoothing=0.5), "below 0.5"),
        (lambda x: losses.dpo(x, x[:1], x, x), "shapes"),
        (lambda x: losses.unlikelihood(x, x, alpha=1.5), "from 0 to 1"),
        (lambda x: losses.plackett_luce(x, x), "K at least 2"),
        (
            lambda x: losses.plackett_luce(x[None], x[None], counts=torch.tensor([1])),
            "numbers from 2 to 2",
        ),
        (lambda x: losses.simpo(x, x, torch.tensor([1, 0]), torch.tensor([1, 1])), "0 tokens"),
        (lambda x: losses.orpo(x, x, torch.tensor([1, 1]), torch.tensor([1, 1]), weight=-1), "weight is -1"),
        (lambda x: losses.kto(x, x, torch.tensor([1, 0])), "must be bool"),
        (lambda x: losses.ipo(x, x, x, x, normalisation="tokens"), "sum or mean"),
        (lambda x: bradley_terry(x, x[:1]), "shapes"),
        (lambda x: bradley_terry(x, x, centring=-1.0), "centring"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(call, said):
    with pytest.raises(DataError, match=said):
        call(torch.tensor([-1.0, -2.0]))
