"""Batches of conversations for the training loop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.data.chat_tokens import ChatTokens
from posterhall.data.epochs import Epochs
from posterhall.data.preference_tokens import Layout
from posterhall.seeds import generator

_SORTED = 50
"""Batches among which rows are sorted by length, as `transformers` does it."""


class ChatBatches:
    """Conversations as the training loop takes them: an endless sequence of epochs, in each each once.

    Args:
        tokens: what to learn.
        seed: determines the order.
        shuffle: False keeps the order of the files.
        layout: trees (all conversations of a batch after each other in one row, where a model keeps them
            apart), or rows (one each, padded at the end), for models that do not.
        group: rows of a pass; of so many, such of like length come together, which saves padding. The order
            stays random otherwise (`transformers`' group_by_length). 0: not.
        keep: indices of the conversations to take; None: all.

    Attributes:
        items: conversations an epoch.
    """

    def __init__(
        self,
        tokens: ChatTokens,
        *,
        seed: int = 0,
        shuffle: bool = True,
        layout: Layout = "trees",
        group: int = 0,
        keep: NDArray[np.int64] | None = None,
    ) -> None:
        self.tokens, self._layout = tokens, layout
        self._kept = np.arange(len(tokens.ids)) if keep is None else keep
        self.items = len(self._kept)
        lengths = np.array([len(tokens.ids[i]) for i in self._kept])

        def order(epoch: int) -> NDArray[np.int64]:
            if not shuffle:
                return np.arange(self.items)
            draw = generator(seed, "conversations", epoch)
            drawn = draw.permutation(self.items)
            if not group:
                return drawn
            sorted_parts = (
                some[np.argsort(-lengths[some], kind="stable")] for some in _cut(drawn, group * _SORTED)
            )
            batches = [batch for part in sorted_parts for batch in _cut(part, group)]
            # The longest first: a batch that does not fit into memory is to be met at once.
            longest = max(range(len(batches)), key=lambda i: lengths[batches[i]].max())
            others = [i for i in draw.permutation(len(batches)).tolist() if i != longest]
            return np.concatenate([batches[i] for i in (longest, *others)])

        self._epochs = Epochs(self.items, order)

    def take(self, first: int, count: int) -> dict[str, NDArray[Any]]:
        """Conversations `first` to `first + count` of the endless sequence.

        Returns:
            "ids": (1, N), or (rows, T); "sources": (M,) positions in the flattened ids from whose states the
            "labels" (M,) are predicted; for trees also "trunks": (conversations,) tokens of each, and
            "branches" and "tree_of", empty.
        """
        chosen = self._kept[self._epochs.drawn(first, count)]
        ids = [self.tokens.ids[i] for i in chosen]
        inputs = [each[:-1].astype(np.int64) for each in ids]
        lengths = np.array([len(each) for each in inputs])
        learnt = [self.tokens.learnt[i][1:] for i in chosen]
        labels = np.concatenate([each[1:][mask] for each, mask in zip(ids, learnt, strict=True)])
        common = {"labels": labels.astype(np.int64)}
        if self._layout == "trees":
            nothing = np.zeros(0, np.int64)
            return {
                "ids": np.concatenate(inputs)[None],
                "sources": np.flatnonzero(np.concatenate(learnt)),
                "trunks": lengths,
                "branches": nothing,
                "tree_of": nothing,
                **common,
            }
        padded = np.zeros((len(inputs), lengths.max()), np.int64)
        wanted = np.zeros(padded.shape, bool)
        for row, (each, mask) in enumerate(zip(inputs, learnt, strict=True)):
            padded[row, : len(each)] = each
            wanted[row, : len(each)] = mask
        return {"ids": padded, "sources": np.flatnonzero(wanted), **common}


def _cut(array: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for at in range(0, len(array), size):
        yield array[at : at + size]
