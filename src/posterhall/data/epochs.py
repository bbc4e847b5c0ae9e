"""Items in an endless sequence of epochs, each a permutation that its number determines.

Training goes on exactly where it stopped if it knows how many items it has seen.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


class Epochs:
    """The sequence.

    Args:
        items: of an epoch, >= 1.
        order: the order of an epoch (counted from 0): a permutation of 0 to items - 1.
    """

    def __init__(self, items: int, order: Callable[[int], NDArray[np.int64]]) -> None:
        self.items = items
        self._make = order
        self._epoch = -1
        self._order: NDArray[np.int64] = np.zeros(0, np.int64)

    def drawn(self, first: int, count: int) -> NDArray[np.int64]:
        """The items at `first` to `first + count` of the sequence."""
        parts = []
        while count > 0:
            epoch, index = divmod(first, self.items)
            if epoch != self._epoch:
                self._order, self._epoch = self._make(epoch), epoch
            part = self._order[index : index + count]
            parts.append(part)
            first += len(part)
            count -= len(part)
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)
