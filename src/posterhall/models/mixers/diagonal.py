"""Diagonal state-space systems: where poles begin, kernel and recurrence (S4D, Gu et al. 2022)."""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np

from posterhall.errors import DataError
from posterhall.extras import nn, torch
from posterhall.models.mixers import Placement, _fft, _vandermonde, discretize, hippo
from posterhall.models.mixers.states import Rows, right_aligned
from posterhall.models.mixers.time_invariant import System, drawn_steps, steady

Poles = Literal["lin", "inv", "inv2", "quad", "legs", "real", "random"]
"""Where the poles begin (S4D, table 1, and its repository), for a state of N real numbers and n = 0, 1, ...:

- lin: -1/2 + i pi n; inv: -1/2 + i (N / pi) (N / (2n + 1) - 1); inv2: with n + 1 for 2n + 1;
  quad: -1/2 + i (2n + 1)^2 / pi; legs: the poles of HiPPO-LegS's normal part; random: -1/2 + i exp(N(0, 1)),
  N / 2 of them, each standing for itself and its conjugate;
- real: -(n + 1), N of them, real for good: the eigenvalues of HiPPO-LegS.
"""

Discretisation = Literal["zoh", "bilinear", "euler", "dss"]
"""As in `discretize`; dss: the softmax over all positions of DSS (Gupta et al. 2022, eq. 9), whose poles may
lie anywhere."""


