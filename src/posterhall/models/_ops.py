"""The decoder's elementwise steps with gradients of their own: fewer passes over memory than autograd makes.

On a CPU these steps are bound by memory, and once the matrix products are fast they are most of the rest.
Float32 takes numba's kernels, which need one pass; with many threads, or float64, a few passes of torch;
everything else torch's own operators (which are fused on accelerators).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from posterhall import simd
from posterhall.extras import functional, torch
from posterhall.models import _attention_kernels, _kernels, _team, _text_kernels, _tiles
from posterhall.models.mixers import _lanes

_shared = threading.local()


@dataclass(frozen=True)
class Texts:
    """How tokens are divided into texts that do not see each other; see `_text_kernels`."""

    texts: NDArray[np.int64]
    """(texts, 3): the first of its stretches, the one after its last, and the tokens of its trunk."""
    stretches: NDArray[np.int64]
    """(stretches, 2): the first token, and the one after the last."""

    @cached_property
    def places(self) -> int:
        """Tokens of the longest text, its stretches rounded up to whole tiles."""
        rounded = -(-np.diff(self.stretches, axis=1)[:, 0] // _tiles.COLUMNS) * _tiles.COLUMNS
        return int(np.add.reduceat(rounded, self.texts[:, 0]).max())


_FEW_THREADS = 4
"""Up to so many threads, one pass by a single one costs less than torch's several by all. With more, only
what `_team` shares among them."""


def rms_norm(x: torch.Tensor, gain: torch.Tensor, eps: float) -> torch.Tensor:
    """y = gain x / sqrt(mean(x^2) + eps) over the last dimension (Zhang & Sennrich 2019, eq. 4)."""
    if _is_plain(x, gain):
        if not torch.is_grad_enabled():
            return _normed(x, gain, eps)[0]
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


def takes_texts(qkv: torch.Tensor, tasks: int) -> bool:
    """Whether `attend_texts` is the one to take: float32 heads of whole tiles on AVX-512 (elsewhere its tiles
    do not fit the registers), and a task for each thread."""
    threads = torch.get_num_threads()
    return (
        simd.LANES == _lanes.WIDTH
        and _is_plain(qkv)
        and qkv.dtype == torch.float32
        and qkv.shape[-1] % _tiles.COLUMNS == 0
        and (threads == 1 or (tasks >= threads and _team.is_there()))
    )


def attend_texts(
    qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, heads: int, texts: Texts
) -> torch.Tensor:
    """Rotate, and attend within each text to what is before, where `takes_texts` allows it.

    Args:
        qkv: (B, T, heads + 2 kv_heads, H).
        cos, sin: (B or 1, T, 1, H / 2), of qkv's type.
        heads: query heads.
        texts: what the B T tokens are.

    Returns:
        (B, T, heads, H).
    """
    return cast("torch.Tensor", _Attend.apply(qkv, cos, sin, heads, texts))  # type: ignore[no-untyped-call]


def is_step(*tensors: torch.Tensor) -> bool:
    """Whether a pass over one token a row is `attend`'s: float32 on a few threads, and no gradients."""
    return not torch.is_grad_enabled() and _is_plain(*tensors) and _is_fused(*tensors)


def attend(
    qkv: torch.Tensor, table: torch.Tensor, kept: torch.Tensor, past: torch.Tensor, heads: int
) -> torch.Tensor:
    """Rotate, write down and attend for one token a row, where `is_step` allows it.

    Args:
        qkv: (B, heads + 2 kv_heads, H).
        table: (2, L, H / 2), cosines and sines by position.
        kept: (2, R >= B, kv_heads, L, H), keys and values; takes those of the new tokens.
        past: (B,) tokens of each row so far.
        heads: query heads.

    Returns:
        (B, heads, H).
    """
    result = qkv.new_empty((len(qkv), heads, qkv.shape[2]))
    angles, memory = table.numpy(), kept.numpy()
    _attention_kernels.attend(
        qkv.numpy(), angles[0], angles[1], memory[0], memory[1], past.numpy(), heads, result.numpy()
    )
    return result


