"""Word vectors trained by replicas, and their loss on held-out text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posterhall.claims import Row
from posterhall.claims.distbelief import rates
from posterhall.data import corpus as corpora
from posterhall.data.encoded import Encoded
from posterhall.data.synthetic import planted
from posterhall.data.vocabulary import Vocabulary
from posterhall.embeddings.parameter_server import Simulation, simulate
from posterhall.embeddings.parameter_server.words import word_recipe
from posterhall.embeddings.plans import Planner
from posterhall.embeddings.sampling import keep_probability
from posterhall.embeddings.settings import Word2VecSettings
from posterhall.embeddings.trainer import Parameters
from posterhall.errors import DataError
from posterhall.seeds import generator

Matrix = NDArray[np.float32]

BATCH_WORDS = 50
"""Words in a mini-batch."""
_SLOTS = 10  # words of an entity in the generated corpus
_HELD_OUT_PAIRS = 20_000


@dataclass(frozen=True)
class HeldOut:
    """Pairs of words from text that was not trained on, each with noise words.

    Attributes:
        inputs: the input word of each pair, int64 (n,).
        outputs: its neighbour, then the noise words, int64 (n, 1 + negative).
    """

    inputs: NDArray[np.int64]
    outputs: NDArray[np.int64]

    @classmethod
    def draw(
        cls, tokens: NDArray[np.int64], counts: NDArray[np.int64], *, pairs: int, seed: int,
        window: int = 5, negative: int = 5,
    ) -> HeldOut:  # fmt: skip
        """Draw pairs as skip-gram does: reach uniform in 1..window, noise in proportion to count^0.75.

        Args:
            tokens: ids, negative where a sentence ends or a word is unknown; pairs do not cross these.
            counts: of the vocabulary.
            pairs: to try; those that cross a sentence end are dropped.
            seed: of the draw.

        Raises:
            DataError: if no pair is left.
        """
        rng = generator(seed, "held-out pairs")
        breaks = np.cumsum(tokens < 0)
        reach = rng.integers(1, window + 1, size=pairs)
        distance = rng.integers(1, reach + 1)
        first = rng.integers(0, max(len(tokens) - window, 1), size=pairs)
        second = np.minimum(first + distance, len(tokens) - 1)
        kept = (tokens[first] >= 0) & (first != second) & (breaks[first] == breaks[second])
        if not kept.any():
            raise DataError(f"{len(tokens)} held-out tokens hold no pair of words in one sentence")
        a, b = tokens[first[kept]], tokens[second[kept]]
        swap = rng.random(len(a)) < 0.5  # either word may come first in the text
        noise = counts.astype(np.float64) ** 0.75
        drawn = rng.choice(len(counts), size=(len(a), negative), p=noise / noise.sum())
        inputs, neighbours = np.where(swap, b, a), np.where(swap, a, b)
        return cls(inputs, np.concatenate([neighbours[:, None], drawn], axis=1))

    def losses(self, inputs: Matrix, outputs: Matrix) -> NDArray[np.float64]:
        """Negative-sampling loss of each pair, in nats, float64 (n,): -log s(x) - sum log s(-x_noise)."""
        scores = np.einsum(
            "nd,nkd->nk", inputs[self.inputs].astype(np.float64), outputs[self.outputs].astype(np.float64)
        )
        scores[:, 0] *= -1.0
        total: NDArray[np.float64] = np.logaddexp(0.0, scores).sum(axis=1)
        return total


@dataclass(frozen=True)
class Corpus:
    """A generated corpus, encoded for training, and its held-out end."""

    vocabulary: Vocabulary
    encoded: Encoded
    held_out: HeldOut

    @classmethod
    def generate(cls, *, words: int, tokens: int, chunk_words: int, seed: int) -> Corpus:
        """Zipf-distributed words with planted analogies, in sentences of 100 words.

        Args:
            words: distinct ones that may occur, a multiple of 10.
            tokens: to train on; a quarter as many more are held out, at least 4,000.
            chunk_words: size of a chunk.
            seed: of everything.
        """
        more = max(tokens // 4, 4000)
        made = planted.analogies(
            tokens=tokens + more, entities=words // _SLOTS, slots=_SLOTS, questions=1, sentence_words=100,
            seed=seed,
        )  # fmt: skip
        cut = tokens + tokens // 100  # with the marks of sentence ends
        vocabulary, encoded = corpora.read(made.stream[:cut], min_count=1, chunk_words=chunk_words)
        id_of = np.full(words + 1, -1, np.int64)  # the last place answers for the mark -1
        id_of[np.array(list(vocabulary.items), np.int64)] = np.arange(len(vocabulary))
        held_out = HeldOut.draw(id_of[made.stream[cut:]], vocabulary.counts, pairs=_HELD_OUT_PAIRS, seed=seed)
        return cls(vocabulary, encoded, held_out)


def kept_share(words: int, subsample: float) -> float:
    """Share of the tokens that subsampling keeps where word r of so many has frequency 1 / r (Zipf)."""
    frequency = 1 / np.arange(1, words + 1)
    frequency /= frequency.sum()
    counts = np.round(frequency * 1e9).astype(np.int64)
    return float((frequency * keep_probability(counts, subsample, "code")).sum())


class WordTask:
    """Skip-gram on a generated corpus, trained by replicas on a simulated clock.

    Args:
        words: distinct ones, a multiple of 10.
        dim: length of a vector.
        pushes: of all replicas together, each of a mini-batch of 50 words; what the corpus is long enough
            for in one epoch, but for the ends of chunks.
        subsample: threshold above which frequent words are thinned out; 0 keeps all.
        seed: of corpus, initial vectors, windows, noise and durations.
    """

    def __init__(self, *, words: int, dim: int, pushes: int, seed: int, subsample: float = 0.0) -> None:
        self._seed, self._dim, self._subsample = seed, dim, subsample
        longer = 1 / kept_share(words, subsample)
        self._chunk_words = round(10 * BATCH_WORDS * longer)
        self._corpus = Corpus.generate(
            words=words,
            tokens=round(pushes * BATCH_WORDS * longer / 100) * 100,
            chunk_words=self._chunk_words,
            seed=seed,
        )

    def _settings(self, rate: float) -> Word2VecSettings:
        return Word2VecSettings(
            dim=self._dim, epochs=1, min_count=1, subsample=self._subsample, chunk_words=self._chunk_words,
            alpha=rate, min_alpha_ratio=1.0, seed=self._seed,
        )  # fmt: skip

    def _initial(self) -> list[Matrix]:
        settings = self._settings(0.025)
        planner = Planner(settings, self._corpus.vocabulary.counts)
        begin = Parameters.initial(settings, planner.words, planner.output_rows)
        return [begin.inputs[:, : self._dim], begin.outputs[:, : self._dim]]

    def train(self, rate: float, replicas: int, *, watch_rows: bool = False) -> Simulation | None:
        """Train one epoch at a fixed rate with n_fetch = n_push = 1; None if a replica saw it diverge."""
        counts, encoded = self._corpus.vocabulary.counts, self._corpus.encoded
        recipe = word_recipe(self._settings(rate), counts, encoded, shards=1, batch_words=BATCH_WORDS)
        try:
            return simulate(
                recipe.build,
                self._initial(),
                np.diff(encoded.chunks),
                workers=replicas,
                seed=self._seed,
                watch_rows=watch_rows,
            )
        except DataError as error:
            if "diverges" not in str(error):
                raise
            return None

    def losses(self, parameters: Sequence[Matrix]) -> NDArray[np.float64]:
        """Held-out loss of each pair, in nats."""
        return self._corpus.held_out.losses(parameters[0], parameters[1])

    def row(self, arm: str, grid: Sequence[float], replicas: int) -> Row:
        """Choose the highest rate at which one replica learns 95 % of its best, then train with many.

        Returns:
            A row with `lost_share`, and by tenth of the vocabulary, most frequent first: `row_staleness` of
            the input rows and `harm`, the loss that many replicas add to pairs with such an input word over
            what they add to all.
        """
        nothing = self.losses(self._initial())
        ones = {rate: self._measured(self.train(rate, 1)) for rate in grid}
        means = {rate: float(losses.mean()) for rate, losses in ones.items()}
        untrained = float(nothing.mean())
        rate = rates.highest_good(means, untrained - 0.95 * (untrained - means[rates.best(means)]))
        done = self.train(rate, replicas, watch_rows=True)
        many = self._measured(done)
        order = np.arange(len(self._corpus.vocabulary))  # a vocabulary is sorted by frequency
        tenths = done.rows[0].by_decile(order) if done is not None else []
        tenth = np.concatenate([np.full(len(part), i) for i, part in enumerate(np.array_split(order, 10))])
        added = np.where(np.isfinite(many), many - ones[rate], np.nan)
        added = added / added.mean() if added.mean() != 0 else np.full_like(added, np.nan)
        group = tenth[self._corpus.held_out.inputs]
        return Row(
            arm,
            self._seed,
            lost_share=rates.lost_share(untrained, means[rate], float(many.mean())),
            rate=rate,
            loss_of_one=means[rate],
            loss_of_many=float(many.mean()),
            row_staleness=[part["staleness"] for part in tenths],
            harm=[float(added[group == i].mean()) if (group == i).any() else math.nan for i in range(10)],
        )

    def _measured(self, done: Simulation | None) -> NDArray[np.float64]:
        if done is None or done.diverged:
            return np.full(len(self._corpus.held_out.inputs), np.inf)
        return self.losses(done.parameters)
