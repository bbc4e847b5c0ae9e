"""Training on a planted corpus and asking its questions; shared by the claims of word2vec."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from posterhall.claims.rows import Budget
from posterhall.errors import DataError
from posterhall.seeds import derive

if TYPE_CHECKING:
    from posterhall.data.synthetic.planted import Planted
    from posterhall.embeddings.vectors import WordVectors

RATE_STEP = 2.0

# Table 1's rows: what each is called there, and what it is here.
METHODS: Mapping[str, Mapping[str, Any]] = {
    "NEG-5": {"loss": "negative", "negative": 5},
    "NEG-15": {"loss": "negative", "negative": 15},
    "HS": {"loss": "hierarchical"},
    "NCE-5": {"loss": "nce", "negative": 5},
    "softmax": {"loss": "softmax"},
}


def rates(budget: Budget) -> tuple[float, ...]:
    """The learning rates that an arm may choose from: `rates` of them from `lowest_rate` up, twofold.

    Each scale has them where every arm's best one was on a text of another seed (999), so that no arm is
    held at a rate that suits another.
    """
    return tuple(budget.lowest_rate * RATE_STEP**i for i in range(budget.rates))


def analogies(
    budget: Budget, seed: int, structure: Literal["additive", "independent"] = "additive", **changes: Any
) -> Ground:
    """The planted corpus of a seed, the same for all arms."""
    from posterhall.data.synthetic.planted import analogies as plant

    given = {name: budget[name] for name in ("tokens", "entities", "slots", "questions")}
    corpus = plant(
        **{**given, "dim": budget.truth, "structure": structure, "seed": derive(seed, "corpus"), **changes}
    )
    return Ground(corpus, seed)


@dataclass(frozen=True)
class Trained:
    """An arm after training.

    Attributes:
        vectors: of the best rate.
        right: which of the corpus's questions they answer, (Q,) bool.
        rate: the learning rate chosen.
        pairs: (context, centre) pairs (CBOW: positions) trained.
        seconds: CPU seconds of training at that rate.
        asked: the questions that count, those that chose the rate left out, (Q,) bool.
    """

    vectors: WordVectors
    right: NDArray[np.bool_]
    rate: float
    pairs: int
    seconds: float
    asked: NDArray[np.bool_]

    @property
    def accuracy(self) -> float:
        """Share of the questions that count which are answered rightly."""
        return share(self.right, self.asked)


class Ground:
    """A planted corpus, encoded for the trainer, with its questions."""

    def __init__(self, corpus: Planted, seed: int) -> None:
        self.corpus = corpus
        self.seed = seed
        self.vocabulary, self.encoded = corpus.read()
        self.choosing = np.arange(len(corpus.questions)) % 2 == 0

    @cached_property
    def answer_deciles(self) -> NDArray[np.int8]:
        """Frequency decile of each question's answer, (Q,): 0 the most frequent."""
        return self.corpus.deciles[self.corpus.questions[:, 3]]

    def right(self, vectors: WordVectors) -> NDArray[np.bool_]:
        """Which questions vectors answer: b - a + c is nearest to d, of all words but a, b and c."""
        from posterhall.embeddings.analogies import Questions, evaluate

        items = self.corpus.questions
        asked = Questions(tuple(self.corpus.names), items, ("planted",), np.zeros(len(items), np.int32))
        return evaluate(vectors, asked, intervals=False, threads=1).right

    def train(
        self,
        rates: Sequence[float],
        *,
        model: Literal["skipgram", "cbow"] = "skipgram",
        among: NDArray[np.bool_] | None = None,
        **settings: Any,
    ) -> Trained:
        """Train at each rate and keep the best.

        Where there are several rates, every other question chooses between them and the others count;
        the same ones for all arms.

        Args:
            rates: learning rates to try; one that diverges is passed over.
            model: skipgram or cbow.
            among: the questions of interest; all unless given.
            **settings: of `Word2VecSettings`; subsampling is off unless given.

        Raises:
            DataError: if training diverges at every rate.
        """
        from posterhall.embeddings import CBOW, SkipGram

        def fit(rate: float) -> tuple[WordVectors, int]:
            given = {"subsample": 0.0, "min_count": 1, "seed": derive(self.seed, "vectors"), **settings}
            estimator = (SkipGram if model == "skipgram" else CBOW)(alpha=rate, **given)
            estimator.fit_encoded(self.vocabulary, self.encoded)
            return estimator.vectors_, sum(record.terms for record in estimator.history_)

        return best(fit, rates, self, among)


def best(
    fit: Callable[[float], tuple[WordVectors, int]],
    rates: Sequence[float],
    ground: Ground,
    among: NDArray[np.bool_] | None = None,
) -> Trained:
    """The best of several rates by the choosing questions; see `Ground.train`."""
    wanted = np.ones(len(ground.choosing), bool) if among is None else among
    found: list[tuple[float, Trained]] = []
    failure: DataError | None = None
    for rate in rates:
        began = time.process_time()
        try:
            vectors, pairs = fit(rate)
        except DataError as error:  # divergence: nothing else can be wrong with a generated corpus
            failure = error
            continue
        seconds = time.process_time() - began
        right = ground.right(vectors)
        trained = Trained(vectors, right, rate, pairs, seconds, wanted & ~ground.choosing)
        found.append((share(right, wanted & ground.choosing), trained))
    if not found:
        raise failure or DataError("there is no learning rate to try")
    return max(found, key=lambda pair: pair[0])[1]


def share(right: NDArray[np.bool_], among: NDArray[np.bool_]) -> float:
    """Share of right answers among some questions; NaN if there are none."""
    return float(right[among].mean()) if among.any() else float("nan")