def _is_plain(*tensors: torch.Tensor) -> bool:
    return not torch.compiler.is_compiling() and all(
        type(each) in (torch.Tensor, torch.nn.Parameter)
        and each.device.type == "cpu"
        and each.dtype in (torch.float32, torch.float64)
        for each in tensors
    )


def _is_fused(*tensors: torch.Tensor) -> bool:
    """Whether numba's single pass is taken: float32, and a few threads, or a way to share it among many."""
    return all(each.dtype == torch.float32 for each in tensors) and (
        torch.get_num_threads() <= _FEW_THREADS or _team.is_there()
    )


def _array(tensor: torch.Tensor, *shape: int) -> Any:
    """A tensor's memory as an array, copied first if it is not contiguous."""
    return tensor.detach().contiguous().view(shape).numpy()


def _private(parameter: torch.Tensor) -> Any:
    """A copy of a parameter as an array: memory once shown to numpy cannot be resized, as FSDP2 must."""
    return parameter.detach().clone().numpy()


def _normed(x: torch.Tensor, gain: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """`rms_norm`, and the inverse of each row's norm."""
    dim = x.shape[-1]
    if not _is_fused(x, gain):
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = norm.square_().div_(dim).add_(eps).rsqrt_()
        return (x * inverse).mul_(gain), inverse
    result = torch.empty_like(x, memory_format=torch.contiguous_format)
    inverse = x.new_empty((*x.shape[:-1], 1))
    own, to, scales = _array(x, -1, dim), _array(result, -1, dim), _array(inverse, -1)
    if _team.is_worth(own.size):
        _team.share("rms_norm", *own.shape, np.full(1, eps, np.float32), own, _private(gain), to, scales)
    else:
        _kernels.rms_norm(own, _private(gain), np.float32(eps), to, scales)
    return result, inverse


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, gain: torch.Tensor, eps: float) -> torch.Tensor:
        result, inverse = _normed(x, gain, eps)
        ctx.save_for_backward(x, gain, inverse)
        return result

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        (grad,) = grads
        x, gain, inverse = ctx.saved_tensors
        dim = x.shape[-1]
        if _is_fused(x, gain, grad):
            grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
            own, scales = _array(x, -1, dim), _array(inverse, -1)
            slopes, to = _array(grad, -1, dim), _array(grad_x, -1, dim)
            # A sum for each block of rows, whoever computes it: the same bits on any number of threads.
            sums = np.zeros((-(-len(own) // _team.BLOCK), dim), np.float32)
            if _team.is_worth(own.size):
                _team.share("rms_norm_backward", *own.shape, own, _private(gain), scales, slopes, to, sums)
            else:
                _kernels.rms_norm_backward(own, _private(gain), scales, slopes, to, sums, _team.BLOCK)
            return grad_x, torch.from_numpy(sums.sum(axis=0)), None
        # dx = r g dy - x r^3 <g dy, x> / D and dg = sum of r x dy share the product x dy: two
        # matrix-vector products of it instead of two more elementwise passes.
        both = (grad * x).view(-1, dim)
        along = (both @ gain).view_as(inverse)
        grad_gain = inverse.view(-1) @ both
        coefficient = along.mul_(inverse.pow(3)).div_(-dim)
        grad_x = torch.mul(grad, gain, out=both.view_as(x)).mul_(inverse).addcmul_(x, coefficient)
        return grad_x, grad_gain, None


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, dim=-1)
        if not _is_fused(gate_up):
            return functional.silu(gate).mul_(up)
        result = gate_up.new_empty(gate.shape)
        width = gate.shape[-1]
        both, out = _array(gate_up, -1, 2 * width), _array(result, -1, width)
        if _team.is_worth(out.size):
            _team.share("swiglu", *out.shape, both, out)
        else:
            _kernels.swiglu(both, out)
        return result

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        (grad,) = grads
        (gate_up,) = ctx.saved_tensors
        result = torch.empty_like(gate_up, memory_format=torch.contiguous_format)
        width = grad.shape[-1]
        if _is_fused(gate_up, grad):
            slopes = _array(grad, -1, width)
            both, out = _array(gate_up, -1, 2 * width), _array(result, -1, 2 * width)
            if _team.is_worth(slopes.size):
                _team.share("swiglu_backward", *slopes.shape, both, slopes, out)
            else:
                _kernels.swiglu_backward(both, slopes, out)
            return result
        gate, up = gate_up.chunk(2, dim=-1)
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
        turned = _turned(qkv, cos, sin, turning)
        return turned[:, :, :heads], turned[:, :, heads:turning], turned[:, :, turning:]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        cos, sin = ctx.saved_tensors
        turning = grads[0].shape[2] + grads[1].shape[2]
        # The transpose of a rotation is the rotation back.
        return _turned(torch.cat(grads, dim=2), cos, -sin, turning), None, None, None, None


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, heads: int, texts: Texts
    ) -> torch.Tensor:
        result = qkv.new_empty((*qkv.shape[:2], heads, qkv.shape[3]))
        logs = qkv.new_empty((*qkv.shape[:2], heads))
        _team.share("attend", *_told(qkv, cos, sin, heads, texts, result, logs))
        ctx.save_for_backward(qkv, cos, sin, result, logs)
        ctx.heads, ctx.texts = heads, texts
        return result

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        qkv, cos, sin, result, logs = ctx.saved_tensors
        grad_qkv = torch.empty_like(qkv, memory_format=torch.contiguous_format)
        _team.share(
            "attend_backward",
            *_told(qkv, cos, sin, ctx.heads, ctx.texts, result, logs),
            _array(grads[0], *result.shape),
            _array(grad_qkv, *qkv.shape),
        )
        return grad_qkv, None, None, None, None


def _told(
    qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, heads: int, texts: Texts, *results: torch.Tensor
) -> list[Any]:
    """What the passes over texts are told."""
    batch, tokens, width, size = qkv.shape
    angles, room = cos.shape[0] * tokens, _text_kernels.needed(texts.places, size)
    return [
        len(texts.texts), (width - heads) // 2, heads, size, batch * tokens, angles, len(texts.stretches),
        room, texts.texts, texts.stretches, _room(room * torch.get_num_threads()),
        *(_array(each, -1) for each in (qkv, cos, sin, *results)),
    ]  # fmt: skip


def _room(entries: int) -> NDArray[np.float32]:
    """Scratch memory of this thread, which only grows: fresh pages would cost as much as a pass."""
    if getattr(_shared, "room", None) is None or len(_shared.room) < entries:
        _shared.room = torch.empty(entries, dtype=torch.float32).numpy()
    found: NDArray[np.float32] = _shared.room
    return found


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, turning: int) -> torch.Tensor:
    """x (B, T, N, H) with its first heads turned."""
    if _is_fused(x, cos):
        result = torch.empty_like(x, memory_format=torch.contiguous_format)
        angles = (*cos.shape[:2], cos.shape[3])
        own, out = _array(x, *x.shape), _array(result, *x.shape)
        turns = _array(cos, *angles), _array(sin, *angles)
        if _team.is_worth(own.size):
            _team.share("rotate", *own.shape, turning, len(turns[0]), own, *turns, out)
        else:
            _kernels.rotate(own, *turns, turning, out)
        return result
    result = x.clone(memory_format=torch.contiguous_format)
    first, second = result[:, :, :turning].chunk(2, dim=-1)
    crossed = first * sin
    first.mul_(cos).addcmul_(second, sin, value=-1)
    second.mul_(cos).add_(crossed)
    return result
