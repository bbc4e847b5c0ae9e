"""Linformer: attention to a fixed number of mixtures of all tokens.

Wang et al. 2020 (arXiv 2006.04768), eq. 7. One of the baselines of the Long Range Arena. It sees all tokens
at once and has weights for every position: it neither streams nor goes beyond the length it was made for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from posterhall.errors import DataError
from posterhall.extras import functional, nn, torch
from posterhall.models.layers import Linear
from posterhall.models.mixers import Growth, Placement, State, initial, settings_of
from posterhall.models.mixers.documents import apart
from posterhall.models.mixers.linear_attention import joined, split
from posterhall.models.mixers.states import blanked
from posterhall.models.mixers.time_invariant import check_length

if TYPE_CHECKING:
    from posterhall.models.config import DecoderConfig

Sharing = Literal["none", "heads", "values"]


@dataclass(frozen=True)
class LinformerSettings:
    """What determines a Linformer, beside the decoder's width, heads and length."""

    rank: int = 128
    """Mixtures k that stand for all tokens, >= 1 (the Long Range Arena: 128; the paper: 128 to 256)."""
    sharing: Sharing = "heads"
    """Mixtures of keys and of values: none: each head its own; heads: one for all heads (the paper's
    headwise); values: one for keys and values as well (its key-value sharing)."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise DataError(f"rank is {self.rank}; it must be at least 1")
        if self.sharing not in get_args(Sharing):
            raise DataError(f"sharing is {self.sharing!r}; it must be one of: {', '.join(get_args(Sharing))}")


def make(config: DecoderConfig, layer: int) -> Linformer:
    """The Linformer of a decoder's layer; it is the same in all."""
    del layer
    return Linformer(config, settings_of(config, "linformer", LinformerSettings))


class Linformer(nn.Module):
    """softmax(Q (E K)^T / sqrt(H)) F V, with E and F (k, length) learnt.

    Shorter rows take the first columns of E and F. Positions enter by these alone.

    Attributes:
        mixtures: (2 or 1, heads or 1, k, max_length): E, and F unless it is the same.
    """

    causal = False
    growth: Growth = "linear"

    def __init__(self, config: DecoderConfig, settings: LinformerSettings) -> None:
        super().__init__()
        self._config = config
        self.heads, self.max_length = config.heads, config.max_length
        kinds = 1 if settings.sharing == "values" else 2
        heads = config.heads if settings.sharing == "none" else 1
        self.qkv = Linear(config.dim, 3 * config.dim)
        self.mixtures = nn.Parameter(torch.zeros(kinds, heads, settings.rank, config.max_length))
        self.out = Linear(config.dim, config.dim)

    def initialise(self, generator: torch.Generator) -> None:
        """Projections as attention's; mixtures N(0, 1/k) (the paper's theorem 2)."""
        initial.projections(self, self._config, generator)
        std = self.mixtures.shape[2] ** -0.5
        with torch.no_grad():
            self.mixtures.copy_(torch.empty(self.mixtures.shape).normal_(0.0, std, generator=generator))

    def new_state(self, batch: int, max_length: int, *, dtype: torch.dtype, device: torch.device) -> State:
        """There is none.

        Raises:
            DataError: always.
        """
        raise DataError(
            "a Linformer sees all tokens at once and has no state; give it whole sequences, or take a mixer "
            "that streams (linear_attention, performer, sliding_window)"
        )

    def forward(self, x: torch.Tensor, placement: Placement, state: None = None) -> torch.Tensor:
        """See `Mixer`.

        Raises:
            DataError: for more tokens than it was made for.
        """
        if placement.segments is not None:
            return apart(self, x, placement.segments)
        check_length(placement.tokens, self.max_length)
        queries, keys, values = self.qkv(x).chunk(3, dim=-1)
        keys, values = (split(blanked(each, placement), self.heads) for each in (keys, values))
        of_keys, of_values = self.mixtures[0], self.mixtures[-1]
        mixed = functional.scaled_dot_product_attention(
            split(queries, self.heads),
            of_keys[..., : placement.tokens] @ keys,
            of_values[..., : placement.tokens] @ values,
        )
        result: torch.Tensor = self.out(joined(mixed))
        return result
