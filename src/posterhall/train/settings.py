"""Settings of the training loop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from posterhall.errors import DataError

Schedule = Literal["cosine", "linear", "constant", "wsd"]
Optimiser = Literal["adamw", "rmsprop"]
Precision = Literal["float32", "bfloat16", "auto"]


@dataclass(frozen=True)
class TrainSettings:
    """What determines a training, beside the model and the data.

    Defaults are those of Brown et al. 2020 (GPT-3, app. B) and of Muennighoff et al. 2023 (app. S).

    Raises:
        DataError: for a value outside its range, or more than one length.
    """

    lr: float = 6e-4
    """Peak learning rate, > 0. GPT-3's for its smallest model (125 M, table 2.1); a model of 0.1 to 10 M
    parameters takes 1e-3 to 3e-3."""
    schedule: Schedule = "cosine"
    """Course after the warm-up: cosine or linear down to min_lr_fraction, constant, or wsd (constant, then
    linear down over the last decay_fraction of the steps)."""
    min_lr_fraction: float = 0.1
    """Share of the peak rate at which the schedule ends, in [0, 1] (both papers: a tenth)."""
    warmup: float = 0.01
    """Linear warm-up: a share of all steps if below 1 (Muennighoff et al.: 1 %), else steps."""
    decay_fraction: float = 0.2
    """wsd: share of the steps over which the rate falls, in (0, 1] (Hägele et al. 2024: 10 to 20 %)."""
    batch: int = 32
    """Items (rows) of one pass through the model, over all processes, >= 1."""
    accumulate: int = 1
    """Passes a step, whose gradients are added up, weighted by their labels, >= 1."""
    steps: int | None = None
    """Length of training in steps; at most one of steps, epochs and tokens."""
    epochs: float | None = None
    """Length of training in passes over the data. Without any length: 1."""
    tokens: int | None = None
    """Length of training in tokens (rounded to whole rows)."""
    optimiser: Optimiser = "adamw"
    """adamw, or rmsprop (with which DPO's models were trained)."""
    beta1: float = 0.9
    """AdamW's decay of the mean gradient, in [0, 1)."""
    beta2: float = 0.95
    """AdamW's decay of the mean square, in [0, 1) (GPT-3; Muennighoff et al. .999 but for the two largest
    budgets)."""
    rms_decay: float = 0.99
    """RMSprop's decay of the mean square, in [0, 1) (torch's default, and that of DPO's code)."""
    eps: float = 1e-8
    """Addend to the root mean square, > 0."""
    weight_decay: float = 0.1
    """Weight decay of matrices only (not of gains), >= 0: AdamW's decoupled one; RMSprop adds it to the
    gradient, as torch has it."""
    paged: bool = False
    """Keep the optimiser's moments where they can be moved out of memory (QLoRA's paged optimisers): in a
    mapped file of the run on a CPU, in managed memory on CUDA (needs bitsandbytes)."""
    memory_budget: int | None = None
    """Bytes that the process may hold in memory, files' pages aside; none: no limit. Looked at before the
    first step and with every line of metrics."""
    clip: float = 1.0
    """Largest norm of the gradient; a larger one is scaled down to it. 0 is off."""
    dtype: Precision = "auto"
    """Of products and activations; weights and optimiser keep float32. auto: bfloat16 on accelerators
    that have it, float32 on CPUs (where bfloat16 is slower unless they have AMX)."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, more time."""
    eval_every: int = 0
    """Steps between two evaluations; 0: only after the last step."""
    keep: Literal["best", "last"] = "best"
    """Which weights are left at the end: those of the best evaluation, or the last ones."""
    log_every: int = 10
    """Steps between two lines of metrics, which hold means over them, >= 1."""
    seed: int = 0
    """Everything drawn (initial weights, order, dropout) follows from it."""

    def __post_init__(self) -> None:
        for name in ("batch", "accumulate", "log_every"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("lr", "eps"):
            if not 0 < getattr(self, name) < math.inf:
                raise DataError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("weight_decay", "clip", "warmup", "eval_every"):
            if not 0 <= getattr(self, name) < math.inf:
                raise DataError(f"{name} is {getattr(self, name)}; it must be at least 0")
        for name in ("beta1", "beta2", "rms_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise DataError(f"{name} is {getattr(self, name)}; it must be at least 0 and below 1")
        if self.optimiser not in get_args(Optimiser):
            raise DataError(
                f"optimiser is '{self.optimiser}'; it must be one of {', '.join(get_args(Optimiser))}"
            )
        if self.memory_budget is not None and self.memory_budget < 1:
            raise DataError(f"memory_budget is {self.memory_budget}; it must be at least 1 byte")
        if not 0 <= self.min_lr_fraction <= 1:
            raise DataError(f"min_lr_fraction is {self.min_lr_fraction}; it must be from 0 to 1")
        if not 0 < self.decay_fraction <= 1:
            raise DataError(f"decay_fraction is {self.decay_fraction}; it must be above 0 and at most 1")
        given = {n: getattr(self, n) for n in ("steps", "epochs", "tokens") if getattr(self, n) is not None}
        if len(given) > 1:
            raise DataError(f"{' and '.join(given)} all say how long to train; give one of them")
        for name, value in given.items():
            if not 0 < value < math.inf:
                raise DataError(f"{name} is {value}; it must be above 0")

    @property
    def rows_a_step(self) -> int:
        """Items of one step."""
        return self.batch * self.accumulate

    def rows(self, *, items: int, item_tokens: int | None) -> int:
        """Items that a training sees in all.

        Args:
            items: items an epoch.
            item_tokens: labels an item, if they all have the same number.

        Raises:
            DataError: if the length is given in tokens and items have none.
        """
        if self.steps is not None:
            return self.steps * self.rows_a_step
        if self.tokens is not None:
            if item_tokens is None:
                raise DataError(
                    "tokens is given, but these data are not rows of tokens; give steps or epochs"
                )
            return max(1, round(self.tokens / item_tokens))
        return max(1, round((1.0 if self.epochs is None else self.epochs) * items))
