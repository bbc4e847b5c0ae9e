"""The shape of a decoder."""

from __future__ import annotations

import math
from dataclasses import dataclass

from posterhall.errors import DataError

_FFN_MULTIPLE = 64


@dataclass(frozen=True)
class DecoderConfig:
    """A pre-norm decoder: RMSNorm, rotary positions, SwiGLU, grouped-query attention (Llama's shape).

    Touvron et al. 2023 (arXiv 2302.13971), §2.2; grouped queries: Ainslie et al. 2023.

    Raises:
        DataError: if a value is out of range or two do not fit together.
    """

    vocab_size: int
    """Tokens, >= 1."""
    dim: int = 256
    """Width D of the residual stream, a multiple of 2 x heads."""
    layers: int = 4
    """Blocks of a mixer and a feed-forward layer, >= 1."""
    heads: int = 4
    """Query heads; each has dim / heads entries, an even number."""
    kv_heads: int | None = None
    """Key and value heads, a divisor of `heads`; None: as many as `heads`."""
    ffn_dim: int | None = None
    """Width of the feed-forward layer; None: 8/3 dim (as many parameters as 4 dim without a gate),
    rounded up to a multiple of 64."""
    max_length: int = 1024
    """Longest sequence, in tokens."""
    rope_theta: float = 10000.0
    """Base of the rotary wavelengths (Su et al. 2021, eq. 15), > 0."""
    norm_eps: float = 1e-5
    """Added to the mean square in RMSNorm, > 0."""
    tie_embeddings: bool = True
    """One matrix for the embedding and the head."""
    mixers: tuple[str, ...] = ("attention",)
    """The sequence mixer of every layer: one name for all, or one a layer."""
    dropout: float = 0.0
    """Share of entries dropped after the embedding, each mixer and each feed-forward layer, in [0, 1)."""
    init_std: float = 0.02
    """Standard deviation of the initial weights; those that write into the residual stream get it divided
    by sqrt(2 layers) (GPT-2)."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "dim", "layers", "heads", "max_length"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("kv_heads", "ffn_dim"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DataError(f"{name} is {value}; it must be at least 1, or left out")
        for name in ("rope_theta", "norm_eps", "init_std"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise DataError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.dim % (2 * self.heads):
            raise DataError(
                f"dim is {self.dim} with {self.heads} heads; it must be a multiple of {2 * self.heads} "
                "(twice the heads: rotary positions turn pairs of entries)"
            )
        if self.heads % self.key_value_heads:
            raise DataError(f"kv_heads is {self.kv_heads}; it must divide the {self.heads} heads")
        if not 0 <= self.dropout < 1:
            raise DataError(f"dropout is {self.dropout}; it must be at least 0 and below 1")
        if len(self.mixers) not in (1, self.layers) or not all(self.mixers):
            raise DataError(
                f"mixers has {len(self.mixers)} names for {self.layers} layers; give one for all of them, "
                "or one a layer"
            )

    @property
    def head_dim(self) -> int:
        """Entries of a head."""
        return self.dim // self.heads

    @property
    def key_value_heads(self) -> int:
        """`kv_heads`, resolved."""
        return self.kv_heads or self.heads

    @property
    def feed_forward_dim(self) -> int:
        """`ffn_dim`, resolved."""
        return self.ffn_dim or -(-8 * self.dim // (3 * _FFN_MULTIPLE)) * _FFN_MULTIPLE

    @property
    def layer_mixers(self) -> tuple[str, ...]:
        """The name of each layer's mixer."""
        return self.mixers if len(self.mixers) == self.layers else self.mixers * self.layers
