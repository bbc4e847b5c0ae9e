"""Sums and products of whole numbers, written digit by digit, with test problems that training never sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from posterhall.data.packing import IGNORED
from posterhall.errors import DataError
from posterhall.seeds import generator

Ints = NDArray[np.int64]
Operation = Literal["+", "*"]

SYMBOLS = "0123456789+*="
"""The vocabulary: a token's id is its place here."""
_PLUS, _TIMES, _EQUALS = (SYMBOLS.index(symbol) for symbol in "+*=")
_MOST_DIGITS = 9  # a pair is one number below 10^18, within 64 bits


@dataclass(frozen=True)
class Arithmetic:
    """A task: two operands of at most so many digits, and their sum or product.

    Everything has a fixed width, filled up with zeros, and by default its last digit first: 42 + 99 is
    ``2400+9900=`` and its answer ``14100``. In that order each digit of a sum follows from two digits at
    a constant distance and a carry just written down (Lee et al. 2023, arXiv 2307.03381, reverse only the
    answer), which models of some thousand parameters can learn.

    Raises:
        DataError: for a value outside its range.
    """

    operation: Operation = "+"
    """+ or *."""
    digits: int = 4
    """Digits of an operand, 1 to 9."""
    last_digit_first: bool = True
    """Whether operands and answers begin with their last digit."""

    def __post_init__(self) -> None:
        if self.operation not in ("+", "*"):
            raise DataError(f"operation is {self.operation!r}; allowed are + and *")
        if not 1 <= self.digits <= _MOST_DIGITS:
            raise DataError(f"digits is {self.digits}; it must be from 1 to {_MOST_DIGITS}")

    @property
    def pairs(self) -> int:
        """How many different problems there are."""
        return int(10 ** (2 * self.digits))

    @property
    def prompt_length(self) -> int:
        """Tokens before the answer."""
        return 2 * self.digits + 2

    @property
    def answer_length(self) -> int:
        """Tokens of the answer."""
        return self.digits + 1 if self.operation == "+" else 2 * self.digits

    def answer(self, a: Ints, b: Ints) -> Ints:
        """The numbers that are to be found, (n,)."""
        return a + b if self.operation == "+" else a * b

    def prompts(self, a: Ints, b: Ints) -> Ints:
        """Token ids (n, prompt_length) of the operands (n,)."""
        n = len(a)
        sign = np.full((n, 1), _PLUS if self.operation == "+" else _TIMES)
        equals = np.full((n, 1), _EQUALS)
        left, right = (self._written(operand, self.digits) for operand in (a, b))
        return np.concatenate([left, sign, right, equals], axis=1)

    def targets(self, a: Ints, b: Ints) -> Ints:
        """Token ids (n, answer_length) of the right answers."""
        return self._written(self.answer(a, b), self.answer_length)

    def _written(self, numbers: Ints, width: int) -> Ints:
        """(n, width) digits."""
        powers = 10 ** np.arange(width, dtype=np.int64)
        return numbers[:, None] // (powers if self.last_digit_first else powers[::-1]) % 10

    def split(self, train: int, test: int, *, seed: int) -> tuple[Problems, Problems]:
        """Problems to train on (drawn with replacement) and to test with (all different, none trained on).

        Raises:
            DataError: if more than half of all problems would be for testing.
        """
        if not (train >= 1 and 1 <= test <= self.pairs // 2):
            raise DataError(
                f"{train:,} problems to train on and {test:,} to test with; {self.digits} digits make "
                f"{self.pairs:,} problems, of which half at most can be for testing"
            )
        rng = generator(seed, "arithmetic", self.operation, self.digits)
        held = np.zeros(0, np.int64)
        while held.size < test:
            held = np.unique(np.concatenate([held, rng.integers(self.pairs, size=2 * test)]))
        held = np.sort(rng.permutation(held)[:test])
        kept = np.zeros(0, np.int64)
        while kept.size < train:
            drawn = rng.integers(self.pairs, size=train + train // 2)
            kept = np.concatenate([kept, drawn[~_among(drawn, held)]])
        return self._problems(kept[:train]), self._problems(rng.permutation(held))

    def _problems(self, codes: Ints) -> Problems:
        a, b = np.divmod(codes, 10**self.digits)
        return Problems(self, a, b)


@dataclass
class Problems:
    """Problems of a task; as training data each of them is one row whose labels are the answer alone.

    Attributes:
        task: which.
        a, b: operands, (n,).
        items: n, rows an epoch.
    """

    task: Arithmetic
    a: Ints
    b: Ints
    items: int = field(init=False)

    def __post_init__(self) -> None:
        self.items = len(self.a)

    def __len__(self) -> int:
        return len(self.a)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self.a.tolist(), self.b.tolist(), strict=True))

    def prompts(self) -> Ints:
        """Token ids (n, prompt_length)."""
        return self.task.prompts(self.a, self.b)

    def targets(self) -> Ints:
        """Token ids (n, answer_length)."""
        return self.task.targets(self.a, self.b)

    def first(self, n: int) -> Problems:
        """The first n of them."""
        return Problems(self.task, self.a[:n], self.b[:n])

    def take(self, first: int, count: int) -> dict[str, Ints]:
        """Rows `first` to `first + count`, from the beginning again after the last.

        Returns:
            "ids" and "labels", (count, prompt_length + answer_length - 1); labels are IGNORED within
            the prompt.
        """
        rows = np.arange(first, first + count) % len(self)
        prompts = self.task.prompts(self.a[rows], self.b[rows])
        targets = self.task.targets(self.a[rows], self.b[rows])
        labels = np.full((count, prompts.shape[1] + targets.shape[1] - 1), IGNORED)
        labels[:, prompts.shape[1] - 1 :] = targets
        return {"ids": np.concatenate([prompts, targets[:, :-1]], axis=1), "labels": labels}


def text(ids: Ints) -> str:
    """Token ids as they are read: ``2400+9900=``."""
    return "".join(SYMBOLS[i] for i in ids.tolist())


def _among(values: Ints, ordered: Ints) -> NDArray[np.bool_]:
    """Which values occur in a sorted array."""
    places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return np.asarray(ordered[places] == values)
