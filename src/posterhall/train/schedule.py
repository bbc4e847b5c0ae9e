"""The learning rate of every step."""

from __future__ import annotations

import math

from posterhall.train.settings import TrainSettings


def warmup_steps(settings: TrainSettings, steps: int) -> int:
    """Steps of warm-up in a training of `steps`: at most all but one."""
    wanted = settings.warmup * steps if settings.warmup < 1 else settings.warmup
    return min(round(wanted), steps - 1)


def rate(settings: TrainSettings, step: int, steps: int) -> float:
    """The learning rate of step `step` (0 is the first) of `steps`.

    It rises linearly to `lr` at the last step of the warm-up, and ends at `min_lr_fraction * lr` with the
    last step of all (with schedule "constant" at `lr`).
    """
    warmup = warmup_steps(settings, steps)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    share = (step + 1 - warmup) / (steps - warmup)  # of the course after the warm-up, 1 at its end
    match settings.schedule:
        case "cosine":
            height = (1 + math.cos(math.pi * share)) / 2
        case "linear":
            height = 1 - share
        case "constant":
            height = 1.0
        case "wsd":
            height = min(1.0, (steps - step - 1) / max(1, round(settings.decay_fraction * steps)))
    return settings.lr * (settings.min_lr_fraction + (1 - settings.min_lr_fraction) * height)
