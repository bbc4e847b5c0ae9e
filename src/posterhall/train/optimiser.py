"""Optimisers as language models are trained with them: weight decay on matrices only."""

from __future__ import annotations

import math
from pathlib import Path

from posterhall.extras import nn, torch
from posterhall.train import paged
from posterhall.train.settings import TrainSettings


def build(model: nn.Module, settings: TrainSettings, folder: Path | None = None) -> torch.optim.Optimizer:
    """The optimiser that settings name.

    Args:
        model: what has to be trained of it.
        settings: how.
        folder: where the pages of a paged optimiser are; None: among the system's temporary files.

    Raises:
        DataError: if there are no pages for such a model, or no room for them.
        MissingExtra: paged on an accelerator, without bitsandbytes.
    """
    if settings.paged and next(model.parameters()).device.type != "cpu":
        return paged.on_device(groups(model, settings), settings)
    if settings.optimiser == "rmsprop":
        return paged.rmsprop(groups(model, settings), settings, folder)
    plain = adamw(model, settings)
    if settings.paged:
        paged.page(plain, ("exp_avg", "exp_avg_sq"), folder)
    return plain


def groups(model: nn.Module, settings: TrainSettings) -> list[dict[str, object]]:
    """The parameters to be trained, those that decay and those that do not.

    Gains and biases (fewer than two dimensions) do not decay: their size is not what overfits, and
    RMSNorm's gains would be pulled away from 1. Nor does a parameter with a true attribute `no_decay`. One
    with an attribute `lr_most` learns at no higher rate at the peak: its group's `lr_scale`, by which the
    loop multiplies the rate, is lower (steps and poles of state-space models).
    """
    parts: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            stays = parameter.dim() < 2 or getattr(parameter, "no_decay", False)
            scale = min(1.0, getattr(parameter, "lr_most", math.inf) / settings.lr)
            parts.setdefault((stays, scale), []).append(parameter)
    return [
        {
            "params": parts[stays, scale],
            "weight_decay": 0.0 if stays else settings.weight_decay,
            "lr_scale": scale,
        }
        for stays, scale in sorted(parts)
    ]


def adamw(model: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019). torch's fused kernel does a step in one pass, with no temporary."""
    return torch.optim.AdamW(
        groups(model, settings),
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        fused=True,
    )
