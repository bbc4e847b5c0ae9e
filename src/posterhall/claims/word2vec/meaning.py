"""Phrases as single tokens (§4), and meanings that add up (§5)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from posterhall.claims import (
    Axis,
    Bars,
    Budget,
    Claim,
    Figure,
    Paired,
    Panel,
    Row,
    Strip,
    Threshold,
    claim,
)
from posterhall.claims.word2vec._planted import METHODS
from posterhall.seeds import derive

if TYPE_CHECKING:
    from posterhall.data.synthetic.bigrams import PlantedPhrases


@claim(id="phrases-found", paper="word2vec", where="§4, eq. 6")
class PhrasesFound(Claim):
    """Scoring neighbours by how much more often they stand together than apart, in two passes, finds
    planted phrases of two and three words with an F1 of at least 0.9.

    With the original tool's values (discount 5, thresholds 200 and 100). What is found is every joined token
    that occurs five times or more after both passes; a part of a longer phrase is a mistake if it is left
    over so often.
    """

    kind = Threshold(metric="f1", arm="lift", at_least=0.9)
    paper_value = (
        "no number: 'we can form many reasonable phrases without greatly increasing the size of the "
        "vocabulary'"
    )
    refuted_by = "F1 below 0.9"
    negative_control = (
        "as many of the most frequent neighbours, which meet by chance because their words are frequent, "
        "must not do as well"
    )
    control_arms = ("most frequent neighbours",)
    deviates = (
        "200 pairs and 50 triples planted among independent words by Zipf's law (vocabulary 5,000; 300,000 "
        "words at smoke, 2 M at laptop); the figure also shows a text whose neighbours share a topic, "
        "where chance pairs have a large lift as well"
    )
    scales = {
        "smoke": Budget(
            tokens=300_000, words=5000, pairs=200, triples=50, entities=40, slots=10, seconds=2.5,
        ),
        "laptop": Budget(
            tokens=2_000_000, words=20_000, pairs=800, triples=200, entities=80, slots=10, seconds=12.0,
            seeds=8,
        ),
        "full": Budget(
            tokens=50_000_000, words=200_000, pairs=8000, triples=2000, entities=400, slots=20, seconds=500.0
        ),
    }  # fmt: skip

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.data.synthetic import bigrams, planted

        sizes = {name: budget[name] for name in ("tokens", "words", "pairs", "triples")}
        corpus = bigrams.planted_phrases(**sizes, seed=derive(seed, "phrases"))
        yield agreement("lift", seed, found_phrases(corpus), corpus.truth)
        yield agreement("lift, shuffled", seed, found_phrases(corpus.shuffled(seed)), corpus.truth)
        frequent = most_frequent_pairs(corpus, len(corpus.truth))
        yield agreement("most frequent neighbours", seed, frequent, corpus.truth)
        base = planted.analogies(
            tokens=budget.tokens // 2,
            entities=budget.entities,
            slots=budget.slots,
            seed=derive(seed, "topics"),
        )
        topical = bigrams.spelled(base, seed=derive(seed, "spelled"))
        yield agreement("lift, on topical text", seed, found_phrases(topical), topical.truth)

    def figure(self, rows: Sequence[Row]) -> Figure:
        arms = {arm: arm for arm in dict.fromkeys(row.arm for row in rows)}
        bars = [Bars.of(rows, metric, arms, label=metric) for metric in ("precision", "recall")]
        return Figure(
            Panel(*bars, x=Axis("phrases", percent=True, low=0, high=1)),
            caption="Precision: share of the phrases found that were planted. "
            "Recall: share of the planted that were found.",
        )


def found_phrases(corpus: PlantedPhrases, *, often: int = 5) -> set[str]:
    """What two passes join, if it occurs `often`."""
    from posterhall.data.phrases import Phrases

    sentences = corpus.sentences()
    fitted = Phrases(passes=2).fit(sentences)
    known = fitted.phrases_
    count = Counter(token for line in fitted.transform(sentences) for token in line if token in known)
    return {token for token, n in count.items() if n >= often}


def most_frequent_pairs(corpus: PlantedPhrases, number: int) -> set[str]:
    """The most frequent neighbours within sentences, joined."""
    stream = corpus.stream.astype(np.int64)
    words = len(corpus.names)
    inside = (stream[:-1] >= 0) & (stream[1:] >= 0)
    pairs, counts = np.unique((stream[:-1] * words + stream[1:])[inside], return_counts=True)
    top = pairs[np.argsort(-counts, kind="stable")[:number]]
    return {f"{corpus.names[p // words]}_{corpus.names[p % words]}" for p in top.tolist()}


def agreement(arm: str, seed: int, found: Collection[str], truth: Collection[str]) -> Row:
    """Precision, recall and F1 of a set found against the true one; nothing found has precision 0."""
    right = len(set(found) & set(truth))
    precision = right / len(found) if found else 0.0
    recall = right / len(truth)
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    return Row(arm, seed, precision=precision, recall=recall, f1=f1, found=len(found))


@claim(id="additive-composition", paper="word2vec", where="§5; Table 5")
class AdditiveComposition(Claim):
    """The sum of two words' vectors has the word that means both among its four nearest, far more often
    than either word alone.

    Both words are left out of the answers. 'One word alone' is the better of the two words, since a word
    that means both is also near each of them.
    """

    kind = Paired(metric="among_four", arms=("sum", "one word alone"), margin=0.25)
    paper_value = (
        "five examples with their four nearest: Czech + currency → koruna, Vietnam + capital → Hanoi, ..."
    )
    refuted_by = "sums find it no more often than one of the two words does"
    negative_control = (
        "where the word for both has a vector of its own, sums must not find it more often than one word"
    )
    control_arms = ("sum, nothing to compose", "one word alone, nothing to compose")
    deviates = (
        "generated text of 150,000 words (smoke) or 1 M (laptop) with 400 or 1,600 planted combinations; "
        "skip-gram NEG-5, 32 dimensions, learning rate 0.05"
    )
    scales = {
        "smoke": Budget(
            tokens=150_000, first_words=20, second_words=20, truth=32, dim=32, epochs=5, seconds=3.0,
        ),
        "laptop": Budget(
            tokens=1_000_000, first_words=40, second_words=40, truth=32, dim=32, epochs=5, seconds=25.0,
            seeds=8,
        ),
        "full": Budget(
            tokens=20_000_000, first_words=100, second_words=100, truth=64, dim=100, epochs=5, seconds=1200.0
        ),
    }  # fmt: skip

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.data.synthetic.planted import composition
        from posterhall.embeddings import SkipGram

        structures: tuple[tuple[Literal["additive", "independent"], str], ...] = (
            ("additive", ""),
            ("independent", ", nothing to compose"),
        )
        for structure, ending in structures:
            corpus = composition(
                tokens=budget.tokens, firsts=budget.first_words, seconds=budget.second_words,
                dim=budget.truth,
                structure=structure, seed=derive(seed, "corpus"),
            )  # fmt: skip
            vectors = (
                SkipGram(
                    **METHODS["NEG-5"], dim=budget.dim, epochs=budget.epochs, alpha=0.05, subsample=0.0,
                    min_count=1, seed=derive(seed, "vectors"),
                )
                .fit_encoded(*corpus.read())
                .vectors_
            )  # fmt: skip
            rows = np.array([vectors.index.get(name, -1) for name in corpus.names])[corpus.sums]
            rows = rows[(rows >= 0).all(axis=1)]
            unit = vectors.matrix / np.linalg.norm(vectors.matrix, axis=1, keepdims=True)
            first, second = (ranks(unit, unit[rows[:, k]], rows) for k in (0, 1))
            both = ranks(unit, unit[rows[:, 0]] + unit[rows[:, 1]], rows)
            alone = min((first, second), key=lambda r: float((r >= 4).mean()))
            for name, rank in (("sum", both), ("one word alone", alone)):
                yield Row(
                    name + ending,
                    seed,
                    among_four=float((rank < 4).mean()),
                    nearest=float((rank == 0).mean()),
                )

    def figure(self, rows: Sequence[Row]) -> Figure:
        arms = list(dict.fromkeys(row.arm for row in rows))
        axis = Axis("combinations found", percent=True)
        return Figure(
            Panel(Strip.of(rows, "among_four", arms), x=axis, title="among the four nearest"),
            Panel(Strip.of(rows, "nearest", arms), x=axis, title="the nearest"),
            caption="The word that means both, looked for near the sum of two vectors and near one of them.",
        )


def ranks(
    unit: NDArray[np.float32], queries: NDArray[np.float32], sums: NDArray[np.int64]
) -> NDArray[np.int64]:
    """How many words are nearer to each query than the true one, the two words asked with left out, (n,).

    Args:
        unit: vectors of length 1, (V, d).
        queries: (n, d).
        sums: rows of the first word, the second and the one that means both, (n, 3).
    """
    cosines = queries @ unit.T
    n = np.arange(len(sums))
    true = cosines[n, sums[:, 2]].copy()
    for k in (0, 1):
        cosines[n, sums[:, k]] = -np.inf
    nearer: NDArray[np.int64] = (cosines > true[:, None]).sum(axis=1)
    return nearer
