"""Performer: softmax attention estimated by positive orthogonal random features (FAVOR+).

Choromanski et al. 2021 (arXiv 2009.14794), eq. 5 and §2.4. One of the baselines of the Long Range Arena,
there bidirectional.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from posterhall.errors import DataError
from posterhall.extras import nn, torch
from posterhall.models.layers import Linear
from posterhall.models.mixers import Growth, Placement, initial, settings_of
from posterhall.models.mixers.documents import apart
from posterhall.models.mixers.linear_attention import attend, everywhere, joined, split, sums
from posterhall.models.mixers.states import Rows
from posterhall.models.mixers.time_invariant import refuse_streaming

if TYPE_CHECKING:
    from posterhall.models.config import DecoderConfig


_ADDED = 1e-4
"""To every feature of a key (the authors' numerical stabiliser)."""
_MOST = 60.0
"""Largest exponent of a key: exp(60) leaves room for sums in float32. Only a key that is nearly a direction
comes near."""


@dataclass(frozen=True)
class PerformerSettings:
    """What determines a Performer, beside the decoder's width and heads."""

    features: int | None = None
    """Random features M of a head, >= 1; none: H ln H for heads of H entries (the paper's Theta(d log d)).
    The error falls as 1 / sqrt(M)."""
    bidirectional: bool = False
    """See what comes after each token too, as in the Long Range Arena; no streaming then."""
    chunk: int = 64
    """Tokens of a chunk, >= 1; it changes nothing but speed."""

    def __post_init__(self) -> None:
        for name in ("features", "chunk"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DataError(f"{name} is {value}; it must be at least 1")


def make(config: DecoderConfig, layer: int) -> Performer:
    """The Performer of a decoder's layer; the layers' features are drawn apart."""
    del layer
    return Performer(config, settings_of(config, "performer", PerformerSettings))


class Performer(nn.Module):
    """Attention with E[phi(q) phi(k)] = exp(q k / sqrt(H)), head by head.

    The features are drawn once, are the same for all heads of a layer, and are kept with the weights; the
    authors' option to draw them anew during training is not offered. Positions do not enter.
    """

    growth: Growth = "constant"

    def __init__(self, config: DecoderConfig, settings: PerformerSettings) -> None:
        super().__init__()
        self._config = config
        self.causal = not settings.bidirectional
        self.heads, self.head_dim, self.chunk = config.heads, config.head_dim, settings.chunk
        count = settings.features or max(1, round(self.head_dim * math.log(self.head_dim)))
        self.feature = Favor(self.head_dim, count)
        self.qkv = Linear(config.dim, 3 * config.dim)
        self.out = Linear(config.dim, config.dim)

    def initialise(self, generator: torch.Generator) -> None:
        """Projections as attention's, and the directions."""
        initial.projections(self, self._config, generator)
        self.feature.draw(generator)

    def new_state(self, batch: int, max_length: int, *, dtype: torch.dtype, device: torch.device) -> Rows:
        """(B, heads, M, H + 1) zeros, in at least float32.

        Raises:
            DataError: for one that looks ahead.
        """
        refuse_streaming(self)
        return sums(batch, self.heads, self.feature, self.head_dim, dtype=dtype, device=device)

    def forward(self, x: torch.Tensor, placement: Placement, state: Rows | None = None) -> torch.Tensor:
        """See `Mixer`."""
        if placement.segments is not None:
            return apart(self, x, placement.segments)
        queries, keys, values = (split(each, self.heads) for each in self.qkv(x).chunk(3, dim=-1))
        if self.causal:
            mixed = attend(self.feature, queries, keys, values, placement, state, chunk=self.chunk)
        else:
            mixed = everywhere(self.feature, queries, keys, values, placement)
        result: torch.Tensor = self.out(joined(mixed).to(x.dtype))
        return result


class Favor(nn.Module):
    """phi(x)_i = exp(w_i x - |x|^2 / 2) / sqrt(M), x scaled by H^(-1/4) (eq. 5, with the exponential).

    The directions w are orthogonal in blocks of H, with the lengths of Gaussian vectors. A query's exponents
    lose their largest, which cancels in the quotient. For keys the authors subtract the largest of all, which
    a model that streams does not know: here a key's features are left as they are, their mean being 1, and
    get the authors' small addend, so that no denominator vanishes. All forms agree.

    Attributes:
        directions: (M, H), kept with the weights.
    """

    directions: torch.Tensor

    def __init__(self, entries: int, count: int) -> None:
        super().__init__()
        self.size = count
        self.register_buffer("directions", torch.zeros(count, entries))

    def draw(self, generator: torch.Generator) -> None:
        """New directions."""
        count, entries = self.directions.shape
        drawn = torch.empty(-(-count // entries), entries, entries).normal_(generator=generator)
        turned, upper = torch.linalg.qr(drawn)
        # Uniform among rotations only with the signs of R's diagonal (Mezzadri 2007); the estimate is
        # biased without them.
        turns = (turned * upper.diagonal(dim1=1, dim2=2).sign()[:, None]).flatten(0, 1)[:count]
        lengths = torch.empty(count, entries).normal_(generator=generator).norm(dim=1)
        self.directions.copy_(turns * lengths[:, None])

    def queries(self, x: torch.Tensor) -> torch.Tensor:
        """(..., H) to (..., M), the largest of them 1."""
        exponents = (x * x.shape[-1] ** -0.25) @ self.directions.to(x.dtype).T
        return torch.exp(exponents - exponents.amax(dim=-1, keepdim=True).detach())

    def keys(self, x: torch.Tensor) -> torch.Tensor:
        """(..., H) to (..., M), positive."""
        x = x * x.shape[-1] ** -0.25
        exponents = x @ self.directions.to(x.dtype).T - x.square().sum(-1, keepdim=True) / 2
        return torch.exp(exponents.clamp(max=_MOST)) + _ADDED

    def kernel(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """(..., T, S)."""
        return self.queries(queries) @ self.keys(keys).mT
