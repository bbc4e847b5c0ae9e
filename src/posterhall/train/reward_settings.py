"""What determines the training of a reward model. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from posterhall.errors import DataError
from posterhall.train.adapter_settings import AdapterSettings
from posterhall.train.preferences import PreferenceSettings
from posterhall.train.settings import Schedule

KIND = "train reward"
"""Of its runs."""


@dataclass(frozen=True)
class RewardSettings(PreferenceSettings, AdapterSettings):
    """Everything that determines a reward model, beside the model it begins as and the data.

    Defaults are those of TRL's RewardTrainer where nothing else is said.

    Raises:
        DataError: for a value outside its range.
    """

    margin: float = 0.0
    """By how much a chosen answer should win, >= 0; subtracted from every difference of rewards."""
    score_margin: float = 0.0
    """The same for each unit of the difference of the two answers' scores, >= 0; needs data with scores
    (Touvron et al. 2023, Llama 2, eq. 2 and table 27)."""
    centring: float = 0.01
    """Weight of the mean of (r_w + r_l)^2, >= 0 (Eisenstein et al. 2023; TRL recommends 0.01)."""
    lr: float = 1e-4
    """Peak learning rate, > 0."""
    schedule: Schedule = "linear"
    """Course after the warm-up; see TrainSettings."""
    min_lr_fraction: float = 0.0
    """Share of the peak rate at which the schedule ends, in [0, 1]."""
    warmup: float = 0.0
    """Linear warm-up: a share of all steps if below 1, else steps."""
    batch: int = 8
    """Comparisons of one pass through the model, over all processes, >= 1."""
    accumulate: int = 8
    """Passes a step, >= 1."""
    beta2: float = 0.999
    """AdamW's decay of the mean square, in [0, 1)."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay, >= 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("margin", "score_margin", "centring"):
            if not 0 <= getattr(self, name) < math.inf:
                raise DataError(f"{name} is {getattr(self, name)}; it must be at least 0")
