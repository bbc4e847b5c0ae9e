"""What determines a training on preferences. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from posterhall.data.preference_tokens import Comparison
from posterhall.errors import DataError, did_you_mean
from posterhall.train.adapter_settings import AdapterSettings
from posterhall.train.preferences import PreferenceSettings
from posterhall.train.settings import Schedule

KIND = "train dpo"
"""Of its runs."""

Loss = Literal[
    "dpo",
    "robust",
    "ipo",
    "hinge",
    "plackett_luce",
    "kto",
    "preferred_ft",
    "unlikelihood",
    "simpo",
    "orpo",
]
WITH_REFERENCE = ("dpo", "robust", "ipo", "hinge", "plackett_luce", "kto")
"""Losses that look at the reference."""


@dataclass(frozen=True)
class DpoSettings(PreferenceSettings, AdapterSettings):
    """Everything that determines a training on preferences, beside the model and the data.

    Defaults are those of Rafailov et al. 2023, app. B, but for the optimiser: AdamW, at the same rate (their
    code has 5e-7). optimiser=rmsprop is theirs.

    Raises:
        DataError: for a value outside its range.
    """

    loss: Loss = "dpo"
    """dpo, robust, ipo, hinge, plackett_luce, kto, preferred_ft, unlikelihood, simpo or orpo; see
    `posterhall.objectives.preference`. plackett_luce takes rankings whole, the others all their pairs."""
    beta: float = 0.1
    """Tie to the reference, > 0 (App. B: 0.1, for TL;DR 0.5). simpo: scale of the reward, 2 or more."""
    label_smoothing: float = 0.0
    """dpo: conservative DPO; robust: what it corrects for. Share of labels taken to be wrong, in [0, 0.5)."""
    reference_free: bool = False
    """dpo: take a uniform reference for the loss."""
    normalisation: Literal["sum", "mean"] = "sum"
    """ipo: log-ratios of whole answers (the paper, DPO's code), or a token (TRL)."""
    alpha: float = 0.5
    """unlikelihood: weight of the rejected answer, in [0, 1] (§6.1 tries 0.05 to 1)."""
    gamma: float = 1.0
    """simpo: margin, >= 0 (Meng et al. 2024: 0.3 to 1.6)."""
    odds_weight: float = 0.1
    """orpo: weight of the odds ratio, >= 0 (Hong et al. 2024: 0.1 to 0.25)."""
    desirable_weight: float = 1.0
    """kto: weight of chosen answers, > 0."""
    undesirable_weight: float = 1.0
    """kto: weight of rejected answers, > 0."""
    lr: float = 1e-6
    """Peak learning rate, > 0 (App. B). Small models, trained on from nothing much, take 1e-5 to 1e-4."""
    schedule: Schedule = "constant"
    """Course after the warm-up; see TrainSettings."""
    warmup: float = 150
    """Linear warm-up: a share of all steps if below 1, else steps (App. B)."""
    batch: int = 8
    """Comparisons of one pass through the model, over all processes, >= 1."""
    accumulate: int = 8
    """Passes a step, >= 1; with batch 8 the paper's 64."""
    beta2: float = 0.999
    """AdamW's decay of the mean square, in [0, 1) (torch's default, as in TRL)."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay, >= 0; the tie to the reference is what holds the weights."""
    clip: float = 10.0
    """Largest norm of the gradient (the paper's code); 0 is off."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss not in get_args(Loss):
            raise DataError(
                f"loss is '{self.loss}'; it must be one of {', '.join(get_args(Loss))}."
                f"{did_you_mean(self.loss, get_args(Loss))}"
            )
        if not 0 < self.beta < math.inf:
            raise DataError(f"beta is {self.beta}; it must be above 0")
        if not 0 <= self.label_smoothing < 0.5:
            raise DataError(f"label_smoothing is {self.label_smoothing}; it must be from 0 to below 0.5")
        if self.label_smoothing and self.loss not in ("dpo", "robust"):
            raise DataError(
                f"label_smoothing is {self.label_smoothing}, but {self.loss} has none; dpo and robust have"
            )
        if self.reference_free and self.loss != "dpo":
            raise DataError(f"reference_free goes with loss dpo, not with {self.loss}")
        if self.normalisation not in ("sum", "mean"):
            raise DataError(f"normalisation is '{self.normalisation}'; it must be sum or mean")
        if self.lora_dropout:
            raise DataError(
                f"lora_dropout is {self.lora_dropout}; preferences are learnt without dropout, since the "
                "model must at first be its reference"
            )
        if not 0 <= self.alpha <= 1:
            raise DataError(f"alpha is {self.alpha}; it must be from 0 to 1")
        for name in ("gamma", "odds_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise DataError(f"{name} is {getattr(self, name)}; it must be at least 0")
        for name in ("desirable_weight", "undesirable_weight"):
            if not 0 < getattr(self, name) < math.inf:
                raise DataError(f"{name} is {getattr(self, name)}; it must be above 0")

    @property
    def compare(self) -> Comparison:
        """What an item is."""
        return "rankings" if self.loss == "plackett_luce" else "pairs"

    @property
    def has_reference(self) -> bool:
        """Whether reference log-probabilities are needed."""
        return self.loss in WITH_REFERENCE
