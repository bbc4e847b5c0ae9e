"""How the projections of a mixer begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posterhall.extras import nn, torch
from posterhall.models.layers import Linear

if TYPE_CHECKING:
    from posterhall.models.config import DecoderConfig


def projections(mixer: nn.Module, config: DecoderConfig, generator: torch.Generator) -> None:
    """Draw the weights of a mixer's `Linear` layers as those of attention are: N(0, init_std^2), and what
    writes into the residual stream (`mixer.out`) divided by sqrt(2 layers) (GPT-2)."""
    with torch.no_grad():
        for name, layer in mixer.named_modules():
            if isinstance(layer, Linear):
                std = config.init_std / ((2 * config.layers) ** 0.5 if name == "out" else 1.0)
                drawn = torch.empty(layer.weight.shape).normal_(0.0, std, generator=generator)
                layer.weight.copy_(drawn)
