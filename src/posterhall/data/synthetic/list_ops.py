"""ListOps: nested lists of digits under MIN, MAX, MED and SM, whose value is asked for.

Nangia & Bowman 2018 (arXiv 1804.06028), in the long form of Tay et al. 2021 (Long Range Arena, arXiv
2011.04006, §2.2.1 and the authors' generator): depth to 10, to 10 arguments, 500 to 2,000 tokens without
parentheses, the value (0 to 9) as the class. SM is the sum modulo 10; MED of an even number of arguments
is the mean of the middle two, rounded down. The authors shuffle by a set of Python, so that their files
cannot be drawn again; here a row follows from seed, split and its number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posterhall.data.labelled import Sequences, padded
from posterhall.data.synthetic import _list_kernels as kernels
from posterhall.errors import DataError
from posterhall.seeds import generator

TOKENS = ("", *"0123456789", "[MIN", "[MAX", "[MED", "[SM", "]")
"""What each token stands for; 0 is padding."""

_TRIES = 1_000_000
_NUMBERS = {word: token for token, word in enumerate(TOKENS)}


@dataclass(frozen=True)
class ListOps:
    """The task.

    Raises:
        DataError: for a value out of its range.
    """

    min_length: int = 500
    """Rows have more tokens than this (the authors' rule), 0 or more."""
    max_length: int = 2000
    """Rows have fewer tokens than this, above min_length + 1."""
    max_depth: int = 10
    """Nodes from the root to the deepest digit at most, 2 to 1,000."""
    max_args: int = 10
    """Arguments of a list at most, 2 to 1,000; every number from 2 on is as likely."""
    lists: float = 0.25
    """Probability that an argument is a list, in (0, 1) (the authors' VALUE_P)."""

    def __post_init__(self) -> None:
        for name in ("max_depth", "max_args"):
            if not 2 <= getattr(self, name) <= 1000:
                raise DataError(f"{name} is {getattr(self, name)}; it must be from 2 to 1,000")
        if not 0 < self.lists < 1:
            raise DataError(f"lists is {self.lists}; it must be between 0 and 1")
        if self.min_length < 0 or self.max_length < self.min_length + 2:
            raise DataError(
                f"min_length is {self.min_length} and max_length {self.max_length}; lengths are strictly "
                "between the two, so that max_length must be at least min_length + 2, and min_length 0"
            )

    def draw(self, rows: int, *, seed: int, split: str) -> Sequences:
        """Rows 0 to rows - 1 of a split, tokens padded to max_length - 1.

        Raises:
            DataError: if lists of these lengths hardly ever come.
        """
        held = [self._row(seed, split, row) for row in range(rows)]
        inputs, lengths = padded([tokens for tokens, _ in held], length=self.max_length - 1)
        return Sequences(inputs, np.array([value for _, value in held], np.int64), lengths)

    def _row(self, seed: int, split: str, row: int) -> tuple[NDArray[np.int64], int]:
        rng = generator(seed, "listops", split, row)
        out = np.empty(self.max_length - 1, np.int64)
        sizes = (self.min_length, self.max_depth, self.max_args, self.lists)
        length, value = kernels.draw(rng, *sizes, _TRIES, out)
        if length:
            return out[:length], value
        raise DataError(
            f"none of {_TRIES:,} lists had more than {self.min_length} and fewer than {self.max_length} "
            f"tokens at a depth to {self.max_depth} and to {self.max_args} arguments; widen the lengths, or "
            "raise max_depth, max_args or lists"
        )


def encode(text: str, where: str = "the expression") -> NDArray[np.int64]:
    """Tokens of an expression as the authors write it, its parentheses left out.

    Raises:
        DataError: naming a word that is none of them.
    """
    words = [word for word in text.split() if word not in ("(", ")")]
    unknown = next((word for word in words if word not in _NUMBERS), None)
    if unknown is not None:
        raise DataError(f"{where}: {unknown!r} is no token of ListOps; there are: {' '.join(TOKENS[1:])} ( )")
    if not words:
        raise DataError(f"{where}: an empty expression")
    return np.array([_NUMBERS[word] for word in words], np.int64)


def text(tokens: NDArray[np.int64]) -> str:
    """The expression that tokens stand for, words with a space between; padding is left out."""
    return " ".join(TOKENS[token] for token in tokens.tolist() if token)
