"""Causal softmax attention with rotary positions and grouped queries."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from posterhall.extras import functional, nn, torch
from posterhall.models import _ops
from posterhall.models.layers import Linear
from posterhall.models.mixers import Growth, Placement

if TYPE_CHECKING:
    from posterhall.models.config import DecoderConfig


class Attention(nn.Module):
    """softmax(Q K^T / sqrt(H)) V (Vaswani et al. 2017, eq. 1), each head of keys serving several of queries.

    Projections of queries, keys and values are one matrix, in this order; files keep them apart.
    """

    causal = True
    growth: Growth = "linear"

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.heads, config.key_value_heads
        self.head_dim = config.head_dim
        self.max_length, self.theta = config.max_length, config.rope_theta
        self.qkv = Linear(config.dim, (self.heads + 2 * self.kv_heads) * self.head_dim)
        self.out = Linear(config.dim, config.dim)

    def new_state(
        self, batch: int, max_length: int, *, dtype: torch.dtype, device: torch.device
    ) -> AttentionState:
        """Room for the keys and values of `max_length` tokens."""
        shape = (2, batch, max_length, self.kv_heads, self.head_dim)
        return AttentionState(torch.zeros(shape, dtype=dtype, device=device))

    def forward(
        self, x: torch.Tensor, placement: Placement, state: AttentionState | None = None
    ) -> torch.Tensor:
        """Attend to what is before each token and to itself; see `Mixer`."""
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).view(batch, tokens, -1, self.head_dim)
        cos, sin = self._turns(placement, qkv.dtype)
        queries, keys, values = _ops.rotate(qkv, cos, sin, self.heads, self.kv_heads)
        if state is not None:
            keys, values = state.extend(keys, values, placement)
        # One new token for rows of the same length sees everything: no mask at all.
        everything = tokens == 1 and placement.start is not None
        mask = None if everything else placement.mask()
        mixed = functional.scaled_dot_product_attention(
            queries.transpose(1, 2),
            keys.transpose(1, 2),
            values.transpose(1, 2),
            attn_mask=mask,
            is_causal=mask is None and not everything,
            enable_gqa=self.kv_heads != self.heads,
        )
        result: torch.Tensor = self.out(mixed.transpose(1, 2).reshape(batch, tokens, -1))
        return result

    def _turns(self, placement: Placement, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines of the tokens' angles, each (B or 1, T, 1, H / 2)."""
        table = rotary_table(self.head_dim, self.max_length, self.theta, dtype, placement.device)
        start = placement.start
        if start is None:
            turns = table[:, placement.positions()]
        else:
            turns = table[:, None, start : start + placement.tokens]
        return turns[0].unsqueeze(2), turns[1].unsqueeze(2)


class AttentionState:
    """Keys and values of the tokens so far, after rotation."""

    def __init__(self, kept: torch.Tensor) -> None:
        self.kept = kept  # (2, B, L, kv_heads, H)

    def extend(
        self, keys: torch.Tensor, values: torch.Tensor, placement: Placement
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write (B, T, kv_heads, H) where they belong; return all up to the placement's end."""
        start = placement.start
        if start is not None:
            self.kept[0, :, start : start + placement.tokens] = keys
            self.kept[1, :, start : start + placement.tokens] = values
        else:
            rows = torch.arange(placement.batch, device=keys.device)[:, None]
            self.kept[0, rows, placement.positions()] = keys
            self.kept[1, rows, placement.positions()] = values
        return self.kept[0, :, : placement.end], self.kept[1, :, : placement.end]

    def select(self, rows: Sequence[int]) -> AttentionState:
        """A copy of some rows."""
        return AttentionState(self.kept[:, torch.tensor(rows, device=self.kept.device)])


@functools.lru_cache(maxsize=16)
def rotary_table(
    head_dim: int, length: int, theta: float, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """(2, length, head_dim / 2): cos and sin of position * theta^(-2 i / head_dim), computed in float32.

    Float32, as every implementation whose checkpoints are read here has it; for the large angles of long
    texts float64 would give other logits.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    angles = torch.outer(torch.arange(length, dtype=torch.float32, device=device), 1.0 / theta**exponents)
    return torch.stack((angles.cos(), angles.sin())).to(dtype)
