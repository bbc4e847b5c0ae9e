"""What state-space layers share: one set of weights read as a convolution and as a recurrence.

    x'(t) = A x(t) + B u(t),  y(t) = C x(t) + D u(t)

for each channel by itself, with steps of a size that is learned. A `System` knows A, B, C and the steps; a
`StateSpace` layer convolves with its kernel, or runs its recurrence where there is a state, adds D u and
mixes the channels.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

from posterhall.errors import DataError
from posterhall.extras import functional, nn, torch
from posterhall.models.layers import Linear
from posterhall.models.mixers import Growth, Placement, _fft, documents
from posterhall.models.mixers.states import Rows, blanked

_HALF = ("torch.float16", "torch.bfloat16")
LR_MOST = 1e-3
"""Highest learning rate of steps, poles and inputs (S4's configs); they do not decay either."""


class FullPrecision(nn.Module):
    """A module whose parameters stay in float32 where a model is turned to half precision.

    Poles and steps are exponentiated as many times as a sequence is long: three digits are not enough.
    """

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        def kept(tensor: torch.Tensor) -> torch.Tensor:
            moved: torch.Tensor = fn(tensor)
            return tensor.to(moved.device) if str(moved.dtype) in _HALF else moved

        return super()._apply(kept, recurse)  # type: ignore[no-untyped-call]


class System(FullPrecision):
    """A linear system a channel: what a `StateSpace` layer needs of it.

    Attributes:
        rate: factor of all steps, > 0: 0.5 for a signal sampled twice as often as those of the training.
        limit: longest sequence; None: there is none.
    """

    rate = 1.0
    limit: int | None = None
    log_step: nn.Parameter

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the beginning."""
        raise TypeError(f"{type(self).__name__} has no beginning")

    def kernel(self, length: int) -> torch.Tensor:
        """C A_bar^l B_bar for l < length: (R, H, L), R = 1, or 2 with the kernel that looks ahead."""
        raise TypeError(f"{type(self).__name__} has no kernel")

    def new_state(self, batch: int, *, dtype: torch.dtype, device: torch.device) -> Rows:
        """The state of a beginning: zeros, (B, H, N)."""
        raise TypeError(f"{type(self).__name__} has no state")

    def run(self, u: torch.Tensor, placement: Placement, state: Rows) -> torch.Tensor:
        """The recurrence over u (B, H, T), from a state that takes it up; (B, H, T) without D u."""
        raise TypeError(f"{type(self).__name__} has no recurrence")

    def steps(self) -> torch.Tensor:
        """Step sizes, of the shape of `log_step`.

        Raises:
            DataError: if one is not a number: training has gone wrong before.
        """
        steps = torch.exp(self.log_step) * self.rate
        if not bool(torch.isfinite(steps).all()):
            raise DataError(
                "step sizes of a state-space layer are not finite; go back to an earlier checkpoint and "
                "lower the learning rate"
            )
        return steps

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        for name in ("log_decay", "log_step"):
            given = state_dict.get(prefix + name)
            if given is not None and not bool((torch.isfinite(given) & (torch.exp(given.float()) > 0)).all()):
                raise DataError(
                    f"{prefix}{name} holds {_worst(given)}, which makes "
                    + ("poles with Re a >= 0: the layer would not be stable" if name == "log_decay" else
                       "steps of 0 or infinity")
                    + "; the weights are broken, load others"
                )  # fmt: skip
        super()._load_from_state_dict(state_dict, prefix, *others)


class StateSpace(nn.Module):
    """y = GLU(W gelu(K * u + D u)) (S4: Gu et al. 2022, arXiv 2111.00396; the layer of its repository).

    Args:
        dim: channels D.
        system: of all channels.
        bidirectional: convolve with a second kernel over what comes after each token; then there is no
            state, and nothing streams.
    """

    growth: Growth = "constant"

    def __init__(self, dim: int, system: System, *, bidirectional: bool = False) -> None:
        super().__init__()
        self.causal = not bidirectional
        self.system = system
        self.skip = nn.Parameter(torch.ones(dim))
        self.out = Linear(dim, 2 * dim)
        self._kept = _fft.Kept()

    def initialise(self, generator: torch.Generator) -> None:
        """D ~ N(0, 1), W uniform in +-1 / sqrt(dim), and the system as it has it."""
        bound = 1 / math.sqrt(len(self.skip))
        with torch.no_grad():
            self.system.initialise(generator)
            self.skip.copy_(torch.empty(self.skip.shape).normal_(generator=generator))
            weight = self.out.weight
            weight.copy_(torch.empty(weight.shape).uniform_(-bound, bound, generator=generator))

    @property
    def rate(self) -> float:
        """Factor of all steps; set it to run on signals of another sampling rate, without training anew."""
        return self.system.rate

    @rate.setter
    def rate(self, value: float) -> None:
        self.system.rate = checked_rate(value)

    def new_state(self, batch: int, max_length: int, *, dtype: torch.dtype, device: torch.device) -> Rows:
        """The hidden state of each channel; its size does not depend on max_length.

        Raises:
            DataError: for a layer that looks ahead, and one that is bound to a length.
        """
        refuse_streaming(self)
        return self.system.new_state(batch, dtype=dtype, device=device)

    def forward(self, x: torch.Tensor, placement: Placement, state: Rows | None = None) -> torch.Tensor:
        """(B, T, D) to the same; see `Mixer`."""
        if placement.segments is not None:
            return documents.apart(self, x, placement.segments)
        check_length(placement.end, self.system.limit)
        if not self.causal:
            x = blanked(x, placement)
        u = x.transpose(1, 2).to(working(x.dtype))
        with exactly(u.device):
            y = self._convolved(u) if state is None else self.system.run(u, placement, state)
        y = functional.gelu(y + u * self.skip.to(u.dtype)[:, None]).transpose(1, 2).to(x.dtype)
        return functional.glu(self.out(y))

    def _convolved(self, u: torch.Tensor) -> torch.Tensor:
        tokens = u.shape[-1]
        size = _fft.good_length(2 * tokens - 1)

        def spectrum() -> torch.Tensor:
            kernels = self.system.kernel(tokens).to(u.dtype)
            behind = None if self.causal else kernels[1, :, : tokens - 1]
            return _fft.spectrum(kernels[0], size, behind)

        return _fft.multiply(u, self._kept.get(self, (tokens, self.rate, u.dtype), spectrum), size)


def steady(values: torch.Tensor) -> nn.Parameter:
    """A parameter that does not decay and learns slowly: steps, poles, what drives them."""
    parameter = nn.Parameter(values)
    parameter.no_decay, parameter.lr_most = True, LR_MOST  # type: ignore[attr-defined]
    return parameter


def drawn_steps(
    shape: tuple[int, ...], least: float, most: float, generator: torch.Generator
) -> torch.Tensor:
    """Logarithms of steps, uniform between those of two bounds."""
    return torch.empty(shape).uniform_(math.log(least), math.log(most), generator=generator)


def check_steps(least: float, most: float) -> None:
    """Raise DataError unless 0 < least <= most."""
    if not 0 < least <= most < math.inf:
        raise DataError(f"step_min is {least} and step_max {most}; it must be 0 < step_min <= step_max")


def checked_rate(value: float) -> float:
    """A factor of steps.

    Raises:
        DataError: unless it is above 0.
    """
    if not 0 < value < math.inf:
        raise DataError(f"rate is {value}; it must be above 0 (0.5: sampled twice as often as in training)")
    return value


def check_length(tokens: int, limit: int | None) -> None:
    """Raise DataError for a sequence that a length-bound mixer cannot take."""
    if limit is not None and tokens > limit:
        raise DataError(
            f"{tokens} tokens for a mixer whose kernel is {limit} long; nothing is cut off silently: give "
            "shorter sequences, or make the model with a greater max_length"
        )


def refuse_streaming(mixer: Any) -> None:
    """Raise DataError for a mixer that is not causal."""
    if not mixer.causal:
        raise DataError(
            f"a bidirectional {type(mixer).__name__} sees what comes after each token, so it has no state "
            "and cannot go on from one; give it whole sequences, or make it with bidirectional=false"
        )


def exactly(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Within it autocast does not turn products into half precision."""
    if not torch.is_autocast_enabled(device.type):  # a step has little time to spare
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


def working(dtype: torch.dtype) -> torch.dtype:
    """The type in which kernels and convolutions are computed: there are no transforms in half precision."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _worst(values: torch.Tensor) -> float:
    return float(values.flatten()[torch.isfinite(values.flatten()).int().argmin()])
