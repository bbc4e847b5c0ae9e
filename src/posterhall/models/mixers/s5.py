"""S5: one state-space model of many inputs and outputs, run as a scan."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from posterhall.errors import DataError
from posterhall.extras import nn, torch
from posterhall.models.mixers import Placement, _fft, discretize, hippo, settings_of
from posterhall.models.mixers import _recurrence_kernels as _kernels
from posterhall.models.mixers.states import Rows
from posterhall.models.mixers.time_invariant import (
    StateSpace,
    System,
    check_steps,
    checked_rate,
    drawn_steps,
    steady,
)

if TYPE_CHECKING:
    from posterhall.models.config import DecoderConfig


class Joint(System):
    """x_k = a_bar x_{k-1} + B_bar u_k and y_k = 2 Re C x_k, with x of all channels together.

    Args:
        channels: H, of inputs and outputs.
        state: P real numbers in all, of which each block has an even number.
        blocks: of HiPPO's normal matrices that the poles begin as, a divisor of the state.
        discretisation: zoh or bilinear.
        step_min, step_max: bounds of the steps' beginnings; each pole has one of its own.
        outputs: 2 to scan backwards too.

    Attributes:
        log_step, log_decay, turn: (P / 2,); the logarithm of -Re a makes every pole stable.
        inputs: (P / 2, H, 2), B.
        weights: (outputs, H, P / 2, 2), C.
    """

    def __init__(
        self,
        channels: int,
        state: int = 64,
        *,
        blocks: int = 1,
        discretisation: Literal["zoh", "bilinear"] = "zoh",
        step_min: float = 1e-3,
        step_max: float = 0.1,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        if state < 2 or state % (2 * blocks):
            raise DataError(f"a state of {state} in {blocks} blocks; each needs an even number of entries")
        self.blocks, self.discretisation = blocks, discretisation
        self.step_min, self.step_max = step_min, step_max
        pairs = state // 2
        self.log_step = steady(torch.zeros(pairs))
        self.log_decay = steady(torch.zeros(pairs))
        self.turn = steady(torch.zeros(pairs))
        self.inputs = steady(torch.zeros(pairs, channels, 2))
        self.weights = nn.Parameter(torch.zeros(outputs, channels, pairs, 2))
        self._kept = _fft.Kept()

    def initialise(self, generator: torch.Generator) -> None:
        """Steps log-uniform, poles of HiPPO-LegS's normal part, B and C normal of variance 1 / inputs
        in the basis of HiPPO and turned into that of the poles (S5, appendix B)."""
        pairs, channels, _ = self.inputs.shape
        begin = hippo.split("legsd", 2 * pairs // self.blocks)
        basis = torch.from_numpy(begin.basis)  # (N, N / 2)
        with torch.no_grad():
            self.log_step.copy_(drawn_steps((pairs,), self.step_min, self.step_max, generator))
            self.log_decay.copy_(torch.from_numpy(-begin.poles.real).log().repeat(self.blocks))
            self.turn.copy_(torch.from_numpy(begin.poles.imag).repeat(self.blocks))
            b = torch.empty((self.blocks, len(basis), channels), dtype=torch.float64)
            b = b.normal_(generator=generator) / math.sqrt(channels)
            self.inputs.copy_(torch.view_as_real((basis.mH @ b.to(basis.dtype)).flatten(0, 1)))
            c = torch.empty((len(self.weights), channels, self.blocks, len(basis)), dtype=torch.float64)
            c = c.normal_(generator=generator) / math.sqrt(2 * pairs)
            self.weights.copy_(torch.view_as_real((c.to(basis.dtype) @ basis).flatten(2)))

    def new_state(self, batch: int, *, dtype: torch.dtype, device: torch.device) -> Rows:
        """(B, 2, P / 2), real and imaginary parts: zeros."""
        kind = torch.float64 if dtype == torch.float64 else torch.float32
        return Rows(torch.zeros((batch, 2, len(self.turn)), dtype=kind, device=device))

    def run(self, u: torch.Tensor, placement: Placement, state: Rows) -> torch.Tensor:
        """See `System`."""
        a, b, c = self._kept.get(self, (self.rate, u.dtype), lambda: self._matrices(u.dtype))
        x = recurrence(a, self._driven(u, b), state.kept)
        last = torch.tensor(placement.valid or (placement.tokens,) * placement.batch, device=u.device) - 1
        ends = x[torch.arange(placement.batch, device=u.device), last.clamp(min=0)]
        state.kept = torch.where((last < 0)[:, None, None], state.kept, ends)
        y: torch.Tensor = x.flatten(2) @ c[0]
        return y.transpose(1, 2)

    def whole(self, u: torch.Tensor) -> torch.Tensor:
        """(B, H, T) to the same, from a state of zeros; in both directions if there are two outputs."""
        a, b, c = self._kept.get(self, (self.rate, u.dtype), lambda: self._matrices(u.dtype))
        v = self._driven(u, b)
        begin = v.new_zeros((len(v), *v.shape[2:]))
        y: torch.Tensor = recurrence(a, v, begin).flatten(2) @ c[0]
        if len(c) > 1:
            y = y + recurrence(a, v.flip(1), begin).flip(1).flatten(2) @ c[1]
        return y.transpose(1, 2)

    def _driven(self, u: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """(B, T, 2, P / 2) of u (B, H, T)."""
        return (u.transpose(1, 2) @ b).view(len(u), u.shape[2], 2, -1)

    def _matrices(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """a_bar (2, P / 2), B_bar (H, P) and 2 C (outputs, P, H), real: real parts, then imaginary parts."""
        a = torch.complex(-torch.exp(self.log_decay), self.turn)
        log_a, scale = discretize.diagonal(a, self.steps().to(a.dtype), self.discretisation)
        bar = torch.exp(log_a)
        b = scale[:, None] * torch.view_as_complex(self.inputs)
        c = 2 * self.weights.transpose(1, 2)  # (outputs, P / 2, H, 2)
        return (
            torch.stack((bar.real, bar.imag)).to(dtype),
            torch.cat((b.real, b.imag)).t().to(dtype),
            torch.cat((c[..., 0], -c[..., 1]), dim=1).to(dtype),
        )


def recurrence(a: torch.Tensor, v: torch.Tensor, begin: torch.Tensor) -> torch.Tensor:
    """x_t = a x_{t-1} + v_t with complex a, given as real and imaginary parts.

    On a CPU token after token; on other devices by doubling, in log2 T passes (a parallel scan).

    Args:
        a: (2, P).
        v: (B, T, 2, P).
        begin: (B, 2, P), x before the first token.

    Returns:
        (B, T, 2, P).
    """
    if _is_native(v):
        return cast("torch.Tensor", _Recurrence.apply(a, v, begin))  # type: ignore[no-untyped-call]
    power = torch.complex(a[0], a[1])
    x = torch.complex(v[:, :, 0], v[:, :, 1])
    first = x[:, :1] + power * torch.complex(begin[:, 0], begin[:, 1])[:, None]
    x = torch.cat((first, x[:, 1:]), dim=1)
    ahead = 1
    while ahead < x.shape[1]:
        x = torch.cat((x[:, :ahead], x[:, ahead:] + power * x[:, :-ahead]), dim=1)
        power = power * power
        ahead *= 2
    return torch.stack((x.real, x.imag), dim=2)


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, v: torch.Tensor, begin: torch.Tensor) -> torch.Tensor:
        x = v.clone(memory_format=torch.contiguous_format)
        _kernels.forward(*_arrays(a), x.numpy(), *_arrays(begin))
        ctx.save_for_backward(a, x, begin)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        a, x, begin = ctx.saved_tensors
        grad = grads[0].clone(memory_format=torch.contiguous_format)
        to_a = torch.zeros(a.shape, dtype=torch.float64)
        to_begin = torch.zeros_like(begin, memory_format=torch.contiguous_format)
        _kernels.backward(*_arrays(a, x, begin), grad.numpy(), to_a.numpy(), to_begin.numpy())
        return to_a.to(a.dtype), grad, to_begin


def _is_native(v: torch.Tensor) -> bool:
    """Whether numba runs it."""
    return v.device.type == "cpu"


def _arrays(*tensors: torch.Tensor) -> list[Any]:
    return [each.detach().contiguous().numpy() for each in tensors]


class S5(StateSpace):
    """The layer of `StateSpace` around a `Joint` system (Smith, Warrington and Linderman 2023, 2208.04933).

    Backwards, a bidirectional one sees the token itself too, as the original.
    """

    system: Joint

    def _convolved(self, u: torch.Tensor) -> torch.Tensor:
        return self.system.whole(u)


@dataclass(frozen=True)
class S5Settings:
    """Settings of S5 (Smith, Warrington and Linderman 2023, arXiv 2208.04933)."""

    state: int = 64
    """Real numbers P of the state of all channels together."""
    blocks: int = 1
    """Blocks J of HiPPO matrices that the poles begin as; state / blocks is even (§4.3)."""
    discretisation: Literal["zoh", "bilinear"] = "zoh"
    """zoh or bilinear."""
    step_min: float = 0.001
    """Least step at the beginning, > 0."""
    step_max: float = 0.1
    """Greatest step at the beginning."""
    bidirectional: bool = False
    """Scan backwards too; no streaming then."""
    rate: float = 1.0
    """Factor of all steps, > 0: 0.5 for signals sampled twice as often as in training."""

    def __post_init__(self) -> None:
        if self.blocks < 1:
            raise DataError(f"blocks is {self.blocks}; it must be at least 1")
        check_steps(self.step_min, self.step_max)
        checked_rate(self.rate)


def make(config: DecoderConfig, layer: int) -> S5:
    """The S5 of a decoder's layer; its settings are the same in all."""
    del layer
    settings = settings_of(config, "s5", S5Settings)
    system = Joint(
        config.dim,
        settings.state,
        blocks=settings.blocks,
        discretisation=settings.discretisation,
        step_min=settings.step_min,
        step_max=settings.step_max,
        outputs=2 if settings.bidirectional else 1,
    )
    mixer = S5(config.dim, system, bidirectional=settings.bidirectional)
    mixer.rate = settings.rate
    return mixer
