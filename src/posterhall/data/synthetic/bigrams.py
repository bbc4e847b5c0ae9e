"""Corpora in which the phrases are known: word sequences planted among independent words, and words of a
planted corpus spelled as two."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from posterhall.data.corpus import Corpus
from posterhall.data.synthetic.planted import Planted
from posterhall.errors import UsageError
from posterhall.seeds import generator


@dataclass(frozen=True)
class PlantedPhrases:
    """A generated corpus with its phrases.

    Attributes:
        stream: token ids, -1 behind each sentence, int32.
        names: the words; the id is the index.
        phrases: the words of each planted phrase.
        meanings: for `spelled`: the word of the underlying corpus that each phrase stands for, (P,);
            else empty.
    """

    stream: NDArray[np.int32]
    names: list[str]
    phrases: list[tuple[str, ...]]
    meanings: NDArray[np.int32]

    @property
    def corpus(self) -> Corpus:
        """The corpus under its names."""
        return Corpus(self.stream, names=self.names)

    def sentences(self) -> list[list[str]]:
        """The sentences as lists of words."""
        ends = np.flatnonzero(self.stream < 0)
        parts = np.split(self.stream, ends + 1)[:-1]
        return [[self.names[i] for i in part[:-1].tolist()] for part in parts]

    @cached_property
    def truth(self) -> frozenset[str]:
        """The phrases as `posterhall.data.phrases` spells them."""
        return frozenset("_".join(phrase) for phrase in self.phrases)

    def shuffled(self, seed: int = 0) -> PlantedPhrases:
        """Negative control: the same tokens in random order; no phrase is left but by chance."""
        stream = self.stream.copy()
        words = stream >= 0
        stream[words] = generator(seed, "bigrams", "shuffled").permutation(stream[words])
        return replace(self, stream=stream)


def planted_phrases(
    *,
    tokens: int = 500_000,
    words: int = 5000,
    pairs: int = 200,
    triples: int = 50,
    rate: float = 0.05,
    zipf: float = 1.0,
    sentence_words: int = 20,
    seed: int = 0,
) -> PlantedPhrases:
    """Independent words by Zipf's law, among which fixed sequences of two and three words are strewn.

    A unit is, with probability ``rate``, one of the phrases (all equally likely), else a word of rank r with
    probability proportional to r^-zipf. The words of phrases are drawn from the whole vocabulary, without
    repetition within a phrase, and occur on their own too; so a phrase of common words has a small lift and
    one of rare words a large one, while pairs like "w0 w1" are frequent without being phrases.

    Args:
        tokens: length of the corpus in words, at least; the last unit is not cut.
        words: size of the vocabulary.
        pairs: phrases of two words.
        triples: phrases of three words (found in two passes).
        rate: share of units that are phrases.
        zipf: exponent of the frequency law.
        sentence_words: words between two sentence ends, which never cut a phrase.
        seed: of everything.

    Raises:
        UsageError: for sizes that cannot be.
    """
    lowest = {"tokens": (tokens, 1), "words": (words, 3), "sentence_words": (sentence_words, 1)}
    for name, (value, low) in lowest.items():
        if value < low:
            raise UsageError(f"{name} is {value}; it must be at least {low}")
    if pairs < 0 or triples < 0 or pairs + triples < 1:
        raise UsageError(f"{pairs} pairs and {triples} triples; plant at least one phrase")
    if not 0 < rate < 1:
        raise UsageError(f"rate is {rate}; it must lie between 0 and 1")
    draw = generator(seed, "bigrams", "phrases")
    phrases = _distinct(draw, words, pairs, 2) + _distinct(draw, words, triples, 3)
    # Units of one word come first in this table, phrases after them; short rows are filled with -1.
    table = np.full((words + len(phrases), 3), -1, np.int32)
    table[:words, 0] = np.arange(words)
    for row, phrase in enumerate(phrases, words):
        table[row, : len(phrase)] = phrase
    weights = np.arange(1, words + 1) ** -zipf
    weights *= (1 - rate) / weights.sum()
    chance = np.concatenate([weights, np.full(len(phrases), rate / len(phrases))])
    edges = np.cumsum(chance)
    units = np.minimum(np.searchsorted(edges, draw.random(tokens) * edges[-1], side="right"), len(chance) - 1)
    lengths = (table[units] >= 0).sum(axis=1)
    units = units[: int(np.searchsorted(np.cumsum(lengths), tokens)) + 1]
    stream = _with_ends(table[units], sentence_words)
    names = [f"w{i}" for i in range(words)]
    return PlantedPhrases(
        stream, names, [tuple(names[i] for i in phrase) for phrase in phrases], np.empty(0, np.int32)
    )


def _distinct(draw: np.random.Generator, words: int, number: int, length: int) -> list[tuple[int, ...]]:
    """Different sequences of different words."""
    found: dict[tuple[int, ...], None] = {}
    possible = words * (words - 1) * (words - 2 if length == 3 else 1)
    if number > possible // 2:
        raise UsageError(f"{number} phrases of {length} words do not fit {words} words; use more words")
    while len(found) < number:
        found.setdefault(tuple(draw.choice(words, size=length, replace=False).tolist()))
    return list(found)


def _with_ends(units: NDArray[np.int32], sentence_words: int) -> NDArray[np.int32]:
    """Units, (n, k) padded with -1, as one stream that ends a sentence once it has enough words."""
    lengths = (units >= 0).sum(axis=1)
    before = np.cumsum(lengths) - lengths
    # A sentence ends behind the unit that crosses a multiple of sentence_words.
    ends = before // sentence_words != (before + lengths) // sentence_words
    ends[-1] = True
    padded = np.concatenate([units, np.where(ends, -2, -1).astype(np.int32)[:, None]], axis=1).ravel()
    stream: NDArray[np.int32] = padded[padded != -1]
    stream[stream == -2] = -1
    return stream


def spelled(
    base: Planted, *, share: float = 0.5, sharing: int = 2, alone: float = 0.1, seed: int = 0
) -> PlantedPhrases:
    """A planted corpus in which a share of the words is written as two tokens, as "New York" is.

    Word i becomes ``p3 q7``: each pair of parts stands for one word, and each part is shared by ``sharing``
    words, so that a part alone does not say which. Parts also occur on their own: before each token,
    with probability ``alone``, a random part is put in. Joined again (``p3_q7``), the words have the meaning,
    and the analogies, of ``base``: ``meanings[k]`` is the word that ``phrases[k]`` stands for. Neighbours on
    the same topic have a large lift too in such a corpus, so finding the phrases is harder than among
    independent words.

    Args:
        base: the corpus.
        share: of the words (by number) that are spelled as two.
        sharing: words that have a part in common, about.
        alone: chance of a stray part before each token.
        seed: of the choice of words and parts.

    Raises:
        UsageError: for shares outside 0 to 1, or parts shared by too many.
    """
    if not 0 < share <= 1 or not 0 <= alone < 1:
        raise UsageError(f"share is {share} (0 < share <= 1) and alone is {alone} (0 <= alone < 1)")
    draw = generator(seed, "bigrams", "spelled")
    words = len(base.names)
    chosen = np.sort(draw.choice(words, size=max(1, round(share * words)), replace=False))
    side = -(-chosen.size // sharing) if sharing >= 1 else 0
    if not 1 <= sharing <= side:
        raise UsageError(
            f"sharing is {sharing}; it must be from 1 to the root of the {chosen.size} words spelled"
        )
    cells = draw.choice(side * side, size=chosen.size, replace=False)
    first, second = words + cells // side, words + side + cells % side
    names = [*base.names, *(f"p{i}" for i in range(side)), *(f"q{i}" for i in range(side))]

    table = np.full((words, 2), -1, np.int32)
    table[:, 0] = np.arange(words)
    table[chosen, 0], table[chosen, 1] = first, second
    tokens = base.stream
    units = np.full((tokens.size, 4), -1, np.int32)  # stray part, first, second, sentence end (-2)
    word = tokens >= 0
    units[word, 1:3] = table[tokens[word]]
    units[~word, 3] = -2
    stray = word & (draw.random(tokens.size) < alone)
    units[stray, 0] = draw.integers(words, words + 2 * side, size=int(stray.sum()))
    stream = units.ravel()
    stream = stream[stream != -1]
    stream[stream == -2] = -1
    phrases = [(names[a], names[b]) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    return PlantedPhrases(stream, names, list(phrases), chosen.astype(np.int32))
