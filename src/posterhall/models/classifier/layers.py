"""Layers that read whole rows, for classifiers: attention that sees both ways, and recurrent baselines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from posterhall.errors import DataError
from posterhall.extras import functional, nn, torch
from posterhall.models import _ops
from posterhall.models.decoder import drop
from posterhall.models.mixers import Placement
from posterhall.models.mixers.attention import Attention, AttentionState, rotary_table, turns


class FullAttention(Attention):
    """Attention of each position to all real ones of its row (Vaswani et al. 2017, the encoder's)."""

    causal = False

    def new_state(
        self, batch: int, max_length: int, *, dtype: torch.dtype, device: torch.device
    ) -> AttentionState:
        """There is none.

        Raises:
            DataError: always.
        """
        raise DataError(
            "attention that sees both ways has no state; give it whole rows, or take attention that does not"
        )

    def forward(
        self, x: torch.Tensor, placement: Placement, state: AttentionState | None = None
    ) -> torch.Tensor:
        """(B, T, D) to the same; see `Mixer`."""
        del state
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).view(batch, tokens, -1, self.head_dim)
        if self.theta is None:
            queries, keys, values = torch.split(qkv, [self.heads, self.kv_heads, self.kv_heads], dim=2)
        else:
            table = rotary_table(self.head_dim, self.max_length, self.theta, qkv.dtype, placement.device)
            queries, keys, values = _ops.rotate(qkv, *turns(table, placement), self.heads, self.kv_heads)
        mask = None
        if placement.valid is not None:
            count = torch.tensor(placement.valid, device=x.device)
            mask = (torch.arange(tokens, device=x.device) < count[:, None])[:, None, None]
        mixed = functional.scaled_dot_product_attention(
            queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), attn_mask=mask
        )
        return cast("torch.Tensor", self.out(mixed.transpose(1, 2).reshape(batch, tokens, -1)))


class Recurrent(nn.Module):
    """Layers of an LSTM (Hochreiter & Schmidhuber 1997) or a GRU (Cho et al. 2014), torch's own.

    One module a layer, so that what is dropped between two of them follows from the pass.

    Args:
        cell: lstm or gru.
        inputs: numbers at each position.
        dim: hidden numbers a direction.
        layers: of them.
        both_ways: read backwards too; outputs of both directions stand side by side.

    Attributes:
        width: of the outputs: dim, or twice that.
    """

    def __init__(self, cell: str, inputs: int, dim: int, layers: int, *, both_ways: bool) -> None:
        super().__init__()
        self.width = 2 * dim if both_ways else dim
        kind: Any = nn.LSTM if cell == "lstm" else nn.GRU
        self.layers = nn.ModuleList(
            kind(self.width if layer else inputs, dim, batch_first=True, bidirectional=both_ways)
            for layer in range(layers)
        )
        self.cell, self.both_ways = cell, both_ways

    def remember(self) -> None:
        """Let an LSTM's forget gates begin open, with biases of 1: on long rows others learn late if at all
        (Gers et al. 2000; Jozefowicz et al. 2015, §3)."""
        if self.cell == "lstm":
            for layer in self.layers:
                for name, bias in layer.named_parameters():
                    if name.startswith("bias"):  # of inputs, forgetting, cells, outputs, twice: they add up
                        bias.data.chunk(4)[1].fill_(1.0 if name.startswith("bias_ih") else 0.0)

    def forward(
        self, x: torch.Tensor, valid: Sequence[int] | None, share: float, noise: int | None
    ) -> torch.Tensor:
        """(B, T, inputs) to (B, T, width).

        Args:
            x: rows, padded at the end.
            valid: real positions of each; None: all.
            share: dropped between layers.
            noise: seed of that; None: nothing is dropped.
        """
        tokens = x.shape[1]
        for number, layer in enumerate(self.layers):
            if number and noise is not None:
                x = drop(x, share, noise, "recurrent", number)
            if valid is None or not self.both_ways:  # padding stands behind, where it changes nothing
                x = layer(x)[0]
                continue
            packed = nn.utils.rnn.pack_padded_sequence(
                x, torch.tensor(valid), batch_first=True, enforce_sorted=False
            )
            x = nn.utils.rnn.pad_packed_sequence(layer(packed)[0], batch_first=True, total_length=tokens)[0]
        return x
