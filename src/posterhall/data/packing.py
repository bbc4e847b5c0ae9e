"""Rows of equal length from a stream of tokens, in an order that a seed and an epoch determine.

Row i holds the tokens i * context to (i + 1) * context, one more than it has inputs: the last one is only
a label here and the first input of the next row, so that each token is predicted once an epoch.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from posterhall.data.epochs import Epochs
from posterhall.data.tokens import Tokens
from posterhall.errors import DataError
from posterhall.seeds import generator

Packing = Literal["contiguous", "documents"]
IGNORED = -100
"""Label of a position that is not to be predicted."""


class Packed:
    """Training rows of a stream, drawn without replacement, in a new order each epoch.

    The rows of all epochs form one endless sequence; `take` gives any stretch of it, so that training
    goes on exactly where it stopped if it knows how many rows it has seen.

    Args:
        tokens: a stream, or an array of ids.
        context: inputs a row.
        seed: determines the order of every epoch and which rows `unique_tokens` keeps.
        unique_tokens: keep only that many tokens (rounded down to whole rows): the first of one
            permutation of the rows, so that a smaller number keeps a subset of what a larger one keeps
            (Muennighoff et al. 2023, appendix, where it is the first documents of a shuffled corpus).
        packing: contiguous rows see across the ends of documents; with "documents" they come with
            segment numbers, by which a model keeps attention and positions within a document.
        shuffle: False keeps the order of the text, for evaluation.
        whole: also give the last row, which is not full: its labels beyond the end are IGNORED.

    Attributes:
        items: rows an epoch.
        unique_tokens: labels an epoch (those of `whole` included).

    Raises:
        DataError: if the text is shorter than a row, or has fewer tokens than are to be unique.
    """

    def __init__(
        self,
        tokens: Tokens | NDArray[Any],
        *,
        context: int,
        seed: int = 0,
        unique_tokens: int | None = None,
        packing: Packing = "contiguous",
        shuffle: bool = True,
        whole: bool = False,
    ) -> None:
        self._stream = tokens.ids if isinstance(tokens, Tokens) else tokens
        self._offsets = tokens.offsets if isinstance(tokens, Tokens) else np.zeros(1, np.int64)
        self._bos = tokens.bos_id if isinstance(tokens, Tokens) else None
        self.context = context
        self.seed = seed
        self._packing = packing
        labels = len(self._stream) - 1
        rows = -(-labels // context) if whole else labels // context
        if rows < 1:
            raise DataError(
                f"the text has {max(labels, 0):,} tokens to predict, a row has context = {context:,}; "
                "give more text or a smaller context"
            )
        self._rows = np.arange(rows)
        if unique_tokens is not None:
            kept = unique_tokens // context
            if not 1 <= kept <= rows:
                raise DataError(
                    f"unique_tokens is {unique_tokens:,}; the text gives {context:,} (one row) to "
                    f"{rows * context:,}"
                )
            self._rows = generator(seed, "unique tokens").permutation(rows)[:kept]
        self.items = len(self._rows)
        self.unique_tokens = min(self.items * context, labels)

        def order(epoch: int) -> NDArray[np.int64]:
            draw = generator(seed, "order", epoch)
            return draw.permutation(self.items) if shuffle else np.arange(self.items)

        self._epochs = Epochs(self.items, order)

    def take(self, first: int, count: int) -> dict[str, NDArray[np.int64]]:
        """Rows `first` to `first + count` of the endless sequence of epochs.

        Returns:
            "ids" and "labels", each (count, context) int64, ``labels[:, t]`` being the token after
            ``ids[:, t]``; with packing "documents" also "segments", numbered from 0 in each row.
        """
        rows = self._rows[self._epochs.drawn(first, count)]
        places = rows[:, None] * self.context + np.arange(self.context + 1)
        inside = places < len(self._stream)
        tokens = self._stream[np.minimum(places, len(self._stream) - 1)].astype(np.int64)
        ids, labels = tokens[:, :-1].copy(), np.where(inside, tokens, IGNORED)[:, 1:]
        if self._packing == "contiguous":
            return {"ids": ids, "labels": labels}
        segments = np.searchsorted(self._offsets, places[:, :-1], side="right")
        if self._bos is not None:
            labels[labels == self._bos] = IGNORED  # the next document does not follow from this one
        return {"ids": ids, "labels": labels, "segments": segments - segments[:, :1]}
