"""Kernels of diagonal state-space models: sums of powers, in blocks.

K_l = 2 Re sum over n of c_n w_n^l for l < L is a product with an (N, L) Vandermonde matrix. Written down it
takes L N H complex numbers and as many exponentials (a gigabyte at L 16k, N 64, H 256). With l = a Q + b
and Q near sqrt(L), K = [c w^(aQ)] [w^b]: two tables of sqrt(L) N H entries and one batched product of real
matrices, since only the real part is wanted. The backward pass makes the tables anew and keeps nothing.
"""

from __future__ import annotations

import math
from typing import Any, cast

from posterhall.extras import torch
from posterhall.models.mixers import _vandermonde_kernels as _kernels


def kernel(c: torch.Tensor, z: torch.Tensor, length: int) -> torch.Tensor:
    """2 Re sum over n of c_n exp(l z_n), for l = 0 ... length - 1.

    Args:
        c: (R, H, N), complex.
        z: (H, N), complex; with real parts <= 0 nothing overflows, however long.
        length: L >= 1.

    Returns:
        (R, H, L), real, of c's precision.
    """
    return cast("torch.Tensor", _Kernel.apply(c, z, length))  # type: ignore[no-untyped-call]


def moments(u: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Sum over l of u_l exp(l z_n).

    Args:
        u: (B, H, L), real.
        z: (H, N), complex.

    Returns:
        (B, H, N), complex.
    """
    batch, channels, length = u.shape
    block = block_size(length)
    count = -(-length // block)
    blocks = torch.nn.functional.pad(u, (0, count * block - length)).view(batch, channels, count, block)
    inner = torch.exp(z[:, None] * torch.arange(block, device=z.device)[:, None])  # (H, Q, N)
    outer = torch.exp(z[:, None] * (block * torch.arange(count, device=z.device))[:, None])  # (H, A, N)
    # Real by complex as one real product with twice the columns.
    sums = blocks @ torch.view_as_real(inner).flatten(2).to(u.dtype)
    return (torch.view_as_complex(sums.view(batch, *outer.shape, 2)) * outer).sum(2)


def block_size(length: int) -> int:
    """Q: near sqrt(L), a multiple of 16 (a register's width) where L is long enough."""
    root = math.sqrt(length)
    return max(1, math.ceil(root)) if length < 256 else 16 * round(root / 16)


class _Kernel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, c: torch.Tensor, z: torch.Tensor, length: int) -> torch.Tensor:
        ctx.save_for_backward(c, z)
        ctx.length = length
        rows, channels, states = c.shape
        block = block_size(length)
        count = -(-length // block)
        left = _weighted(c, z, block, count).view(channels, rows * count, 2 * states)
        right = _powers(z, block, c.real.dtype)
        result = torch.bmm(left, right.transpose(1, 2)).view(channels, rows, count * block)
        return result[..., :length].transpose(0, 1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        c, z = ctx.saved_tensors
        rows, channels, states = c.shape
        block = block_size(ctx.length)
        count = -(-ctx.length // block)
        grad = torch.nn.functional.pad(grads[0].transpose(0, 1), (0, count * block - ctx.length))
        grad = grad.reshape(channels, rows * count, block)
        right = _powers(z, block, c.real.dtype)
        shape = (channels, rows, count, 2 * states)
        sums = torch.bmm(grad, right).view(shape)
        right *= torch.arange(block, dtype=right.dtype, device=right.device)[:, None]
        firsts = torch.bmm(grad, right).view(shape)
        zeroth, first = _gathered(z, block, sums, firsts)
        grad_z = 2 * (c * first.to(c.dtype)).sum(0).conj()
        return 2 * zeroth.conj().to(c.dtype), grad_z.to(z.dtype), None


def _powers(z: torch.Tensor, count: int, dtype: torch.dtype) -> torch.Tensor:
    """(H, Q, 2N), [Re, Im] of exp(b z)."""
    if _is_native(z):
        out = torch.empty((len(z), count, 2 * z.shape[1]), dtype=dtype)
        _kernels.powers(_array(z), out.numpy())
        return out
    along = torch.arange(count, device=z.device)[:, None]
    table = torch.exp(z.to(torch.complex128)[:, None] * along)
    return torch.cat((table.real, table.imag), dim=-1).to(dtype)


def _weighted(c: torch.Tensor, z: torch.Tensor, stride: int, count: int) -> torch.Tensor:
    """(H, R, A, 2N), 2 [Re, -Im] of c exp(a stride z)."""
    rows, channels, states = c.shape
    if _is_native(z):
        out = torch.empty((channels, rows, count, 2 * states), dtype=c.real.dtype)
        _kernels.weighted(_array(z), float(stride), _array(c), out.numpy())
        return out
    along = stride * torch.arange(count, device=z.device)[:, None]
    table = 2 * c.transpose(0, 1)[:, :, None] * torch.exp(z.to(torch.complex128)[:, None, None] * along)
    return torch.cat((table.real, -table.imag), dim=-1).to(c.real.dtype)


def _gathered(
    z: torch.Tensor, stride: int, sums: torch.Tensor, firsts: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(R, H, N) twice: sum over a of w^(a stride) S_a, and of w^(a stride) (a stride S_a + M_a)."""
    channels, rows, count, _ = sums.shape
    states = z.shape[1]
    if _is_native(z):
        found = torch.empty((2, rows, channels, states), dtype=torch.complex128)
        _kernels.gathered(_array(z), float(stride), sums.numpy(), firsts.numpy(), *found.numpy())
        return found[0], found[1]
    along = stride * torch.arange(count, device=z.device)[:, None]
    table = torch.exp(z.to(torch.complex128)[:, None, None] * along)
    s = torch.complex(sums[..., :states].double(), sums[..., states:].double())
    m = torch.complex(firsts[..., :states].double(), firsts[..., states:].double())
    zeroth = (table * s).sum(2).transpose(0, 1)
    return zeroth, (table * (along * s + m)).sum(2).transpose(0, 1)


def _is_native(z: torch.Tensor) -> bool:
    """Whether numba makes the tables."""
    return z.device.type == "cpu"


def _array(x: torch.Tensor) -> Any:
    return x.detach().to(torch.complex128).contiguous().numpy()
