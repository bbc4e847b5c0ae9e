"""Softmax attention over the last few tokens: exact within a window, blind beyond it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from posterhall.errors import DataError
from posterhall.extras import functional, nn, torch
from posterhall.models import _ops
from posterhall.models.layers import Linear
from posterhall.models.mixers import Growth, Placement, initial, settings_of
from posterhall.models.mixers.attention import rotary_table, turns
from posterhall.models.mixers.states import Rows

if TYPE_CHECKING:
    from posterhall.models.config import DecoderConfig


@dataclass(frozen=True)
class SlidingWindowSettings:
    """What determines a sliding window, beside the decoder's shape."""

    window: int = 64
    """Tokens that a token sees, itself among them, >= 1 (Arora et al. 2024, §4.2: 64; their code: 256)."""

    def __post_init__(self) -> None:
        if self.window < 1:
            raise DataError(f"window is {self.window}; it must be at least 1, the token itself")


def make(config: DecoderConfig, layer: int) -> SlidingWindow:
    """The window of a decoder's layer; it is the same in all."""
    del layer
    return SlidingWindow(config, settings_of(config, "sliding_window", SlidingWindowSettings))


class SlidingWindow(nn.Module):
    """softmax(q_t K^T / sqrt(H)) V over the tokens t - window + 1 to t (Beltagy et al. 2020, §3.1).

    Heads, shared keys, and rotary positions as of `Attention`. Work grows with tokens times window: queries
    are taken in blocks, each against the window's keys before it and its own. The state is the last
    `window` keys and values.
    """

    causal = True
    growth: Growth = "constant"

    def __init__(self, config: DecoderConfig, settings: SlidingWindowSettings) -> None:
        super().__init__()
        self._config = config
        self.window = settings.window
        self.heads, self.kv_heads, self.head_dim = config.heads, config.key_value_heads, config.head_dim
        self.max_length = config.max_length
        self.theta = config.rope_theta if config.positions == "rotary" else None
        self.qkv = Linear(config.dim, (self.heads + 2 * self.kv_heads) * self.head_dim)
        self.out = Linear(config.dim, config.dim)

    def initialise(self, generator: torch.Generator) -> None:
        """As attention begins."""
        initial.projections(self, self._config, generator)

    def new_state(self, batch: int, max_length: int, *, dtype: torch.dtype, device: torch.device) -> Rows:
        """The last keys and values of each row, oldest first, (B, window, 2 kv_heads, H): zeros."""
        shape = (batch, self.window, 2 * self.kv_heads, self.head_dim)
        return Rows(torch.zeros(shape, dtype=dtype, device=device))

    def forward(self, x: torch.Tensor, placement: Placement, state: Rows | None = None) -> torch.Tensor:
        """See `Mixer`."""
        qkv = self.qkv(x).view(*x.shape[:2], -1, self.head_dim)
        queries, told = torch.split(qkv, [self.heads, 2 * self.kv_heads], dim=2)
        if self.theta is not None:
            table = rotary_table(self.head_dim, self.max_length, self.theta, qkv.dtype, placement.device)
            queries, keys, values = _ops.rotate(qkv, *turns(table, placement), self.heads, self.kv_heads)
            told = torch.cat((keys, values), dim=2)
        if state is None:
            mixed = self._attend(queries, told, None, placement)
        else:
            mixed = self._attend(queries, told, state.kept.to(told.dtype), placement)
            state.kept = self._last(torch.cat((state.kept, told.to(state.kept.dtype)), dim=1), placement)
        result: torch.Tensor = self.out(mixed.flatten(2))
        return result

    def _attend(
        self, queries: torch.Tensor, told: torch.Tensor, before: torch.Tensor | None, placement: Placement
    ) -> torch.Tensor:
        """(B, T, heads, H) of queries of that shape, keys and values (B, T, 2 kv_heads, H), and the window
        before the first token, oldest first."""
        batch, tokens, heads, size = queries.shape
        grouped = self.kv_heads != self.heads
        if before is None and placement.segments is None and tokens <= self.window:
            keys, values = told.transpose(1, 2).chunk(2, dim=1)
            mixed = functional.scaled_dot_product_attention(
                queries.transpose(1, 2), keys, values, is_causal=True, enable_gqa=grouped
            )
            return mixed.transpose(1, 2)
        block = min(self.window, tokens)
        blocks = -(-tokens // block)
        missing = blocks * block - tokens
        if before is None:
            before = told.new_zeros((batch, self.window, *told.shape[2:]))
        longer = functional.pad(torch.cat((before, told), dim=1), (0, 0, 0, 0, 0, missing))
        # Key c of a block stands window - c tokens before the block's first one.
        seen = longer.unfold(1, self.window + block, block).flatten(
            0, 1
        )  # (B n, 2 kv_heads, H, window + block)
        keys, values = seen.mT.chunk(2, dim=1)
        asked = functional.pad(queries, (0, 0, 0, 0, 0, missing)).view(batch * blocks, block, heads, size)
        mixed = functional.scaled_dot_product_attention(
            asked.transpose(1, 2),
            keys,
            values,
            attn_mask=self._mask(placement, block, blocks).flatten(0, 1)[:, None],
            enable_gqa=grouped,
        )
        return mixed.transpose(1, 2).reshape(batch, blocks * block, heads, size)[:, :tokens]

    def _mask(self, placement: Placement, block: int, blocks: int) -> torch.Tensor:
        """(B, n, block, window + block) bool: which keys of its block a query sees."""
        device, window = placement.device, self.window
        row = torch.arange(block, device=device)[:, None]
        column = torch.arange(window + block, device=device)
        band = (column > row) & (column <= row + window)
        # Where the keys stand in their row; before its first token there is nothing.
        place = torch.arange(blocks, device=device)[:, None] * block + column - window
        there = placement.starts()[:, None, None] + place >= 0
        mask: torch.Tensor = band & there[:, :, None]
        if placement.segments is None:
            return mask
        missing = blocks * block - placement.tokens
        numbers = functional.pad(placement.segments, (window, missing), value=-1)
        theirs = numbers.unfold(1, window + block, block)[:, :, None]
        own = numbers[:, window:].view(-1, blocks, block, 1)
        return mask & (theirs == own)

    def _last(self, told: torch.Tensor, placement: Placement) -> torch.Tensor:
        """The last `window` of the real tokens of each row."""
        if placement.valid is None:
            return told[:, placement.tokens :].clone()
        along = torch.arange(self.window, device=told.device)
        at = torch.tensor(placement.valid, device=told.device)[:, None] + along
        return told[torch.arange(placement.batch, device=told.device)[:, None], at]
