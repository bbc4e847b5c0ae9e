"""Models of every arm, trained in the same way for the same number of steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from posterhall.claims.rows import Budget, Row
from posterhall.data.packing import IGNORED
from posterhall.data.synthetic.recall import Ints, Task
from posterhall.evals.recall.settings import Cell, RecallSettings
from posterhall.evals.recall.training import train

SOLVERS = {"attention": "attention", "Based": "based"}
"""Arms that are to recall, with their mixers."""
OTHERS = {"long convolution": "long_conv", "S4D": "s4d", "Hyena": "hyena"}
"""Arms that are not."""
LEAST, MOST = "the lesser of attention and Based", "the best of the others"
SHUFFLED = "attention, answers shuffled"


@dataclass(frozen=True)
class Shuffled:
    """A task whose answers are dealt out at random to the queries of their row: nothing can be recalled."""

    task: Task

    @property
    def vocab(self) -> int:
        """See `Task`."""
        return self.task.vocab

    @property
    def tokens(self) -> int:
        """See `Task`."""
        return self.task.tokens

    @property
    def plateau(self) -> float:
        """The most that can be had."""
        return self.task.plateau

    def draw(self, rows: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """See `Task`; every row has as many queries as the others."""
        ids, labels = self.task.draw(rows, rng)
        asked = labels != IGNORED
        labels[asked] = rng.permuted(labels[asked].reshape(rows, -1), axis=1).ravel()
        return ids, labels


class _Unanswerable(RecallSettings):
    """Settings whose task is a shuffled one."""

    def made(self, length: int, pairs: int | None) -> Task:
        return Shuffled(super().made(length, pairs))


def rows(budget: Budget, seed: int) -> Iterator[Row]:
    """Train every arm, and compare the solvers' lesser with the others' best.

    Args:
        budget: gives the task (length, pairs, vocab), the models (width, conv) and their training (steps,
            batch, every, rates).
        seed: of data and weights, the same for all arms.

    Yields:
        Rows with "accuracy" (of queries, on test rows; NaN if training failed); those of models also with
        "steps_taken" and "seconds" (CPU) of the training, "lr", "parameters", "state_bytes", "plateau" (1 /
        pairs), "steps" of the evaluations and "curve" (accuracy on validation rows at each of them, its last
        value repeated after an early end).
    """
    found: dict[str, float] = {}
    for arm, mixer in {**SOLVERS, **OTHERS, SHUFFLED: SOLVERS["attention"]}.items():
        best = _best(budget, seed, mixer, _Unanswerable if arm == SHUFFLED else RecallSettings)
        accuracy = math.nan if best["accuracy"] is None else best["accuracy"]
        found[arm] = accuracy
        steps = [
            min(step, budget.steps) for step in range(budget.every, budget.steps + budget.every, budget.every)
        ]
        curve = [point["accuracy"] for point in best["curve"]]
        curve += curve[-1:] * (len(steps) - len(curve))
        yield Row(
            arm,
            seed,
            accuracy=accuracy,
            curve=curve,
            steps=steps,
            steps_taken=best["steps"],
            plateau=1 / budget.pairs,
            **{name: best[name] for name in ("seconds", "lr", "parameters", "state_bytes")},
        )
    yield Row(LEAST, seed, accuracy=min(found[arm] for arm in SOLVERS))
    yield Row(MOST, seed, accuracy=max(found[arm] for arm in OTHERS))


def _best(budget: Budget, seed: int, mixer: str, kind: type[RecallSettings]) -> Mapping[str, Any]:
    """The training at the rate that was best on validation rows."""
    rates = tuple(float(rate) for rate in str(budget.rates).split(","))
    settings = kind(
        mixers=(mixer,),
        lengths=(budget.length,),
        pairs=(budget.pairs,),
        widths=(budget.width,),
        vocab=budget.vocab,
        conv=budget.conv,
        lr=rates,
        steps=budget.steps,
        batch=budget.batch,
        warmup=min(100, budget.steps // 10),
        eval_every=budget.every,
        validation_rows=256,
        test_rows=1024,
        seed=seed,
    )
    trained = [
        train(Cell(mixer, budget.length, budget.pairs, budget.width, rate, seed), settings, told=_nobody)
        for rate in rates
    ]
    return max(trained, key=lambda each: -1.0 if each["validation"] is None else each["validation"])


def _nobody(_step: int, _point: Mapping[str, float]) -> None:
    """Nobody is told how a training goes."""
