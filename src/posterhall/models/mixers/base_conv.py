"""BaseConv: a convolution gated by a projection, of which all gated convolutions can be built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from posterhall.errors import DataError
from posterhall.extras import nn, torch
from posterhall.models.layers import Linear
from posterhall.models.mixers import Growth, Placement, documents, settings_of
from posterhall.models.mixers.hyena import Implicit
from posterhall.models.mixers.long_conv import spread
from posterhall.models.mixers.short_conv import ShortConv

if TYPE_CHECKING:
    from posterhall.models.config import DecoderConfig


class BaseConv(nn.Module):
    """y = (K * u) (W u + b) + u (Arora et al. 2023, "Zoology", arXiv 2312.04927, §4).

    Args:
        dim: D.
        taps: tokens of a short convolution; -1 for one as long as the sequence, whose kernel a network
            writes as Hyena's (the original's has ReLU in the place of sines, and no window).
        limit: longest sequence of a long convolution.
    """

    causal = True

    def __init__(self, dim: int, *, taps: int, limit: int) -> None:
        super().__init__()
        self.growth: Growth = "linear" if taps == -1 else "constant"
        self.convolution = Implicit(dim, limit) if taps == -1 else ShortConv(dim, taps)
        self.projection = Linear(dim, dim)
        self.bias = nn.Parameter(torch.zeros(dim))

    def initialise(self, generator: torch.Generator) -> None:
        """W uniform in +-1 / sqrt(dim), b as well, the convolution as it has it."""
        spread(self.projection, generator)
        bound = len(self.bias) ** -0.5
        with torch.no_grad():
            self.bias.copy_(torch.empty(self.bias.shape).uniform_(-bound, bound, generator=generator))
        self.convolution.initialise(generator)

    def new_state(self, batch: int, max_length: int, *, dtype: torch.dtype, device: torch.device) -> Any:
        """The last tokens of a short convolution, or all tokens of a long one."""
        if isinstance(self.convolution, ShortConv):
            return self.convolution.new_state(batch, dtype=dtype, device=device)
        return self.convolution.new_state(batch, max_length, dtype=dtype, device=device)

    def forward(self, x: torch.Tensor, placement: Placement, state: Any = None) -> torch.Tensor:
        """(B, T, D) to the same; see `Mixer`."""
        if placement.segments is not None:
            return documents.apart(self, x, placement.segments)
        result: torch.Tensor = self.convolution(x, placement, state) * (self.projection(x) + self.bias) + x
        return result


@dataclass(frozen=True)
class BaseConvSettings:
    """Settings of BaseConv (Arora et al. 2023, arXiv 2312.04927)."""

    taps: tuple[int, ...] = (3, -1)
    """Tokens of the convolution in each layer, in turn; -1: as long as the sequence (Figure 2: 3, -1)."""

    def __post_init__(self) -> None:
        if not self.taps or any(each < 1 and each != -1 for each in self.taps):
            raise DataError(f"taps is {list(self.taps)}; give numbers of at least 1, or -1 for a long one")


def make(config: DecoderConfig, layer: int) -> BaseConv:
    """The BaseConv of a decoder's layer."""
    settings = settings_of(config, "base_conv", BaseConvSettings)
    taps = settings.taps[layer % len(settings.taps)]
    return BaseConv(config.dim, taps=taps, limit=config.max_length)
