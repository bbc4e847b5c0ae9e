"""Dense models as jobs for the parameter server: every mini-batch needs and changes all parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from posterhall.embeddings.parameter_server.placement import Placement, Table
from posterhall.embeddings.parameter_server.replica import Selection
from posterhall.embeddings.parameter_server.shards import Matrix
from posterhall.seeds import generator


class Task(Protocol):
    """A model with a loss: what `DenseJob` and the simulator train."""

    def initial(self, rng: np.random.Generator) -> list[Matrix]:
        """Initial parameters, float32 arrays."""

    def gradient(self, parameters: Sequence[Matrix], rng: np.random.Generator) -> tuple[list[Matrix], float]:
        """Gradients of the mean loss of a mini-batch drawn with `rng`, and that loss."""

    def loss(self, parameters: Sequence[Matrix]) -> float:
        """Mean loss on held-out data."""


class DenseJob:
    """Steps of gradient descent on all parameters at once; a `Job`, its own `Course` and `Window`.

    The parameters lie one after the other in a single table of rows of `block` values, cut into one run
    of rows a shard (no row is asked for more often than another). So a private copy is one piece of
    memory, of which the parameters are views.

    Chunk c of epoch e stands for `steps` mini-batches. What they hold depends only on their numbers, so
    that it is the same whoever trains them.

    Args:
        shapes: of each parameter.
        shards: number of shards.
        steps: mini-batches in a chunk, >= 1.
        rate: learning rate by share of the work done.
        step: called with views of the parameters and the mini-batch's (epoch, chunk, step); returns
            gradients of the same shapes and the loss.
        block: values in a row.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, ...]],
        shards: int,
        *,
        steps: int,
        rate: Callable[[float], float],
        step: Callable[[Sequence[Matrix], tuple[int, int, int]], tuple[Sequence[Matrix], float]],
        block: int = 256,
    ) -> None:
        self._shapes = [tuple(shape) for shape in shapes]
        self._ends = np.cumsum([math.prod(shape) for shape in self._shapes]).tolist()
        rows = -(-self._ends[-1] // block)
        self.tables = [Table("parameters", rows, block)]
        self.placements = [Placement.make(rows, min(shards, rows), kind="range")]
        self.strides = [block]
        self.selections = [Selection.of(np.arange(rows, dtype=np.int32), self.placements[0])[0]]
        self.steps = steps
        self._rate, self._step = rate, step
        self._place = (0, 0)

    @classmethod
    def of(cls, task: Task, shards: int, *, seed: int, steps: int, rate: float) -> DenseJob:
        """Train a task at a fixed rate; its mini-batches follow from the seed."""
        return cls(
            [parameter.shape for parameter in task.initial(generator(seed, "initial"))],
            shards,
            steps=steps,
            rate=lambda _: rate,
            step=lambda views, at: task.gradient(views, generator(seed, "batch", *at)),
        )

    def table(self, parameters: Sequence[Matrix]) -> Matrix:
        """Parameters as the table's rows, float32 (rows, block); the end is filled with zeros."""
        flat = np.zeros(self.tables[0].rows * self.tables[0].width, np.float32)
        for view, parameter in zip(self._cut(flat), parameters, strict=True):
            view[...] = parameter
        return flat.reshape(-1, self.tables[0].width)

    def views(self, table: Matrix) -> list[Matrix]:
        """The parameters within a table's rows."""
        return self._cut(table.reshape(-1))

    def _cut(self, flat: Matrix) -> list[Matrix]:
        return [
            flat[begin:end].reshape(shape)
            for begin, end, shape in zip([0, *self._ends], self._ends, self._shapes, strict=False)
        ]

    def rate(self, share: float) -> float:
        """Learning rate after a share of the work."""
        return self._rate(share)

    def open(self, epoch: int, chunk: int) -> DenseJob:
        """See `Job`."""
        self._place = (epoch, chunk)
        return self

    def words(self, step: int) -> int:
        """Mini-batches are the unit of the schedule here."""
        return step

    def window(self, first: int, last: int) -> DenseJob:
        """See `Course`."""
        return self

    def train(self, local: Sequence[Matrix], first: int, last: int, rate: float) -> tuple[float, int]:
        """See `Window`."""
        views = self.views(local[0])
        total = 0.0
        for number in range(first, last):
            gradients, loss = self._step(views, (*self._place, number))
            total += loss
            for view, gradient in zip(views, gradients, strict=True):
                view -= np.float32(rate) * gradient
        return total, last - first
