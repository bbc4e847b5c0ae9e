"""Training word vectors with two real workers, one of which may be killed on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from posterhall.claims import Row
from posterhall.claims.distbelief.vectors import Corpus
from posterhall.data.encoded import Encoded
from posterhall.embeddings.parameter_server import DistributedSettings, train_encoded
from posterhall.embeddings.parameter_server.fleet import Fleet, Standing
from posterhall.embeddings.parameter_server.processes import ProcessFleet
from posterhall.embeddings.plans import Planner
from posterhall.embeddings.settings import Word2VecSettings
from posterhall.embeddings.trainer import Parameters
from posterhall.errors import DataError
from posterhall.seeds import generator

Observer = Callable[[Standing, Fleet], None]

# 5 ms a message, as between machines: so both workers are at work when one is killed.
_EXCHANGE = DistributedSettings(
    backend="processes", workers=2, batch_words=100, n_fetch=5, n_push=5, latency=0.005
)


class Killer:
    """Kills the second worker, once, when enough words are done and it has trained some.

    Args:
        words: of the whole training.
        share: of the words that must be done.
    """

    def __init__(self, words: int, share: float) -> None:
        self.words, self.share = words, share
        self.struck_at: float | None = None

    def __call__(self, standing: Standing, fleet: Fleet) -> None:
        """Look how far the work is; to be called again and again."""
        assert isinstance(fleet, ProcessFleet)  # noqa: S101 - for the type checker
        done = standing.words / self.words
        second = fleet.pids.get(1)
        if self.struck_at is not None or second is None or done < self.share:
            return
        if fleet.office.words_by_slot()[1] > 0:
            os.kill(second, signal.SIGKILL)
            self.struck_at = done


class Training:
    """One seed's corpus and settings.

    Args:
        words: distinct ones, a multiple of 10.
        tokens: of the corpus.
        dim: length of a vector.
        epochs: passes over the corpus.
        seed: of all but who is faster.
    """

    def __init__(self, *, words: int, tokens: int, dim: int, epochs: int, seed: int) -> None:
        self._seed = seed
        self._settings = Word2VecSettings(
            dim=dim, epochs=epochs, min_count=1, subsample=0.0, chunk_words=1000, seed=seed
        )
        self._corpus = Corpus.generate(words=words, tokens=tokens, chunk_words=1000, seed=seed)
        planner = Planner(self._settings, self._corpus.vocabulary.counts)
        begin = Parameters.initial(self._settings, planner.words, planner.output_rows)
        self._untrained = self._loss(begin.inputs[:, :dim], begin.outputs[:, :dim])

    def _loss(self, inputs: NDArray[np.float32], outputs: NDArray[np.float32]) -> float:
        return float(self._corpus.held_out.losses(inputs, outputs).mean())

    def undisturbed(self, arm: str) -> Row:
        """Two worker processes."""
        return self._row(arm, self._corpus.encoded, _EXCHANGE, None)

    def with_a_death(self, arm: str) -> Row:
        """Two worker processes, the second killed between a quarter and six tenths of the way.

        Raises:
            DataError: if training was over before it could be killed.
        """
        encoded = self._corpus.encoded
        share = float(generator(self._seed, "killed at").uniform(0.25, 0.6))
        killer = Killer(encoded.tokens_total * self._settings.epochs, share)
        row = self._row(arm, encoded, _EXCHANGE, killer)
        if killer.struck_at is None or row["deaths"] != 1.0:
            raise DataError(
                f"seed {self._seed}: training was over before the second worker could be killed; "
                "give the claim's budget more tokens"
            )
        row.metrics["killed_at"] = killer.struck_at
        return row

    def on_half(self, arm: str) -> Row:
        """Two worker threads on the first half of the corpus's chunks, as if the others were lost."""
        whole = self._corpus.encoded
        assert not isinstance(whole.stream, int)  # noqa: S101 - a generated corpus is in memory
        chunks = whole.chunks[: len(whole) // 2 + 1]
        words = int((whole.stream[: chunks[-1]] >= 0).sum())
        with Encoded(whole.stream, chunks, words, "half") as half:
            return self._row(arm, half, replace(_EXCHANGE, backend="threads"), None)

    def _row(self, arm: str, encoded: Encoded, options: DistributedSettings, observe: Observer | None) -> Row:
        done = train_encoded(self._settings, self._corpus.vocabulary, encoded, options, observe=observe)
        missing = encoded.tokens_total * self._settings.epochs - done.report.words
        learned = self._untrained - self._loss(done.vectors.matrix, done.outputs)
        return Row(
            arm,
            self._seed,
            learned=0.0 if missing else learned,
            untrained_words=missing,
            deaths=len(done.report.deaths),
            words_trained_again=sum(death.words_lost_at_most for death in done.report.deaths),
            trained_by_second=float(done.report.words_by_worker[1] / max(done.report.words, 1)),
        )
