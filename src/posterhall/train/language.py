"""The objective of language modelling, as the training loop calls it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posterhall.extras import torch
from posterhall.objectives.lm import lm_loss


def next_token(model: Any, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, Any]]:
    """Mean negative log-likelihood of the labels of a batch of `posterhall.data.packing.Packed`.

    Args:
        model: a `posterhall.models.Decoder`, or what has its `hidden` and `head_weight`.
        batch: "ids" and "labels" (B, T), perhaps "segments" (B, T).
    """
    hidden = model.hidden(batch["ids"], segments=batch.get("segments"))
    return lm_loss(hidden, model.head_weight(), batch["labels"])
