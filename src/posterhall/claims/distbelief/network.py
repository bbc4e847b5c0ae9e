"""The dense network of the claims about staleness, trained by replicas on a simulated clock."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from posterhall.embeddings.parameter_server import Classifier, Rule, Simulation, Timing, simulate_task
from posterhall.seeds import derive, generator

Optimiser = Literal["fixed rate", "Adagrad"]

CLASSES = 10
CHANCE = math.log(CLASSES)
"""Loss of guessing at random, in nats: what a run that diverged counts as."""


@dataclass(frozen=True)
class DrawnAgain(Timing):
    """The same distribution of durations, drawn with another seed."""

    def durations(self, worker: int, workers: int, seed: int) -> Iterator[float]:
        """See `Timing`."""
        return super().durations(worker, workers, derive(seed, "drawn again"))


class Network:
    """One seed's task: a network, its data and mini-batches, the same however it is trained.

    Args:
        budget: `hidden` units, `pushes` of all replicas together.
        seed: decides data, initial weights, the mini-batch of each push, and durations.
    """

    def __init__(self, budget: Mapping[str, Any], seed: int) -> None:
        self.pushes = int(budget["pushes"])
        self._seed = seed
        self._task = Classifier(hidden=int(budget["hidden"]), classes=CLASSES, seed=seed)

    @property
    def untrained(self) -> float:
        """Loss of the initial weights."""
        return self._task.loss(self._task.initial(generator(self._seed, "initial")))

    def train(
        self,
        optimiser: Optimiser,
        rate: float,
        replicas: int,
        *,
        warm_start: int = 0,
        timing: Timing | None = None,
        points: int | None = None,
    ) -> Simulation:
        """Train with n_fetch = n_push = 1 (Dean et al. 2012, section 5).

        Args:
            optimiser: the server's.
            rate: the fixed rate, or Adagrad's gamma.
            replicas: with a stale copy each.
            warm_start: pushes, of all, that one replica makes alone first.
            timing: durations; default `Timing()`.
            points: evaluations on the way.
        """
        adaptive = optimiser == "Adagrad"
        return simulate_task(
            self._task,
            pushes=self.pushes,
            # Under Adagrad a replica's own step cancels out: it trains one mini-batch between two pulls.
            rate=1.0 if adaptive else rate,
            workers=replicas,
            rule=Rule("adagrad", gamma=rate) if adaptive else Rule("sgd"),
            warm_start=warm_start,
            timing=timing,
            seed=self._seed,
            evaluate_every=None if points is None else max(self.pushes // points, 1),
        )

    def loss(self, optimiser: Optimiser, rate: float, replicas: int) -> float:
        """Final loss of `train`, at most `CHANCE` if finite."""
        return final_loss(self.train(optimiser, rate, replicas))


def final_loss(simulation: Simulation) -> float:
    """Loss at the end, in nats; infinite if diverged, and no finite one above guessing at random."""
    return min(simulation.loss, CHANCE) if math.isfinite(simulation.loss) else math.inf


def counted(loss: float) -> float:
    """A loss with divergence counted as guessing at random."""
    return min(loss, CHANCE)


def curve(simulation: Simulation, at: NDArray[np.int64]) -> list[float]:
    """The first loss measured at or after each number of pushes; NaN where training had ended."""
    measured = [(pushes, loss) for _, pushes, loss in simulation.curve]
    return [next((loss for pushes, loss in measured if pushes >= each), math.nan) for each in at.tolist()]


def staleness_shares(simulation: Simulation, bins: int) -> list[float]:
    """Share of the pushes at each staleness 0, 1, ... bins - 1; the last bin holds the rest."""
    histogram = simulation.staleness.astype(np.float64)
    kept = np.append(histogram[: bins - 1], histogram[bins - 1 :].sum())
    return (kept / max(kept.sum(), 1.0)).tolist()  # type: ignore[no-any-return]
