"""Mamba: a state-space model whose steps, inputs and outputs depend on the token (Gu and Dao 2023)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from posterhall.errors import DataError
from posterhall.extras import nn, torch
from posterhall.models import _team
from posterhall.models.layers import Linear
from posterhall.models.mixers import Growth, Placement, settings_of
from posterhall.models.mixers._fft import Kept
from posterhall.models.mixers._lanes import WIDTH
from posterhall.models.mixers._scan import selective_scan
from posterhall.models.mixers.short_conv import ShortConv
from posterhall.models.mixers.states import Rows, Several
from posterhall.models.mixers.time_invariant import FullPrecision, check_steps

if TYPE_CHECKING:
    from posterhall.models.config import DecoderConfig


@dataclass(frozen=True)
class MambaSettings:
    """Settings of Mamba (Gu and Dao 2023, arXiv 2312.00752); defaults are those of its checkpoints."""

    state: int = 16
    """Numbers N of a channel's state, >= 1."""
    expand: int = 2
    """Inner channels E by the width, >= 1."""
    conv: int = 4
    """Tokens of the short convolution, >= 1."""
    rank: int | None = None
    """Numbers from which the steps of all channels are made, >= 1; none: width / 16, rounded up."""
    conv_bias: bool = True
    """Whether the convolution has a bias."""
    step_min: float = 0.001
    """Least step at the beginning, > 0 (§3.6)."""
    step_max: float = 0.1
    """Greatest step at the beginning."""
    step_floor: float = 1e-4
    """No step begins below it, > 0."""

    def __post_init__(self) -> None:
        for name in ("state", "expand", "conv", "rank"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DataError(f"{name} is {value}; it must be at least 1")
        check_steps(self.step_min, self.step_max)
        if not (self.step_floor > 0 and math.isfinite(self.step_floor)):
            raise DataError(f"step_floor is {self.step_floor}; it must be above 0")


def make(config: DecoderConfig, layer: int) -> Mamba:
    """The Mamba of a decoder's layer; its settings are the same in all."""
    del layer
    return Mamba(config.dim, settings_of(config, "mamba", MambaSettings), layers=config.layers)


class Rates(FullPrecision):
    """What is exponentiated as often as a sequence is long, and stays in float32 for that: poles, the bias
    of the steps, and the skip.

    Attributes:
        a_log: log(-A), so that A is negative whatever is learnt.
        step_bias: what is added before the softplus that makes the steps.
        skip: D, ones.
    """

    def __init__(self, poles: tuple[int, ...], steps: int, skips: int) -> None:
        super().__init__()
        self.a_log = nn.Parameter(torch.zeros(poles))
        self.step_bias = nn.Parameter(torch.zeros(steps))
        self.skip = nn.Parameter(torch.ones(skips))
        for parameter in (self.a_log, self.skip):
            parameter.no_decay = True  # type: ignore[attr-defined]

    def poles(self) -> torch.Tensor:
        """A = -exp(a_log)."""
        return -torch.exp(self.a_log)

    def draw_steps(self, least: float, most: float, floor: float, generator: torch.Generator) -> None:
        """Let steps begin log-uniform between two bounds and not below a floor: softplus^-1 of them."""
        drawn = torch.empty(self.step_bias.shape).uniform_(
            math.log(least), math.log(most), generator=generator
        )
        steps = drawn.exp().clamp(min=floor)
        self.step_bias.copy_(steps + torch.log(-torch.expm1(-steps)))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        for name in ("a_log", "step_bias"):
            given = state_dict.get(prefix + name)
            # exp(a_log) of 0 would be a pole on the imaginary axis, which never forgets.
            if given is not None and not bool(
                torch.isfinite(given).all() and (name != "a_log" or torch.exp(given.float()).gt(0).all())
            ):
                raise DataError(
                    f"{prefix}{name} is not finite, or has poles of 0; the weights are broken, load others"
                )
        super()._load_from_state_dict(state_dict, prefix, *others)


class Mamba(nn.Module):
    """out(scan(silu(conv(x))) silu(z)), with x and z from one projection (figure 3 there).

    A is discretised by the exponential, B by Euler's step; see `selective_scan`.

    Args:
        dim: D.
        settings: the rest of its shape.
        layers: of the decoder; what writes into the residual stream begins smaller by their root.
    """

    causal = True
    growth: Growth = "constant"

    def __init__(self, dim: int, settings: MambaSettings, *, layers: int = 1) -> None:
        super().__init__()
        self.settings, self.layers = settings, layers
        self.width, self.size = settings.expand * dim, settings.state
        self.rank = settings.rank or -(-dim // 16)
        self.into = Linear(dim, 2 * self.width)
        self.conv = ShortConv(self.width, settings.conv, bias=settings.conv_bias, silu=True)
        self.select = Linear(self.width, self.rank + 2 * self.size)
        self.steps = Linear(self.rank, self.width)
        self.rates = Rates((self.width, self.size), self.width, self.width)
        self.out = Linear(self.width, dim)
        self._kept = Kept()

    def initialise(self, generator: torch.Generator) -> None:
        """As its authors begin: A = -(1 .. N) in every channel, D = 1, steps log-uniform."""
        with torch.no_grad():
            for linear in (self.into, self.select, self.out):
                uniform(linear, generator)
            self.out.weight.div_(math.sqrt(self.layers))
            self.steps.weight.uniform_(-(self.rank**-0.5), self.rank**-0.5, generator=generator)
            self.conv.initialise(generator)
            self.rates.a_log.copy_(torch.arange(1, self.size + 1).log().expand(self.width, -1))
            self.rates.skip.fill_(1.0)
            given = self.settings
            self.rates.draw_steps(given.step_min, given.step_max, given.step_floor, generator)

    def new_state(self, batch: int, max_length: int, *, dtype: torch.dtype, device: torch.device) -> Several:
        """The last inputs of the convolution, and h (B, N, E) in at least float32."""
        kind = torch.promote_types(dtype, torch.float32)
        h = torch.zeros((batch, self.size, self.width), dtype=kind, device=device)
        return Several(self.conv.new_state(batch, dtype=dtype, device=device), Rows(h))

    def forward(self, x: torch.Tensor, placement: Placement, state: Several | None = None) -> torch.Tensor:
        """(B, T, D) to the same; see `Mixer`."""
        both = self.into(x)
        if (
            state is not None
            and placement.tokens == 1
            and placement.valid is None
            and self._is_step(both, state)
        ):
            stepped: torch.Tensor = self.out(self._step(both, state))
            return stepped
        inner, gate = both.chunk(2, dim=-1)
        before, h = (None, None) if state is None else (state.parts[0], state.parts[1].kept)
        inner = self.conv(inner, placement, before)
        delta, inputs, outputs = self.select(inner).split([self.rank, self.size, self.size], dim=-1)
        rates = self.rates
        poles = self._kept.get(self._given(), "poles", lambda: rates.poles().t().contiguous())
        mixed, after = selective_scan(
            inner, self.steps(delta), gate, poles, inputs, outputs, rates.skip, rates.step_bias,
            state=h, fresh=beginnings(placement), valid=placement.valid if state is not None else None,
        )  # fmt: skip
        if state is not None:
            state.parts[1].kept = after
        result: torch.Tensor = self.out(mixed)
        return result

    def _is_step(self, both: torch.Tensor, state: Several) -> bool:
        """Whether `_step` can be taken: plain matrices on a CPU, and nobody asks for gradients."""
        layers = (self.select, self.steps)
        return (
            not torch.is_grad_enabled()
            and both.device.type == "cpu"
            and both.dtype in (torch.float32, torch.bfloat16)
            and self.width % WIDTH == 0
            and (both.dtype == torch.float32 or self.rank % 2 == 0)
            and state.parts[1].kept.dtype == torch.float32
            and all(
                type(each) is Linear and each.weight.dtype == both.dtype and each.weight.is_contiguous()
                for each in layers
            )
            and type(both) is torch.Tensor
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
        )

    def _step(self, both: torch.Tensor, state: Several) -> torch.Tensor:
        """(B, 1, E) of a token's (B, 1, 2 E), between the projections from and to D; as one call."""
        before, h = state.parts[0].kept, state.parts[1].kept.contiguous()
        past = before.float().contiguous()
        moved, after = torch.empty_like(past), torch.empty_like(h)
        mixed = h.new_empty((len(both), 1, self.width))
        told, poles = self._kept.get(self._given(), "step", self._told)
        given = both.float().contiguous()
        tensors = (given, past, told, self.select.weight, self.steps.weight, poles, h, moved, after, mixed)
        _team.alone(
            "mamba", len(both), self.width, self.size, self.settings.conv, self.rank,
            both.dtype == torch.bfloat16, *(each.data_ptr() for each in tensors),
        )  # fmt: skip
        state.parts[0].kept, state.parts[1].kept = moved.to(before.dtype), after
        result: torch.Tensor = mixed.to(both.dtype)
        return result

    def _given(self) -> list[torch.Tensor]:
        """The parameters from which something is computed that stays the same while they do."""
        given = (self.conv.weight, self.conv.bias, self.rates.a_log, self.rates.step_bias, self.rates.skip)
        return [each for each in given if each is not None]

    def _told(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What a step is told: the convolution by lag, its bias, D and the bias of steps, (K + 3, E); A."""
        conv, rates = self.conv, self.rates
        bias = torch.zeros_like(rates.skip) if conv.bias is None else conv.bias.float()
        rows = (*conv.weight[:, 0].float().t().flip(0), bias, rates.skip, rates.step_bias)
        return torch.stack(rows).detach(), rates.poles().t().contiguous()


def uniform(linear: Linear, generator: torch.Generator) -> None:
    """Let a matrix begin uniform in +-1 / sqrt(inputs), as `torch.nn.Linear` does."""
    bound = 1 / math.sqrt(linear.weight.shape[1])
    linear.weight.uniform_(-bound, bound, generator=generator)


def beginnings(placement: Placement) -> torch.Tensor | None:
    """(B, T) bool, where documents begin that are packed into rows; None: nothing is packed."""
    return placement.positions() == 0 if placement.segments is not None else None
