"""The decoder's small layers. They hold weights; how these begin is the decoder's business."""

from __future__ import annotations

from posterhall.extras import nn, torch
from posterhall.models import _ops, _rows
from posterhall.objectives import products


class Linear(nn.Module):
    """y = x W^T, without a bias.

    Attributes:
        weight: (outputs, inputs), not initialised.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.in_features, self.out_features = inputs, outputs
        self.weight = nn.Parameter(torch.empty(outputs, inputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., inputs) to (..., outputs)."""
        if _rows.takes(x, self.weight):
            return _rows.multiply(x, self.weight)
        return products.linear(x, self.weight)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps), times a gain for every entry.

    Attributes:
        weight: (dim,) gains, ones.
    """

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., dim) to the same."""
        return _ops.rms_norm(x, self.weight, self.eps)


class FeedForward(nn.Module):
    """W_down (silu(W_gate x) * W_up x) (Shazeer 2020, eq. 6); gate and up are one matrix."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.gate_up = Linear(dim, 2 * width)
        self.down = Linear(width, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., dim) to the same."""
        result: torch.Tensor = self.down(_ops.swiglu(self.gate_up(x)))
        return result
