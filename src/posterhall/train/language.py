"""The objectives of language modelling, as the training loop calls them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posterhall.extras import functional, torch
from posterhall.models.mixers import Tree
from posterhall.objectives.lm import Reduction, lm_loss


def next_token(model: Any, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, Any]]:
    """Mean negative log-likelihood of the labels of a batch of `posterhall.data.packing.Packed`.

    Args:
        model: a `posterhall.models.Decoder`, or what has its `hidden` and `head_weight`.
        batch: "ids" and "labels" (B, T), perhaps "segments" (B, T).
    """
    hidden = model.hidden(batch["ids"], segments=batch.get("segments"))
    return lm_loss(hidden, model.head_weight(), batch["labels"])


def labelled_loss(
    model: Any, batch: Mapping[str, torch.Tensor], *, reduction: Reduction = "mean"
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Negative log-likelihood of those tokens of a batch that have labels, as `lm_loss` gives it.

    The head, and the last layer as far as it can, work only where a token is to be predicted.

    Args:
        model: a `Decoder`, or what has its `hidden` and `head_weight` (or `logits` instead, if it says that
            it has no `plain_head`).
        batch: "ids" (B, T), "sources" (M,) positions in the flattened ids, "labels" (M,), and for trees
            those of `posterhall.data.preference_tokens.pack`.
        reduction: see `lm_loss`.
    """
    shape = {"trees": trees(batch)} if "trunks" in batch else {}
    states = model.hidden(batch["ids"], at=batch["sources"], **shape)
    if getattr(model, "plain_head", True):
        return lm_loss(states, model.head_weight(), batch["labels"], reduction=reduction)
    losses = functional.cross_entropy(model.logits(states), batch["labels"], reduction="none")
    told = {"tokens": len(losses), "nll_sum": losses.detach().sum()}
    match reduction:
        case "none":
            return losses, told
        case "sum":
            return losses.sum(), told
        case _:
            return losses.mean(), told


def trees(batch: Mapping[str, torch.Tensor]) -> list[Tree]:
    """The trees of a batch of `pack`."""
    branches: list[list[int]] = [[] for _ in batch["trunks"]]
    for tree, length in zip(batch["tree_of"].tolist(), batch["branches"].tolist(), strict=True):
        branches[tree].append(length)
    return [Tree(n, tuple(b)) for n, b in zip(batch["trunks"].tolist(), branches, strict=True)]
