"""Tensors' memory as numba's kernels take it."""

from __future__ import annotations

from typing import Any

from posterhall.extras import torch


def array(tensor: torch.Tensor) -> Any:
    """A tensor's memory, copied first if it is not contiguous."""
    return tensor.detach().contiguous().numpy()


def private(tensor: torch.Tensor) -> Any:
    """A contiguous copy of a parameter: memory once shown to numpy cannot be resized, as FSDP2 must."""
    return tensor.detach().clone(memory_format=torch.contiguous_format).numpy()


def flat(tensor: torch.Tensor) -> tuple[Any, int]:
    """Memory from a (R, T, E) tensor's first entry on, and how far one token is from the next in it.

    A part of a wider matrix (the half of a projection) is taken as it lies.
    """
    tensor = tensor.detach()
    rows, tokens, width = tensor.shape
    row = tensor.stride(1)
    if tensor.stride(2) != 1 or row < width or (rows > 1 and tensor.stride(0) != tokens * row):
        tensor, row = tensor.contiguous(), width
    length = (rows * tokens - 1) * row + width
    return tensor.as_strided((length,), (1,)).numpy(), row
