"""A short convolution before any mixer, so that comparisons can give it to all or to none.

Many mixers bring one of their own (Mamba, Hyena, H3); what it does for recall is not to be taken for what the
rest of the mixer does (Arora et al. 2023, §5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from posterhall.extras import nn, torch
from posterhall.models.mixers import Growth, MixerFactory, Placement, initial
from posterhall.models.mixers.attention import Attention
from posterhall.models.mixers.short_conv import ShortConv
from posterhall.models.mixers.states import Several

if TYPE_CHECKING:
    from posterhall.models.config import DecoderConfig


def preceded(factory: MixerFactory, taps: int) -> MixerFactory:
    """The maker of the same mixer with a short convolution over `taps` tokens before it."""

    def make(config: DecoderConfig, layer: int) -> Preceded:
        return Preceded(config, ShortConv(config.dim, taps, bias=False), factory(config, layer))

    return make


class Preceded(nn.Module):
    """mixer(conv(x))."""

    def __init__(self, config: DecoderConfig, conv: ShortConv, mixer: Any) -> None:
        super().__init__()
        self._config = config
        self.conv, self.mixer = conv, mixer
        self.causal: bool = mixer.causal
        self.growth: Growth = mixer.growth

    def initialise(self, generator: torch.Generator) -> None:
        """Both, one after the other."""
        self.conv.initialise(generator)
        if isinstance(self.mixer, Attention):  # which a decoder initialises itself
            initial.projections(self.mixer, self._config, generator)
        elif hasattr(self.mixer, "initialise"):
            self.mixer.initialise(generator)

    def new_state(self, batch: int, max_length: int, *, dtype: torch.dtype, device: torch.device) -> Several:
        """The convolution's and the mixer's."""
        mixers = self.mixer.new_state(batch, max_length, dtype=dtype, device=device)
        return Several(self.conv.new_state(batch, dtype=dtype, device=device), mixers)

    def forward(self, x: torch.Tensor, placement: Placement, state: Several | None = None) -> torch.Tensor:
        """See `Mixer`."""
        of_conv, of_mixer = (None, None) if state is None else state.parts
        result: torch.Tensor = self.mixer(self.conv(x, placement, of_conv), placement, of_mixer)
        return result