def poles(init: Poles, state: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """The poles of a state of `state` real numbers, complex128: (N / 2,), and (N,) for real.

    Raises:
        DataError: for an unknown name or an odd state.
    """
    if init not in get_args(Poles):
        raise DataError(f"init is {init!r}; it must be one of: {', '.join(get_args(Poles))}")
    if init == "real":
        return -torch.arange(1, state + 1, dtype=torch.float64) + 0j
    if state < 2 or state % 2:
        raise DataError(f"a state of {state}; poles come in pairs, so it must be an even number of 2 or more")
    n = np.arange(state // 2)
    if init == "random":
        drawn = torch.empty(state // 2, dtype=torch.float64).normal_(generator=generator)
        imaginary = drawn.exp().numpy()
    elif init == "lin":
        imaginary = math.pi * n
    elif init == "inv":  # N is the whole state, not the number of pairs
        imaginary = state / math.pi * (state / (2 * n + 1) - 1)
    elif init == "inv2":
        imaginary = state / math.pi * (state / (n + 1) - 1)
    elif init == "quad":
        imaginary = (2 * n + 1) ** 2 / math.pi
    else:
        imaginary = hippo.split("legsd", state).poles.imag
    return torch.complex(torch.full((state // 2,), -0.5, dtype=torch.float64), torch.from_numpy(imaginary))


class Diagonal(System):
    """x_k = a_bar x_{k-1} + u_k and y_k = 2 Re sum over n of c_n b_bar_n x_{k, n}, for each channel.

    B is 1: only the product of B and C shows. (S4D's repository learns both. For `legs` C begins with the
    B of HiPPO in it, and without the factor 1/2 of the theory, as there.)

    Args:
        channels: H.
        state: N real numbers a channel.
        init: see `Poles`.
        discretisation: see `Discretisation`.
        copies: sets of poles, a divisor of H that channels share; None: one a channel.
        step_min, step_max: bounds of the steps' beginnings.
        outputs: kernels a channel R.
        bandlimit: drop poles that turn by more than so many half turns a step: what they would add is
            aliased (S4ND); None: keep all.
        inputs: neighbouring inputs that go through each channel's system, each with a state of its own:
            the recurrence is over H x inputs of them.
        limit: longest sequence, for dss.

    Attributes:
        log_step: (H,), logarithms of the steps.
        log_decay: (S, P), logarithms of -Re a; so every pole is stable whatever is learned. Under dss
            `decay` (S, P) instead, Re a itself.
        turn: (S, P), Im a; none for real poles.
        weights: (R, H, P, 2), real and imaginary parts of C, or (R, H, P) for real poles.
    """

    def __init__(
        self,
        channels: int,
        state: int = 64,
        *,
        init: Poles = "lin",
        discretisation: Discretisation = "zoh",
        copies: int | None = None,
        step_min: float = 1e-3,
        step_max: float = 0.1,
        outputs: int = 1,
        bandlimit: float | None = None,
        inputs: int = 1,
        limit: int | None = None,
    ) -> None:
        super().__init__()
        copies = copies or channels
        if channels % copies:
            raise DataError(f"copies is {copies} for {channels} channels; it must divide them")
        self.channels, self.state, self.init, self.discretisation = channels, state, init, discretisation
        self.step_min, self.step_max, self.bandlimit, self.inputs = step_min, step_max, bandlimit, inputs
        self.limit = limit if discretisation == "dss" else None
        self.is_real = init == "real"
        count = len(poles(init, state, torch.Generator().manual_seed(0)))
        self.log_step = steady(torch.zeros(channels))
        if discretisation == "dss":
            self.decay = steady(torch.zeros(copies, count))
        else:
            self.log_decay = steady(torch.zeros(copies, count))
        if self.is_real:
            self.weights = nn.Parameter(torch.zeros(outputs, channels, count))
        else:
            self.turn = steady(torch.zeros(copies, count))
            self.weights = nn.Parameter(torch.zeros(outputs, channels, count, 2))
        self._kept = _fft.Kept()

    def initialise(self, generator: torch.Generator) -> None:
        """Steps log-uniform, poles as `init` says, C complex normal of variance 1."""
        with torch.no_grad():
            self.log_step.copy_(drawn_steps((self.channels,), self.step_min, self.step_max, generator))
            rows = self.log_decay if self.discretisation != "dss" else self.decay
            for row in range(len(rows)):
                a = poles(self.init, self.state, generator)
                rows[row] = a.real if self.discretisation == "dss" else torch.log(-a.real)
                if not self.is_real:
                    self.turn[row] = a.imag
            drawn = torch.empty(self.weights.shape).normal_(generator=generator)
            self.weights.copy_(drawn if self.is_real else drawn / math.sqrt(2))
            if self.init == "legs":
                inputs = torch.from_numpy(2 * hippo.split("legsd", self.state).inputs.real)
                self.weights.mul_(inputs.to(self.weights.dtype)[:, None])

    def poles(self) -> torch.Tensor:
        """a, (H, P), complex."""
        real = self.decay if self.discretisation == "dss" else -torch.exp(self.log_decay)
        a = torch.complex(real, torch.zeros_like(real) if self.is_real else self.turn)
        return a.repeat_interleave(self.channels // len(a), dim=0)

    def discrete(self) -> tuple[torch.Tensor, torch.Tensor]:
        """log a_bar (H, P) and the weights of the states c b_bar (R, H, P), complex."""
        a, steps = self.poles(), self.steps()[:, None]
        if self.discretisation == "dss":
            z, b = steps * a, torch.ones_like(a)
        else:
            z, b = discretize.diagonal(a, steps.to(a.dtype), self.discretisation)
        # A real pole stands for itself alone, and 2 Re would count it twice.
        c = self.weights / 2 + 0j if self.is_real else torch.view_as_complex(self.weights)
        if self.bandlimit is not None:
            turns = (steps * a.imag).abs() / (2 * math.pi)
            c = c.masked_fill(turns >= self.bandlimit / 2, 0.0)
        return z, c * b

    def kernel(self, length: int) -> torch.Tensor:
        """(R, H, L)."""
        z, c = self.discrete()
        if self.discretisation == "dss":
            return self._softmax_kernel(z, c * self.steps()[:, None], length)
        return _vandermonde.kernel(c, z, length)

    def _softmax_kernel(self, z: torch.Tensor, c: torch.Tensor, length: int) -> torch.Tensor:
        """c (e^z - 1) / (z (e^(zL) - 1)) e^(lz), L the longest sequence; read backwards where Re z > 0."""
        limit = self.limit or length
        ahead = z.real > 0
        inward = torch.where(ahead, -z, z)
        whole = discretize.expm1(inward * limit)
        # A pole that comes round to where it began would divide by 0.
        inverse = whole.conj() / (whole.abs().square() + 1e-12)
        c = c * discretize.relative_expm1(inward) * inverse
        fading = _vandermonde.kernel(c.masked_fill(ahead, 0.0), inward, length)
        growing = _vandermonde.kernel(c.masked_fill(~ahead, 0.0), inward, limit)
        return fading - growing.flip(-1)[..., :length]

    def new_state(self, batch: int, *, dtype: torch.dtype, device: torch.device) -> Rows:
        """(B, H x inputs, P), complex: zeros."""
        if self.discretisation == "dss":
            raise DataError(
                "dss divides by a sum over all positions, so it has no recurrence; give it whole sequences, "
                "or make it with discretisation=zoh"
            )
        kind = torch.complex128 if dtype == torch.float64 else torch.complex64
        shape = (batch, self.channels * self.inputs, self.log_decay.shape[1])
        return Rows(torch.zeros(shape, dtype=kind, device=device))

    def run(self, u: torch.Tensor, placement: Placement, state: Rows) -> torch.Tensor:
        """See `System`."""
        z, c, a_bar = self._kept.get(self, self.rate, self._for_steps)
        before = state.kept
        if u.shape[-1] == 1 and placement.valid is None:
            state.kept = torch.addcmul(u.to(before.dtype), a_bar, before)
            found: torch.Tensor = 2 * (c[0] * state.kept).real.sum(-1, keepdim=True)
            return found
        return recur(u, z, c[:1], placement, state)

    def _for_steps(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        z, c = (each.repeat_interleave(self.inputs, dim=-2) for each in self.discrete())
        return z, c, torch.exp(z)


def recur(
    u: torch.Tensor, z: torch.Tensor, c: torch.Tensor, placement: Placement, state: Rows
) -> torch.Tensor:
    """Go on with x_k = exp(z) x_{k-1} + u_k and y_k = 2 Re sum over n of c_n x_{k, n}, for many tokens.

    Args:
        u: (B, H, T), real.
        z: (H, P), complex.
        c: (1, H, P), complex.
        placement: where the tokens stand.
        state: x before, (B, H, P), and afterwards.

    Returns:
        (B, H, T).
    """
    before, tokens = state.kept, u.shape[-1]
    y = _fft.convolve(u, _vandermonde.kernel(c, z, tokens)[0])
    if placement.start != 0:  # what is there runs on: 2 Re sum of c a_bar^(l + 1) x
        y = y + _vandermonde.kernel(c[0] * torch.exp(z) * before, z, tokens)
    counts = torch.tensor(placement.valid or (tokens,) * placement.batch, device=u.device)
    aligned = right_aligned(u.transpose(1, 2), placement).transpose(1, 2)
    decayed = torch.exp(z * counts[:, None, None]) * before
    state.kept = decayed + _vandermonde.moments(aligned.flip(-1), z)
    return y
