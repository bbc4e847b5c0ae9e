"""Losses over preferred and rejected answers, as pure functions of the answers' log-probabilities.

Whatever gives the log-probability of an answer (a language model, a diffusion model's bound, a policy of
several steps) can be trained with them. For the losses with a reference, h is the log-ratio of the chosen
answer less that of the rejected one,

    h = [log p(y_w | x) - log q(y_w | x)] - [log p(y_l | x) - log q(y_l | x)],

q being the reference, and beta (log p - log q) an answer's implicit reward. The log-probability of an
answer is the sum over its tokens, the one that ends it included; what is divided by length says so. All
take (B,) tensors of any float type, compute in it, and return the mean over the B pairs with metrics (0-d,
without gradient):

    reward_chosen, reward_rejected, reward_margin   mean implicit rewards and their difference
    reward_accuracy                                 share of pairs with a positive margin, ties a half
    logp_chosen, logp_rejected                      mean log-probabilities, in nats an answer

That logp_chosen falls in training is no fault: the losses move the difference, and a difference can grow
while both sides fall (Rafailov et al. 2024). Watch the margin and held-out accuracy.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from posterhall.errors import DataError
from posterhall.extras import functional, torch

Normalisation = Literal["sum", "mean"]
Result = tuple["torch.Tensor", dict[str, Any]]


def dpo(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    reference_chosen: torch.Tensor,
    reference_rejected: torch.Tensor,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    reference_free: bool = False,
) -> Result:
    """Direct preference optimisation: -log sigmoid(beta h).

    Rafailov et al. 2023, eq. 7; with label smoothing e the conservative form (Mitchell 2023),
    -(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h), for labels that are wrong with chance e.

    Args:
        chosen, rejected: (B,) log-probabilities under the policy.
        reference_chosen, reference_rejected: (B,) the same under the reference.
        beta: strength of the tie to the reference, > 0.
        label_smoothing: e, in [0, 0.5).
        reference_free: take a uniform reference, h = log p(y_w) - log p(y_l); the rewards in the metrics
            still have the real one.

    Returns:
        Loss (ln 2 where policy and reference are the same) and metrics; beside those above
        "gradient_weight", the mean of sigmoid(-beta h), by which the paper's gradient weighs a pair.

    Raises:
        DataError: for settings outside their range, or shapes that differ.
    """
    _check_beta(beta)
    _check_smoothing(label_smoothing)
    h = _difference(chosen, rejected, reference_chosen, reference_rejected)
    x = beta * (chosen - rejected if reference_free else h)
    # logsigmoid, not softplus: torch's softplus is the identity from 20 on, which is off by 2e-9 there.
    losses = -functional.logsigmoid(x)
    if label_smoothing:
        losses = (1 - label_smoothing) * losses - label_smoothing * functional.logsigmoid(-x)
    metrics = _rewards(chosen, rejected, reference_chosen, reference_rejected, beta)
    metrics["gradient_weight"] = torch.sigmoid(-x.detach()).mean()
    return losses.mean(), metrics


def robust_dpo(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    reference_chosen: torch.Tensor,
    reference_rejected: torch.Tensor,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.1,
) -> Result:
    """DPO without bias from labels that are flipped with chance e (Ray Chowdhury et al. 2024).

    [-(1 - e) log sigmoid(beta h) + e log sigmoid(-beta h)] / (1 - 2 e); not bounded below. Arguments as of
    `dpo`; label_smoothing is e.
    """
    _check_beta(beta)
    _check_smoothing(label_smoothing)
    x = beta * _difference(chosen, rejected, reference_chosen, reference_rejected)
    right, flipped = -functional.logsigmoid(x), -functional.logsigmoid(-x)
    losses = ((1 - label_smoothing) * right - label_smoothing * flipped) / (1 - 2 * label_smoothing)
    return losses.mean(), _rewards(chosen, rejected, reference_chosen, reference_rejected, beta)


def ipo(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    reference_chosen: torch.Tensor,
    reference_rejected: torch.Tensor,
    *,
    beta: float = 0.1,
    normalisation: Normalisation = "sum",
    chosen_lengths: torch.Tensor | None = None,
    rejected_lengths: torch.Tensor | None = None,
) -> Result:
    """Identity preference optimisation: (h - 1 / (2 beta))^2 (Azar et al. 2023, eq. 17; beta is their tau).

    Args:
        chosen, rejected, reference_chosen, reference_rejected, beta: as of `dpo`.
        normalisation: h from log-ratios of whole answers ("sum": the paper, and DPO's authors' code), or
            from log-ratios a token ("mean": what TRL computes). The target 1 / (2 beta) is the same number
            for both, so the same beta is another strength.
        chosen_lengths, rejected_lengths: (B,) tokens of the answers, >= 1; for "mean".
    """
    _check_beta(beta)
    won, lost = chosen - reference_chosen, rejected - reference_rejected
    _difference(chosen, rejected, reference_chosen, reference_rejected)
    if normalisation == "mean":
        won = won / _lengths(chosen_lengths, chosen)
        lost = lost / _lengths(rejected_lengths, rejected)
    elif normalisation != "sum":
        raise DataError(f"normalisation is '{normalisation}'; it must be sum or mean")
    losses = (won - lost - 1 / (2 * beta)).square()
    return losses.mean(), _rewards(chosen, rejected, reference_chosen, reference_rejected, beta)


def hinge(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    reference_chosen: torch.Tensor,
    reference_rejected: torch.Tensor,
    *,
    beta: float = 0.1,
) -> Result:
    """max(0, 1 - beta h): SLiC's margin (Zhao et al. 2023) on DPO's reward (Liu et al. 2023, RSO)."""
    _check_beta(beta)
    x = beta * _difference(chosen, rejected, reference_chosen, reference_rejected)
    losses = functional.relu(1 - x)
    return losses.mean(), _rewards(chosen, rejected, reference_chosen, reference_rejected, beta)


def plackett_luce(
    policy: torch.Tensor,
    reference: torch.Tensor,
    *,
    beta: float = 0.1,
    counts: torch.Tensor | None = None,
) -> Result:
    """DPO for rankings of K answers (Rafailov et al. 2023, app. A.3); with two, `dpo`.

    With h_k = beta (log p - log q) of the answer ranked k: -sum_k [h_k - logsumexp_{j >= k} h_j]. Cutting a
    ranking into its K (K - 1) / 2 pairs and taking `dpo` of them is another likelihood.

    Args:
        policy, reference: (B, K) log-probabilities, best answer first.
        beta: as of `dpo`.
        counts: (B,) answers of each row, 2 to K; what is behind them is not looked at. None: K.

    Returns:
        Loss, and metrics of the first answer against the last, but for "reward_accuracy", the share of all
        pairs of a row that are in order.
    """
    _check_beta(beta)
    if policy.shape != reference.shape or policy.dim() != 2 or policy.shape[1] < 2:
        raise DataError(
            f"log-probabilities {tuple(policy.shape)} and {tuple(reference.shape)}; "
            "both must be (B, K), K at least 2"
        )
    rows, most = policy.shape
    rank = torch.arange(most, device=policy.device)
    if counts is None:
        counts = torch.full((rows,), most, device=policy.device)
    elif counts.shape != (rows,) or not bool(((counts >= 2) & (counts <= most)).all()):
        raise DataError(f"counts are {counts.tolist()}; give {rows} numbers from 2 to {most}")
    there = rank < counts[:, None]
    # Padding takes part nowhere, and must not reach a gradient as 0 x inf.
    h = beta * torch.where(there, policy - reference, 0.0)
    # Row k of (K, K): answers not yet placed. An absent answer is alone in its row: its term is 0.
    left = (rank >= rank[:, None]) & there[:, None, :] | torch.eye(most, dtype=torch.bool, device=h.device)
    remaining = h[:, None, :].expand(rows, most, most).masked_fill(~left, -math.inf)
    losses = (remaining.logsumexp(-1) - h).sum(1)
    with torch.no_grad():
        last = counts[:, None] - 1
        ends = [each[:, 0] for each in (policy, reference)] + [
            each.gather(1, last)[:, 0] for each in (policy, reference)
        ]
        metrics = _rewards(ends[0], ends[2], ends[1], ends[3], beta)
        pairs = (rank > rank[:, None]) & there[:, None, :]
        metrics["reward_accuracy"] = (
            _in_order(h[:, :, None] - h[:, None, :]).mul(pairs).sum((1, 2)) / pairs.sum((1, 2))
        ).mean()
    return losses.mean(), metrics


def preferred_ft(chosen: torch.Tensor) -> Result:
    """Fine-tuning on the chosen answers (Rafailov et al. 2023, §6): -log p(y_w), the mean over answers."""
    return -chosen.mean(), {"logp_chosen": chosen.detach().mean()}


def unlikelihood(chosen: torch.Tensor, rejected: torch.Tensor, *, alpha: float = 0.5) -> Result:
    """-[log p(y_w) - alpha log p(y_l)] (Welleck et al. 2019, as Rafailov et al. 2023, §6, have it).

    Not bounded below, since log p(y_l) may fall without end.

    Args:
        chosen, rejected: (B,) log-probabilities under the policy.
        alpha: in [0, 1]; the paper tries 0.05 to 1.
    """
    if not 0 <= alpha <= 1:
        raise DataError(f"alpha is {alpha}; it must be from 0 to 1")
    _same(chosen, rejected)
    losses = alpha * rejected - chosen
    return losses.mean(), _scores(chosen, rejected, 1.0, chosen, rejected)


def simpo(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    chosen_lengths: torch.Tensor,
    rejected_lengths: torch.Tensor,
    *,
    beta: float = 2.0,
    gamma: float = 1.0,
) -> Result:
    """-log sigmoid(beta (log p(y_w) / |y_w| - log p(y_l) / |y_l|) - gamma) (Meng et al. 2024, eq. 6).

    Without a reference; rewards are beta times the log-probability a token.

    Args:
        chosen, rejected: (B,) log-probabilities of whole answers under the policy.
        chosen_lengths, rejected_lengths: (B,) their tokens, >= 1.
        beta: > 0 (the paper: 2 to 10).
        gamma: margin of the reward, >= 0 (the paper: 0.3 to 1.6).
    """
    _check_beta(beta)
    if not 0 <= gamma < math.inf:
        raise DataError(f"gamma is {gamma}; it must be at least 0")
    _same(chosen, rejected)
    won = chosen / _lengths(chosen_lengths, chosen)
    lost = rejected / _lengths(rejected_lengths, rejected)
    losses = -functional.logsigmoid(beta * (won - lost) - gamma)
    return losses.mean(), _scores(won, lost, beta, chosen, rejected)


def orpo(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    chosen_lengths: torch.Tensor,
    rejected_lengths: torch.Tensor,
    *,
    weight: float = 0.1,
) -> Result:
    """Fine-tuning on the chosen answer plus the log odds ratio of both (Hong et al. 2024, eq. 6 and 7).

    -log p_w - weight log sigmoid(log odds(p_w) - log odds(p_l)), p being the geometric mean of an answer's
    token probabilities and odds(p) = p / (1 - p). Without a reference.

    Args:
        chosen, rejected, chosen_lengths, rejected_lengths: as of `simpo`.
        weight: lambda, >= 0 (the paper: 0.1 to 0.25).
    """
    if not 0 <= weight < math.inf:
        raise DataError(f"weight is {weight}; it must be at least 0")
    _same(chosen, rejected)
    won = chosen / _lengths(chosen_lengths, chosen)
    lost = rejected / _lengths(rejected_lengths, rejected)
    ratio = _log_odds(won) - _log_odds(lost)
    losses = -won - weight * functional.logsigmoid(ratio)
    return losses.mean(), _scores(won, lost, 1.0, chosen, rejected)


def kto(
    policy: torch.Tensor,
    reference: torch.Tensor,
    desirable: torch.Tensor,
    *,
    beta: float = 0.1,
    kl: torch.Tensor | None = None,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Result:
    """Kahneman-Tversky optimisation, of single answers that are good or bad (Ethayarajh et al. 2024).

    With r = log p - log q and z = KL(p || q): w (1 - sigmoid(beta (r - z))) for a desirable answer,
    w (1 - sigmoid(beta (z - r))) for another.

    Args:
        policy, reference: (B,) log-probabilities.
        desirable: (B,) bool.
        beta: > 0.
        kl: z, 0-d, nats; no gradient goes through it. None: the batch's mean of r, at least 0. (The paper
            takes answers of other prompts for this, one more pass over the batch; the mean over the
            answers themselves costs nothing and is lower where the bad ones weigh more.)
        desirable_weight, undesirable_weight: w, > 0; for as many good as bad answers 1 (the paper:
            their sums over the data within 1 to 4/3 of each other).
    """
    _check_beta(beta)
    for name, value in (("desirable", desirable_weight), ("undesirable", undesirable_weight)):
        if not 0 < value < math.inf:
            raise DataError(f"{name}_weight is {value}; it must be above 0")
    _same(policy, reference)
    if desirable.shape != policy.shape or desirable.dtype != torch.bool:
        raise DataError(f"desirable is {desirable.dtype} {tuple(desirable.shape)}; it must be bool (B,)")
    ratio = policy - reference
    z = ratio.mean() if kl is None else kl
    x = beta * (ratio - z.detach().clamp(min=0))
    # 1 - sigmoid(x) = sigmoid(-x): no difference of nearly equal numbers.
    losses = torch.where(
        desirable, desirable_weight * torch.sigmoid(-x), undesirable_weight * torch.sigmoid(x)
    )
    with torch.no_grad():
        reward = beta * ratio
        good, bad = (_mean_where(reward, where) for where in (desirable, ~desirable))
        metrics = {
            "reward_chosen": good,
            "reward_rejected": bad,
            "reward_margin": good - bad,
            "logp_chosen": _mean_where(policy, desirable),
            "logp_rejected": _mean_where(policy, ~desirable),
            "kl": z.clamp(min=0),
        }
    return losses.mean(), metrics


def _difference(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    reference_chosen: torch.Tensor,
    reference_rejected: torch.Tensor,
) -> torch.Tensor:
    """h, (B,)."""
    _same(chosen, rejected, reference_chosen, reference_rejected)
    return (chosen - reference_chosen) - (rejected - reference_rejected)


def _rewards(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    reference_chosen: torch.Tensor,
    reference_rejected: torch.Tensor,
    beta: float,
) -> dict[str, Any]:
    """Metrics with implicit rewards."""
    won, lost = chosen - reference_chosen, rejected - reference_rejected
    return _scores(won, lost, beta, chosen, rejected)


def _scores(
    won: torch.Tensor, lost: torch.Tensor, scale: float, chosen: torch.Tensor, rejected: torch.Tensor
) -> dict[str, Any]:
    """Metrics with rewards `scale` times what is given."""
    with torch.no_grad():
        good, bad = scale * won, scale * lost
        return {
            "reward_chosen": good.mean(),
            "reward_rejected": bad.mean(),
            "reward_margin": (good - bad).mean(),
            "reward_accuracy": _in_order(good - bad).mean(),
            "logp_chosen": chosen.mean(),
            "logp_rejected": rejected.mean(),
        }


def _in_order(margin: torch.Tensor) -> torch.Tensor:
    """1 for a positive margin, 0.5 for none, 0 for a negative one."""
    return (margin.sign() + 1) / 2


def _log_odds(logp: torch.Tensor) -> torch.Tensor:
    """log(p / (1 - p)) of log p; p within the type's precision of 1 is taken to be that far from it."""
    logp = logp.clamp(max=-torch.finfo(logp.dtype).eps)
    # Either form of log(1 - exp(x)) loses all digits where the other is exact (Mächler 2012).
    near = logp > -math.log(2)
    rest = torch.where(near, torch.log(-torch.expm1(logp)), torch.log1p(-torch.exp(logp)))
    return logp - rest


def _mean_where(values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """The mean of some values, 0 if there are none."""
    return (values * where).sum() / where.sum().clamp(min=1)


def _lengths(lengths: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    if lengths is None or lengths.shape != like.shape:
        given = None if lengths is None else tuple(lengths.shape)
        raise DataError(
            f"lengths are {given}; a loss a token needs the tokens of each of {len(like)} answers"
        )
    if not bool((lengths >= 1).all()):
        raise DataError(f"an answer has {int(lengths.min())} tokens; it must have at least 1, its end")
    return lengths.to(like.dtype)


def _same(*tensors: torch.Tensor) -> None:
    shapes = [tuple(each.shape) for each in tensors]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1 or not shapes[0][0]:
        raise DataError(f"log-probabilities of shapes {shapes}; all must be (B,), B at least 1")


def _check_beta(beta: float) -> None:
    if not 0 < beta < math.inf:
        raise DataError(f"beta is {beta}; it must be above 0")


def _check_smoothing(share: float) -> None:
    if not 0 <= share < 0.5:
        raise DataError(
            f"label_smoothing is {share}; it must be at least 0 and below 0.5, where labels say nothing"
        )
