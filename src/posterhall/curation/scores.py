"""Scores: numbers that say something about a text, one column each.

What quality rules ask for (Rae et al. 2021, A.1.1), for any language: words are what stands between white
space, so in a script without spaces rely on characters. A document with nothing to count (a ratio over no
word) has no score: NaN.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.curation import _score_kernels as kernels
from posterhall.curation._characters import kinds
from posterhall.curation._uids import buffers
from posterhall.errors import UsageError, did_you_mean

Columns = dict[str, NDArray[np.float64]]
Scorer = Callable[[Any], Mapping[str, NDArray[np.float64]]]
"""From a record batch with `uid` and `text` to columns of its length."""

_TOP = (2, 4)
_REPEATED = (5, 10)

SHAPE: dict[str, str] = {
    "chars": "characters",
    "words": "words",
    "lines": "lines that are not blank",
    "mean_word_length": "characters a word",
    "digits": "share of digits among characters that are not white space",
    "symbols": "share of characters that are neither letter nor digit, of those that are not white space",
    "symbol_ratio": "# signs or ellipses a word, whichever are more",
    "bullet_lines": "share of lines that begin with a bullet",
    "ellipsis_lines": "share of lines that end with an ellipsis",
    "alphabetic_words": "share of words with a letter",
}
REPETITION: dict[str, str] = {
    "unique_words": "share of distinct words",
    "repeated_lines": "share of lines that were there before",
    "repeated_line_chars": "share of characters in such lines",
    **{f"top_{n}grams": f"share of characters in the most frequent {n} words" for n in range(2, 5)},
    **{
        f"repeated_{n}grams": f"share of characters in {n} words that were there before" for n in range(5, 11)
    },
}
NAMES: dict[str, str] = {**SHAPE, **REPETITION}
"""Every score that needs nothing but the text, with what it is."""


def compute(names: Collection[str], texts: Any) -> Columns:
    """Scores of texts.

    Args:
        names: of `NAMES`.
        texts: Arrow strings, (n,).

    Returns:
        Columns (n,) float64, in the order of the names.

    Raises:
        UsageError: for an unknown name.
    """
    check(names)
    offsets, data = buffers(texts)
    found: Columns = {}
    if any(name in SHAPE for name in names):
        found |= _shape(offsets, data)
    if any(name in REPETITION for name in names):
        found |= _repetition(offsets, data)
    return {name: found[name] for name in names}


def check(names: Collection[str]) -> None:
    """Refuse names of no score.

    Raises:
        UsageError: naming the nearest.
    """
    for name in names:
        if name not in NAMES:
            near = did_you_mean(name, NAMES) or f" There are: {', '.join(NAMES)}."
            raise UsageError(f"no score is called '{name}'.{near}")


def scorer(names: Collection[str]) -> Scorer:
    """What computes these scores of a record batch."""
    check(names)
    chosen = tuple(names)
    return lambda batch: compute(chosen, batch.column("text"))


def _shape(offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> Columns:
    counts = np.empty((len(offsets) - 1, kernels.SHAPE_COLUMNS), np.int64)
    kernels.shape(data, offsets, kinds(), counts)
    column = counts.T.astype(np.float64)
    words, lines, solid = (column[i] for i in (kernels.WORDS, kernels.LINES, kernels.WORD_CHARS))
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: no score
        return {
            "chars": column[kernels.CHARS],
            "words": words,
            "lines": lines,
            "mean_word_length": solid / words,
            "digits": column[kernels.DIGITS] / solid,
            "symbols": column[kernels.SYMBOLS] / solid,
            "symbol_ratio": np.maximum(column[kernels.HASHES], column[kernels.ELLIPSES]) / words,
            "bullet_lines": column[kernels.BULLETS] / lines,
            "ellipsis_lines": column[kernels.TRAILING] / lines,
            "alphabetic_words": column[kernels.ALPHABETIC] / words,
        }


def _repetition(offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> Columns:
    out = np.empty((len(offsets) - 1, len(REPETITION)), np.float64)
    kernels.repetition(data, offsets, kinds(), _seed(), _TOP[0], _TOP[1], _REPEATED[1], out)
    return dict(zip(REPETITION, np.ascontiguousarray(out.T), strict=True))


@cache
def _seed() -> np.uint64:
    """Different in every process: documents cannot be written so that their words collide."""
    return np.uint64(int.from_bytes(os.urandom(8), "little"))
