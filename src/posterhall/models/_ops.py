"""The decoder's elementwise steps with gradients of their own: fewer passes over memory than autograd makes.

On a CPU these steps are bound by memory, and once the matrix products are fast they are most of the rest.
Each is plain torch; float32 and float64 on a CPU take it, everything else takes torch's own operators
(which are fused on accelerators).
"""

from __future__ import annotations

from typing import Any, cast

from posterhall.extras import functional, torch


def rms_norm(x: torch.Tensor, gain: torch.Tensor, eps: float) -> torch.Tensor:
    """y = gain x / sqrt(mean(x^2) + eps) over the last dimension (Zhang & Sennrich 2019, eq. 4)."""
    if _is_plain(x, gain):
        return cast("torch.Tensor", _RMSNorm.apply(x, gain, eps))  # type: ignore[no-untyped-call]
    return functional.rms_norm(x, (x.shape[-1],), gain, eps)


def swiglu(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up (Shazeer 2020, eq. 6), of (..., 2 F) with the gate in the first half."""
    if _is_plain(gate_up):
        return cast("torch.Tensor", _SwiGLU.apply(gate_up))  # type: ignore[no-untyped-call]
    gate, up = gate_up.chunk(2, dim=-1)
    return functional.silu(gate) * up


def rotate(
    qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, heads: int, kv_heads: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Split queries, keys and values, and turn the first two by their positions (Su et al. 2021, eq. 34).

    Entry i of a head is paired with entry i + H/2, as in Llama's checkpoints on Hugging Face; the paper
    pairs neighbours. Both give the same attention after a permutation of the weights.

    Args:
        qkv: (B, T, heads + 2 kv_heads, H).
        cos, sin: (B or 1, T, 1, H / 2), of qkv's type.

    Returns:
        Queries (B, T, heads, H), keys and values (B, T, kv_heads, H).
    """
    if _is_plain(qkv):
        return cast(
            "tuple[torch.Tensor, torch.Tensor, torch.Tensor]",
            _Rotate.apply(qkv, cos, sin, heads, kv_heads),  # type: ignore[no-untyped-call]
        )
    turned, values = torch.split(qkv, [heads + kv_heads, kv_heads], dim=2)
    first, second = turned.chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    queries, keys = torch.split(turned, [heads, kv_heads], dim=2)
    return queries, keys, values


def _is_plain(*tensors: torch.Tensor) -> bool:
    return not torch.compiler.is_compiling() and all(
        type(each) in (torch.Tensor, torch.nn.Parameter)
        and each.device.type == "cpu"
        and each.dtype in (torch.float32, torch.float64)
        for each in tensors
    )


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, gain: torch.Tensor, eps: float) -> torch.Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, gain, inverse)
        scaled: torch.Tensor = (x * inverse).mul_(gain)
        return scaled

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        (grad,) = grads
        x, gain, inverse = ctx.saved_tensors
        # dx = r g dy - x r^3 <g dy, x> / D and dg = sum of r x dy share the product x dy: two
        # matrix-vector products of it instead of two more elementwise passes.
        both = (grad * x).view(-1, x.shape[-1])
        along = (both @ gain).view_as(inverse)
        grad_gain = inverse.view(-1) @ both
        coefficient = along.mul_(inverse.pow(3)).div_(-x.shape[-1])
        grad_x = torch.mul(grad, gain, out=both.view_as(x)).mul_(inverse).addcmul_(x, coefficient)
        return grad_x, grad_gain, None


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, dim=-1)
        return functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        (grad,) = grads
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        result = torch.empty_like(gate_up)
        grad_gate, grad_up = result.chunk(2, dim=-1)
        buffer = functional.silu(gate)
        torch.mul(grad, buffer, out=grad_up)
        torch.mul(grad, up, out=buffer)
        torch.ops.aten.silu_backward.grad_input(buffer, gate, grad_input=grad_gate)
        return result


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, heads: int, kv_heads: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(cos, sin)
        turning = heads + kv_heads
        turned = torch.empty_like(qkv[:, :, :turning], memory_format=torch.contiguous_format)
        first, second = qkv[:, :, :turning].chunk(2, dim=-1)
        out_first, out_second = turned.chunk(2, dim=-1)
        torch.mul(first, cos, out=out_first).addcmul_(second, sin, value=-1)
        torch.mul(second, cos, out=out_second).addcmul_(first, sin)
        return turned[:, :, :heads], turned[:, :, heads:], qkv[:, :, turning:].clone()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        cos, sin = ctx.saved_tensors
        result = torch.cat(grads, dim=2)
        first, second = result[:, :, : grads[0].shape[2] + grads[1].shape[2]].chunk(2, dim=-1)
        crossed = first * sin  # turn back, in place: the transpose of a rotation
        first.mul_(cos).addcmul_(second, sin)
        second.mul_(cos).sub_(crossed)
        return result, None, None, None, None
