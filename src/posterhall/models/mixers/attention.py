"""Causal softmax attention with rotary positions and grouped queries."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from posterhall.extras import functional, nn, torch
from posterhall.models import _ops
from posterhall.models.layers import Linear
from posterhall.models.mixers import Growth, NoSettings, Placement, branching, settings_of

if TYPE_CHECKING:
    from posterhall.models.config import DecoderConfig


def make(config: DecoderConfig, layer: int) -> Attention:
    """The attention of a decoder's layer; it is the same in all."""
    del layer
    settings_of(config, "attention", NoSettings)
    return Attention(config)


class Attention(nn.Module):
    """softmax(Q K^T / sqrt(H)) V (Vaswani et al. 2017, eq. 1), each head of keys serving several of queries.

    Queries and keys are turned by their positions if the decoder's are rotary. Projections of queries, keys
    and values are one matrix, in this order; files keep them apart.
    """

    causal = True
    growth: Growth = "linear"

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.heads, config.key_value_heads
        self.head_dim = config.head_dim
        self.max_length = config.max_length
        self.theta = config.rope_theta if config.positions == "rotary" else None
        self.qkv = Linear(config.dim, (self.heads + 2 * self.kv_heads) * self.head_dim)
        self.out = Linear(config.dim, config.dim)

    def new_state(
        self, batch: int, max_length: int, *, dtype: torch.dtype, device: torch.device
    ) -> AttentionState:
        """Room for the keys and values of `max_length` tokens."""
        shape = (2, batch, self.kv_heads, max_length, self.head_dim)
        return AttentionState(torch.zeros(shape, dtype=dtype, device=device))

    def forward(
        self, x: torch.Tensor, placement: Placement, state: AttentionState | None = None
    ) -> torch.Tensor:
        """Attend to what is before each token and to itself; see `Mixer`."""
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).view(batch, tokens, -1, self.head_dim)
        even = self.head_dim % 2 == 0  # what the step's kernel takes; always so with rotary positions
        if state is not None and tokens == 1 and even and _ops.is_step(qkv, state.kept):
            return cast("torch.Tensor", self.out(self._step(qkv, placement, state)))
        texts = max(batch, len(placement.trees or ()))  # at least
        if state is None and _ops.takes_texts(qkv, texts * self.kv_heads):
            table = rotary_table(self.head_dim, self.max_length, self.theta, qkv.dtype, placement.device)
            told = branching.texts(placement)
            mixed = _ops.attend_texts(qkv, *turns(table, placement), self.heads, told)
            return cast("torch.Tensor", self.out(mixed.view(batch, tokens, -1)))
        if self.theta is None:
            queries, keys, values = torch.split(qkv, [self.heads, self.kv_heads, self.kv_heads], dim=2)
        else:
            table = rotary_table(self.head_dim, self.max_length, self.theta, qkv.dtype, placement.device)
            cos, sin = turns(table, placement)
            queries, keys, values = _ops.rotate(qkv, cos, sin, self.heads, self.kv_heads)
        if placement.trees is not None:
            mixed = branching.attend(queries, keys, values, placement.trees)
            return cast("torch.Tensor", self.out(mixed.reshape(batch, tokens, -1)))
        keys, values = keys.transpose(1, 2), values.transpose(1, 2)
        if state is not None:
            keys, values = state.extend(keys, values, placement)
        # One new token for rows of the same length sees everything: no mask at all.
        everything = tokens == 1 and placement.start is not None
        mask = None if everything else placement.mask()
        mixed = functional.scaled_dot_product_attention(
            queries.transpose(1, 2),
            keys,
            values,
            attn_mask=mask,
            is_causal=mask is None and not everything,
            enable_gqa=self.kv_heads != self.heads,
        )
        result: torch.Tensor = self.out(mixed.transpose(1, 2).reshape(batch, tokens, -1))
        return result

    def _step(self, qkv: torch.Tensor, placement: Placement, state: AttentionState) -> torch.Tensor:
        """The same for one token a row, as one pass that costs each row what it is long."""
        table = rotary_table(self.head_dim, self.max_length, self.theta, qkv.dtype, placement.device)
        state.resize(placement.end)
        mixed = _ops.attend(qkv[:, 0], table, state.kept, placement.starts(), self.heads)
        return mixed.view(placement.batch, 1, -1)


