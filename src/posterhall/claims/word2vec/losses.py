"""Output layers: negative sampling against hierarchical softmax, NCE and the full softmax (Table 1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from posterhall.claims import Axis, Budget, Claim, Equivalent, Figure, Paired, Panel, Row, Strip, claim
from posterhall.claims.word2vec import _planted
from posterhall.claims.word2vec._planted import METHODS


@claim(id="neg-over-hierarchical", paper="word2vec", where="Table 1; §3", headline=True)
class NegativeOverHierarchical(Claim):
    """Skip-gram vectors trained with negative sampling (15 noise words) answer more analogy questions than
    those trained with hierarchical softmax.

    NEG-5 and NCE-5 are run beside them, so that the figure shows the left half of Table 1.
    """

    kind = Paired(metric="accuracy", arms=("NEG-15", "HS"), margin=0.05)
    paper_value = "61 % (NEG-15) against 47 % (HS-Huffman) of all questions, without subsampling"
    refuted_by = "NEG-15 answers no more questions than hierarchical softmax"
    negative_control = "after shuffling the words nothing is left to learn: NEG-15 must not come out ahead"
    control_arms = ("NEG-15, shuffled", "HS, shuffled")
    deviates = (
        "generated text of 75,000 words (smoke) or 500,000 (laptop) whose analogies are planted, "
        "vocabulary 300 or 800, 32 dimensions, 3 or 5 epochs, best of 2 learning rates for each arm; "
        "the paper: 1 B words of news, vocabulary 692,000, 300 dimensions"
    )
    scales = {
        "smoke": Budget(
            tokens=75_000, entities=30, slots=10, truth=32, questions=3000, dim=32, epochs=3,
            lowest_rate=0.025, rates=2, seconds=6.5,
        ),
        "laptop": Budget(
            tokens=500_000, entities=80, slots=10, truth=32, questions=3000, dim=32, epochs=5,
            lowest_rate=0.0125, rates=2, seconds=60.0,
        ),
        "full": Budget(
            tokens=10_000_000, entities=500, slots=20, truth=64, questions=10_000, dim=100, epochs=5,
            lowest_rate=0.0125, rates=3, seconds=4000.0,
        ),
    }  # fmt: skip

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        ground = _planted.analogies(budget, seed)
        shuffled = _planted.Ground(ground.corpus.shuffled(seed), seed)
        size = {"dim": budget.dim, "epochs": budget.epochs}
        for name in ("NEG-15", "HS", "NEG-5", "NCE-5"):
            found = ground.train(_planted.rates(budget), **METHODS[name], **size)
            yield Row(name, seed, accuracy=found.accuracy, rate=found.rate, pairs=found.pairs)
            if name in ("NEG-15", "HS"):
                lost = shuffled.train([found.rate], **METHODS[name], **size)
                yield Row(f"{name}, shuffled", seed, accuracy=lost.accuracy, rate=lost.rate, pairs=lost.pairs)

    def figure(self, rows: Sequence[Row]) -> Figure:
        arms = ("NEG-15", "NEG-5", "NCE-5", "HS", "NEG-15, shuffled", "HS, shuffled")
        return _by_arm(rows, arms, "Analogies answered after training on the same text.")


@claim(id="neg-over-nce", paper="word2vec", where="Table 1; §2.2")
class NegativeOverNCE(Claim):
    """Negative sampling needs no noise probabilities and still answers more analogy questions than noise
    contrastive estimation with as many noise words."""

    kind = Paired(metric="accuracy", arms=("NEG-5", "NCE-5"), margin=0.02)
    paper_value = "59 % (NEG-5) against 53 % (NCE-5) of all questions"
    refuted_by = "NEG-5 answers no more questions than NCE-5"
    negative_control = (
        "where every word has a vector of its own, questions have no answer: NEG-5 must not come out ahead"
    )
    control_arms = ("NEG-5, no analogies", "NCE-5, no analogies")
    deviates = (
        "generated text of 75,000 words (smoke) or 500,000 (laptop) whose analogies are planted, 32 "
        "dimensions, best of 2 learning rates for each arm; the paper: 1 B words of news, 300 "
        "dimensions"
    )
    scales = {
        "smoke": Budget(
            tokens=75_000, entities=30, slots=10, truth=32, questions=3000, dim=32, epochs=4,
            lowest_rate=0.025, rates=2, seconds=2.5,
        ),
        "laptop": Budget(
            tokens=500_000, entities=80, slots=10, truth=32, questions=3000, dim=32, epochs=5,
            lowest_rate=0.0125, rates=2, seconds=20.0,
        ),
        "full": Budget(
            tokens=10_000_000, entities=500, slots=20, truth=64, questions=10_000, dim=100, epochs=5,
            lowest_rate=0.0125, rates=3, seconds=1500.0,
        ),
    }  # fmt: skip

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        ground = _planted.analogies(budget, seed)
        without = _planted.analogies(budget, seed, "independent")
        size = {"dim": budget.dim, "epochs": budget.epochs}
        for name in ("NEG-5", "NCE-5"):
            found = ground.train(_planted.rates(budget), **METHODS[name], **size)
            yield Row(name, seed, accuracy=found.accuracy, rate=found.rate)
            lost = without.train([found.rate], **METHODS[name], **size)
            yield Row(f"{name}, no analogies", seed, accuracy=lost.accuracy, rate=lost.rate)

    def figure(self, rows: Sequence[Row]) -> Figure:
        arms = ("NEG-5", "NCE-5", "NEG-5, no analogies", "NCE-5, no analogies")
        return _by_arm(rows, arms, "Five noise words a pair, with the noise's probabilities or without.")


@claim(id="neg-close-to-softmax", paper="word2vec", where="§2.2")
class NegativeCloseToSoftmax(Claim):
    """Negative sampling (15 noise words) answers as many analogy questions as the full softmax it stands in
    for, within five points."""

    kind = Equivalent(metric="accuracy", arms=("NEG-15", "softmax"), margin=0.05)
    paper_value = (
        "no number: the full softmax is 'impractical' there, and NEG simplifies it 'as long as the vector "
        "representations retain their quality'"
    )
    refuted_by = "the two differ by more than five points, either way"
    negative_control = (
        "a quarter of the text must not count as equivalent to all of it: else the test could not tell "
        "vectors apart"
    )
    control_arms = ("NEG-15, a quarter of the text", "NEG-15")
    deviates = (
        "generated text of 25,000 words (smoke) or 100,000 (laptop) and a vocabulary of 100 or 400, where "
        "the softmax is affordable; best of 2 or 3 learning rates for each arm"
    )
    scales = {
        "smoke": Budget(
            tokens=25_000, entities=10, slots=10, truth=32, questions=3000, dim=32, epochs=3,
            lowest_rate=0.025, rates=2, seconds=3.0,
        ),
        "laptop": Budget(
            tokens=100_000, entities=40, slots=10, truth=32, questions=3000, dim=32, epochs=5,
            lowest_rate=0.0125, rates=3, seconds=80.0,
        ),
        "full": Budget(
            tokens=2_000_000, entities=200, slots=20, truth=64, questions=10_000, dim=100, epochs=5,
            lowest_rate=0.0125, rates=3, seconds=100_000.0,
        ),
    }  # fmt: skip

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        ground = _planted.analogies(budget, seed)
        quarter = _planted.analogies(budget.replace(tokens=budget.tokens // 4), seed)
        size = {"dim": budget.dim, "epochs": budget.epochs}
        for name in ("NEG-15", "softmax"):
            found = ground.train(_planted.rates(budget), **METHODS[name], **size)
            yield Row(name, seed, accuracy=found.accuracy, rate=found.rate)
        less = quarter.train(_planted.rates(budget), **METHODS["NEG-15"], **size)
        yield Row("NEG-15, a quarter of the text", seed, accuracy=less.accuracy, rate=less.rate)

    def figure(self, rows: Sequence[Row]) -> Figure:
        arms = ("NEG-15", "softmax", "NEG-15, a quarter of the text")
        return _by_arm(rows, arms, "Fifteen noise words in place of the whole vocabulary.")


def _by_arm(rows: Sequence[Row], arms: Sequence[str], caption: str) -> Figure:
    axis = Axis("questions answered", percent=True)
    return Figure(
        Panel(Strip.of(rows, "accuracy", arms), x=axis),
        caption=f"{caption} A dot is a seed, with a text of its own.",
    )
