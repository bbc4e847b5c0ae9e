"""A language of ten words with a reward, small enough for every answer to be looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from posterhall.seeds import generator

WORDS = 10
NOT = WORDS - 1
"""The word that has no valence itself and turns that of the next word round."""
_UNIT = 64
"""Valences are multiples of 1/64: their sums are exact, so that equal rewards are equal numbers."""
Labels = Literal["better", "bradley-terry", "random"]
"""Which of two answers is preferred: that of the greater reward, always; the one of the greater score with
probability sigmoid(difference); or either."""


@dataclass(frozen=True)
class Language:
    """A Markov chain over words, and what each word is worth.

    Attributes:
        first: (WORDS,) probabilities of a text's first word: the chain's own.
        chain: (WORDS, WORDS) probabilities of the next word.
        valences: (WORDS,) what a word adds to the score of an answer, -1.4 to 1.4.
    """

    first: NDArray[np.float64]
    chain: NDArray[np.float64]
    valences: NDArray[np.float64]

    @classmethod
    def draw(cls, seed: int) -> Language:
        """The language of a seed: rows of the chain from a flat Dirichlet distribution."""
        rng = generator(seed, "dpo", "language")
        chain = _chain(rng)
        spread = rng.permutation(np.linspace(-1.25, 1.25, WORDS - 1)) + rng.uniform(-0.1, 0.1, WORDS - 1)
        valences = np.append(np.round(spread * _UNIT) / _UNIT, 0.0)
        return cls(_stationary(chain), chain, valences)

    def with_other_chain(self, seed: int) -> Language:
        """The same words and valences in another order than this language has."""
        chain = _chain(generator(seed, "dpo", "other chain"))
        return Language(_stationary(chain), chain, self.valences)

    def texts(self, count: int, length: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """(count, length) words."""
        text = np.empty((count, length), np.int64)
        drawn = rng.random((count, length))
        text[:, 0] = _invert(np.broadcast_to(self.first, (count, WORDS)), drawn[:, 0])
        for at in range(1, length):
            text[:, at] = _invert(self.chain[text[:, at - 1]], drawn[:, at])
        return text

    def score(self, before: NDArray[np.int64], answers: NDArray[np.int64]) -> NDArray[np.float64]:
        """The sum of an answer's valences, those after a "not" turned round.

        Args:
            before: (...) the prompt's last word, which may be "not".
            answers: (..., T) words; leading shapes broadcast.
        """
        worth = self.valences[answers]
        turned = np.where(answers[..., :-1] == NOT, -1.0, 1.0)
        first = worth[..., 0] * np.where(before == NOT, -1.0, 1.0)
        total: NDArray[np.float64] = first + (worth[..., 1:] * turned).sum(-1)
        return total


def reward(score: NDArray[np.float64]) -> NDArray[np.float64]:
    """The true reward of an answer, sigmoid(score): near 1 for what is as good as can be."""
    return 1 / (1 + np.exp(-score))


def _chain(rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.dirichlet(np.ones(WORDS), size=WORDS)


def _stationary(chain: NDArray[np.float64]) -> NDArray[np.float64]:
    found = np.full(WORDS, 1 / WORDS)
    for _ in range(200):  # the second eigenvalue of such a chain is about 0.3
        found = found @ chain
    return np.asarray(found / found.sum())


def _invert(weights: NDArray[np.float64], drawn: NDArray[np.float64]) -> NDArray[np.int64]:
    """For each row the first word up to which more than the drawn share of its weights lies."""
    reached = weights.cumsum(-1)
    found: NDArray[np.int64] = np.minimum((reached <= (drawn * reached[:, -1])[:, None]).sum(-1), WORDS - 1)
    return found
