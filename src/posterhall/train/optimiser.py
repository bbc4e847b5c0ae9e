"""Optimisers as language models are trained with them: weight decay on matrices only."""

from __future__ import annotations

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
    RMSNorm's gains would be pulled away from 1.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    parts: list[dict[str, object]] = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    return [part for part in parts if part["params"]]


def adamw(model: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019). torch's fused kernel does a step in one pass, with no temporary."""
    return torch.optim.AdamW(
        groups(model, settings),
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        fused=True,
    )
