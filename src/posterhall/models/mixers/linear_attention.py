"""Linear attention: a kernel phi(q) phi(k) instead of exp(q k), so that the past fits in one matrix.

Katharopoulos et al. 2020 (arXiv 2006.16236), eq. 7 to 12, with their elu + 1 as the map; and the
second-order Taylor map of Based (Arora et al. 2024, arXiv 2402.18668, §4.1). Computed in chunks: among the
tokens of a chunk by their kernel as a matrix, from those before by one product with the matrix that sums
them up. Memory and time grow linearly, and nearly all of it is matrix products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from posterhall.errors import DataError
from posterhall.extras import functional, nn, torch
from posterhall.models.layers import Linear
from posterhall.models.mixers import Growth, Placement, initial, settings_of
from posterhall.models.mixers.documents import apart
from posterhall.models.mixers.states import Rows, blanked
from posterhall.models.mixers.time_invariant import working

if TYPE_CHECKING:
    from posterhall.models.config import DecoderConfig

Kind = Literal["elu", "taylor"]


@dataclass(frozen=True)
class LinearAttentionSettings:
    """What determines linear attention, beside the decoder's width and heads."""

    feature: Kind = "elu"
    """The map phi: elu(x) + 1, or the second-order Taylor series of exp, 1 + s + s^2 / 2."""
    feature_dim: int | None = None
    """Entries of a head's queries and keys, >= 1; none: 16 for taylor (Arora et al. 2024, §5), and as many as
    of values for elu."""
    compressed: bool = True
    """taylor: hold each product x_i x_j of different entries once: 1 + d + d (d + 1) / 2 numbers instead of
    the 1 + d + d^2 of the authors' code, with the same results."""
    chunk: int = 64
    """Tokens of a chunk, >= 1; it changes nothing but speed."""

    def __post_init__(self) -> None:
        if self.feature_dim is not None and self.feature_dim < 1:
            raise DataError(f"feature_dim is {self.feature_dim}; it must be at least 1, or none")
        if self.chunk < 1:
            raise DataError(f"chunk is {self.chunk}; it must be at least 1")
        if self.feature not in get_args(Kind):
            raise DataError(f"feature is {self.feature!r}; it must be one of: {', '.join(get_args(Kind))}")


