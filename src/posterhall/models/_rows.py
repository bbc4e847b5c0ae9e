"""Products of a few rows on a CPU, which is what generating text consists of; see `_row_kernels`."""

from __future__ import annotations

from posterhall.extras import torch
from posterhall.models import _team

MOST = 4
"""Rows; with more, products are bound by arithmetic, which libraries do well."""
_LEAST = 1 << 21
"""Bytes of weights: fewer stay in a cache, where libraries read them as fast."""


def takes(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether to `multiply` x (..., K) and a weight (N, K): few rows, many weights, and no gradients."""
    return (
        not torch.is_grad_enabled()
        and 0 < x.numel() <= MOST * weight.shape[1]
        and weight.dtype == x.dtype
        and weight.nbytes >= _LEAST
        and weight.dtype in (torch.float32, torch.bfloat16)
        and weight.is_contiguous()
        and (weight.dtype == torch.float32 or weight.shape[1] % 2 == 0)
        and all(
            type(each) in (torch.Tensor, torch.nn.Parameter) and each.device.type == "cpu"
            for each in (x, weight)
        )
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def multiply(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x W^T, of x's type; summed in float32.

    Args:
        x: (..., K).
        weight: (N, K).

    Returns:
        (..., N).
    """
    outputs, inputs = weight.shape
    rows = x.reshape(-1, inputs).float()
    half = weight.dtype == torch.bfloat16
    if half:  # even entries, then odd ones: as they come out of words
        rows = rows.reshape(-1, inputs // 2, 2).transpose(1, 2)
    rows = rows.contiguous()
    found = x.new_empty((len(rows), outputs), dtype=torch.float32)
    # By address: memory once shown to numpy cannot be resized, as FSDP2 must.
    run = _team.share if _team.is_worth(weight.numel()) else _team.alone
    run("multiply", len(rows), outputs, inputs, half, rows.data_ptr(), weight.data_ptr(), found.data_ptr())
    return found.view(*x.shape[:-1], outputs).to(x.dtype)
