"""Models of every arm, trained in the same way for the same number of steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from posterhall.claims.recall.budget import LEAST, MOST, OTHERS, SHUFFLED, SOLVERS
from posterhall.claims.rows import Budget, Row
from posterhall.data.packing import IGNORED
from posterhall.data.synthetic.recall import Ints, Task
from posterhall.evals.recall.settings import Cell, RecallSettings
from posterhall.evals.recall.training import train

_RECALLED = 0.9  # of queries: where the paper counts a task as solved (claim 1)


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
        pairs), "conv" (taps), "steps" of the evaluations and "curve" (accuracy on validation rows at each of
        them, its last value repeated after an early end).
    """
    found: dict[str, float] = {}
    for arm, mixer in {**SOLVERS, **OTHERS, SHUFFLED: SOLVERS["attention"]}.items():
        told = best(budget, seed, mixer, _Unanswerable if arm == SHUFFLED else RecallSettings)
        accuracy = math.nan if told["accuracy"] is None else told["accuracy"]
        found[arm] = accuracy
        steps = [
            min(step, budget.steps) for step in range(budget.every, budget.steps + budget.every, budget.every)
        ]
        curve = [point["accuracy"] for point in told["curve"]]
        curve += curve[-1:] * (len(steps) - len(curve))
        yield Row(
            arm,
            seed,
            accuracy=accuracy,
            curve=curve,
            steps=steps,
            steps_taken=told["steps"],
            plateau=1 / budget.pairs,
            conv=budget.conv,
            **{name: told[name] for name in ("seconds", "lr", "parameters", "state_bytes")},
        )
    yield Row(LEAST, seed, accuracy=min(found[arm] for arm in SOLVERS))
    yield Row(MOST, seed, accuracy=max(found[arm] for arm in OTHERS))


def best(
    budget: Budget,
    seed: int,
    mixer: str,
    kind: type[RecallSettings] = RecallSettings,
    *,
    length: int | None = None,
    pairs: int | None = None,
    width: int | None = None,
) -> Mapping[str, Any]:
    """The training at the rate that was best on validation rows, as `evals.recall.training.train` tells it.

    Args:
        budget: see `rows`.
        seed: of data and weights.
        mixer: as `eval recall` has it.
        kind: settings, by which the task is made.
        length, pairs, width: instead of the budget's.
    """
    length, pairs, width = length or budget.length, pairs or budget.pairs, width or budget.width
    rates = tuple(float(rate) for rate in str(budget.rates).split(","))
    settings = kind(
        mixers=(mixer,),
        lengths=(length,),
        pairs=(pairs,),
        widths=(width,),
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
    trained = [train(Cell(mixer, length, pairs, width, rate, seed), settings, told=_nobody) for rate in rates]
    return max(trained, key=lambda each: -1.0 if each["validation"] is None else each["validation"])


def _nobody(_step: int, _point: Mapping[str, float]) -> None:
    """Nobody is told how a training goes."""


def least_widths(mixer: str, budget: Budget, seed: int) -> tuple[list[int], list[int], list[int]]:
    """The least width with which a mixer recalls, at each length.

    Args:
        mixer: as `eval recall` has it.
        budget: see `rows`; lengths and widths ("16,32"), ascending; there are length / 4 pairs.
        seed: of data and weights.

    Returns:
        Lengths; widths, twice the widest where none will do; and parameters of the models of that width, of
        the widest where none will do.
    """
    lengths, widths = ([int(each) for each in str(budget[name]).split(",")] for name in ("lengths", "widths"))
    least, parameters = [], []
    for length in lengths:
        needed = 2 * widths[-1]
        for width in widths:
            told = best(budget, seed, mixer, length=length, pairs=length // 4, width=width)
            if told["accuracy"] is not None and told["accuracy"] > _RECALLED:
                needed = width
                break
        least.append(needed)
        parameters.append(told["parameters"])
    return lengths, least, parameters
