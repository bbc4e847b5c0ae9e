"""The loss of a reward model that learns from comparisons."""

from __future__ import annotations

import math
from typing import Any

from posterhall.errors import DataError
from posterhall.extras import functional, torch


def bradley_terry(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    *,
    margin: torch.Tensor | None = None,
    centring: float = 0.0,
) -> tuple[torch.Tensor, dict[str, Any]]:
    """-log sigmoid(r_w - r_l - margin) + centring (r_w + r_l)^2, the mean over pairs.

    Bradley & Terry 1952; Rafailov et al. 2023, eq. 2. The comparisons leave the rewards' level open; the
    second term (Eisenstein et al. 2023) holds it near 0.

    Args:
        chosen, rejected: (B,) rewards.
        margin: (B,) by how much the chosen answer should win, for graded comparisons (Touvron et al. 2023,
            eq. 2). None: 0.
        centring: >= 0 (0.01 does).

    Returns:
        Loss, and "reward_chosen", "reward_rejected", "reward_margin", "reward_accuracy" (ties a half).

    Raises:
        DataError: for shapes that differ, or a negative centring.
    """
    shapes = [tuple(each.shape) for each in (chosen, rejected, margin) if each is not None]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1 or not shapes[0][0]:
        raise DataError(f"rewards (and margins) of shapes {shapes}; all must be (B,), B at least 1")
    if not 0 <= centring < math.inf:
        raise DataError(f"centring is {centring}; it must be at least 0")
    gap = chosen - rejected
    losses = -functional.logsigmoid(gap if margin is None else gap - margin)
    if centring:
        losses = losses + centring * (chosen + rejected).square()
    with torch.no_grad():
        metrics = {
            "reward_chosen": chosen.mean(),
            "reward_rejected": rejected.mean(),
            "reward_margin": gap.mean(),
            "reward_accuracy": ((gap.sign() + 1) / 2).mean(),
        }
    return losses.mean(), metrics
