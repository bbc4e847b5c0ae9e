"""Corpora whose word vectors are known before training: planted analogies and planted composition.

The law (the random walk of Arora et al. 2016, "A Latent Variable Model Approach to PMI-based Word
Embeddings"): a topic z drifts as z_t = rho z_{t-1} + sqrt(1 - rho^2) e_t, with e_t ~ N(0, I), and token t is
the word w with probability proportional to exp(s v_w . z_t + bias_w). As z is Gaussian, two words k tokens
apart have PMI close to s^2 rho^k v_w . v_c, so a method that factorises PMI must find v up to a linear
map. (With hold > 1 the topic stands still for that many tokens, then moves by as many steps at once.) The
bias, -zipf ln(rank) - s^2 |v_w|^2 / 2 with ranks dealt at random, makes unigram frequencies follow Zipf's
law whatever the vectors are.

Tokens are drawn by inverse CDF, exactly, a block of them at a time. The same seed gives the same corpus on
the same machine; another machine's matrix product may round one draw in millions to a neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from posterhall.data.corpus import Corpus, read
from posterhall.data.encoded import Encoded
from posterhall.data.synthetic import _kernels as kernels
from posterhall.data.vocabulary import Vocabulary
from posterhall.errors import UsageError
from posterhall.seeds import generator

_BLOCK = 512  # topics at a time, so that the weights of their words stay in the cache


@dataclass(frozen=True)
class Planted:
    """A generated corpus with its truth.

    Attributes:
        stream: token ids, -1 behind each sentence, int32; a `posterhall.data.corpus.Source` as it is.
        names: the words; the id is the index.
        vectors: true vectors v, (W, d) float32 (without the scale s).
        questions: (Q, 4) int32: a is to b as c is to d. Empty where none are planted.
        sums: (Q, 3) int32: a and b together mean c. Empty where none are planted.
    """

    stream: NDArray[np.int32]
    names: list[str]
    vectors: NDArray[np.float32]
    questions: NDArray[np.int32]
    sums: NDArray[np.int32]

    @property
    def corpus(self) -> Corpus:
        """The corpus under its names."""
        return Corpus(self.stream, names=self.names)

    def read(self, *, min_count: int = 1, chunk_words: int = 10_000) -> tuple[Vocabulary, Encoded]:
        """Vocabulary and ids for a trainer; the order of the vocabulary is by count, not by ``names``."""
        return read(self.corpus, min_count=min_count, chunk_words=chunk_words)

    def sentences(self) -> list[list[str]]:
        """The sentences as lists of words."""
        ends = np.flatnonzero(self.stream < 0)
        parts = np.split(self.stream, ends + 1)[:-1]
        return [[self.names[i] for i in part[:-1].tolist()] for part in parts]

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Occurrences of each word, (W,)."""
        return np.bincount(self.stream[self.stream >= 0], minlength=len(self.names)).astype(np.int64)

    @cached_property
    def deciles(self) -> NDArray[np.int8]:
        """Frequency decile of each word, (W,): 0 holds the tenth of the words that is most frequent."""
        rank = np.empty(len(self.names), np.int64)
        rank[np.argsort(-self.counts, kind="stable")] = np.arange(len(self.names))
        return (rank * 10 // len(self.names)).astype(np.int8)

    def shuffled(self, seed: int = 0) -> Planted:
        """Negative control: the same tokens in random order, so that nothing follows from context."""
        stream = self.stream.copy()
        words = stream >= 0
        stream[words] = generator(seed, "planted", "shuffled").permutation(stream[words])
        return replace(self, stream=stream)


def analogies(
    *,
    tokens: int = 500_000,
    entities: int = 80,
    slots: int = 10,
    dim: int = 32,
    structure: Literal["additive", "independent"] = "additive",
    noise: float = 0.2,
    scale: float = 2.0,
    rho: float = 0.97,
    hold: int = 5,
    zipf: float = 1.0,
    sentence_words: int = 1000,
    questions: int = 3000,
    seed: int = 0,
) -> Planted:
    """Words that are an entity in a slot, as "France" and "Paris" are: v = a_e + b_r + noise.

    The words ``e12_r3`` (entity 12, slot 3) answer e1_r1 : e1_r2 :: e2_r1 : e2_r2 exactly.

    Args:
        tokens: length of the corpus in words.
        entities: E; words = E x R.
        slots: R.
        dim: d of the true vectors; all of a_e, b_r have length about 1.
        structure: ``independent`` is the negative control: every word has a vector of its own, of the same
            length, so the questions have no answer but the corpus is otherwise alike.
        noise: length of the noise relative to that of a_e.
        scale: s, how strongly the topic decides the word.
        rho: topic autocorrelation from token to token.
        hold: tokens drawn from one topic: it moves by rho^hold every hold tokens. 1 is the law to the
            letter; 5 is five times as fast and blurs correlations over distances below 5.
        zipf: exponent of the frequency law; 0 is uniform.
        sentence_words: words between two sentence ends; the topic drifts on across them.
        questions: questions drawn (without repetition, at most all E(E-1)R(R-1) of them).
        seed: of everything.

    Raises:
        UsageError: for sizes below 2 entities or slots, or arguments out of range.
    """
    if entities < 2 or slots < 2:
        raise UsageError(f"{entities} entities and {slots} slots; analogies need two of each")
    if structure not in ("additive", "independent"):
        raise UsageError(f"structure is {structure!r}; allowed are additive and independent")
    draw = generator(seed, "planted", "analogies", structure)
    words = entities * slots
    unit = 1 / np.sqrt(dim)
    own = draw.normal(scale=unit * noise, size=(words, dim))
    if structure == "additive":
        a = draw.normal(scale=unit, size=(entities, dim))
        b = draw.normal(scale=unit, size=(slots, dim))
        vectors = np.repeat(a, slots, axis=0) + np.tile(b, (entities, 1)) + own
    else:
        vectors = draw.normal(scale=unit * np.sqrt(2), size=(words, dim)) + own
    stream = emit(
        vectors,
        tokens=tokens,
        scale=scale,
        rho=rho,
        hold=hold,
        zipf=zipf,
        sentence_words=sentence_words,
        seed=seed,
    )
    names = [f"e{e}_r{r}" for e in range(entities) for r in range(slots)]
    asked = _questions(entities, slots, questions, generator(seed, "planted", "questions"))
    return Planted(stream, names, vectors.astype(np.float32), asked, np.empty((0, 3), np.int32))


def _questions(entities: int, slots: int, wanted: int, draw: np.random.Generator) -> NDArray[np.int32]:
    """Distinct questions, drawn evenly: a pair of entities times a pair of slots, both ordered."""
    pairs, relations = entities * (entities - 1), slots * (slots - 1)
    number = draw.choice(pairs * relations, size=min(wanted, pairs * relations), replace=False, shuffle=True)
    pair, relation = np.divmod(number, relations)
    e1, e2 = np.divmod(pair, entities - 1)
    e2 += e2 >= e1
    r1, r2 = np.divmod(relation, slots - 1)
    r2 += r2 >= r1
    columns = (e1 * slots + r1, e1 * slots + r2, e2 * slots + r1, e2 * slots + r2)
    return np.stack(columns, axis=1).astype(np.int32)


def composition(
    *,
    tokens: int = 500_000,
    firsts: int = 20,
    seconds: int = 20,
    dim: int = 32,
    structure: Literal["additive", "independent"] = "additive",
    noise: float = 0.2,
    scale: float = 2.0,
    rho: float = 0.97,
    hold: int = 5,
    zipf: float = 0.5,
    sentence_words: int = 1000,
    seed: int = 0,
) -> Planted:
    """Words whose contexts are the product of two others', as "Volga" is both "Russian" and "river".

    A word ``a3`` has v = a_3, ``b7`` has b_7, and ``a3_b7`` has a_3 + b_7 (+ noise): by the law above,
    p(context | a3_b7) is proportional to p(context | a3) p(context | b7) / p(context), the "and" of
    Mikolov et al. 2013b, §5. ``sums`` holds (a3, b7, a3_b7) for every pair. The word a3 + b7 adds up to is
    then nearest to the sum, the two words themselves left out.

    Args: as for `analogies`; ``independent`` gives a3_b7 a vector of its own (negative control).

    Raises:
        UsageError: for fewer than two words of a kind, or arguments out of range.
    """
    if firsts < 2 or seconds < 2:
        raise UsageError(f"{firsts} first and {seconds} second words; composition needs two of each")
    if structure not in ("additive", "independent"):
        raise UsageError(f"structure is {structure!r}; allowed are additive and independent")
    draw = generator(seed, "planted", "composition", structure)
    unit = 1 / np.sqrt(dim)
    a = draw.normal(scale=unit, size=(firsts, dim))
    b = draw.normal(scale=unit, size=(seconds, dim))
    if structure == "additive":
        both = np.repeat(a, seconds, axis=0) + np.tile(b, (firsts, 1))
    else:
        both = draw.normal(scale=unit * np.sqrt(2), size=(firsts * seconds, dim))
    vectors = np.concatenate([a, b, both])
    vectors += draw.normal(scale=unit * noise, size=vectors.shape)
    stream = emit(
        vectors,
        tokens=tokens,
        scale=scale,
        rho=rho,
        hold=hold,
        zipf=zipf,
        sentence_words=sentence_words,
        seed=seed,
    )
    i, j = np.divmod(np.arange(firsts * seconds), seconds)
    sums = np.stack([i, firsts + j, firsts + seconds + np.arange(i.size)], axis=1).astype(np.int32)
    names = [f"a{n}" for n in range(firsts)] + [f"b{n}" for n in range(seconds)]
    names += [f"a{x}_b{y}" for x, y in zip(i.tolist(), j.tolist(), strict=True)]
    return Planted(stream, names, vectors.astype(np.float32), np.empty((0, 4), np.int32), sums)


def emit(
    vectors: NDArray[np.floating],
    *,
    tokens: int,
    scale: float = 2.0,
    rho: float = 0.97,
    hold: int = 5,
    zipf: float = 1.0,
    sentence_words: int = 1000,
    seed: int = 0,
) -> NDArray[np.int32]:
    """Draw a corpus by the module's law from any true vectors, (W, d); returns the stream of ids.

    Raises:
        UsageError: for arguments out of range.
    """
    for name, value in (("tokens", tokens), ("sentence_words", sentence_words), ("hold", hold)):
        if value < 1:
            raise UsageError(f"{name} is {value}; it must be at least 1")
    if len(vectors) < 2:
        raise UsageError(f"{len(vectors)} words; a corpus needs two")
    if not 0 <= rho < 1:
        raise UsageError(f"rho is {rho}; the topic drifts for values from 0 up to, not including, 1")
    words, dim = vectors.shape
    v = (scale * vectors).astype(np.float32)
    rank = generator(seed, "planted", "ranks").permutation(words) + 1
    bias = (-zipf * np.log(rank) - (v.astype(np.float64) ** 2).sum(axis=1) / 2).astype(np.float32)
    rows = -(-tokens // hold)
    walk = topics(rows, dim, rho=rho**hold, seed=seed)
    uniform = generator(seed, "planted", "words").random(tokens)
    drawn = np.empty(tokens, np.int32)
    for first in range(0, rows, _BLOCK):
        logits = walk[first : first + _BLOCK] @ v.T
        logits += bias
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        block = slice(first * hold, (first + _BLOCK) * hold)
        kernels.choose(logits, uniform[block], hold, drawn[block])
    ends = np.append(np.arange(sentence_words, tokens, sentence_words), tokens)
    return np.insert(drawn, ends, np.int32(-1))


def topics(steps: int, dim: int, *, rho: float, seed: int) -> NDArray[np.float32]:
    """The drifting topic: a stationary AR(1) walk in each dimension, (steps, dim), variance 1."""
    walk = generator(seed, "planted", "topics").standard_normal((steps, dim), dtype=np.float32)
    walk[1:] *= np.float32(np.sqrt(1 - rho**2))
    kernels.drift(walk, np.float32(rho))
    return walk