class AttentionState:
    """Keys and values of the tokens so far, after rotation.

    There may be room for more rows and tokens than there are, so that rows come and tokens are added
    without all the others being copied each time.
    """

    def __init__(self, kept: torch.Tensor, rows: int | None = None) -> None:
        self.kept = kept  # (2, R >= B, kv_heads, L, H): each head reads its own in one go
        self.rows = kept.shape[1] if rows is None else rows

    def extend(
        self, keys: torch.Tensor, values: torch.Tensor, placement: Placement
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write (B, kv_heads, T, H) where they belong; return all up to the placement's end."""
        self.resize(placement.end)
        start = placement.start
        if start is not None:
            self.kept[0, : self.rows, :, start : start + placement.tokens] = keys
            self.kept[1, : self.rows, :, start : start + placement.tokens] = values
        else:
            rows = torch.arange(placement.batch, device=keys.device)[:, None]
            # An index on either side of a slice: what it picks comes first, (B, T, kv_heads, H).
            self.kept[0][rows, :, placement.positions()] = keys.transpose(1, 2)
            self.kept[1][rows, :, placement.positions()] = values.transpose(1, 2)
        return self.kept[0, : self.rows, :, : placement.end], self.kept[1, : self.rows, :, : placement.end]

    def select(self, rows: Sequence[int]) -> AttentionState:
        """A copy of some rows."""
        return AttentionState(self.kept[:, torch.tensor(rows, device=self.kept.device)])

    def join(self, other: AttentionState, rows: Sequence[int]) -> None:
        """Take copies of some rows of another; room for rows grows by half at least."""
        total, length = self.rows + len(rows), other.kept.shape[3]
        capacity, room = self.kept.shape[1], self.kept.shape[3]
        if total > capacity or length > room:
            self._move(max(total, capacity + capacity // 2) if total > capacity else capacity, length)
        taken = torch.tensor(rows, device=self.kept.device)
        self.kept[:, self.rows : total, :, :length] = other.kept[:, taken]
        self.rows = total

    def keep(self, rows: Sequence[int]) -> None:
        """Be only some rows: those that leave are filled by later ones where it can be so."""
        moved = [(to, row) for to, row in enumerate(rows) if to != row]
        if all(row >= len(rows) for _, row in moved):  # nothing that is read has been written over
            for to, row in moved:
                self.kept[:, to] = self.kept[:, row]
        else:
            self.kept = self.kept[:, torch.tensor(rows, device=self.kept.device)]
        self.rows = len(rows)

    def resize(self, max_length: int) -> None:
        """Have room for so many tokens a row."""
        if max_length > self.kept.shape[3]:
            self._move(self.kept.shape[1], max_length)

    def read(self, row: int, start: int, stop: int) -> torch.Tensor:
        """Keys and values of some tokens of a row, (2, kv_heads, stop - start, H)."""
        return self.kept[:, row, :, start:stop].clone()

    def write(self, row: int, start: int, pieces: Sequence[torch.Tensor]) -> None:
        """Keys and values of further tokens of a row."""
        stop = start + sum(each.shape[2] for each in pieces)
        self.kept[:, row, :, start:stop] = torch.cat(list(pieces), dim=2)

    def _move(self, capacity: int, length: int) -> None:
        """Into more room; zeros, since what is masked must not be NaN."""
        _, _, heads, room, size = self.kept.shape
        moved = self.kept.new_zeros((2, capacity, heads, max(room, length), size))
        moved[:, : self.rows, :, :room] = self.kept[:, : self.rows]
        self.kept = moved


def turns(table: torch.Tensor, placement: Placement) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of the tokens' angles, each (B or 1, T, 1, H / 2), from a `rotary_table`."""
    start = placement.start
    if placement.trees is not None:
        turned = table[:, placement.positions()]
    elif start is None:
        # Only padding lies behind the longest sequence.
        turned = table[:, placement.positions().clamp(max=table.shape[1] - 1)]
    else:
        turned = table[:, None, start : start + placement.tokens]
    return turned[0].unsqueeze(2), turned[1].unsqueeze(2)


@functools.lru_cache(maxsize=16)
def rotary_table(
    head_dim: int, length: int, theta: float | None, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """(2, length, head_dim / 2): cos and sin of position * theta^(-2 i / head_dim), computed in float32.

    Without theta nothing is turned: cosines of 1. Float32, as every implementation whose checkpoints are read
    here has it; for the large angles of long texts float64 would give other logits.
    """
    if theta is None:
        ones = torch.ones((length, head_dim // 2), dtype=dtype, device=device)
        return torch.stack((ones, torch.zeros_like(ones)))
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    angles = torch.outer(torch.arange(length, dtype=torch.float32, device=device), 1.0 / theta**exponents)
    return torch.stack((angles.cos(), angles.sin())).to(dtype)
