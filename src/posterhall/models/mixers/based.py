"""Based: gated short convolutions, linear attention by a Taylor map, and small windows of exact attention.

Arora et al. 2024 (arXiv 2402.18668). Each layer is one of the three: the window recalls what is near, linear
attention whatever is far as well as its state allows, and convolutions see which tokens are neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from posterhall.errors import DataError
from posterhall.models.mixers import settings_of
from posterhall.models.mixers.base_conv import BaseConv
from posterhall.models.mixers.linear_attention import LinearAttention, LinearAttentionSettings
from posterhall.models.mixers.sliding_window import SlidingWindow, SlidingWindowSettings

if TYPE_CHECKING:
    from posterhall.models.config import DecoderConfig

Part = Literal["conv", "linear", "window"]


@dataclass(frozen=True)
class BasedSettings:
    """What determines Based, beside the decoder's shape.

    The authors' code widens a convolution's layer fourfold; here it has the decoder's width.
    """

    pattern: tuple[Part, ...] = ("conv", "linear", "window", "conv", "conv")
    """What the layers are, in turn, from the first one on. The default gives the authors' 27 layers (linear
    attention at 1, 6, 11, 16 and 21, windows behind them), but for the last, a convolution there. Two layers
    are a convolution and linear attention."""
    taps: int = 3
    """Tokens of a convolution, >= 1."""
    feature_dim: int = 16
    """Entries of a head's queries and keys in linear attention, >= 1 (§5; 8 to 32 in table 6)."""
    compressed: bool = True
    """Whether linear attention holds its symmetric products once."""
    window: int = 64
    """Tokens that a window sees (§4.2: 64, 128; the released configuration: 256)."""

    def __post_init__(self) -> None:
        if not self.pattern:
            raise DataError("pattern is empty; name conv, linear or window at least once")
        if self.taps < 1:
            raise DataError(f"taps is {self.taps}; it must be at least 1")
        self.linear()
        SlidingWindowSettings(window=self.window)

    def linear(self) -> LinearAttentionSettings:
        """The settings of linear attention."""
        return LinearAttentionSettings(
            feature="taylor", feature_dim=self.feature_dim, compressed=self.compressed
        )


def make(config: DecoderConfig, layer: int) -> Any:
    """What stands in a layer."""
    settings = settings_of(config, "based", BasedSettings)
    part = settings.pattern[layer % len(settings.pattern)]
    if part == "conv":
        return BaseConv(config.dim, taps=settings.taps, limit=config.max_length)
    if part == "linear":
        return LinearAttention(config, settings.linear())
    return SlidingWindow(config, SlidingWindowSettings(window=settings.window))
