"""AdamW as language models are trained with it: weight decay on matrices only."""

from __future__ import annotations

from posterhall.extras import nn, torch
from posterhall.train.settings import TrainSettings


def adamw(model: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """The optimiser of a model (Loshchilov and Hutter 2019).

    Gains and biases (fewer than two dimensions) do not decay: their size is not what overfits, and
    RMSNorm's gains would be pulled away from 1. torch's fused kernel does a step in one pass.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        fused=True,
    )
