"""Policy gradients on a reward that is tied to a reference, as pure functions of tensors.

Proximal policy optimisation (Schulman et al. 2017) as language models are trained with it (Ziegler et al.
2019; Ouyang et al. 2022): an answer is an episode, a token an action, the reward is given with the last
token, and on every token a price is paid for leaving the reference. A table (B, T) holds B answers of up to
T tokens; `mask` is true on the tokens of each, which begin at 0 and leave no gap. Where a mask may be None,
any shape will do. Gradients flow only into `logp` and `values`; advantages and returns are constants.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from posterhall.errors import DataError
from posterhall.extras import torch

Estimator = Literal["k1", "k3"]

_LARGEST_LOG_RATIO = 20.0
"""A ratio of e^20 is far outside of any clip; without a bound its square overflows float32, and 0 times
infinity makes the gradient NaN."""


def kl_estimate(logp: torch.Tensor, reference: torch.Tensor, *, estimator: Estimator = "k1") -> torch.Tensor:
    """Estimates of KL(p || q) from samples of p, one a token (Schulman 2020, "Approximating KL divergence").

    k1 = log p - log q: unbiased, of either sign. k3 = (q / p - 1) - log(q / p): unbiased too, never
    negative, and of less variance while p and q are close.

    Args:
        logp: log p of what was drawn, any shape.
        reference: log q of the same.
        estimator: k1 or k3.

    Returns:
        Nats, of that shape.
    """
    _alike(logp=logp, reference=reference)
    if estimator == "k1":
        return logp - reference
    if estimator == "k3":
        ratio = reference - logp
        return torch.expm1(ratio) - ratio  # expm1: for close p and q the difference is ratio^2 / 2
    raise DataError(f"estimator is '{estimator}'; it must be k1 or k3")


def without_end(scores: torch.Tensor, ended: torch.Tensor, penalty: float) -> torch.Tensor:
    """Scores (B,), less a penalty >= 0 for answers that were cut before they ended (`ended` is false)."""
    _alike(scores=scores, ended=ended)
    if not 0 <= penalty < math.inf:
        raise DataError(f"the penalty of a missing end is {penalty}; it must be at least 0")
    return scores - penalty * (~ended).to(scores.dtype)


def token_rewards(scores: torch.Tensor, kl: torch.Tensor, mask: torch.Tensor, *, beta: float) -> torch.Tensor:
    """-beta kl on every token, and the score with an answer's last one (Ziegler et al. 2019, eq. 2).

    Args:
        scores: (B,) rewards of whole answers.
        kl: (B, T) estimates a token; what is outside the mask is not looked at.
        mask: (B, T) bool.
        beta: price of a nat, > 0.

    Returns:
        (B, T), 0 outside the mask.
    """
    _check_beta(beta)
    _check_mask(mask, kl=kl)
    if scores.shape != mask.shape[:1]:
        raise DataError(f"scores of shape {tuple(scores.shape)} for {len(mask)} answers; give one each")
    rewards = torch.where(mask, -beta * kl, 0.0)
    last = mask.sum(1, keepdim=True) - 1
    return rewards.scatter_add(1, last, scores.to(rewards.dtype)[:, None])


def gae(
    rewards: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor,
    *,
    discount: float = 1.0,
    trace: float = 0.95,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016, eq. 11 and 16).

    A_t = sum_l (discount trace)^l delta_{t+l} with delta_t = r_t + discount V_{t+1} - V_t; after an answer's
    last token the value is 0, also where it was cut.

    Args:
        rewards: (B, T) of each token.
        values: (B, T) V of the state before each token.
        mask: (B, T) bool.
        discount: gamma, in [0, 1].
        trace: lambda, in [0, 1]; 0 trusts the values, 1 the rewards alone.

    Returns:
        Advantages and returns (advantages + values), both (B, T) and 0 outside the mask.
    """
    for name, given in (("discount", discount), ("trace", trace)):
        if not 0 <= given <= 1:
            raise DataError(f"{name} is {given}; it must be from 0 to 1")
    _check_mask(mask, rewards=rewards, values=values)
    rewards, values = (torch.where(mask, each.detach(), 0.0) for each in (rewards, values))
    following = torch.cat((values[:, 1:], torch.zeros_like(values[:, :1])), dim=1)
    delta = rewards + discount * following - values
    advantages = torch.zeros_like(delta)
    running = torch.zeros_like(delta[:, 0])
    for t in reversed(range(delta.shape[1])):
        running = delta[:, t] + discount * trace * running
        advantages[:, t] = running
    return advantages, advantages + values


