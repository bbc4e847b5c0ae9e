"""Feed-forward layers of block-diagonal matrices: Monarch's, and a single one.

A Monarch matrix is a product of two block-diagonal matrices with a permutation between them (Dao et al.
2022, arXiv 2204.00595). Cut into b x b tiles, it is one whose every tile has a rank of at most
min(inputs, outputs) / b^2: two batched products of small dense matrices in place of a large one, with
(inputs + outputs) min(inputs, outputs) / b weights.

    y = L P R x,  R: b blocks (b r, inputs / b),  P: (k, l, r) -> (l, k, r),  L: b blocks (outputs / b, b r)

The paper writes P L P^T R. Its last permutation only gives the outputs other names, and is left out here:
the tiles are then those of a matrix as it lies.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any, cast

from posterhall.errors import DataError
from posterhall.extras import nn, torch
from posterhall.models import _ops
from posterhall.models.config import blocks_that_fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from posterhall.models.config import DecoderConfig, FeedForwardKind
    from posterhall.models.decoder import Decoder


class BlockDiagonal(nn.Module):
    """y_k = W_k x_k for each of b parts of the inputs by itself; no part sees another.

    The feed-forward layers of M2-BERT are made of these (Fu et al. 2023, arXiv 2310.12109; b = 4 there).

    Args:
        inputs, outputs: multiples of the blocks.
        blocks: b.

    Attributes:
        weight: (b, outputs / b, inputs / b), not initialised.

    Raises:
        DataError: if the blocks do not fit.
    """

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__()
        _check("block_diagonal", inputs, outputs, blocks)
        self.weight = nn.Parameter(torch.empty(blocks, outputs // blocks, inputs // blocks))

    def initialise(self, generator: torch.Generator, std: float) -> None:
        """Entries N(0, b std^2): each output adds up a b-th of the inputs."""
        with torch.no_grad():
            deviation = std * len(self.weight) ** 0.5
            self.weight.copy_(torch.empty(self.weight.shape).normal_(0.0, deviation, generator=generator))

    def approximate(self, weight: torch.Tensor) -> None:
        """Become the nearest to a matrix (outputs, inputs): the tiles on its diagonal."""
        tiles = _tiles(weight, len(self.weight))
        along = torch.arange(len(self.weight), device=weight.device)
        with torch.no_grad():
            self.weight.copy_(tiles[along, along])

    def dense(self) -> torch.Tensor:
        """(outputs, inputs)."""
        return cast("torch.Tensor", torch.block_diag(*self.weight))  # type: ignore[no-untyped-call]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., inputs) to (..., outputs)."""
        return _joined(_by_block(x, self.weight) @ self.weight.mT, x)


