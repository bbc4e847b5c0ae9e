"""Products with Cauchy matrices at the nodes of a Fourier transform, in real arithmetic.

What a kernel of a system diagonal plus low rank needs (S4, Gu et al. 2022, §C.3) is the sum over n of
v_n / (g - z_n) at g = 2 (1 - w) / (1 + w), for all roots of unity w = exp(-i t). Two things make it cheap and
safe here. Multiplied by 1 + w (and by exp(i t / 2)) nothing is infinite where w = -1:

    v / (2 i sin(t / 2) - z cos(t / 2)).

And a pole and its conjugate together are one fraction with real coefficients:

    (-2 Re(v conj z) cos + 2 Re(v) i sin) / (|z|^2 cos^2 - 4 sin^2 - 4 i Re(z) sin cos),

all in t / 2.
"""

from __future__ import annotations

import math
from typing import Any

from posterhall.extras import torch
from posterhall.models.mixers import _cauchy_kernels as _kernels


def cauchy(v: torch.Tensor, z: torch.Tensor, length: int) -> torch.Tensor:
    """Sum over n of v_n / (2 i sin - z_n cos) and of its conjugate pole's, at half the angles of an rfft.

    Args:
        v: (H, J, N), complex128.
        z: (H, N), complex128, with real parts < 0: no pole is at a node then.
        length: L of the transform.

    Returns:
        (H, J, L // 2 + 1), complex128.
    """
    alpha = -2 * (v * z.conj()[:, None]).real
    real, imaginary = _Fractions.apply(  # type: ignore[no-untyped-call]
        alpha, 2 * v.real, z.real.square() + z.imag.square(), z.real, length
    )
    return torch.complex(real, imaginary)


def half_angles(length: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """2 sin and cos of pi k / L for k <= L / 2, float64."""
    angles = torch.arange(length // 2 + 1, dtype=torch.float64, device=device) * (math.pi / length)
    return 2 * torch.sin(angles), torch.cos(angles)


class _Fractions(torch.autograd.Function):
    """Of coefficients alpha, beta (H, J, N), |z|^2 and Re z (H, N): real and imaginary parts (H, J, K)."""

    @staticmethod
    def forward(
        ctx: Any,
        alpha: torch.Tensor,
        beta: torch.Tensor,
        square: torch.Tensor,
        real: torch.Tensor,
        length: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(alpha, beta, square, real)
        ctx.length = length
        sines, cosines = half_angles(length, alpha.device)
        found = alpha.new_zeros((2, *alpha.shape[:2], len(sines)))
        if _is_native(alpha):
            _kernels.forward(*_arrays(sines, cosines, alpha, beta, square, real), *found.numpy())
            return found[0], found[1]
        for n in range(alpha.shape[2]):
            inverse = _inverse(sines, cosines, square[:, n], real[:, n])
            above = torch.complex(alpha[..., n : n + 1] * cosines, beta[..., n : n + 1] * sines)
            part = above * inverse[:, None]
            found[0] += part.real
            found[1] += part.imag
        return found[0], found[1]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        alpha, beta, square, real = ctx.saved_tensors
        sines, cosines = half_angles(ctx.length, alpha.device)
        found = [torch.zeros_like(each, memory_format=torch.contiguous_format) for each in ctx.saved_tensors]
        if _is_native(alpha):
            _kernels.backward(
                *_arrays(sines, cosines, alpha, beta, square, real, *grads), *(each.numpy() for each in found)
            )
            return (*found, None)
        to_alpha, to_beta, to_square, to_real = found
        grad = torch.complex(*grads)
        for n in range(alpha.shape[2]):
            inverse = _inverse(sines, cosines, square[:, n], real[:, n])
            turned = grad.conj() * inverse[:, None]
            to_alpha[..., n] = (turned.real * cosines).sum(-1)
            to_beta[..., n] = -(turned.imag * sines).sum(-1)
            above = torch.complex(alpha[..., n : n + 1] * cosines, beta[..., n : n + 1] * sines)
            slope = (turned * above).sum(1) * inverse
            to_square[:, n] = -(slope.real * cosines.square()).sum(-1)
            to_real[:, n] = -2 * (slope.imag * sines * cosines).sum(-1)
        return (*found, None)


def _inverse(
    sines: torch.Tensor, cosines: torch.Tensor, square: torch.Tensor, real: torch.Tensor
) -> torch.Tensor:
    """1 / (|z|^2 cos^2 - (2 sin)^2 - 2 i Re(z) (2 sin) cos), (H, K), for one pole a channel."""
    below = torch.complex(
        square[:, None] * cosines.square() - sines.square(), -2 * real[:, None] * sines * cosines
    )
    return below.reciprocal()


def _is_native(x: torch.Tensor) -> bool:
    """Whether numba adds up."""
    return x.device.type == "cpu"


def _arrays(*tensors: torch.Tensor) -> list[Any]:
    return [each.detach().contiguous().numpy() for each in tensors]
