"""S4D: a diagonal state-space model a channel, as a convolution over whole sequences and as a recurrence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from posterhall.errors import DataError
from posterhall.models.mixers import settings_of
from posterhall.models.mixers.diagonal import Diagonal, Discretisation, Poles
from posterhall.models.mixers.time_invariant import StateSpace, check_steps, checked_rate

if TYPE_CHECKING:
    from posterhall.models.config import DecoderConfig


@dataclass(frozen=True)
class S4DSettings:
    """Settings of S4D (Gu, Gupta, Goel and Ré 2022, arXiv 2206.11893)."""

    state: int = 64
    """Real numbers N of a channel's state, even: N / 2 pairs of poles."""
    init: Poles = "lin"
    """Where the poles begin: lin, inv, inv2, quad, legs, real or random (S4D, table 1)."""
    discretisation: Discretisation = "zoh"
    """zoh, bilinear, euler (not stable at large steps; for teaching) or dss (whole sequences only)."""
    copies: int | None = None
    """Sets of poles that channels share, a divisor of the width; none: one a channel."""
    step_min: float = 0.001
    """Least step at the beginning, > 0; about the inverse of the longest dependence in tokens."""
    step_max: float = 0.1
    """Greatest step at the beginning."""
    bidirectional: bool = False
    """Look ahead with a second kernel; no streaming then."""
    rate: float = 1.0
    """Factor of all steps, > 0: 0.5 for signals sampled twice as often as in training."""
    bandlimit: float | None = None
    """Drop poles that turn by so many half turns a step or more (S4ND, 0.5 there); none: keep all."""

    def __post_init__(self) -> None:
        if self.state < 1:
            raise DataError(f"state is {self.state}; it must be at least 1")
        if self.copies is not None and self.copies < 1:
            raise DataError(f"copies is {self.copies}; it must be at least 1, or none")
        if self.bandlimit is not None and not self.bandlimit > 0:
            raise DataError(f"bandlimit is {self.bandlimit}; it must be above 0, or none")
        check_steps(self.step_min, self.step_max)
        checked_rate(self.rate)


def make(config: DecoderConfig, layer: int) -> StateSpace:
    """The S4D of a decoder's layer; its settings are the same in all."""
    del layer
    settings = settings_of(config, "s4d", S4DSettings)
    system = Diagonal(
        config.dim,
        settings.state,
        init=settings.init,
        discretisation=settings.discretisation,
        copies=settings.copies,
        step_min=settings.step_min,
        step_max=settings.step_max,
        outputs=2 if settings.bidirectional else 1,
        bandlimit=settings.bandlimit,
        limit=config.max_length,
    )
    mixer = StateSpace(config.dim, system, bidirectional=settings.bidirectional)
    mixer.rate = settings.rate
    return mixer
