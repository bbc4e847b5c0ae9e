"""From a continuous system x' = a x + b u to the recurrence x_k = a_bar x_{k-1} + b_bar u_k.

For diagonal systems elementwise on torch tensors, for dense ones (teaching, tests) by solving. All forms are
exact to the last digits also where a step is small: exp(z) - 1 is taken as expm1(z), and (exp(z) - 1) / z
tends to 1.
"""

from __future__ import annotations

from typing import Literal, get_args

from posterhall.errors import DataError
from posterhall.extras import torch

Method = Literal["zoh", "bilinear", "euler"]
"""Zero-order hold: the input stands still during a step; bilinear: the trapezoidal rule (Tustin), which maps
the left half-plane into the unit circle; euler: forward differences, which do not (for teaching)."""


def check(method: str) -> None:
    """Raise DataError for a method that is none of `Method`."""
    if method not in get_args(Method):
        raise DataError(f"discretisation '{method}'; it must be one of: {', '.join(get_args(Method))}")


def expm1(z: torch.Tensor) -> torch.Tensor:
    """exp(z) - 1 of complex z without cancellation: torch has it for real numbers only.

    exp(x + iy) - 1 = expm1(x) cos y - 2 sin^2(y / 2) + i exp(x) sin y.
    """
    if not z.is_complex():
        return torch.expm1(z)
    x, y = z.real, z.imag
    half = torch.sin(y / 2)
    return torch.complex(torch.expm1(x) * torch.cos(y) - 2 * half * half, torch.exp(x) * torch.sin(y))


def relative_expm1(z: torch.Tensor) -> torch.Tensor:
    """(exp(z) - 1) / z, and its limit 1 at z = 0."""
    nothing = z == 0
    safe = torch.where(nothing, torch.ones_like(z), z)  # no division by 0, in the gradient neither
    return torch.where(nothing, torch.ones_like(z), expm1(safe) / safe)


def diagonal(a: torch.Tensor, step: torch.Tensor, method: Method) -> tuple[torch.Tensor, torch.Tensor]:
    """Discretise x' = a x + u, entry by entry.

    Args:
        a: poles, complex or real, any shape.
        step: step sizes > 0, of a shape that broadcasts with a.
        method: see `Method`.

    Returns:
        log a_bar and b_bar; the logarithm is what powers a_bar^l = exp(l log a_bar) are computed from.

    Raises:
        DataError: for an unknown method.
    """
    check(method)
    z = step * a
    if method == "zoh":
        return z, step * relative_expm1(z)
    if method == "euler":
        return _log1p(z), step * torch.ones_like(z)
    # log((1 + z/2) / (1 - z/2)) as a difference: the quotient would round a small step away.
    return _log1p(z / 2) - _log1p(-z / 2), step / (1 - z / 2)


def dense(
    a: torch.Tensor, b: torch.Tensor, step: torch.Tensor | float, method: Method
) -> tuple[torch.Tensor, torch.Tensor]:
    """Discretise x' = A x + b u.

    Args:
        a: (..., N, N).
        b: (..., N).
        step: > 0, a number or (...,).
        method: see `Method`.

    Returns:
        A_bar (..., N, N) and b_bar (..., N).

    Raises:
        DataError: for an unknown method.
    """
    check(method)
    size = a.shape[-1]
    one = torch.eye(size, dtype=a.dtype, device=a.device)
    step = torch.as_tensor(step, dtype=a.real.dtype if a.is_complex() else a.dtype, device=a.device)
    scaled, moved = step[..., None, None] * a, step[..., None] * b
    if method == "euler":
        return one + scaled, moved
    if method == "bilinear":
        backward = one - scaled / 2
        return torch.linalg.solve(backward, one + scaled / 2), torch.linalg.solve(backward, moved)
    # exp of [[A, b], [0, 0]] holds both, also where A cannot be inverted (Van Loan 1978).
    shape = torch.broadcast_shapes(scaled.shape[:-2], moved.shape[:-1])  # type: ignore[no-untyped-call]
    whole = a.new_zeros((*shape, size + 1, size + 1))
    whole[..., :size, :size] = scaled
    whole[..., :size, size] = moved
    powers = torch.linalg.matrix_exp(whole)
    return powers[..., :size, :size], powers[..., :size, size]


def _log1p(z: torch.Tensor) -> torch.Tensor:
    """log(1 + z) without cancellation, of complex z too."""
    if not z.is_complex():
        return torch.log1p(z)
    x, y = z.real, z.imag
    # |1 + z|^2 - 1 = x (2 + x) + y^2
    return torch.complex(torch.log1p(x * (2 + x) + y * y) / 2, torch.atan2(y, 1 + x))
