"""The selective scan on tensors, with gradients.

On a CPU, float32 (and half precision by way of it) takes the fused kernels of `_scan_kernels`; everything
else, and widths that are no multiple of 16, the same formulas in torch: chunks of tokens by a parallel prefix
each, one after the other, of which the backward pass computes one at a time anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from posterhall.extras import functional, torch
from posterhall.models.mixers import _scan_kernels as kernels
from posterhall.models.mixers._lanes import WIDTH

_CHUNK = 32
"""Tokens of a chunk in torch."""
_LOG2E = 1.4426950408889634


def selective_scan(
    x: torch.Tensor,
    delta: torch.Tensor,
    gate: torch.Tensor,
    a: torch.Tensor,
    inputs: torch.Tensor,
    outputs: torch.Tensor,
    skip: torch.Tensor,
    bias: torch.Tensor,
    *,
    state: torch.Tensor | None = None,
    fresh: torch.Tensor | None = None,
    valid: Sequence[int] | None = None,
) -> torch.Tensor:
    """y_t = (C_t h_t + D x_t) silu(z_t), h_t = exp(d_t A) h_{t-1} + d_t B_t x_t, d_t = softplus(delta_t + b).

    Gu and Dao 2023 (arXiv 2312.00752), algorithm 2 with the gate of their figure 3: A is discretised by the
    exponential, B by Euler's step. Computed in float32, or float64 if x is.

    Args:
        x, delta, gate: (R, T, E); delta before bias and softplus, gate is z.
        a: (N, E), negative.
        inputs, outputs: (R, T, N), B and C.
        skip, bias: (E,), D and b.
        state: (R, N, E), h before the first token; becomes that after the last one. No gradient flows into
            it. None: zeros.
        fresh: (R, T) bool, true where a document begins, which knows nothing of those before.
        valid: real tokens of each row; what is behind them leaves no trace, and gives nothing to rely on.

    Returns:
        (R, T, E), of x's type.
    """
    dtype = x.dtype
    if dtype in (torch.float16, torch.bfloat16):
        x, delta, gate, inputs, outputs = (each.float() for each in (x, delta, gate, inputs, outputs))
        a, skip, bias = a.float(), skip.float(), bias.float()
    if _is_fused(x, delta, gate, a, inputs, outputs, skip, bias, state):
        y = _Scan.apply(  # type: ignore[no-untyped-call]
            x, delta, gate, a, inputs, outputs, skip, bias, state, fresh, valid
        )
    else:
        y = _scanned(x, delta, gate, a, inputs, outputs, skip, bias, state, fresh, valid)
    return cast("torch.Tensor", y.to(dtype))


def _is_fused(x: torch.Tensor, *others: torch.Tensor | None) -> bool:
    """Whether the kernels can take it."""
    return (
        not torch.compiler.is_compiling()
        and x.shape[-1] % WIDTH == 0
        and all(
            type(each) in (torch.Tensor, torch.nn.Parameter)
            and each.device.type == "cpu"
            and each.dtype == torch.float32
            for each in (x, *others)
            if each is not None
        )
    )


# -- fused ------------------------------------------------------------------------------------------


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        delta: torch.Tensor,
        gate: torch.Tensor,
        a: torch.Tensor,
        inputs: torch.Tensor,
        outputs: torch.Tensor,
        skip: torch.Tensor,
        bias: torch.Tensor,
        state: torch.Tensor | None,
        fresh: torch.Tensor | None,
        valid: Sequence[int] | None,
    ) -> torch.Tensor:
        rows, tokens, width = x.shape
        size = len(a)
        chunks = -(-tokens // kernels.KEEP) if any(ctx.needs_input_grad) else 0
        kept = x.new_empty((rows, chunks, size, width) if chunks else (0, 0, 0, 0))
        h = x.new_zeros((rows, size, width)) if state is None else state.contiguous()
        y = (torch.empty if valid is None else torch.zeros)(x.shape)
        begins, lengths = _fresh(fresh), _lengths(valid, rows, tokens)
        rates = a.detach() * _LOG2E
        kernels.scan_rows(
            lengths, _array(x), _array(delta), *_flat(gate), _array(rates), _array(inputs), _array(outputs),
            _private(skip), _private(bias), begins, h.numpy(), kept.numpy(), y.numpy(),
        )  # fmt: skip
        if state is not None and h is not state:
            state.copy_(h)
        ctx.save_for_backward(x, delta, gate, rates, inputs, outputs, skip, bias, kept)
        ctx.begins, ctx.lengths = begins, lengths
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, delta, gate, rates, inputs, outputs, skip, bias, kept = ctx.saved_tensors
        rows, tokens, width = x.shape
        size, parts = len(rates), -(-width // kernels.SLICE)
        whole = bool((ctx.lengths == tokens).all())
        grad_x, grad_delta, grad_gate = ((torch.empty if whole else torch.zeros)(x.shape) for _ in range(3))
        grad_a = x.new_empty((rows, size, width))
        grad_inputs, grad_outputs = (x.new_zeros((rows, parts, tokens, size)) for _ in range(2))
        grad_skip, grad_bias = (x.new_zeros((rows, width)) for _ in range(2))
        kernels.scan_backward_rows(
            ctx.lengths, _array(x), _array(delta), *_flat(gate), _array(rates), _array(inputs),
            _array(outputs), _private(skip), _private(bias), ctx.begins, kept.numpy(), _array(grads[0]),
            grad_x.numpy(), grad_delta.numpy(), grad_gate.numpy(), grad_a.numpy(), grad_inputs.numpy(),
            grad_outputs.numpy(), grad_skip.numpy(), grad_bias.numpy(),
        )  # fmt: skip
        return (
            grad_x, grad_delta, grad_gate, grad_a.sum(0), grad_inputs.sum(1), grad_outputs.sum(1),
            grad_skip.sum(0), grad_bias.sum(0), None, None, None,
        )  # fmt: skip


def _array(tensor: torch.Tensor) -> Any:
    """A tensor's memory, copied first if it is not contiguous."""
    return tensor.detach().contiguous().numpy()


