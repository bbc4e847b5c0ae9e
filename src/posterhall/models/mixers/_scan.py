"""The selective scan on tensors, with gradients.

On a CPU, float32 (and half precision by way of it) takes the fused kernels of `_scan_kernels`; everything
else, and widths that are no multiple of 16, the same formulas in torch: chunks of tokens by a parallel prefix
each, one after the other, of which the backward pass computes one at a time anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from posterhall.extras import functional, torch
from posterhall.models.mixers import _scan_kernels as kernels
from posterhall.models.mixers._arrays import array, flat, private
from posterhall.models.mixers._lanes import WIDTH

_CHUNK = 32
"""Tokens of a chunk in torch."""


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
) -> tuple[torch.Tensor, torch.Tensor]:
    """y_t = (C_t h_t + D x_t) silu(z_t), h_t = exp(d_t A) h_{t-1} + d_t B_t x_t, d_t = softplus(delta_t + b).

    Gu and Dao 2023 (arXiv 2312.00752), algorithm 2 with the gate of their figure 3: A is discretised by the
    exponential, B by Euler's step. Computed in float32, or float64 if x is.

    Args:
        x, delta, gate: (R, T, E); delta before bias and softplus, gate is z.
        a: (N, E), negative.
        inputs, outputs: (R, T, N), B and C.
        skip, bias: (E,), D and b.
        state: (R, N, E), h before the first token. None: zeros.
        fresh: (R, T) bool, true where a document begins, which knows nothing of those before.
        valid: real tokens of each row; what is behind them leaves no trace, and gives nothing to rely on.

    Returns:
        y (R, T, E), of x's type, and h after the last token (R, N, E), float32 or float64. Gradients flow
        through both, and into the state before: a loss may reach over several calls.
    """
    dtype = x.dtype
    if dtype in (torch.float16, torch.bfloat16):
        x, delta, gate, inputs, outputs = (each.float() for each in (x, delta, gate, inputs, outputs))
        a, skip, bias = a.float(), skip.float(), bias.float()
    state = x.new_zeros((len(x), *a.shape)) if state is None else state.to(x.dtype)
    if _is_fused(x, delta, gate, a, inputs, outputs, skip, bias, state):
        tensors = (x, delta, gate, a, inputs, outputs, skip, bias, state)
        if torch.is_grad_enabled():
            y, after = _Scan.apply(*tensors, fresh, valid)  # type: ignore[no-untyped-call]
        else:
            lengths = _lengths(valid, *x.shape[:2])
            y, after = _run(*tensors, _fresh(fresh), lengths, x.new_empty((0, 0, 0, 0)))
    else:
        y, after = _scanned(x, delta, gate, a, inputs, outputs, skip, bias, state, fresh, valid)
    return y.to(dtype), after


def _is_fused(x: torch.Tensor, *others: torch.Tensor) -> bool:
    """Whether the kernels can take it."""
    return (
        not torch.compiler.is_compiling()
        and x.shape[-1] % WIDTH == 0
        and all(
            type(each) in (torch.Tensor, torch.nn.Parameter)
            and each.device.type == "cpu"
            and each.dtype == torch.float32
            for each in (x, *others)
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
        state: torch.Tensor,
        fresh: torch.Tensor | None,
        valid: Sequence[int] | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows, tokens, width = x.shape
        kept = x.new_empty((rows, -(-tokens // kernels.KEEP), len(a), width))
        begins, lengths = _fresh(fresh), _lengths(valid, rows, tokens)
        ctx.save_for_backward(x, delta, gate, a, inputs, outputs, skip, bias, kept)
        ctx.begins, ctx.lengths = begins, lengths
        ctx.set_materialize_grads(False)
        return _run(x, delta, gate, a, inputs, outputs, skip, bias, state, begins, lengths, kept)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        x, delta, gate, a, inputs, outputs, skip, bias, kept = ctx.saved_tensors
        rows, tokens, width = x.shape
        size, parts = len(a), -(-width // kernels.SLICE)
        whole = bool((ctx.lengths == tokens).all())
        grad = x.new_zeros(x.shape) if grads[0] is None else grads[0]
        grad_x, grad_delta, grad_gate = ((torch.empty if whole else torch.zeros)(x.shape) for _ in range(3))
        grad_a = x.new_empty((rows, size, width))
        grad_inputs, grad_outputs = (x.new_empty((rows, parts, tokens, size)) for _ in range(2))
        grad_skip, grad_bias = (x.new_empty((rows, width)) for _ in range(2))
        grad_state = x.new_zeros(grad_a.shape)
        if grads[1] is not None:
            grad_state.copy_(grads[1])
        kernels.scan_backward_rows(
            ctx.lengths, array(x), array(delta), *flat(gate), array(a), array(inputs), array(outputs),
            private(skip), private(bias), ctx.begins, kept.numpy(), array(grad), grad_x.numpy(),
            grad_delta.numpy(), grad_gate.numpy(), grad_a.numpy(), grad_inputs.numpy(), grad_outputs.numpy(),
            grad_skip.numpy(), grad_bias.numpy(), grad_state.numpy(),
        )  # fmt: skip
        return (
            grad_x, grad_delta, grad_gate, grad_a.sum(0), grad_inputs.sum(1), grad_outputs.sum(1),
            grad_skip.sum(0), grad_bias.sum(0), grad_state, None, None,
        )  # fmt: skip


def _run(
    x: torch.Tensor,
    delta: torch.Tensor,
    gate: torch.Tensor,
    a: torch.Tensor,
    inputs: torch.Tensor,
    outputs: torch.Tensor,
    skip: torch.Tensor,
    bias: torch.Tensor,
    state: torch.Tensor,
    begins: Any,
    lengths: Any,
    kept: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The kernel's forward pass: y, and h afterwards. Fills kept, unless that is empty."""
    after = state.detach().clone(memory_format=torch.contiguous_format)
    y = x.new_zeros(x.shape) if (lengths < x.shape[1]).any() else x.new_empty(x.shape)
    kernels.scan_rows(
        lengths, array(x), array(delta), *flat(gate), array(a), array(inputs), array(outputs), private(skip),
        private(bias), begins, after.numpy(), kept.numpy(), y.numpy(),
    )  # fmt: skip
    return y, after


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
    state: torch.Tensor,
    fresh: torch.Tensor | None,
    valid: Sequence[int] | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    from torch.utils.checkpoint import checkpoint

    step = functional.softplus(delta + bias)
    if valid is not None:  # a step of 0 changes no state
        real = torch.arange(x.shape[1], device=x.device) < torch.tensor(valid, device=x.device)[:, None]
        step = step * real[..., None]
    h, mixed = state, []
    for start in range(0, x.shape[1], _CHUNK):
        chunk = slice(start, start + _CHUNK)
        begins = None if fresh is None else fresh[:, chunk]
        parts = (h, step[:, chunk], x[:, chunk], a, inputs[:, chunk], outputs[:, chunk], begins)
        if torch.is_grad_enabled():
            y, h = checkpoint(_scanned_chunk, *parts, use_reentrant=False, preserve_rng_state=False)
        else:
            y, h = _scanned_chunk(*parts)
        mixed.append(y)
    return (torch.cat(mixed, dim=1) + skip * x) * functional.silu(gate), h


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
