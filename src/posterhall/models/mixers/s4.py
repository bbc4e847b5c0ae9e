"""S4: a state-space model whose poles are coupled by a matrix of low rank, begun as HiPPO has it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from posterhall.errors import DataError
from posterhall.extras import nn, torch
from posterhall.models.mixers import Placement, _cauchy, _fft, _powers, hippo, settings_of
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

_BLOCK = 32
"""Tokens that a state runs over at a time; a power of 2."""
_LEAST_DECAY = 1e-4
"""Of poles that HiPPO has on the imaginary axis (legt, lmu, lagt, fout), as in the original."""


class LowRank(System):
    """x' = (diag(a) - sum over r of P_r P_r^*) x + B u and y = 2 Re C x, by the bilinear rule.

    The kernel comes from its generating function (S4, theorem 3 and §C.3, any rank by Woodbury's identity),
    in float64 throughout. What is learned is C, not C (I - A_bar^L) as in the original, so that weights do
    not depend on the length that they were trained at.

    Args:
        channels: H.
        state: N real numbers a channel, even.
        measure: where poles, P and B begin; see `posterhall.models.mixers.hippo.Measure`.
        copies: sets of poles, P and B that channels share, a divisor of H.
        step_min, step_max: bounds of the steps' beginnings.
        outputs: kernels a channel.

    Attributes:
        log_step: (H,), logarithms of the steps.
        log_decay: (S, N / 2), logarithms of -Re a; so A is stable whatever is learned.
        turn: (S, N / 2), Im a.
        coupling: (R, S, N / 2, 2), P.
        inputs: (S, N / 2, 2), B.
        weights: (outputs, H, N / 2, 2), C.
    """

    def __init__(
        self,
        channels: int,
        state: int = 64,
        *,
        measure: hippo.Measure = "legs",
        copies: int = 1,
        step_min: float = 1e-3,
        step_max: float = 0.1,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        if channels % copies:
            raise DataError(f"copies is {copies} for {channels} channels; it must divide them")
        self.channels, self.state, self.measure = channels, state, measure
        self.step_min, self.step_max = step_min, step_max
        rank, pairs = hippo.split(measure, state).low_rank.shape
        self.log_step = steady(torch.zeros(channels))
        self.log_decay = steady(torch.zeros(copies, pairs))
        self.turn = steady(torch.zeros(copies, pairs))
        self.coupling = steady(torch.zeros(rank, copies, pairs, 2))
        self.inputs = steady(torch.zeros(copies, pairs, 2))
        self.weights = nn.Parameter(torch.zeros(outputs, channels, pairs, 2))
        self._kept = _fft.Kept()

    def initialise(self, generator: torch.Generator) -> None:
        """Steps log-uniform, poles, P and B of the measure, C complex normal of variance 1."""
        begin = hippo.split(self.measure, self.state)
        with torch.no_grad():
            self.log_step.copy_(drawn_steps((self.channels,), self.step_min, self.step_max, generator))
            self.log_decay.copy_(torch.from_numpy((-begin.poles.real).clip(_LEAST_DECAY)).log())
            self.turn.copy_(torch.from_numpy(begin.poles.imag))
            self.coupling.copy_(torch.view_as_real(torch.from_numpy(begin.low_rank))[:, None])
            self.inputs.copy_(torch.view_as_real(torch.from_numpy(begin.inputs)))
            drawn = torch.empty(self.weights.shape).normal_(generator=generator)
            self.weights.copy_(drawn / math.sqrt(2))

    def kernel(self, length: int) -> torch.Tensor:
        """(outputs, H, L), float64."""
        z, p, b, c = self._parts()
        rank, outputs = len(p), len(c)
        # C (I - A_bar^L): what is left of the generating function after L terms.
        rows = _as_real(c.conj()).transpose(0, 1)  # (H, outputs, N)
        c = c - _as_complex(_powers.after(rows, self._dense(z, p), length).transpose(0, 1)).conj()
        left = torch.cat((c, p.conj()))  # (outputs + R, H, N / 2)
        right = torch.cat((b[None], p))  # (1 + R, H, N / 2)
        pairs = (left[:, None] * right[None]).flatten(0, 1).transpose(0, 1)  # (H, J, N / 2)
        sums = _cauchy.cauchy(pairs, z, length).unflatten(1, (outputs + rank, 1 + rank))  # type: ignore[no-untyped-call]
        sums = sums.permute(0, 3, 1, 2)  # (H, K, outputs + R, 1 + R)
        sines, cosines = _cauchy.half_angles(length, z.device)
        c_b, c_p = sums[..., :outputs, :1], sums[..., :outputs, 1:]
        p_b, p_p = sums[..., outputs:, :1], sums[..., outputs:, 1:] * cosines[:, None, None]
        if rank == 1:
            inner = p_b / (1 + p_p)
        else:
            inner = torch.linalg.solve(torch.eye(rank, dtype=sums.dtype, device=z.device) + p_p, p_b)
        found = (c_b - cosines[:, None, None] * (c_p @ inner))[..., 0]  # (H, K, outputs)
        spectrum = found.permute(2, 0, 1) * torch.complex(cosines, sines / 2)
        return cast("torch.Tensor", torch.fft.irfft(spectrum, n=length))

    def new_state(self, batch: int, *, dtype: torch.dtype, device: torch.device) -> Rows:
        """(B, H, N / 2), complex: zeros."""
        kind = torch.complex128 if dtype == torch.float64 else torch.complex64
        return Rows(torch.zeros((batch, self.channels, self.turn.shape[1]), dtype=kind, device=device))

    def run(self, u: torch.Tensor, placement: Placement, state: Rows) -> torch.Tensor:
        """In blocks of tokens: within one by its kernel, from one to the next by powers of A_bar."""
        if u.shape[-1] == 1 and placement.valid is None:
            return self._step(u, state)
        tables = self._kept.get(self, ("blocks", self.rate, u.dtype), lambda: self._tables(u.dtype))
        within, observed, driven, powers = tables
        batch, _, tokens = u.shape
        valid = torch.tensor(placement.valid or (tokens,) * batch, device=u.device)
        x, outputs = _as_real(state.kept), []
        for at in range(0, tokens, _BLOCK):
            block = u[..., at : at + _BLOCK]
            size = block.shape[-1]
            y = torch.einsum("bhs,hts->bht", block, within[:, :size, :size])
            outputs.append(y + torch.einsum("bhn,htn->bht", x, observed[:, :size]))
            full = valid >= at + _BLOCK
            if bool(full.any()):
                further = torch.einsum("bhn,hmn->bhm", x, powers[_BLOCK])
                further = further + torch.einsum("bhs,hns->bhn", block, driven)
                x = torch.where(full[:, None, None], further, x)
        # What is left of each row, at most a block less one: its binary digits, from the greatest.
        begin = valid - valid % _BLOCK
        size = _BLOCK // 2
        while size:
            take = (valid & size) > 0
            if bool(take.any()):
                places = (begin[:, None] + torch.arange(size, device=u.device)).clamp(max=tokens - 1)
                block = u.gather(2, places[:, None].expand(-1, u.shape[1], -1))
                further = torch.einsum("bhn,hmn->bhm", x, powers[size])
                further = further + torch.einsum("bhs,hns->bhn", block, driven[..., -size:])
                x = torch.where(take[:, None, None], further, x)
                begin = begin + size * take
            size //= 2
        state.kept = _as_complex(x)
        return torch.cat(outputs, dim=-1)

    def _step(self, u: torch.Tensor, state: Rows) -> torch.Tensor:
        """One token in O(N R)."""
        dtype = state.kept.dtype
        name = ("step", self.rate, dtype)
        z, p, b, c = self._kept.get(self, name, lambda: [each.to(dtype) for each in self._parts()])
        x = state.kept
        # A_bar = 2 (I - A / 2)^-1 - I and b_bar = (I - A / 2)^-1 b, with A and b times the step.
        state.kept = _resolve(z, p, 2 * x + b * u) - x
        result: torch.Tensor = 2 * (c[0] * state.kept).real.sum(-1, keepdim=True)
        return result

    def _parts(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Step a (H, N / 2), sqrt(step) P (R, H, N / 2), step B (H, N / 2) and C, complex128."""
        steps = self.steps().double()[:, None]
        a = torch.complex(-torch.exp(self.log_decay.double()), self.turn.double())
        times = self.channels // len(a)
        p = torch.view_as_complex(self.coupling.double()).repeat_interleave(times, dim=1)
        b = torch.view_as_complex(self.inputs.double()).repeat_interleave(times, dim=0)
        c = torch.view_as_complex(self.weights.double())
        return steps * a.repeat_interleave(times, dim=0), steps.sqrt() * p, steps * b, c

    def _dense(self, z: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        """A_bar (H, N, N) on real vectors [Re x_1, Im x_1, Re x_2, ...]."""
        size = 2 * z.shape[1]
        units = _as_complex(torch.eye(size, dtype=torch.float64, device=z.device))[:, None]
        columns = 2 * _resolve(z, p, units.expand(-1, len(z), -1)) - units
        return _as_real(columns).permute(1, 2, 0)

    def _tables(
        self, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict[int, torch.Tensor]]:
        """For blocks of Q tokens: the kernel as a matrix (H, Q, Q), C A_bar^(t + 1) (H, Q, N),
        A_bar^(Q - 1 - s) b_bar (H, N, Q), and A_bar^(2^i) (H, N, N)."""
        z, p, b, c = self._parts()
        powers = {1: self._dense(z, p)}
        driven = _as_real(_resolve(z, p, b))[..., None]
        rows = 2 * _as_real(c[0].conj())[:, None]  # y = 2 Re C x
        observed = rows @ powers[1]
        size = 1
        while size < _BLOCK:
            driven = torch.cat((powers[size] @ driven, driven), dim=-1)
            observed = torch.cat((observed, observed @ powers[size]), dim=1)
            powers[2 * size] = powers[size] @ powers[size]
            size *= 2
        kernel = torch.cat((rows, observed[:, :-1]), dim=1) @ driven[..., -1:]  # (H, Q, 1)
        lag = torch.arange(size, device=z.device)
        lags = lag[:, None] - lag
        within = kernel[:, lags.clamp(min=0), 0].masked_fill(lags < 0, 0.0)
        return (
            within.to(dtype),
            observed.to(dtype),
            driven.to(dtype),
            {key: each.to(dtype) for key, each in powers.items()},
        )


def _resolve(z: torch.Tensor, p: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(I - A / 2)^-1 x for A = diag(z) - sum over r of p_r p_r^*, on one half of conjugate pairs.

    Args:
        z: (H, N / 2).
        p: (R, H, N / 2).
        x: (..., H, N / 2).
    """
    inverse = 1 / (1 - z / 2)
    scaled = inverse * p
    # Woodbury's identity; 2 Re adds what the other half of the pairs contributes.
    inner = torch.einsum("rhn,shn->hrs", p.conj(), scaled).real
    inner = inner + torch.eye(len(p), dtype=inner.dtype, device=z.device)
    x = inverse * x
    along = torch.einsum("rhn,...hn->...hr", p.conj(), x).real
    solved = along / inner[..., 0] if len(p) == 1 else torch.linalg.solve(inner, along[..., None])[..., 0]
    return x - torch.einsum("...hr,rhn->...hn", solved.to(x.dtype), scaled)


def _as_real(x: torch.Tensor) -> torch.Tensor:
    """(..., N / 2) complex to (..., N) real, real and imaginary parts in turn."""
    return torch.view_as_real(x.resolve_conj()).flatten(-2)


def _as_complex(x: torch.Tensor) -> torch.Tensor:
    """The reverse of `_as_real`."""
    return torch.view_as_complex(x.contiguous().view(*x.shape[:-1], -1, 2))


@dataclass(frozen=True)
class S4Settings:
    """Settings of S4 (Gu, Goel and Ré 2022, arXiv 2111.00396; its repository's layer/s4.yaml)."""

    state: int = 64
    """Real numbers N of a channel's state, even."""
    measure: hippo.Measure = "legs"
    """What the state begins to remember: legs, legt, lmu, lagt, glagt, fout, foud or legsd (HiPPO)."""
    copies: int = 1
    """Sets of poles that channels share, a divisor of the width."""
    step_min: float = 0.001
    """Least step at the beginning, > 0; 0.0001 for Path-X."""
    step_max: float = 0.1
    """Greatest step at the beginning."""
    bidirectional: bool = False
    """Look ahead with a second kernel; no streaming then."""
    rate: float = 1.0
    """Factor of all steps, > 0: 0.5 for signals sampled twice as often as in training."""

    def __post_init__(self) -> None:
        if self.copies < 1:
            raise DataError(f"copies is {self.copies}; it must be at least 1")
        check_steps(self.step_min, self.step_max)
        checked_rate(self.rate)


def make(config: DecoderConfig, layer: int) -> StateSpace:
    """The S4 of a decoder's layer; its settings are the same in all."""
    del layer
    settings = settings_of(config, "s4", S4Settings)
    system = LowRank(
        config.dim,
        settings.state,
        measure=settings.measure,
        copies=settings.copies,
        step_min=settings.step_min,
        step_max=settings.step_max,
        outputs=2 if settings.bidirectional else 1,
    )
    mixer = StateSpace(config.dim, system, bidirectional=settings.bidirectional)
    mixer.rate = settings.rate
    return mixer
