"""H3: a shift and a diagonal state-space model between two gates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from posterhall.errors import DataError
from posterhall.extras import nn, torch
from posterhall.models.layers import Linear
from posterhall.models.mixers import Growth, Placement, _fft, documents, settings_of
from posterhall.models.mixers.diagonal import Diagonal, Poles
from posterhall.models.mixers.long_conv import spread
from posterhall.models.mixers.short_conv import ShortConv
from posterhall.models.mixers.states import Several
from posterhall.models.mixers.time_invariant import check_steps, checked_rate, exactly, working

if TYPE_CHECKING:
    from posterhall.models.config import DecoderConfig


class H3(nn.Module):
    """y = W_o (q * SSM_diag(shift(k) v)) in heads (Fu, Dao et al. 2023, arXiv 2212.14052, algorithm 1).

    Within a head of d entries shift(k) v is the outer product of d by d, every entry of which goes through
    the head's own diagonal system. The shift system with B = e_1 (fixed, as in the paper) is a short
    convolution over as many tokens as it has states.

    Args:
        dim: D.
        head_dim: d, a divisor of D.
        shift: states of the shift system.
        system: of the D / d heads, for d^2 inputs each.

    Attributes:
        keys_skip: (D,), what of k passes beside the shift.
        skip: (D / d,), what of the product passes beside the diagonal system.
    """

    causal = True
    growth: Growth = "constant"

    def __init__(self, dim: int, *, head_dim: int, shift: int, system: Diagonal) -> None:
        super().__init__()
        self.dim, self.head_dim = dim, head_dim
        self.projections = Linear(dim, 3 * dim)
        self.shift = ShortConv(dim, shift, bias=False)
        self.system = system
        self.keys_skip = nn.Parameter(torch.zeros(dim))
        self.skip = nn.Parameter(torch.zeros(dim // head_dim))
        self.out = Linear(dim, dim)
        self._kept = _fft.Kept()

    def initialise(self, generator: torch.Generator) -> None:
        """Matrices uniform in +-1 / sqrt(inputs); C of the shift and both skips N(0, 1)."""
        for layer in (self.projections, self.out):
            spread(layer, generator)
        self.system.initialise(generator)
        with torch.no_grad():
            for parameter in (self.shift.weight, self.keys_skip, self.skip):
                parameter.copy_(torch.empty(parameter.shape).normal_(generator=generator))

    @property
    def rate(self) -> float:
        """Factor of the diagonal system's steps."""
        return self.system.rate

    @rate.setter
    def rate(self, value: float) -> None:
        self.system.rate = checked_rate(value)

    def new_state(self, batch: int, max_length: int, *, dtype: torch.dtype, device: torch.device) -> Several:
        """The last keys, and the state of each entry of the heads' products."""
        del max_length
        return Several(
            self.shift.new_state(batch, dtype=dtype, device=device),
            self.system.new_state(batch, dtype=dtype, device=device),
        )

    def forward(self, x: torch.Tensor, placement: Placement, state: Several | None = None) -> torch.Tensor:
        """(B, T, D) to the same; see `Mixer`."""
        if placement.segments is not None:
            return documents.apart(self, x, placement.segments)
        keys_state, state_of_products = state.parts if state is not None else (None, None)
        queries, keys, values = self.projections(x).chunk(3, dim=-1)
        keys = self.shift(keys, placement, keys_state) + self.keys_skip * keys
        heads = self.dim // self.head_dim
        keys, values = (each.unflatten(-1, (heads, self.head_dim)) for each in (keys, values))
        products = (keys[..., None] * values[..., None, :]).flatten(2)  # (B, T, heads d d)
        u = products.transpose(1, 2).to(working(x.dtype))
        times = self.head_dim**2
        with exactly(u.device):
            if state_of_products is None:
                y = self._convolved(u, times)
            else:
                y = self.system.run(u, placement, state_of_products)
        y = y + u * self.skip.to(u.dtype).repeat_interleave(times)[:, None]
        y = y.transpose(1, 2).to(x.dtype).unflatten(-1, (heads, self.head_dim, self.head_dim))
        gated = (queries.unflatten(-1, (heads, self.head_dim, 1)) * y).sum(-2)
        result: torch.Tensor = self.out(gated.flatten(2))
        return result

    def _convolved(self, u: torch.Tensor, times: int) -> torch.Tensor:
        tokens = u.shape[-1]
        size = _fft.good_length(2 * tokens - 1)

        def spectrum() -> torch.Tensor:
            return _fft.spectrum(self.system.kernel(tokens)[0].to(u.dtype), size)

        transform = self._kept.get(self, (tokens, self.rate, u.dtype), spectrum)
        return _fft.multiply(u, transform.repeat_interleave(times, dim=0), size)


@dataclass(frozen=True)
class H3Settings:
    """Settings of H3 (Fu, Dao et al. 2023, arXiv 2212.14052)."""

    state: int = 64
    """Real numbers of the diagonal system's state, even, and states of the shift (d_state)."""
    head_dim: int = 1
    """Entries of a head, a divisor of the width; work and state grow with it."""
    init: Poles = "lin"
    """Where the poles of the diagonal system begin: lin, inv, inv2, quad, legs, real or random."""
    step_min: float = 0.001
    """Least step at the beginning, > 0."""
    step_max: float = 0.1
    """Greatest step at the beginning."""
    rate: float = 1.0
    """Factor of the diagonal system's steps, > 0. The shift counts tokens and does not change."""

    def __post_init__(self) -> None:
        for name in ("state", "head_dim"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} is {getattr(self, name)}; it must be at least 1")
        check_steps(self.step_min, self.step_max)
        checked_rate(self.rate)


def make(config: DecoderConfig, layer: int) -> H3:
    """The H3 of a decoder's layer; its settings are the same in all."""
    del layer
    settings = settings_of(config, "h3", H3Settings)
    if config.dim % settings.head_dim:
        raise DataError(f"head_dim is {settings.head_dim} for a width of {config.dim}; it must divide it")
    system = Diagonal(
        config.dim // settings.head_dim,
        settings.state,
        init=settings.init,
        step_min=settings.step_min,
        step_max=settings.step_max,
        inputs=settings.head_dim**2,
    )
    mixer = H3(config.dim, head_dim=settings.head_dim, shift=settings.state, system=system)
    mixer.rate = settings.rate
    return mixer
