"""Tasks that are solved by looking back: one pair to recall, one token to continue, some tokens to pick out.

Each is a `posterhall.data.synthetic.recall.Task`: rows of tokens, with labels where something is asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from posterhall.data.packing import IGNORED
from posterhall.data.synthetic.recall import Ints
from posterhall.errors import DataError


@dataclass(frozen=True)
class AssociativeRecall:
    """Pairs by a map that is drawn for each row, then one key of them: what was its value?

    Dao et al. 2022 (H3, arXiv 2212.14052), §3.1; Poli et al. 2023 (Hyena, arXiv 2302.10866), §4.1. Pairs
    come with replacement, so a key may be there several times, always with the same value. Another task
    than MQAR: one query, and few tokens.

    Raises:
        DataError: for sizes that do not fit together.
    """

    length: int = 40
    """Tokens of the pairs, even, before a sign and the query."""
    vocab: int = 20
    """Tokens, at least 4, even: vocab - 2 are keys (the first half) and values; then the sign that the query
    follows, and one for "not there" that the authors have and this task never needs."""

    def __post_init__(self) -> None:
        if self.length < 2 or self.length % 2:
            raise DataError(f"length is {self.length}; pairs make an even number of tokens, at least 2")
        if self.vocab < 4 or self.vocab % 2:
            raise DataError(
                f"vocab is {self.vocab}; it must be even, and at least 4: two signs, keys, values"
            )

    @property
    def tokens(self) -> int:
        """Length of a row: the pairs, the sign, the query."""
        return self.length + 2

    @property
    def plateau(self) -> float:
        """Any value."""
        return 1.0 / (self.vocab // 2 - 1)

    def draw(self, rows: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """Tokens and labels, (rows, length + 2); the only label is at the last position."""
        half = self.vocab // 2 - 1
        mapped = half + rng.integers(half, size=(rows, half))
        keys = rng.integers(half, size=(rows, self.length // 2))
        # The authors ask for one of the keys that are there, each as likely, however often it is there.
        here = np.zeros((rows, half), bool)
        np.put_along_axis(here, keys, True, axis=1)
        asked = np.where(here, rng.random((rows, half)), -1.0).argmax(axis=1)[:, None]
        ids = np.empty((rows, self.tokens), np.int64)
        ids[:, 0 : self.length : 2] = keys
        ids[:, 1 : self.length : 2] = np.take_along_axis(mapped, keys, axis=1)
        ids[:, -2] = self.vocab - 2
        ids[:, -1:] = asked
        labels = np.full_like(ids, IGNORED)
        labels[:, -1:] = np.take_along_axis(mapped, asked, axis=1)
        return ids, labels


@dataclass(frozen=True)
class InductionHeads:
    """Random tokens with a sign somewhere and again at the end: which token followed it?

    Olsson et al. 2022; as a task, Dao et al. 2022 (H3), §3.1, and Gu & Dao 2023 (Mamba, arXiv 2312.00752),
    §4.1.2, who train at 256 tokens and test to 2^20.

    Raises:
        DataError: for a row without room for it, or no token beside the sign.
    """

    length: int = 256
    """Tokens of a row, the sign at its end included, >= 4."""
    vocab: int = 16
    """Tokens, >= 3: the last is the sign."""

    def __post_init__(self) -> None:
        if self.length < 4:
            raise DataError(f"length is {self.length}; it must be at least 4")
        if self.vocab < 3:
            raise DataError(f"vocab is {self.vocab}; it must be at least 3: the sign, and two to tell apart")

    @property
    def tokens(self) -> int:
        """Length of a row."""
        return self.length

    @property
    def plateau(self) -> float:
        """Any token but the sign."""
        return 1.0 / (self.vocab - 1)

    def draw(self, rows: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """Tokens and labels, (rows, length); the only label is at the last position."""
        ids = rng.integers(self.vocab - 1, size=(rows, self.length))
        at = rng.integers(self.length - 2, size=(rows, 1))
        np.put_along_axis(ids, at, self.vocab - 1, axis=1)
        ids[:, -1] = self.vocab - 1
        labels = np.full_like(ids, IGNORED)
        labels[:, -1:] = np.take_along_axis(ids, at + 1, axis=1)
        return ids, labels


@dataclass(frozen=True)
class SelectiveCopying:
    """Some tokens among blanks, at random places; afterwards they are to be told in their order.

    Gu & Dao 2023 (Mamba), §4.1.1 and app. E.1 (4096 tokens, 16 of them to be copied, a vocabulary of 16).
    Since the places are random, a filter that is the same everywhere (an LTI model) cannot pick them out.

    Raises:
        DataError: for sizes that do not fit together.
    """

    length: int = 256
    """Tokens before the copying: what is to be copied, and the blanks."""
    copied: int = 8
    """Tokens to be copied, from 1 to `length`."""
    vocab: int = 16
    """Tokens, >= 4: 0 is blank, the last one asks for the next token of the copy."""

    def __post_init__(self) -> None:
        if not 1 <= self.copied <= self.length:
            raise DataError(
                f"1 ≤ copied ≤ length does not hold: copied is {self.copied} and length {self.length}"
            )
        if self.vocab < 4:
            raise DataError(
                f"vocab is {self.vocab}; it must be at least 4: a blank, a sign, and two to tell apart"
            )

    @property
    def tokens(self) -> int:
        """Length of a row, the copying included."""
        return self.length + self.copied

    @property
    def plateau(self) -> float:
        """Any token that is not blank and not the sign."""
        return 1.0 / (self.vocab - 2)

    def draw(self, rows: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """Tokens and labels, (rows, length + copied); labels at the signs at the end."""
        told = rng.integers(1, self.vocab - 1, size=(rows, self.copied))
        places = np.argpartition(rng.random((rows, self.length)), self.copied - 1, axis=1)
        places = np.sort(places[:, : self.copied], axis=1)
        ids = np.zeros((rows, self.tokens), np.int64)
        np.put_along_axis(ids, places, told, axis=1)
        ids[:, self.length :] = self.vocab - 1
        labels = np.full_like(ids, IGNORED)
        labels[:, self.length :] = told
        return ids, labels
