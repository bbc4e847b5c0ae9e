"""Mamba-2: a selective state-space model with one decay a head, computed by matrix products."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from posterhall.errors import DataError
from posterhall.extras import functional, nn, torch
from posterhall.models import _ops
from posterhall.models.layers import Linear
from posterhall.models.mixers import Growth, Placement, settings_of
from posterhall.models.mixers._ssd import state_space_dual
from posterhall.models.mixers.mamba import Rates, beginnings, uniform
from posterhall.models.mixers.short_conv import ShortConv
from posterhall.models.mixers.states import Rows, Several
from posterhall.models.mixers.time_invariant import check_steps

if TYPE_CHECKING:
    from posterhall.models.config import DecoderConfig


@dataclass(frozen=True)
class Mamba2Settings:
    """Settings of Mamba-2 (Dao and Gu 2024, arXiv 2405.21060); defaults are those of its checkpoints."""

    state: int = 128
    """Numbers N of the state of each of a head's entries, >= 1."""
    head_dim: int = 64
    """Entries P of a head, a divisor of the inner channels."""
    groups: int = 1
    """Sets of inputs and outputs that heads share, a divisor of the heads."""
    expand: int = 2
    """Inner channels E by the width, >= 1."""
    conv: int = 4
    """Tokens of the short convolution, >= 1."""
    conv_bias: bool = True
    """Whether the convolution has a bias."""
    chunk: int = 64
    """Tokens that are mixed by one matrix product, >= 1; 64 to 128 serve a CPU, 256 a GPU."""
    step_min: float = 0.001
    """Least step at the beginning, > 0."""
    step_max: float = 0.1
    """Greatest step at the beginning."""
    step_floor: float = 1e-4
    """No step begins below it, > 0."""
    step_low: float = 0.0
    """Steps are never less, >= 0."""
    step_high: float = math.inf
    """Steps are never greater."""

    def __post_init__(self) -> None:
        for name in ("state", "head_dim", "groups", "expand", "conv", "chunk"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} is {getattr(self, name)}; it must be at least 1")
        check_steps(self.step_min, self.step_max)
        if not (self.step_floor > 0 and math.isfinite(self.step_floor)):
            raise DataError(f"step_floor is {self.step_floor}; it must be above 0")
        if not 0 <= self.step_low < self.step_high:
            raise DataError(f"step_low is {self.step_low} and step_high {self.step_high}; 0 <= low < high")


def make(config: DecoderConfig, layer: int) -> Mamba2:
    """The Mamba-2 of a decoder's layer; its settings are the same in all."""
    del layer
    settings = settings_of(config, "mamba2", Mamba2Settings)
    return Mamba2(config.dim, settings, layers=config.layers, eps=config.norm_eps)


class Mamba2(nn.Module):
    """out(norm(ssd(silu(conv(x))) silu(z))), with z, x, B, C and the steps from one projection.

    Args:
        dim: D.
        settings: the rest of its shape.
        layers: of the decoder; what writes into the residual stream begins smaller by their root.
        eps: of the norm.

    Raises:
        DataError: for heads or groups that do not fit.
    """

    causal = True
    growth: Growth = "constant"

    def __init__(self, dim: int, settings: Mamba2Settings, *, layers: int = 1, eps: float = 1e-5) -> None:
        super().__init__()
        self.settings, self.layers = settings, layers
        self.width = settings.expand * dim
        if self.width % settings.head_dim:
            raise DataError(
                f"mixer_settings of mamba2: head_dim is {settings.head_dim}; it must divide the {self.width} "
                f"inner channels (expand {settings.expand} x dim {dim})"
            )
        self.heads = self.width // settings.head_dim
        if self.heads % settings.groups:
            raise DataError(
                f"mixer_settings of mamba2: groups is {settings.groups}; it must divide {self.heads} heads"
            )
        self.shared = settings.groups * settings.state
        self.into = Linear(dim, 2 * self.width + 2 * self.shared + self.heads)
        self.conv = ShortConv(self.width + 2 * self.shared, settings.conv, bias=settings.conv_bias, silu=True)
        self.rates = Rates((self.heads,), self.heads, self.heads)
        self.eps = eps
        self.gain = nn.Parameter(torch.ones(self.width))
        self.out = Linear(self.width, dim)

    def initialise(self, generator: torch.Generator) -> None:
        """As its authors begin: A uniform in -16 to -1, D = 1, steps log-uniform."""
        with torch.no_grad():
            for linear in (self.into, self.out):
                uniform(linear, generator)
            self.out.weight.div_(math.sqrt(self.layers))
            self.conv.initialise(generator)
            self.rates.a_log.copy_(torch.empty(self.heads).uniform_(1.0, 16.0, generator=generator).log())
            self.rates.skip.fill_(1.0)
            self.gain.fill_(1.0)
            given = self.settings
            self.rates.draw_steps(given.step_min, given.step_max, given.step_floor, generator)

    def new_state(self, batch: int, max_length: int, *, dtype: torch.dtype, device: torch.device) -> Several:
        """The last inputs of the convolution, and h (B, H, N, P) in at least float32."""
        kind = torch.promote_types(dtype, torch.float32)
        shape = (batch, self.heads, self.settings.state, self.settings.head_dim)
        h = torch.zeros(shape, dtype=kind, device=device)
        return Several(self.conv.new_state(batch, dtype=dtype, device=device), Rows(h))

    def forward(self, x: torch.Tensor, placement: Placement, state: Several | None = None) -> torch.Tensor:
        """(B, T, D) to the same; see `Mixer`."""
        given, rates = self.settings, self.rates
        gate, inner, delta = self.into(x).split(
            [self.width, self.width + 2 * self.shared, self.heads], dim=-1
        )
        before, h = (None, None) if state is None else (state.parts[0], state.parts[1].kept)
        inner = self.conv(inner, placement, before)
        kind = torch.promote_types(x.dtype, torch.float32)
        values, inputs, outputs = inner.to(kind).split([self.width, self.shared, self.shared], dim=-1)
        values = values.unflatten(-1, (self.heads, given.head_dim))
        step = functional.softplus(delta.to(kind) + rates.step_bias).clamp(given.step_low, given.step_high)
        mixed, after = state_space_dual(
            values, step, rates.poles(),
            inputs.unflatten(-1, (given.groups, given.state)),
            outputs.unflatten(-1, (given.groups, given.state)),
            chunk=given.chunk, state=h, fresh=beginnings(placement),
            valid=placement.valid if state is not None else None,
        )  # fmt: skip
        if state is not None:
            state.parts[1].kept = after
        mixed = (mixed + rates.skip[:, None] * values).flatten(2)
        result: torch.Tensor = self.out(self._normed(mixed * functional.silu(gate.to(kind))).to(x.dtype))
        return result

    def _normed(self, mixed: torch.Tensor) -> torch.Tensor:
        """RMSNorm of each group by itself."""
        grouped = mixed.view(*mixed.shape[:-1], self.settings.groups, -1)
        ones = torch.ones(grouped.shape[-1], dtype=mixed.dtype, device=mixed.device)
        return _ops.rms_norm(grouped, ones, self.eps).flatten(-2) * self.gain
