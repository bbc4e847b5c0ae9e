"""Associative recall with many queries (MQAR): pairs of tokens, and later the first of each, asked again.

Arora et al. 2023 (Zoology, arXiv 2312.04927), §4 and the authors' generator, which this one equals in
distribution, while it draws all rows at once::

    key value key value |  .  .  key  .  .  .  key  .        (. is the filler)
                                value           value        (the labels)

The value is to be told at the position of the query itself, and is not shown afterwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from posterhall.data.packing import IGNORED
from posterhall.data.synthetic import _recall_kernels as kernels
from posterhall.errors import DataError
from posterhall.seeds import generator

Ints = NDArray[np.int64]
Filler = Literal["zero", "random"]

_BLOCK = 512  # rows drawn at once: what row i is does not depend on how the rows before it were taken


class Task(Protocol):
    """A task whose rows are drawn: tokens, and the tokens to be told at some of them."""

    @property
    def vocab(self) -> int:
        """Tokens there are."""

    @property
    def tokens(self) -> int:
        """Length of a row."""

    @property
    def plateau(self) -> float:
        """Accuracy of a model that knows which tokens an answer may be, and not which of them it is."""

    def draw(self, rows: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """Tokens and labels, each (rows, tokens); labels are IGNORED where nothing is asked."""


@dataclass(frozen=True)
class Mqar:
    """The task.

    Raises:
        DataError: for sizes that do not fit together.
    """

    length: int = 64
    """Tokens of a row, even."""
    pairs: int = 8
    """Keys with their values, all keys of a row different and all values too."""
    vocab: int = 256
    """Tokens, more than `length` (8192 in the paper): 0 is the filler, keys are from 1 to before vocab / 2,
    values from there on."""
    passes: int = 1
    """How often the pairs are written before they are asked for (Arora et al. 2024, arXiv 2407.05483)."""
    power: float = 0.01
    """A of the law by which queries stand near the pairs: slot i of two tokens is drawn by i^(A - 1), without
    replacement; 1 is uniform. > 0."""
    filler: Filler = "zero"
    """Between the queries: token 0 (the paper's figure 2), or any of the vocabulary at random, keys of the
    same row included (the authors' class without further words)."""

    def __post_init__(self) -> None:
        for name in ("length", "pairs", "vocab", "passes"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.filler not in get_args(Filler):
            raise DataError(f"filler is {self.filler!r}; it must be one of: {', '.join(get_args(Filler))}")
        if not 0 < self.power < math.inf:
            raise DataError(f"power is {self.power}; it must be above 0 (1 is uniform)")
        if self.length % 2:
            raise DataError(f"length is {self.length}; it must be even: queries stand in slots of two tokens")
        needed = 2 * self.pairs * self.passes + 2 * self.pairs
        if needed > self.length:
            raise DataError(
                f"2·pairs·passes + 2·pairs ≤ length does not hold: 2·{self.pairs}·{self.passes} + "
                f"2·{self.pairs} = {needed} > {self.length}. Take a length of at least {needed}, or fewer "
                "pairs or passes"
            )
        if self.vocab <= self.length:
            raise DataError(
                f"vocab > length does not hold: {self.vocab} ≤ {self.length}. Take a vocab of at least "
                f"{self.length + 1}"
            )
        # 4 pairs ≤ length < vocab: so there are always keys enough.

    @property
    def tokens(self) -> int:
        """Length of a row."""
        return self.length

    @property
    def plateau(self) -> float:
        """1 / pairs: any of the values that were there."""
        return 1.0 / self.pairs

    @property
    def context(self) -> int:
        """Tokens of the pairs, which come first."""
        return 2 * self.pairs * self.passes

    def draw(self, rows: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """Tokens and labels, each (rows, length); a label stands at the query's own position."""
        half = self.vocab // 2
        keys = 1 + _distinct(rng, rows, self.pairs, half - 1)
        values = half + _distinct(rng, rows, self.pairs, self.vocab - half)
        slots = (self.length - self.context) // 2
        rates = np.arange(1, slots + 1) ** (self.power - 1.0)
        chosen = np.empty((rows, self.pairs), np.int64)
        kernels.earliest(rng.standard_exponential((rows, slots)) / rates, self.pairs, chosen)
        ids = np.zeros((rows, self.length), np.int64)
        if self.filler == "random":
            ids[:, self.context :] = rng.integers(self.vocab, size=(rows, self.length - self.context))
        ids[:, 0 : self.context : 2] = np.tile(keys, self.passes)
        ids[:, 1 : self.context : 2] = np.tile(values, self.passes)
        labels = np.full((rows, self.length), IGNORED, np.int64)
        asked = self.context + 2 * chosen
        np.put_along_axis(ids, asked, keys, axis=1)
        np.put_along_axis(labels, asked, values, axis=1)
        return ids, labels


class Rows:
    """Rows of a task to train on or to test with: what row i is follows from seed, split and i alone.

    Args:
        task: what they are of.
        seed: of all splits.
        split: "train", "validation", "test": each has draws of its own.
        items: rows an epoch, after which the same ones come again; the default never ends.

    Attributes:
        items: as given.
    """

    def __init__(self, task: Task, *, seed: int, split: str, items: int = 1 << 62) -> None:
        if items < 1:
            raise DataError(f"items is {items}; it must be at least 1")
        self.items = items
        self._task, self._seed, self._split = task, seed, split
        self._number, self._block = -1, (np.zeros(0, np.int64), np.zeros(0, np.int64))

    def take(self, first: int, count: int) -> dict[str, Ints]:
        """Rows `first` to `first + count` of the endless sequence of epochs.

        Returns:
            "ids" and "labels", each (count, tokens) int64; labels are IGNORED where nothing is asked.
        """
        parts: list[tuple[Ints, Ints]] = []
        while count > 0:
            row = first % self.items
            number, at = divmod(row, _BLOCK)
            ids, labels = self._drawn(number)
            part = slice(at, min(at + count, _BLOCK, at + self.items - row))
            parts.append((ids[part], labels[part]))
            first, count = first + part.stop - at, count - (part.stop - at)
        ids, labels = (np.concatenate(each) for each in zip(*parts, strict=True))
        return {"ids": ids, "labels": labels}

    def digests(self, rows: int) -> NDArray[np.uint64]:
        """A 64-bit hash of the tokens of each of the first rows, (rows,)."""
        found = np.empty(min(rows, self.items), np.uint64)
        odd = generator(0, "recall", "digest").integers(1 << 63, size=self._task.tokens, dtype=np.uint64)
        odd = odd * np.uint64(2) + np.uint64(1)
        for at in range(0, len(found), _BLOCK):
            ids = self._drawn(at // _BLOCK)[0][: len(found) - at].astype(np.uint64)
            # Polynomials over 2^64 in an avalanche of the token: sums of products alone have little in
            # their low bits.
            mixed = (ids + np.uint64(0x9E3779B97F4A7C15)) * odd
            found[at : at + len(ids)] = ((mixed ^ (mixed >> np.uint64(29))) * odd).sum(axis=1)
        return found

    def _drawn(self, number: int) -> tuple[Ints, Ints]:
        if number != self._number:
            rng = generator(self._seed, "recall", self._split, number)
            self._block, self._number = self._task.draw(_BLOCK, rng), number
        return self._block


def overlap(train: Rows, rows: int, test: Rows) -> int:
    """How many rows of a test are among the first so many rows of a training."""
    return int(np.isin(test.digests(test.items), train.digests(rows)).sum())


def _distinct(rng: np.random.Generator, rows: int, count: int, among: int) -> Ints:
    """(rows, count): different numbers of 0 to among - 1 in each row."""
    drawn = np.empty((rows, count), np.int64)
    kernels.distinct(rng.random((rows, count)), among, drawn)
    return drawn
