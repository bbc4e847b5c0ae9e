"""Hyena: gates and long convolutions in turn, with kernels that a small network writes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from posterhall.errors import DataError
from posterhall.extras import nn, torch
from posterhall.models.layers import Linear
from posterhall.models.mixers import Growth, Placement, documents, settings_of
from posterhall.models.mixers.long_conv import Long, spread
from posterhall.models.mixers.short_conv import ShortConv
from posterhall.models.mixers.states import Several

if TYPE_CHECKING:
    from posterhall.models.config import DecoderConfig

_FLOOR, _FAST, _SLOW = 1e-2, 0.3, 1.5
"""A channel's window falls to the floor at a share of the longest sequence, from fast to slow (§3.3)."""


class Implicit(Long):
    """K(t) = window(t) MLP([t, cos, sin](t)), with sines for activations (Poli et al. 2023, §3.3).

    t runs from 0 to 1 over the longest sequence, so the kernel is that of one length; windows exp(-|d| t)
    with decays d spread over the channels.

    Args:
        channels: H.
        limit: tokens L.
        width: of the network.
        layers: inner ones.
        embedding: entries that describe a position, an odd number: t, and cosines and sines of
            (embedding - 1) / 2 frequencies.
        frequency: at which the sines begin; it is learned, an entry each.

    Attributes:
        first, inner, last: linear layers; the last one has no bias.
        frequency: (width,).
    """

    def __init__(
        self,
        channels: int,
        limit: int,
        *,
        width: int = 64,
        layers: int = 2,
        embedding: int = 3,
        frequency: float = 1.0,
    ) -> None:
        super().__init__(channels, limit)
        if embedding < 3 or embedding % 2 == 0:
            raise DataError(
                f"embedding is {embedding}; it must be an odd number of 3 or more (time, and a cosine and a "
                "sine of each frequency)"
            )
        self.bands, self.start = (embedding - 1) // 2, frequency
        self.first = nn.Linear(embedding, width)
        self.inner = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.last = nn.Linear(width, channels, bias=False)
        self.frequency = nn.Parameter(torch.zeros(width))

    def initialise(self, generator: torch.Generator) -> None:
        """Layers as `torch.nn.Linear` begins, biases of the convolution N(0, 1)."""
        for layer in (self.first, *self.inner, self.last):
            spread(layer, generator)
        with torch.no_grad():
            self.frequency.fill_(self.start)
            self.bias.copy_(torch.empty(self.bias.shape).normal_(generator=generator))

    def kernel(self, length: int) -> torch.Tensor:
        """(1, H, L)."""
        weight = self.first.weight
        at = torch.arange(length, dtype=weight.dtype, device=weight.device)[:, None]
        t = at / max(self.limit - 1, 1)
        bands = torch.linspace(1e-4, max(self.bands - 1, 1e-4), self.bands, dtype=at.dtype, device=at.device)
        angles = bands * (2 * math.pi / self.limit) * at
        h = torch.sin(self.frequency * self.first(torch.cat((t, angles.cos(), -angles.sin()), dim=1)))
        for layer in self.inner:
            h = torch.sin(self.frequency * layer(h))
        floor = -math.log(_FLOOR)
        decays = torch.linspace(
            floor / _SLOW, floor / _FAST, len(self.bias), dtype=at.dtype, device=at.device
        )
        kernel: torch.Tensor = self.last(h) * torch.exp(-t * decays)
        return kernel.t()[None]


class Hyena(nn.Module):
    """v <- x_i * v, then v <- K_i * v + d v, for each order; y = W (x_0 * v) (Poli et al. 2023, eq. 6).

    Projections x_0, ..., x_{N-1} and v of a token pass through a short convolution first.

    Args:
        dim: D.
        order: N >= 2, the number of gates; there are N - 1 long convolutions.
        taps: of the short convolution.
        convolutions: one for each order but the first.
    """

    causal = True
    growth: Growth = "linear"

    def __init__(self, dim: int, *, order: int, taps: int, convolutions: list[Implicit]) -> None:
        super().__init__()
        self.dim, self.order = dim, order
        self.projections = Linear(dim, (order + 1) * dim)
        self.short = ShortConv((order + 1) * dim, taps)
        self.convolutions = nn.ModuleList(convolutions)
        self.out = Linear(dim, dim)

    def initialise(self, generator: torch.Generator) -> None:
        """Matrices uniform in +-1 / sqrt(inputs), the convolutions as they have it."""
        for layer in (self.projections, self.out):
            spread(layer, generator)
        self.short.initialise(generator)
        for convolution in self.convolutions:
            cast("Implicit", convolution).initialise(generator)

    def new_state(self, batch: int, max_length: int, *, dtype: torch.dtype, device: torch.device) -> Several:
        """The short convolution's last tokens, and all that each long one has seen."""
        longs = (cast("Implicit", each) for each in self.convolutions)
        return Several(
            self.short.new_state(batch, dtype=dtype, device=device),
            *(each.new_state(batch, max_length, dtype=dtype, device=device) for each in longs),
        )

    def forward(self, x: torch.Tensor, placement: Placement, state: Several | None = None) -> torch.Tensor:
        """(B, T, D) to the same; see `Mixer`."""
        if placement.segments is not None:
            return documents.apart(self, x, placement.segments)
        parts = state.parts if state is not None else (None,) * self.order
        mixed: torch.Tensor = self.short(self.projections(x), placement, parts[0])
        gates, v = mixed[..., : -self.dim].chunk(self.order, dim=-1), mixed[..., -self.dim :]
        # The last gate comes first, as in the original.
        for gate, convolution, part in zip(gates[:0:-1], self.convolutions, parts[1:], strict=True):
            v = convolution(v * gate, placement, part)
        result: torch.Tensor = self.out(v * gates[0])
        return result


@dataclass(frozen=True)
class HyenaSettings:
    """Settings of Hyena (Poli et al. 2023, arXiv 2302.10866)."""

    order: int = 2
    """Gates, >= 2; one long convolution fewer."""
    taps: int = 3
    """Tokens of the short convolution on the projections, >= 1."""
    filter_width: int = 64
    """Width of the network that writes the kernels."""
    filter_layers: int = 2
    """Its inner layers."""
    embedding: int = 3
    """Entries that describe a position to it, odd, >= 3: 5 in the paper's recall, 33 on the Pile."""
    frequency: float = 1.0
    """Where its sines begin: 10 in the paper's recall, 14 on the Pile."""

    def __post_init__(self) -> None:
        for name, least in (("order", 2), ("taps", 1), ("filter_width", 1), ("filter_layers", 0)):
            if getattr(self, name) < least:
                raise DataError(f"{name} is {getattr(self, name)}; it must be at least {least}")


def make(config: DecoderConfig, layer: int) -> Hyena:
    """The Hyena of a decoder's layer; its kernels are as long as the decoder's longest sequence."""
    del layer
    settings = settings_of(config, "hyena", HyenaSettings)
    convolutions = [
        Implicit(
            config.dim,
            config.max_length,
            width=settings.filter_width,
            layers=settings.filter_layers,
            embedding=settings.embedding,
            frequency=settings.frequency,
        )
        for _ in range(settings.order - 1)
    ]
    return Hyena(config.dim, order=settings.order, taps=settings.taps, convolutions=convolutions)
