"""Vectors of texts: the mean of the last layer's states over a text's tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from posterhall.errors import DataError
from posterhall.lm import _tokens
from posterhall.lm.protocol import Floats

if TYPE_CHECKING:
    from posterhall.data.tokenizer import Tokenizer
    from posterhall.models.causal import CausalModel

READ_AT_ONCE = 1 << 12
"""Tokens in one pass."""


@dataclass
class Item:
    """A text, and its vector once it is known."""

    ids: list[int]
    vector: Floats | None = None


def read(model: CausalModel, tokenizer: Tokenizer, texts: Sequence[str]) -> list[Item]:
    """Texts to tokens.

    Raises:
        DataError: for a text that is empty or does not fit in the model's context.
    """
    start = _tokens.beginning(tokenizer)
    items = []
    for row, own in enumerate(tokenizer.encode_batch(texts)):
        ids = start + own.tolist()
        if not ids:
            raise DataError(f"text {row} is empty; there is nothing to embed")
        if len(ids) > (context := model.config.max_length):
            raise DataError(
                f"text {row} has {len(ids)} tokens, the model's context {context}; embed it in parts"
            )
        items.append(Item(ids))
    return items


def passes(items: Sequence[Item], *, model: CausalModel) -> Iterator[None]:
    """Find the vectors, which stay with the items, a batch of like length with each `next`."""
    batch: list[Item] = []
    for item in sorted(items, key=lambda each: len(each.ids)):
        if batch and (len(batch) + 1) * len(item.ids) > READ_AT_ONCE:
            _embed(model, batch)
            yield
            batch = []
        batch.append(item)
    if batch:
        _embed(model, batch)


def results(model: CausalModel, items: Sequence[Item]) -> Floats:
    """(n, D), in the items' order."""
    found = np.zeros((len(items), model.config.dim), dtype=np.float32)
    for row, item in zip(found, items, strict=True):
        if item.vector is not None:
            row[:] = item.vector
    return found


def _embed(model: CausalModel, items: Sequence[Item]) -> None:
    hidden = model.hidden(_tokens.padded(model, [each.ids for each in items])).float()
    for item, states in zip(items, hidden, strict=True):  # padding is at the end, where nothing sees it
        item.vector = states[: len(item.ids)].mean(0).cpu().numpy()
