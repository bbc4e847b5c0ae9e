from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from posterhall.data import corpus as corpora
from posterhall.data.encoded import Encoded
from posterhall.data.vocabulary import Vocabulary
from posterhall.embeddings.parameter_server.words import WordJob, word_placements
from posterhall.embeddings.plans import Planner
from posterhall.embeddings.settings import Word2VecSettings
from posterhall.embeddings.trainer import Parameters, Trainer


@dataclass
class Small:
    """A small corpus in which words keep company with words of their own group, Zipf distributed."""

    vocabulary: Vocabulary
    encoded: Encoded

    def settings(self, **changes) -> Word2VecSettings:
        return Word2VecSettings(**{"dim": 20, "epochs": 2, "chunk_words": 500, "subsample": 1e-2, **changes})

    def planner(self, settings: Word2VecSettings) -> Planner:
        return Planner(settings, self.vocabulary.counts)

    def initial(self, settings: Word2VecSettings) -> list[np.ndarray]:
        planner = self.planner(settings)
        parameters = Parameters.initial(settings, planner.words, planner.output_rows)
        return [parameters.inputs[:, : settings.dim], parameters.outputs[:, : settings.dim]]

    def job(self, settings: Word2VecSettings, *, shards: int = 1, **how) -> WordJob:
        planner = self.planner(settings)
        placements = word_placements(planner, self.vocabulary.counts, shards)
        return WordJob(
            settings, planner, self.encoded.read, len(self.encoded), placements, **{"batch_words": 20, **how}
        )

    def sequential(self, settings: Word2VecSettings) -> tuple[list[np.ndarray], list[float]]:
        """The matrices and losses of the ordinary trainer in one thread."""
        trainer = Trainer(settings, self.planner(settings), self.encoded)
        trainer.train(threads=1)
        parameters = trainer.parameters
        matrices = [parameters.inputs[:, : settings.dim], parameters.outputs[:, : settings.dim]]
        return matrices, [record.loss for record in trainer.state.history]

    @property
    def clock(self) -> np.ndarray:
        return np.diff(self.encoded.chunks)


@pytest.fixture(scope="session")
def small() -> Small:
    rng = np.random.default_rng(5)
    words, groups = 200, 10
    weight = 1.0 / np.arange(1, words + 1)
    sentences = []
    for _ in range(600):
        mine = weight * np.where(np.arange(words) % groups == rng.integers(groups), 10.0, 1.0)
        sentences.append([f"w{i}" for i in rng.choice(words, 20, p=mine / mine.sum())])
    return Small(*corpora.read(sentences, min_count=2, chunk_words=500))
