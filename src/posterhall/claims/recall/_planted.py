"""A text of which every token is known to be recallable or not, and models trained on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.claims.rows import Budget
from posterhall.data.synthetic.recall import Ints, Rows
from posterhall.evals.recall import slices
from posterhall.evals.recall.settings import Cell, RecallSettings
from posterhall.evals.recall.sliced import nll
from posterhall.evals.recall.training import build
from posterhall.seeds import generator
from posterhall.train.language import next_token
from posterhall.train.loop import fit
from posterhall.train.settings import TrainSettings

MODELS = {"attention": "attention", "Hyena": "hyena"}
"""Arms, with their mixers; each has the same short convolution of 3 taps before every mixer."""


@dataclass(frozen=True)
class Planted:
    """A chain of background tokens, and between them facts: a key, and the value it has in this document.

    Tokens are the background's, then the keys, then as many values.

    Attributes:
        length: inputs a document; all of them have labels, the token that follows.
        chain: (B, B) of the background: what follows a token of it, facts between them left out.
        keys: as many as values.
        facts: of a document, keys and values drawn without replacement.
    """

    length: int
    chain: NDArray[np.float64]
    keys: int
    facts: int

    @classmethod
    def of(cls, budget: Budget, seed: int) -> Planted:
        """The corpus of a seed, whose chain has rows from Dirichlet(0.1): some 5 of 64 tokens are likely."""
        chain = generator(seed, "recall", "chain").dirichlet(
            np.full(budget.background, 0.1), budget.background
        )
        return cls(budget.length, chain, budget.fact_keys, budget.facts)

    @property
    def vocab(self) -> int:
        """Tokens there are."""
        return len(self.chain) + 2 * self.keys

    @property
    def tokens(self) -> int:
        """Inputs a document."""
        return self.length

    @property
    def plateau(self) -> float:
        """Share of values that are right when any value of the document is told."""
        return 1 / self.facts

    def draw(self, rows: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """Inputs and labels, each (rows, length): at any place that no value must take, a fact or background
        by the toss of a coin."""
        background, each = len(self.chain), np.arange(rows)
        keys, values = (
            rng.permuted(np.tile(np.arange(self.keys), (rows, 1)), axis=1)[:, : self.facts] for _ in range(2)
        )
        bounds = self.chain.cumsum(axis=1)
        last = rng.integers(background, size=rows)
        text = np.empty((rows, self.length + 1), np.int64)
        asked = np.full(rows, -1)  # the fact whose key has just been written
        for at in range(self.length + 1):
            due = asked >= 0
            key = ~due & (rng.random(rows) < 0.5)
            fact = rng.integers(self.facts, size=rows)
            follows = np.minimum((bounds[last] < rng.random((rows, 1))).sum(axis=1), background - 1)
            text[:, at] = np.where(
                due,
                background + self.keys + values[each, asked],
                np.where(key, background + keys[each, fact], follows),
            )
            last = np.where(due | key, last, follows)
            asked = np.where(key, fact, -1)
        return text[:, :-1], text[:, 1:]

    def hits(self, document: Ints) -> NDArray[np.bool_]:
        """Which tokens of a document (T,) after the first, (T - 1,), are values of facts seen before."""
        values = document >= len(self.chain) + self.keys
        found: NDArray[np.bool_] = (slices.hits(document) & values)[1:]
        return found


@dataclass(frozen=True)
class Scored:
    """Losses of all models on the same tokens."""

    losses: Mapping[str, NDArray[np.float64]]
    """(tokens,) nats, by arm."""
    hits: NDArray[np.bool_]
    """(tokens,)."""
    parameters: Mapping[str, int]

    def mean(self, arm: str, chosen: NDArray[np.bool_]) -> float:
        """Nats a token."""
        return float(self.losses[arm][chosen].mean())


@lru_cache(maxsize=8)  # two claims ask the same models, one after the other in the same process
def scored(budget: Budget, seed: int) -> Scored:
    """Train every model on the same documents, and test them on others.

    Args:
        budget: gives the corpus (length, background, fact_keys, facts), the models (width), their training
            (steps, batch, rate) and `tested` documents.
        seed: of corpus, documents and weights.
    """
    task = Planted.of(budget, seed)
    train = Rows(task, seed=seed, split="train")
    documents = list(Rows(task, seed=seed, split="test").take(0, budget.tested)["ids"])
    how = TrainSettings(
        lr=budget.rate,
        warmup=0.1,
        batch=budget.batch,
        steps=budget.steps,
        beta2=0.98,
        weight_decay=0.0,
        clip=1.0,
        dtype="float32",
        seed=seed,
    )
    losses, parameters = {}, {}
    for arm, mixer in MODELS.items():
        model = _model(task, budget, mixer, seed)
        fit(model, train, objective=next_token, settings=how)
        losses[arm] = np.concatenate(nll(model.eval(), documents))
        parameters[arm] = sum(each.numel() for each in model.parameters())
    return Scored(losses, np.concatenate([task.hits(each) for each in documents]), parameters)


def _model(task: Planted, budget: Budget, mixer: str, seed: int) -> Any:
    settings = RecallSettings(
        mixers=(mixer,), lengths=(task.length,), pairs=(task.facts,), vocab=task.vocab, conv=3
    )
    return build(Cell(mixer, task.length, task.facts, budget.width, budget.rate, seed), settings, task)


def at_random(scored: Scored, seed: int) -> NDArray[np.bool_]:
    """As many tokens as there are hits, drawn from all of them."""
    return generator(seed, "recall", "random slice").permuted(scored.hits)