class Monarch(nn.Module):
    """y = L P R x; see the module.

    Args:
        inputs, outputs: multiples of the blocks.
        blocks: b; b^2 divides the lesser of inputs and outputs.

    Attributes:
        first: (b, b r, inputs / b), the blocks of R, with r = min(inputs, outputs) / b^2; not initialised.
        second: (b, outputs / b, b r), those of L.

    Raises:
        DataError: if the blocks do not fit.
    """

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__()
        _check("monarch", inputs, outputs, blocks)
        inner = min(inputs, outputs) // blocks
        self.blocks, self.rank = blocks, inner // blocks
        self.first = nn.Parameter(torch.empty(blocks, inner, inputs // blocks))
        self.second = nn.Parameter(torch.empty(blocks, outputs // blocks, inner))

    def initialise(self, generator: torch.Generator, std: float) -> None:
        """R keeps the variance of its inputs, and L brings it to a dense matrix's: an entry of the product
        is a sum over r of products of the two."""
        fan = self.first.shape[2]
        with torch.no_grad():
            for factor, deviation in ((self.first, fan**-0.5), (self.second, std * (fan / self.rank) ** 0.5)):
                factor.copy_(torch.empty(factor.shape).normal_(0.0, deviation, generator=generator))

    def approximate(self, weight: torch.Tensor) -> None:
        """Become the nearest to a dense matrix in the Frobenius norm: each tile keeps its r largest singular
        values (Dao et al. 2022, §3), so a matrix that is Monarch comes out as it is. In float64.

        Args:
            weight: (outputs, inputs).
        """
        left, values, right = torch.linalg.svd(_tiles(weight, self.blocks).double(), full_matrices=False)
        root = values[..., : self.rank].sqrt()
        left, right = (
            left[..., : self.rank] * root[..., None, :],
            root[..., None] * right[..., : self.rank, :],
        )
        with torch.no_grad():
            self.first.copy_(right.transpose(0, 1).reshape(self.first.shape))  # (k, l, r, inputs / b)
            self.second.copy_(left.transpose(1, 2).reshape(self.second.shape))  # (l, outputs / b, k, r)

    def dense(self) -> torch.Tensor:
        """(outputs, inputs)."""
        blocks, rank = self.blocks, self.rank
        tiles = torch.einsum(
            "lokr,klri->loki",
            self.second.view(blocks, -1, blocks, rank),
            self.first.view(blocks, blocks, rank, -1),
        )
        return tiles.flatten(2, 3).flatten(0, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., inputs) to (..., outputs)."""
        inner = _by_block(x, self.first) @ self.first.mT  # (k, N, l r)
        turned = inner.view(self.blocks, -1, self.blocks, self.rank).permute(2, 1, 0, 3)  # (l, N, k, r)
        return _joined(turned.flatten(2) @ self.second.mT, x)


class StructuredFeedForward(nn.Module):
    """`FeedForward` with such matrices in the place of dense ones.

    Gate and up are one matrix, as there, whose block l holds the gates of its part of the hidden entries
    and then their values: the activation works within blocks, and nothing is moved for it.

    Args:
        dim: D.
        width: F, hidden entries.
        kind: monarch or block_diagonal.
        blocks: of both matrices.
    """

    def __init__(self, dim: int, width: int, *, kind: FeedForwardKind, blocks: int) -> None:
        super().__init__()
        made = Monarch if kind == "monarch" else BlockDiagonal
        self.blocks = blocks
        self.gate_up: Monarch | BlockDiagonal = made(dim, 2 * width, blocks)
        self.down: Monarch | BlockDiagonal = made(width, dim, blocks)

    def initialise(self, generator: torch.Generator, *, std: float, std_out: float) -> None:
        """As dense matrices of these standard deviations begin; `std_out` is that of what writes into the
        residual stream."""
        self.gate_up.initialise(generator, std)
        self.down.initialise(generator, std_out)

    def approximate(self, gate_up: torch.Tensor, down: torch.Tensor) -> None:
        """Become the nearest of the kind to a dense layer.

        Args:
            gate_up: (2 F, D), all gates first, as `FeedForward` has them.
            down: (D, F).
        """
        apart = gate_up.reshape(2, self.blocks, -1, gate_up.shape[1])
        self.gate_up.approximate(apart.transpose(0, 1).flatten(0, 2))
        self.down.approximate(down)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., D) to the same."""
        both = self.gate_up(x)
        hidden = _ops.swiglu(both.view(*both.shape[:-1], self.blocks, -1))
        result: torch.Tensor = self.down(hidden.flatten(-2))
        return result


def matrix_size(kind: FeedForwardKind, inputs: int, outputs: int, blocks: int) -> int:
    """Weights of a matrix of a feed-forward layer."""
    if kind == "dense":
        return inputs * outputs
    if kind == "block_diagonal":
        return inputs * outputs // blocks
    return (inputs + outputs) * min(inputs, outputs) // blocks


def compress(model: Decoder, *, kind: FeedForwardKind = "monarch", blocks: int = 4) -> Decoder:
    """A copy of a dense decoder whose feed-forward layers are the nearest of a kind, to be trained on.

    Everything else keeps its weights. Dao et al. 2022 fine-tune BERT so (dense to sparse).

    Args:
        model: with dense feed-forward layers, neither quantised nor with adapters.
        kind: monarch or block_diagonal.
        blocks: of the matrices.

    Raises:
        DataError: if its feed-forward layers are no dense ones, or the blocks do not fit.
    """
    from posterhall.models.layers import FeedForward, Linear

    config = dataclasses.replace(model.config, ffn=kind, ffn_blocks=blocks)
    made = copy.deepcopy(model)
    made.config = config
    for layer, block in enumerate(cast("Sequence[Any]", made.blocks)):
        dense = block.feed_forward
        plain = isinstance(dense, FeedForward) and all(
            isinstance(each, Linear) for each in (dense.gate_up, dense.down)
        )
        if not plain or kind == "dense":
            raise DataError(
                f"layer {layer} has no dense feed-forward layer to be made {kind}; give a decoder that has, "
                "without adapters and not quantised, and the kind monarch or block_diagonal"
            )
        structured = StructuredFeedForward(config.dim, config.feed_forward_dim, kind=kind, blocks=blocks)
        structured.approximate(dense.gate_up.weight.detach(), dense.down.weight.detach())
        block.feed_forward = structured.to(model.device, dense.down.weight.dtype).train(model.training)
    return made


def make(config: DecoderConfig) -> StructuredFeedForward:
    """The feed-forward layer of a decoder whose `ffn` is not dense."""
    return StructuredFeedForward(
        config.dim, config.feed_forward_dim, kind=config.ffn, blocks=config.ffn_blocks
    )


def _check(kind: FeedForwardKind, inputs: int, outputs: int, blocks: int) -> None:
    fitting = blocks_that_fit(kind, ((inputs, outputs),))
    if blocks not in fitting:
        raise DataError(
            f"{blocks} blocks for a {kind} matrix from {inputs} to {outputs} entries; "
            f"{', '.join(map(str, fitting)) or 'no number of them'} would fit"
        )


def _tiles(weight: torch.Tensor, blocks: int) -> torch.Tensor:
    """(b, b, outputs / b, inputs / b): tile (l, k) takes inputs of part k to outputs of part l."""
    outputs, inputs = weight.shape
    return weight.reshape(blocks, outputs // blocks, blocks, inputs // blocks).transpose(1, 2)


def _by_block(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """(..., inputs) to (b, N, inputs / b), a view where x lies together."""
    return x.reshape(-1, len(weight), weight.shape[2]).transpose(0, 1)


def _joined(y: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(b, N, outputs / b) to (..., outputs)."""
    return y.transpose(0, 1).reshape(*like.shape[:-1], -1)
