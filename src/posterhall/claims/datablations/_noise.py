"""Noise whose truth is known: documents with their words shuffled, and copies at a given similarity."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from posterhall.errors import DataError
from posterhall.seeds import generator

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WORD = re.compile(r"\w+")
_SHINGLE = 5
_ALIKE = 0.2


def shuffled(text: str, rng: np.random.Generator) -> str:
    """A text with its words in another order; the white space between them stays where it is."""
    parts = re.split(r"(\s+)", text)
    words = np.array(parts[::2], dtype=object)
    parts[::2] = words[rng.permutation(len(words))].tolist()
    return "".join(parts)


def near_copy(text: str, others: Sequence[str], similarity: float, rng: np.random.Generator) -> str:
    """A text with words replaced one by one until its Jaccard similarity is at most what is asked for.

    Args:
        text: of twenty words or more.
        others: words to put in.
        similarity: of the sets of five-word shingles, in (0, 1). One replaced word changes five of them, so
            short texts fall below it.
        rng: draws places and words.
    """
    parts = re.split(r"(\w+)", text)  # words stand at odd places
    whole = shingles(text)
    places = rng.permutation(np.arange(1, len(parts), 2)).tolist()
    for place in places:
        parts[place] = others[int(rng.integers(len(others)))]
        copy = "".join(parts)
        if jaccard(whole, shingles(copy)) <= similarity:
            return copy
    raise DataError(f"no copy with similarity {similarity:g} of a text of {len(places)} words")


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Runs of five words, in lower case and without what stands between them."""
    words = _WORD.findall(text.lower())
    return frozenset(tuple(words[i : i + _SHINGLE]) for i in range(max(1, len(words) - _SHINGLE + 1)))


def jaccard(a: frozenset[tuple[str, ...]], b: frozenset[tuple[str, ...]]) -> float:
    """Shared over all."""
    return len(a & b) / len(a | b)


def distinct(texts: Sequence[str], *, words: int) -> list[str]:
    """Texts of at least so many words of which no two have much in common: copies are then only planted ones.

    A text goes if more than a fifth of its shingles were in those before.
    """
    seen: set[tuple[str, ...]] = set()
    kept = []
    for text in texts:
        mine = shingles(text)
        if len(mine) + _SHINGLE > words and len(mine & seen) <= _ALIKE * len(mine):
            kept.append(text)
        seen |= mine
    return kept


@dataclass(frozen=True)
class Pool:
    """Clean documents with noise among them, in random order.

    Attributes:
        texts: all of them.
        shuffled: (n,) whether its words are.
        source: (n,) of a copy the number of what it was made from, else its own.
        similarity: (n,) of a copy, its Jaccard similarity with that; 1 elsewhere.
    """

    texts: list[str]
    shuffled: NDArray[np.bool_]
    source: NDArray[np.int64]
    similarity: NDArray[np.float64]

    @property
    def copies(self) -> NDArray[np.int64]:
        """Numbers of the copies."""
        return np.flatnonzero(self.source != np.arange(len(self.texts)))


def pool(clean: Sequence[str], noisy: Sequence[str], *, copies: int, similarity: float, seed: int) -> Pool:
    """Clean documents, others with their words shuffled, and copies of some clean ones.

    Args:
        clean: documents that stay as they are.
        noisy: documents that get shuffled.
        copies: number of clean documents that get a near copy.
        similarity: of copies, see `near_copy`.
        seed: of everything.
    """
    rng = generator(seed, "datablations", "noise")
    vocabulary = [word for text in clean for word in _WORD.findall(text)]
    bases = rng.permutation(len(clean))[:copies].tolist()
    texts = [*clean, *(shuffled(text, rng) for text in noisy)]
    texts += [near_copy(clean[i], vocabulary, similarity, rng) for i in bases]
    order = rng.permutation(len(texts))
    place = np.argsort(order)  # where each came to stand
    source = place.copy()
    source[len(clean) + len(noisy) :] = place[bases]
    alike = np.ones(len(texts))
    for i, base in zip(range(len(clean) + len(noisy), len(texts)), bases, strict=True):
        alike[i] = jaccard(shingles(texts[i]), shingles(clean[base]))
    mixed = (order >= len(clean)) & (order < len(clean) + len(noisy))
    return Pool([texts[i] for i in order.tolist()], mixed, source[order], alike[order])
