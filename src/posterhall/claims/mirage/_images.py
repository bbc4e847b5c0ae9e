"""Real images for the claims about vision: handwritten digits that every installation has, or CIFAR-100."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.errors import DataError
from posterhall.seeds import generator

_RECORD = 2 + 3 * 32 * 32
"""Bytes of an image in CIFAR-100's binary version: coarse label, fine label, pixels."""


@dataclass(frozen=True)
class Images:
    """Images and their classes, divided into two parts.

    Attributes:
        train, test: float32 in [0, 1], (n, pixels).
        train_classes, test_classes: int64, (n,).
    """

    train: NDArray[np.float32]
    train_classes: NDArray[np.int64]
    test: NDArray[np.float32]
    test_classes: NDArray[np.int64]

    @property
    def spread(self) -> float:
        """Mean squared distance of a test image to the mean training image."""
        return float(np.square(self.test - self.train.mean(axis=0)).sum(axis=1).mean())


def digits(seed: int, test: int = 600) -> Images:
    """The 1,797 handwritten digits of 8 x 8 pixels that scikit-learn brings, divided by the seed.

    From the UCI machine learning repository (Alpaydin and Kaynak 1998, test part).

    Raises:
        MissingExtra: without scikit-learn.
    """
    from posterhall.extras import require

    data = require("sklearn.datasets", "train", "reading the handwritten digits").load_digits()
    order = generator(seed, "digits").permutation(len(data.target))
    images = (data.data / 16).astype(np.float32)[order]
    classes = data.target.astype(np.int64)[order]
    return Images(images[test:], classes[test:], images[:test], classes[:test])


def cifar100(folder: str, seed: int, train: int, test: int) -> Images:
    """CIFAR-100 from its binary version (train.bin, test.bin; fine labels), so many images of each part.

    The version for Python holds pickles, which run code when they are read; it is refused.

    Raises:
        DataError: naming the file that is missing or of the wrong size.
    """
    parts: list[NDArray[Any]] = []
    for name, wanted in (("train", train), ("test", test)):
        file = Path(folder) / f"{name}.bin"
        if not file.is_file():
            found = " (train and test without .bin are pickles of the Python version, which are not read)"
            raise DataError(
                f"{file}: there is no such file; give the folder cifar-100-binary of the binary version"
                f"{found if (Path(folder) / name).is_file() else ''}"
            )
        size = file.stat().st_size
        if size == 0 or size % _RECORD:
            raise DataError(f"{file}: {size:,} bytes; the binary version has {_RECORD:,} for each image")
        records = np.memmap(file, np.uint8, "r").reshape(-1, _RECORD)
        if records[:, 1].max() > 99:
            raise DataError(
                f"{file}: a label of {records[:, 1].max()}; CIFAR-100 has 0 to 99. Is it CIFAR-10?"
            )
        chosen = np.sort(generator(seed, "cifar", name).permutation(len(records))[:wanted])
        taken = np.asarray(records[chosen])
        parts += [taken[:, 2:].astype(np.float32) / 255, taken[:, 1].astype(np.int64)]
    return Images(*parts)


class Shuffled:
    """Arrays as training data: all rows once an epoch, in an order that follows from seed and epoch."""

    def __init__(self, seed: int, **arrays: NDArray[Any]) -> None:
        self.items = len(next(iter(arrays.values())))
        self._arrays = arrays
        self._seed = seed
        self._epoch = -1
        self._order = np.arange(self.items)

    def take(self, first: int, count: int) -> dict[str, NDArray[Any]]:
        """Rows of the endless sequence of epochs."""
        rows: list[NDArray[Any]] = []
        while count > 0:
            epoch, index = divmod(first, self.items)
            if epoch != self._epoch:
                self._epoch = epoch
                self._order = generator(self._seed, "order", epoch).permutation(self.items)
            part = self._order[index : index + count]
            rows.append(part)
            first, count = first + len(part), count - len(part)
        chosen = np.concatenate(rows)
        return {name: array[chosen] for name, array in self._arrays.items()}
