"""Rows times high powers of many small matrices, by squaring, with gradients that keep only the squares."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from posterhall.extras import torch


def after(rows: torch.Tensor, matrices: torch.Tensor, count: int) -> torch.Tensor:
    """rows A^count.

    Args:
        rows: (H, R, N).
        matrices: A, (H, N, N), of the rows' type.
        count: >= 1.

    Returns:
        (H, R, N).
    """
    return cast("torch.Tensor", _After.apply(rows, matrices, count))  # type: ignore[no-untyped-call]


class _After(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, matrices: torch.Tensor, count: int) -> torch.Tensor:
        squares, befores = [matrices.detach().contiguous()], []
        for bit in range(count.bit_length()):
            if bit:
                squares.append(_product(squares[-1], squares[-1]))
            befores.append(rows)
            if count >> bit & 1:
                rows = rows @ squares[bit]
        ctx.squares, ctx.befores, ctx.count = squares, befores, count
        return rows

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        grad, slope = grads[0], None
        for bit in reversed(range(len(ctx.squares))):
            square = ctx.squares[bit]
            if slope is not None:  # from P_{i+1} = P_i P_i
                slope = _product(slope, square.mT) + _product(square.mT, slope)
            if ctx.count >> bit & 1:
                along = ctx.befores[bit].mT @ grad
                slope = along if slope is None else slope + along
                grad = grad @ square.mT
        return grad, cast("torch.Tensor", slope), None


def _product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """A B of (H, N, N) twice. numpy's product of small float64 matrices takes half the time of torch's."""
    if a.device.type == "cpu":
        return torch.from_numpy(np.matmul(a.detach().numpy(), b.detach().numpy()))
    return a @ b