def leave_one_out(scores: torch.Tensor) -> torch.Tensor:
    """Advantages without a critic: each score less the mean of the others of its prompt.

    REINFORCE leave-one-out (Kool et al. 2019; for language models Ahmadian et al. 2024, eq. 9); unbiased.

    Args:
        scores: (P, S) of S >= 2 answers to each of P prompts, the price of leaving the reference paid.

    Returns:
        (P, S), for all tokens of an answer.
    """
    samples = _check_groups(scores)
    wide = scores.double()
    found = (wide - wide.mean(1, keepdim=True)) * (samples / (samples - 1))
    return _zero_where_equal(found, wide).to(scores.dtype)


def group_normalised(scores: torch.Tensor, *, eps: float = 1e-4) -> torch.Tensor:
    """Advantages without a critic: scores less their prompt's mean, over its standard deviation.

    The outcome supervision of GRPO (Shao et al. 2024, §4.1.2). Dividing weighs prompts on which answers
    differ little as much as others; `leave_one_out` does not.

    Args:
        scores: as of `leave_one_out`.
        eps: added to the standard deviation, > 0.

    Returns:
        (P, S), for all tokens of an answer.
    """
    _check_groups(scores)
    wide = scores.double()
    found = (wide - wide.mean(1, keepdim=True)) / (wide.std(1, keepdim=True) + eps)
    return _zero_where_equal(found, wide).to(scores.dtype)


