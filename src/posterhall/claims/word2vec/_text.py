"""Real text for the claims of word2vec, and a test of vectors that any text brings with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from posterhall.claims.rows import Scalar
from posterhall.errors import DataError
from posterhall.seeds import generator

if TYPE_CHECKING:
    from posterhall.data.encoded import Encoded
    from posterhall.data.vocabulary import Vocabulary
    from posterhall.embeddings.vectors import WordVectors

_CHUNK_WORDS = 2000
_LEAST = 20  # occurrences of a word that is split in two, so that each half is learnt from ten or so


@lru_cache(maxsize=1)
def read(path: str | None) -> tuple[Vocabulary, Encoded]:
    """A text file, or the English found on every machine with Python, in pieces of about 2,000 words.

    Raises:
        DataError: if it cannot be read.
    """
    from posterhall.data import corpus, python_text

    source = python_text.corpus() if path is None else Path(path)
    return corpus.read(source, min_count=5, chunk_words=_CHUNK_WORDS)


def sample(params: Mapping[str, Scalar], wanted: int, seed: int) -> NDArray[np.int32]:
    """Pieces of the text in an order of the seed's own, until there are so many words.

    A smaller sample of the same seed is the beginning of a larger one.

    Args:
        params: of the claim: ``corpus`` is a path, or None.
        wanted: words, at least one; all of the text if that is less.
        seed: of the order.

    Returns:
        A stream of ids in which -1 ends a sentence; the end of a piece ends one as well.
    """
    encoded = read(_path(params, "corpus"))[1]
    parts: list[NDArray[np.int32]] = []
    for i in generator(seed, "pieces of text").permutation(len(encoded)).tolist():
        if wanted <= 0:
            break
        parts += [encoded.read(i), np.array([-1], np.int32)]
        wanted -= int((parts[-2] >= 0).sum())
    return np.concatenate(parts)


def size(params: Mapping[str, Scalar]) -> int:
    """Words of the text."""
    return read(_path(params, "corpus"))[1].words


def words(params: Mapping[str, Scalar]) -> list[str]:
    """The words that the ids of a sample stand for."""
    return [str(item) for item in read(_path(params, "corpus"))[0].items]


def questions(params: Mapping[str, Scalar]) -> str | None:
    """The user's file of analogy questions, or None."""
    return _path(params, "questions")


def _path(params: Mapping[str, Scalar], name: str) -> str | None:
    value = params[name]
    if value is not None and not Path(str(value)).is_file():
        raise DataError(f"{name}={value}: there is no such file")
    return None if value is None else str(value)


@dataclass(frozen=True)
class Twins:
    """A text in which some words were split in two: each time one stands there, one of two names is drawn.

    The two halves occur in the same contexts but for chance, so good vectors have each nearest to the other
    (pseudo-words: Gale et al. 1992; here to measure vectors, with a truth that needs no dictionary and
    no download). It measures how surely the vectors of real words are learnt from real contexts, not
    whether nearness means what people mean by it.

    Attributes:
        stream: the text, ids as before; the second halves have ids from V up.
        names: of all ids.
        pairs: ids of the halves, (n, 2).
    """

    stream: NDArray[np.int32]
    names: list[str]
    pairs: NDArray[np.int64]

    @classmethod
    def split(cls, stream: NDArray[np.int32], names: list[str], number: int, seed: int) -> Twins:
        """Split words that occur twenty times or more, chosen evenly over the logarithm of their counts.

        Args:
            number: of words to split; all that are frequent enough if they are fewer.

        Raises:
            DataError: if no word is.
        """
        rng = generator(seed, "twins")
        counts = np.bincount(stream[stream >= 0], minlength=len(names))
        able = np.flatnonzero(counts >= _LEAST)
        if not able.size:
            raise DataError(f"no word of the text occurs {_LEAST} times; give a longer one")
        able = able[np.argsort(-counts[able], kind="stable")]
        # Rank r counts 1 / r: as many words between ranks 10 and 100 as between 100 and 1,000.
        weight = 1 / np.arange(1, able.size + 1)
        chosen = rng.choice(able, size=min(number, able.size), replace=False, p=weight / weight.sum())
        second = np.full(len(names), -1, np.int32)
        second[chosen] = len(names) + np.arange(chosen.size)
        out = stream.copy()
        split = (stream >= 0) & (second[stream] >= 0) & (rng.random(stream.size) < 0.5)
        out[split] = second[stream[split]]
        return cls(
            out,
            [*names, *(f"{names[i]}\N{PRIME}" for i in chosen.tolist())],
            np.stack([chosen, second[chosen]], axis=1).astype(np.int64),
        )

    def found(self, vectors: WordVectors) -> NDArray[np.bool_]:
        """Whether the nearest word of each half is the other, (n, 2); one too rare to be learnt is a miss."""
        rows = np.array([vectors.index.get(name, -1) for name in self.names])[self.pairs]
        unit = vectors.matrix / np.linalg.norm(vectors.matrix, axis=1, keepdims=True)
        right = np.zeros(rows.shape, bool)
        known = np.flatnonzero((rows >= 0).all(axis=1))
        for first in range(0, len(known), 256):  # 256 rows of cosines at a time
            asked = known[first : first + 256]
            for one, other in ((0, 1), (1, 0)):
                cosines = unit[rows[asked, one]] @ unit.T
                cosines[np.arange(len(asked)), rows[asked, one]] = -np.inf
                right[asked, one] = cosines.argmax(axis=1) == rows[asked, other]
        return right