def _private(tensor: torch.Tensor) -> Any:
    """A contiguous copy of a parameter: memory once shown to numpy cannot be resized, as FSDP2 must."""
    return tensor.detach().clone(memory_format=torch.contiguous_format).numpy()


def _flat(tensor: torch.Tensor) -> tuple[Any, int]:
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


def _fresh(fresh: torch.Tensor | None) -> Any:
    return np.zeros((0, 0), np.bool_) if fresh is None else fresh.contiguous().numpy()


def _lengths(valid: Sequence[int] | None, rows: int, tokens: int) -> Any:
    return np.full(rows, tokens) if valid is None else np.array(valid)


# -- in torch ---------------------------------------------------------------------------------------


def _scanned(
    x: torch.Tensor,
    delta: torch.Tensor,
    gate: torch.Tensor,
    a: torch.Tensor,
    inputs: torch.Tensor,
    outputs: torch.Tensor,
    skip: torch.Tensor,
    bias: torch.Tensor,
    state: torch.Tensor | None,
    fresh: torch.Tensor | None,
    valid: Sequence[int] | None,
) -> torch.Tensor:
    from torch.utils.checkpoint import checkpoint

    step = functional.softplus(delta + bias)
    if valid is not None:  # a step of 0 changes no state
        real = torch.arange(x.shape[1], device=x.device) < torch.tensor(valid, device=x.device)[:, None]
        step = step * real[..., None]
    h = x.new_zeros((len(x), *a.shape)) if state is None else state.to(x.dtype)
    mixed = []
    for start in range(0, x.shape[1], _CHUNK):
        chunk = slice(start, start + _CHUNK)
        begins = None if fresh is None else fresh[:, chunk]
        parts = (h, step[:, chunk], x[:, chunk], a, inputs[:, chunk], outputs[:, chunk], begins)
        if torch.is_grad_enabled():
            y, h = checkpoint(_scanned_chunk, *parts, use_reentrant=False, preserve_rng_state=False)
        else:
            y, h = _scanned_chunk(*parts)
        mixed.append(y)
    if state is not None:
        state.copy_(h.detach())
    return (torch.cat(mixed, dim=1) + skip * x) * functional.silu(gate)


def _scanned_chunk(
    h: torch.Tensor,
    step: torch.Tensor,
    x: torch.Tensor,
    a: torch.Tensor,
    inputs: torch.Tensor,
    outputs: torch.Tensor,
    fresh: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """C h (R, T, E) of a chunk, and the state after it; h (R, N, E) is that before it.

    All prefixes of h -> decay h + push at once (Hillis and Steele 1986): decays are at most 1, and so are
    their products, so nothing overflows.
    """
    decay = torch.exp(step[:, :, None] * a)
    if fresh is not None:
        decay = decay.masked_fill(fresh[:, :, None, None], 0.0)
    push = (step * x)[:, :, None] * inputs[..., None]
    reach = 1
    while reach < x.shape[1]:
        push = torch.cat((push[:, :reach], push[:, reach:] + decay[:, reach:] * push[:, :-reach]), dim=1)
        decay = torch.cat((decay[:, :reach], decay[:, reach:] * decay[:, :-reach]), dim=1)
        reach *= 2
    states = decay * h[:, None] + push
    return torch.einsum("rtne,rtn->rte", states, outputs), states[:, -1]
