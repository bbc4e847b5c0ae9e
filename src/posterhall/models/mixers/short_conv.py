"""A causal convolution over a few tokens, each channel by itself: a part of most mixers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from posterhall.errors import DataError
from posterhall.extras import functional, nn, torch
from posterhall.models._ops import _is_fused, _is_plain
from posterhall.models.mixers import _short_conv_kernels as _kernels
from posterhall.models.mixers.states import Rows

if TYPE_CHECKING:
    from posterhall.models.mixers import Placement


class ShortConv(nn.Module):
    """y_t = bias + sum over lags i < K of weight[:, K - 1 - i] x_{t - i}, channel by channel.

    Tokens before the first, and those of other documents, count as zeros. The weight has the shape of
    `torch.nn.Conv1d(width, width, K, groups=width)`, as checkpoints keep it.

    Args:
        width: channels W.
        taps: tokens K that an output depends on, >= 1.
        bias: whether there is one.
        silu: apply x sigmoid(x) to the result, in the same pass.

    Attributes:
        weight: (W, 1, K), the newest token last.
        bias: (W,), or None.

    Raises:
        DataError: for taps below 1.
    """

    def __init__(self, width: int, taps: int, *, bias: bool = True, silu: bool = False) -> None:
        super().__init__()
        if taps < 1:
            raise DataError(f"a short convolution over {taps} tokens; give at least 1")
        self.taps, self.silu = taps, silu
        self.weight = nn.Parameter(torch.zeros(width, 1, taps))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def initialise(self, generator: torch.Generator) -> None:
        """Uniform in +-1 / sqrt(K), as `torch.nn.Conv1d` begins."""
        with torch.no_grad():
            for parameter in self.parameters():
                bound = 1 / math.sqrt(self.taps)
                parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))

    def new_state(self, batch: int, *, dtype: torch.dtype, device: torch.device) -> Rows:
        """The last K - 1 tokens of each row, (B, K - 1, W): zeros."""
        return Rows(torch.zeros((batch, self.taps - 1, len(self.weight)), dtype=dtype, device=device))

    def forward(self, x: torch.Tensor, placement: Placement, state: Rows | None = None) -> torch.Tensor:
        """(B, T, W) to the same; a state takes up the tokens."""
        weight = self.weight[:, 0].t()  # (K, W)
        past = None if state is None else state.kept
        reach = placement.positions() if placement.segments is not None else None
        y = convolve(x, weight.flip(0), self.bias, past=past, reach=reach, silu=self.silu)
        if state is not None and self.taps > 1:
            state.kept = self._last(torch.cat((state.kept, x.to(state.kept.dtype)), 1), placement)
        return y

    def _last(self, tokens: torch.Tensor, placement: Placement) -> torch.Tensor:
        """The last K - 1 of the real tokens of each row."""
        if placement.valid is None:
            return tokens[:, placement.tokens :].clone()
        along = torch.arange(self.taps - 1, device=tokens.device)
        at = torch.tensor(placement.valid, device=tokens.device)[:, None] + along
        return tokens[torch.arange(placement.batch, device=tokens.device)[:, None], at]


def convolve(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    past: torch.Tensor | None = None,
    reach: torch.Tensor | None = None,
    silu: bool = False,
) -> torch.Tensor:
    """y_t = bias + sum over lags i of weight[i] x_{t - i}; one pass in float32 on a CPU.

    Args:
        x: (B, T, W).
        weight: (K, W) by lag: weight[0] is the token's own.
        bias: (W,), or None.
        past: (B, K - 1, W), the tokens before, the newest last; None: zeros.
        reach: (B, T), how many tokens before each belong to its document; None: as many as there are.
        silu: apply x sigmoid(x) to the result.

    Returns:
        (B, T, W), of x's type.
    """
    lags = len(weight)
    if past is None:
        past = x.new_zeros((len(x), lags - 1, x.shape[2]))
    past, weight = past.to(x.dtype), weight.to(x.dtype)
    bias = None if bias is None else bias.to(x.dtype)
    if _is_plain(x, weight) and _is_fused(x, weight) and not past.requires_grad:
        # A copy: memory once shown to numpy cannot be resized, as FSDP2 must.
        given = bias.clone() if bias is not None else x.new_zeros(x.shape[2])
        return cast("torch.Tensor", _ShortConv.apply(x, weight, given, past, reach, silu))  # type: ignore[no-untyped-call]
    tokens = x.shape[1]
    longer = torch.cat((past, x), dim=1)
    y = x * weight[0] if bias is None else x * weight[0] + bias
    for lag in range(1, lags):
        earlier = longer[:, lags - 1 - lag : lags - 1 - lag + tokens]
        if reach is not None:
            earlier = earlier.masked_fill((reach < lag)[..., None], 0.0)
        y = y + earlier * weight[lag]
    return functional.silu(y) if silu else y


class _ShortConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        past: torch.Tensor,
        reach: torch.Tensor | None,
        silu: bool,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight, bias, past)
        ctx.reach, ctx.silu = _reach(reach, x, len(weight)), silu
        result = torch.empty_like(x, memory_format=torch.contiguous_format)
        _kernels.forward(*_arrays(x, past, weight, bias), ctx.reach, silu, result.numpy())
        return result

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, bias, past = ctx.saved_tensors
        to_x, to_weight, to_bias = (torch.zeros_like(each, memory_format=torch.contiguous_format)
                                    for each in (x, weight, bias))  # fmt: skip
        _kernels.backward(
            *_arrays(x, past, weight, bias), ctx.reach, ctx.silu, *_arrays(grads[0]),
            to_x.numpy(), to_weight.numpy(), to_bias.numpy(),
        )  # fmt: skip
        return to_x, to_weight, to_bias, None, None, None


def _arrays(*tensors: torch.Tensor) -> list[Any]:
    return [each.detach().contiguous().numpy() for each in tensors]


def _reach(reach: torch.Tensor | None, x: torch.Tensor, lags: int) -> Any:
    if reach is None:
        return np.full(x.shape[:2], lags)
    return reach.to(torch.int64).expand(x.shape[:2]).contiguous().numpy()
