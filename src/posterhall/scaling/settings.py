"""Settings of a fit."""

from __future__ import annotations

import math
from dataclasses import dataclass

from posterhall.errors import DataError


@dataclass(frozen=True)
class FitSettings:
    """How a law is fitted, and what is found out about the fit."""

    delta: float = 1e-3
    """Where residuals of ln L stop being squared, > 0; 1e-3 in Hoffmann et al. 2022, eq. 4."""
    bootstrap: int = 200
    """Resamples of the runs (runs that differ by their seed stay together), 0 or at least 50."""
    level: float = 0.95
    """Of all intervals, between 0 and 1."""
    profile: bool = True
    """Whether the lives R* are profiled."""
    held_out: float = 0.2
    """Share of the runs, the largest by compute, that a second fit has to predict; 0 for none, below 1."""
    seed: int = 0
    """Of resampling and of random starts."""
    threads: int | None = None
    """Threads of the resampling, >= 1; none means all usable cores."""

    def __post_init__(self) -> None:
        if not 0 < self.delta < math.inf:
            raise DataError(f"delta is {self.delta}; it must be above 0, as 1e-3")
        if self.bootstrap != 0 and self.bootstrap < 50:
            raise DataError(f"bootstrap is {self.bootstrap}; give 0 for none, or at least 50 resamples")
        if not 0 < self.level < 1:
            raise DataError(f"level is {self.level}; it must lie between 0 and 1, as 0.95")
        if not 0 <= self.held_out < 1:
            raise DataError(f"held_out is {self.held_out}; it must be at least 0 and below 1")
        if self.threads is not None and self.threads < 1:
            raise DataError(f"threads is {self.threads}; it must be at least 1")