def whiten(values: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Values less their mean, over their standard deviation; 0 outside the mask.

    Where they are all the same, as the advantages of rewards that say nothing, they become 0.
    """
    inside = (values if mask is None else values[mask]).double()
    if inside.numel() < 2 or bool(inside.min() == inside.max()):
        return torch.zeros_like(values)
    whitened = (values.double() - inside.mean()) * torch.rsqrt(inside.var() + 1e-8)
    if mask is not None:
        whitened = torch.where(mask, whitened, 0.0)
    return whitened.to(values.dtype)


def policy_loss(
    logp: torch.Tensor,
    old: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    clip: float = 0.2,
) -> tuple[torch.Tensor, dict[str, Any]]:
    """-min(r A, clip(r, 1 - c, 1 + c) A) with r = p / p_old, the mean over tokens.

    Schulman et al. 2017, eq. 7. r is held below e^20 (see above), which no clip comes near.

    Args:
        logp: log-probabilities now, any shape.
        old: those with which the tokens were drawn.
        advantages: of each token.
        mask: the tokens that count; None: all.
        clip: c, > 0.

    Returns:
        Loss, and "clip_share" (of tokens whose gradient the clip has taken), "ratio" (mean r) and
        "update_kl" (KL of the old policy from the new one, k3, nats a token).
    """
    _check_clip(clip)
    _alike(logp=logp, old=old, advantages=advantages)
    gap = (logp - old.detach()).clamp(max=_LARGEST_LOG_RATIO)
    ratio, advantages = gap.exp(), advantages.detach()
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip, 1 + clip)
    with torch.no_grad():
        metrics = {
            "clip_share": _mean((clipped > plain).to(logp.dtype), mask),
            "ratio": _mean(ratio, mask),
            "update_kl": _mean(torch.expm1(gap) - gap, mask),
        }
    return _mean(torch.maximum(plain, clipped), mask), metrics


def value_loss(
    values: torch.Tensor,
    old: torch.Tensor,
    returns: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    clip: float = 0.2,
) -> tuple[torch.Tensor, dict[str, Any]]:
    """max((V - R)^2, (V_old + clip(V - V_old, -c, c) - R)^2) / 2, the mean over tokens.

    The value function's clip of the reference implementation (Baselines' ppo2; TRL), not in the paper.

    Args:
        values: V now, any shape.
        old: V when the tokens were drawn.
        returns: R, what V should be.
        mask: the tokens that count; None: all.
        clip: c, > 0.

    Returns:
        Loss, and "value_clip_share".
    """
    _check_clip(clip)
    _alike(values=values, old=old, returns=returns)
    old, returns = old.detach(), returns.detach()
    held = old + (values - old).clamp(-clip, clip)
    plain, clipped = (values - returns).square(), (held - returns).square()
    with torch.no_grad():
        share = _mean((clipped > plain).to(values.dtype), mask)
    return 0.5 * _mean(torch.maximum(plain, clipped), mask), {"value_clip_share": share}


def explained_variance(
    values: torch.Tensor, returns: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """1 - Var(R - V) / Var(R): 1 for values that foresee the returns, 0 for a constant; NaN if R is one."""
    _alike(values=values, returns=returns)
    foreseen, came = ((each if mask is None else each[mask]).detach().double() for each in (values, returns))
    if came.numel() < 2 or bool(came.min() == came.max()):
        return came.new_tensor(math.nan)
    return 1 - (came - foreseen).var() / came.var()


def adapted(beta: float, kl: float, target: float, *, gain: float = 0.1, most: float = 0.2) -> float:
    """The next price of a nat, for KL to come to a target (Ziegler et al. 2019, §2.2).

    beta (1 + gain clip(kl / target - 1, -most, most)).

    Args:
        beta: the price now, > 0.
        kl: nats an answer that were seen with it.
        target: those that are wanted, > 0.
        gain: K_beta, in (0, 1].
        most: largest error that counts, > 0.
    """
    _check_beta(beta)
    if not (0 < target < math.inf and math.isfinite(kl)):
        raise DataError(f"KL is {kl} and its target {target}; both must be finite, the target above 0")
    return beta * (1 + gain * min(max(kl / target - 1, -most), most))


def _mean(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    if mask is None:
        return values.mean()
    # Not a product with the mask: what is outside may be infinite.
    return torch.where(mask, values, 0.0).sum() / mask.sum()


def _zero_where_equal(found: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Rows of equal scores as exact zeros: what is left of rounding would be divided by a tiny deviation."""
    same = scores.amin(1, keepdim=True) == scores.amax(1, keepdim=True)
    return torch.where(same, 0.0, found)


def _check_groups(scores: torch.Tensor) -> int:
    if scores.dim() != 2 or scores.shape[1] < 2:
        raise DataError(
            f"scores of shape {tuple(scores.shape)}; without a critic they must be (prompts, answers), at "
            "least 2 answers to a prompt"
        )
    return int(scores.shape[1])


def _check_beta(beta: float) -> None:
    if not 0 < beta < math.inf:
        raise DataError(f"beta is {beta}; it must be above 0")


def _check_clip(clip: float) -> None:
    if not 0 < clip < math.inf:
        raise DataError(f"clip is {clip}; it must be above 0")


def _check_mask(mask: torch.Tensor, **tables: torch.Tensor) -> None:
    _alike(mask=mask, **tables)
    gaps = mask[:, 1:] & ~mask[:, :-1] if mask.dim() == 2 else mask
    if mask.dim() != 2 or mask.dtype != torch.bool or bool(gaps.any()) or not bool(mask[:, :1].all()):
        raise DataError(
            f"a mask of shape {tuple(mask.shape)} and type {mask.dtype}; it must be (B, T) bool, true on at "
            "least one token of each answer, from the first on and without gaps"
        )


def _alike(**tables: torch.Tensor) -> None:
    shapes = {name: tuple(table.shape) for name, table in tables.items()}
    if len(set(shapes.values())) > 1 or not next(iter(tables.values())).numel():
        said = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise DataError(f"shapes differ, or are empty: {said}; give the same for all")
