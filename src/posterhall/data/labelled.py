"""Sequences with a class each: tokens or samples, padded to one length, in parts that never mix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.data.refusals import Refusals
from posterhall.errors import DataError
from posterhall.seeds import generator

BYTES = 257
"""Vocabulary of text as bytes: byte b is token b + 1, and 0 is padding."""


@dataclass(frozen=True)
class Sequences:
    """Rows of one length.

    Attributes:
        inputs: tokens, int64 (n, length) with 0 for padding, or samples, float32 (n, length, channels);
            pairs of texts have one axis more after the first: (n, 2, length).
        labels: classes, int64 (n,), from 0.
        lengths: how many of each row are no padding, int64 (n,), for pairs (n, 2); at least 1.

    Raises:
        DataError: if there are no rows, an empty one, or shapes that do not fit.
    """

    inputs: NDArray[Any]
    labels: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def __post_init__(self) -> None:
        if len(self.labels) == 0:
            raise DataError("there are no sequences; at least one is needed")
        rows = self.inputs.shape[: self.lengths.ndim]
        if rows != self.lengths.shape or len(self.inputs) != len(self.labels):
            raise DataError(
                f"{len(self.labels)} labels and lengths of {self.lengths.shape} do not fit inputs of "
                f"{self.inputs.shape}"
            )
        if self.lengths.min() < 1:
            row = int(np.argwhere(self.lengths < 1)[0][0])
            raise DataError(f"sequence {row} (from 0) is empty; leave it out, at least one step is needed")

    def take(self, rows: NDArray[np.int64] | slice) -> Sequences:
        """Those rows."""
        return Sequences(self.inputs[rows], self.labels[rows], self.lengths[rows])


@dataclass(frozen=True)
class Divided:
    """A task: what is trained on, what choices are made by, and what is looked at once.

    Attributes:
        train, validation, test: the parts.
        classes: how many there are.
        vocab: tokens there are, padding included; None for samples.
        refusals: what the reader left out, and why.
    """

    train: Sequences
    validation: Sequences
    test: Sequences
    classes: int
    vocab: int | None = None
    refusals: Refusals = field(default_factory=Refusals)


def padded(
    rows: Sequence[NDArray[np.int64]], *, length: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of tokens in one array, with 0 after each, and how long each is.

    Args:
        rows: tokens, each (its length,).
        length: of the array; 0 is that of the longest row.

    Raises:
        DataError: for a row that is longer: nothing is cut here.
    """
    lengths = np.array([len(row) for row in rows], np.int64)
    longest = int(lengths.max(initial=0))
    if length and longest > length:
        raise DataError(
            f"sequence {int(lengths.argmax())} (from 0) has {longest:,} tokens, and the length is "
            f"{length:,}; give a length of at least {longest:,}"
        )
    held = np.zeros((len(rows), length or longest), np.int64)
    for at, row in enumerate(rows):
        held[at, : len(row)] = row
    return held, lengths


def divided(rows: Sequences, *, seed: int, validation: float = 0.1, test: float = 0.1) -> list[Sequences]:
    """Training, validation and test rows: shares of all, drawn by the seed; no test without a share.

    Raises:
        DataError: for shares out of (0, 1) together, or rows too few for one in each part.
    """
    if not (0 < validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise DataError(
            f"shares of {validation} and {test}; each must be above 0 (a test's may be 0), together below 1"
        )
    n = len(rows.labels)
    held = [max(1, round(n * share)) for share in (validation, test) if share]
    if n <= sum(held):
        raise DataError(
            f"{n} sequences are too few for {len(held) + 1} parts; at least {len(held) + 1} are needed"
        )
    order = generator(seed, "divide", n).permutation(n)
    first = n - sum(held)
    cuts = np.split(order, [first, first + held[0]])
    return [rows.take(np.sort(part)) for part in cuts if len(part)]