class Feature(Protocol):
    """A feature map. Its parts may have factors of their own that cancel in the quotient."""

    size: int
    """Entries F of phi."""

    def queries(self, x: torch.Tensor) -> torch.Tensor:
        """phi of queries, (..., d) to (..., F)."""

    def keys(self, x: torch.Tensor) -> torch.Tensor:
        """phi of keys, (..., d) to (..., F)."""

    def kernel(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """phi(q) phi(k) of all pairs: (..., T, d) and (..., S, d) to (..., T, S)."""


class Elu:
    """phi(x) = elu(x) + 1 (Katharopoulos et al. 2020, eq. 7): positive."""

    def __init__(self, entries: int) -> None:
        self.size = entries

    def queries(self, x: torch.Tensor) -> torch.Tensor:
        """(..., d) to the same."""
        return functional.elu(x) + 1.0

    def keys(self, x: torch.Tensor) -> torch.Tensor:
        """(..., d) to the same."""
        return self.queries(x)

    def kernel(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """(..., T, S)."""
        return self.queries(queries) @ self.keys(keys).mT


class Taylor:
    """phi(q) phi(k) = 1 + s + s^2 / 2, s = q k / sqrt(d) (Arora et al. 2024, §4.1).

    That is ((1 + s)^2 + 1) / 2 >= 1/2: unlike a series of odd order it is always positive.
    """

    def __init__(self, entries: int, *, compressed: bool) -> None:
        self.entries, self.compressed = entries, compressed
        self.size = 1 + entries + (entries * (entries + 1) // 2 if compressed else entries**2)

    def queries(self, x: torch.Tensor) -> torch.Tensor:
        """(..., d) to (..., F): 1, the entries, their products."""
        d = self.entries
        ones = torch.ones_like(x[..., :1])
        if not self.compressed:
            squares = (x[..., :, None] * x[..., None, :]).flatten(-2) * (0.5 / d) ** 0.5
            return torch.cat((ones, x * d**-0.25, squares), dim=-1)
        i, j = torch.triu_indices(d, d, device=x.device)
        # x_i x_j stands for x_j x_i too: twice in the sum, so by a square root of 2 on either side.
        scale = torch.where(i == j, x.new_tensor((0.5 / d) ** 0.5), x.new_tensor(d**-0.5))
        squares = x.index_select(-1, i) * x.index_select(-1, j) * scale
        return torch.cat((ones, x * d**-0.25, squares), dim=-1)

    def keys(self, x: torch.Tensor) -> torch.Tensor:
        """As `queries`."""
        return self.queries(x)

    def kernel(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """(..., T, S), without the features."""
        s = (queries @ keys.mT) * self.entries**-0.5
        return torch.addcmul(1.0 + s, s, s, value=0.5)


def make(config: DecoderConfig, layer: int) -> LinearAttention:
    """The linear attention of a decoder's layer; it is the same in all."""
    del layer
    return LinearAttention(config, settings_of(config, "linear_attention", LinearAttentionSettings))


class LinearAttention(nn.Module):
    """y_t = sum over s <= t of phi(q_t) phi(k_s) v_s, divided by the same sum without v, head by head.

    Positions do not enter. The state is a matrix a head: sum of phi(k) [v, 1].
    """

    causal = True
    growth: Growth = "constant"

    def __init__(self, config: DecoderConfig, settings: LinearAttentionSettings) -> None:
        super().__init__()
        self._config = config
        self.heads, self.head_dim, self.chunk = config.heads, config.head_dim, settings.chunk
        taylor = settings.feature == "taylor"
        self.entries = settings.feature_dim or (16 if taylor else config.head_dim)
        self.feature: Feature = (
            Taylor(self.entries, compressed=settings.compressed) if taylor else Elu(self.entries)
        )
        self.queries = Linear(config.dim, self.heads * self.entries)
        self.keys = Linear(config.dim, self.heads * self.entries)
        self.values = Linear(config.dim, config.dim)
        self.out = Linear(config.dim, config.dim)

    def initialise(self, generator: torch.Generator) -> None:
        """As attention begins."""
        initial.projections(self, self._config, generator)

    def new_state(self, batch: int, max_length: int, *, dtype: torch.dtype, device: torch.device) -> Rows:
        """(B, heads, F, H + 1) zeros, in at least float32."""
        return sums(batch, self.heads, self.feature, self.head_dim, dtype=dtype, device=device)

    def forward(self, x: torch.Tensor, placement: Placement, state: Rows | None = None) -> torch.Tensor:
        """See `Mixer`."""
        if placement.segments is not None:
            return apart(self, x, placement.segments)
        queries, keys, values = (
            split(each(x), self.heads) for each in (self.queries, self.keys, self.values)
        )
        mixed = attend(self.feature, queries, keys, values, placement, state, chunk=self.chunk)
        result: torch.Tensor = self.out(joined(mixed).to(x.dtype))
        return result


def attend(
    feature: Feature,
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    placement: Placement,
    state: Rows | None,
    *,
    chunk: int,
) -> torch.Tensor:
    """Causal attention by a kernel, in at least float32.

    Args:
        feature: phi.
        queries, keys: (B, heads, T, d).
        values: (B, heads, T, H).
        placement: where the tokens stand, without segments.
        state: from `sums`; takes up the tokens.
        chunk: tokens of a chunk.

    Returns:
        (B, heads, T, H).
    """
    queries, keys, values = (each.to(working(values.dtype)) for each in (queries, keys, values))
    with torch.autocast(values.device.type, enabled=False):
        told = with_ones(values, placement)
        total = None if state is None else state.kept
        parts = []
        for start in range(0, placement.tokens, chunk):
            part = slice(start, start + chunk)
            q, k, v = queries[:, :, part], keys[:, :, part], told[:, :, part]
            sums_here = feature.kernel(q, k).tril() @ v
            if total is not None:
                sums_here = sums_here + feature.queries(q) @ total
            parts.append(sums_here)
            if state is not None or part.stop < placement.tokens:
                grown = feature.keys(k).mT @ v
                total = grown if total is None else total + grown
        if state is not None and total is not None:
            state.kept = total
        return quotient(torch.cat(parts, dim=2))


def everywhere(
    feature: Feature,
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    placement: Placement,
) -> torch.Tensor:
    """The same to all real tokens of a row, those that come later included."""
    queries, keys, values = (each.to(working(values.dtype)) for each in (queries, keys, values))
    with torch.autocast(values.device.type, enabled=False):
        total = feature.keys(keys).mT @ with_ones(values, placement)
        return quotient(feature.queries(queries) @ total)


def sums(
    batch: int, heads: int, feature: Feature, width: int, *, dtype: torch.dtype, device: torch.device
) -> Rows:
    """The state of `attend`: sums over the tokens so far of phi(k) [v, 1], (B, heads, F, width + 1)."""
    shape = (batch, heads, feature.size, width + 1)
    return Rows(torch.zeros(shape, dtype=working(dtype), device=device))


def with_ones(values: torch.Tensor, placement: Placement) -> torch.Tensor:
    """(B, heads, T, H) values with a column of ones, so that one product gives numerator and denominator;
    zeros for padding, which then counts in neither."""
    told = functional.pad(values, (0, 1), value=1.0)
    return blanked(told.transpose(1, 2), placement).transpose(1, 2)


def quotient(both: torch.Tensor) -> torch.Tensor:
    """(..., H + 1) numerators with their denominator to (..., H).

    Denominators are positive for every kernel here but where nothing has been seen, which gives 0; the 1e-12
    that Based's code adds would distort where features are small.
    """
    return both[..., :-1] / both[..., -1:].clamp_min(torch.finfo(both.dtype).tiny)


def split(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, T, heads W) to (B, heads, T, W)."""
    batch, tokens, width = x.shape
    return x.view(batch, tokens, heads, width // heads).transpose(1, 2)


def joined(x: torch.Tensor) -> torch.Tensor:
    """(B, heads, T, W) to (B, T, heads W)."""
    return x.transpose(1, 2).flatten(2)
