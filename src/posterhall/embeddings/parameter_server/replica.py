"""A worker's side of training: pull rows, train a private copy, push the difference.

The loop is a generator that says where time passes, so that threads, processes and Ray actors run it
through while the simulator interleaves many of them on one clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from posterhall.embeddings._plan_kernels import renumber
from posterhall.embeddings.parameter_server import _kernels
from posterhall.embeddings.parameter_server.coordinator import Desk, Lease, NoLease, Trained
from posterhall.embeddings.parameter_server.memory import aligned_zeros
from posterhall.embeddings.parameter_server.placement import Placement, Table
from posterhall.embeddings.parameter_server.shards import Matrix, Push, Rows
from posterhall.embeddings.parameter_server.transport import Transport, Wanted
from posterhall.errors import DataError


@dataclass(frozen=True)
class Selection:
    """Rows of one table, ordered by shard.

    Attributes:
        rows: the table's row numbers, int32 (n,).
        local: the same rows' numbers within their shards, int32 (n,).
        ends: int64 (shards + 1,); the rows of shard s are ends[s] to ends[s + 1].
    """

    rows: Rows
    local: Rows
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Rows, placement: Placement) -> tuple[Selection, NDArray[np.int32]]:
        """Order rows by shard; also returns the new place of each, int32 (n,)."""
        n = len(rows)
        ends = np.zeros(placement.shards + 1, np.int64)
        rank, ordered, local = (np.empty(n, np.int32) for _ in range(3))
        _kernels.group(rows, placement.shard_of, placement.local_of, ends, rank, ordered, local)
        return cls(ordered, local, ends), rank


class Window(Protocol):
    """Some mini-batches with the rows they need."""

    @property
    def selections(self) -> Sequence[Selection]:
        """The rows, one selection a table."""

    def train(self, local: Sequence[Matrix], first: int, last: int, rate: float) -> tuple[float, int]:
        """Train mini-batches first to last - 1 of the chunk on a private copy, in place.

        Args:
            local: for each table float32 (n, stride) in the order of the selection.
            first, last: numbers within the chunk, both inside the window.
            rate: learning rate.

        Returns:
            Loss summed over terms, in nats, and the number of terms.
        """


class Course(Protocol):
    """A chunk, made ready to be trained in mini-batches."""

    @property
    def steps(self) -> int:
        """Number of mini-batches."""

    def words(self, step: int) -> int:
        """Words of the corpus that the first `step` mini-batches stand for."""

    def window(self, first: int, last: int) -> Window:
        """Mini-batches first to last - 1; valid until the next call."""


class Job(Protocol):
    """What is trained: word vectors, a dense module, a simulated task."""

    @property
    def tables(self) -> Sequence[Table]:
        """The parameters."""

    @property
    def placements(self) -> Sequence[Placement]:
        """Where each table's rows are."""

    @property
    def strides(self) -> Sequence[int]:
        """Row length of the private copies, at least the table's width; the rest stays zero."""

    def rate(self, share: float) -> float:
        """Learning rate after a share of the whole work."""

    def open(self, epoch: int, chunk: int) -> Course:
        """Begin a chunk; valid until the next call."""


class Event(Enum):
    """Where a worker stands when it gives way."""

    WAIT = "wait"  # there is nothing to do now; ask again
    PULLED = "pulled"  # rows arrived
    COMPUTE = "compute"  # mini-batches will be trained next
    PUSHING = "pushing"  # a difference is ready and will be sent next
    PUSHED = "pushed"  # it was


class Pause(NamedTuple):
    """An event and how much of it: mini-batches for COMPUTE, bytes for PULLED and PUSHING."""

    event: Event
    amount: int


class _Accrued:
    """Differences of a table's rows that were not pushed yet (where pulls fall between pushes)."""

    def __init__(self, table: Table) -> None:
        self._place_of = np.full(table.rows, -1, np.int32)
        self._found = np.zeros(table.rows, np.int32)
        self._count = 0
        self._sum = np.zeros((0, table.width), np.float32)

    def add(self, rows: Rows, delta: Matrix) -> None:
        places = rows.copy()
        held = self._count
        self._count = int(renumber(places, len(places), self._place_of, self._found, held))
        if self._count > len(self._sum):
            grown = np.zeros((2 * self._count, self._sum.shape[1]), np.float32)
            grown[:held] = self._sum[:held]
            self._sum = grown
        _kernels.add_at(self._sum, places, delta)

    def lay_on(self, rows: Rows, copy: Matrix) -> None:
        """Add what is held to a fresh copy of `rows`, so that a worker sees its own steps."""
        _kernels.add_known(copy, rows, self._place_of, self._sum)

    def take(self, placement: Placement) -> tuple[Selection, Matrix]:
        """Hand over everything, ordered by shard, and begin anew."""
        rows = self._found[: self._count]
        selection, rank = Selection.of(rows, placement)
        delta = np.empty((self._count, self._sum.shape[1]), np.float32)
        delta[rank] = self._sum[: self._count]
        self._sum[: self._count] = 0.0
        self._place_of[rows] = -1
        self._count = 0
        return selection, delta


class Replica:
    """One worker.

    A step is one mini-batch. Every `n_fetch` steps the rows that the next `n_fetch` steps need are
    pulled; every `n_push` steps the accumulated difference is pushed (Dean et al. 2012, section 4.1).
    Between pulls the worker goes on with its own steps applied; where it pulls with steps not yet
    pushed, these are laid on the fresh copy (the paper's pseudo-code would drop them from it). Both
    counts end with the lease.

    Args:
        job: what is trained.
        transport: the shards.
        desk: the coordinator.
        slot: this worker's number, never used by another.
        n_fetch, n_push: steps between pulls and between pushes, >= 1.
        stopping: asked before each window; true abandons the lease.
    """

    def __init__(
        self,
        job: Job,
        transport: Transport,
        desk: Desk,
        *,
        slot: int,
        n_fetch: int,
        n_push: int,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        if n_fetch < 1 or n_push < 1:
            raise DataError(f"n_fetch is {n_fetch} and n_push {n_push}; both are at least 1")
        self._job, self._transport, self._desk = job, transport, desk
        self._slot, self._n_fetch, self._n_push = slot, n_fetch, n_push
        self._stopping = stopping
        self._room = [aligned_zeros((2, 0, stride)) for stride in job.strides]
        self._local: list[Matrix] = []  # the private copies that are trained
        self._twins: list[Matrix] = []  # and as they were when pulled, or when pushed last
        # Where every pull follows a push, there is nothing to keep between two copies.
        self._accrued = [_Accrued(table) for table in job.tables] if n_fetch % n_push else []
        self._pushes = 0
        self._seen: list[int] = []
        self._loss, self._terms, self._pulled = 0.0, 0, 0

    def run(self) -> Iterator[Pause]:
        """Train until the coordinator has nothing left."""
        while (lease := self._desk.lease(self._slot)) is not NoLease.DONE:
            if isinstance(lease, Lease):
                yield from self._train(lease)
            else:
                yield Pause(Event.WAIT, 0)

    def _train(self, lease: Lease) -> Iterator[Pause]:
        course = self._job.open(lease.epoch, lease.chunk)
        rate = self._job.rate(lease.share)
        step = reported = lease.step
        since = 0  # steps since the last push
        while step < course.steps:
            while not self._desk.may_step(self._slot):
                yield Pause(Event.WAIT, 0)
            if self._stopping():
                return
            last = min(step + self._n_fetch, course.steps)
            window = course.window(step, last)
            yield Pause(Event.PULLED, self._pull(window.selections))
            undivided = not self._accrued and self._n_push >= last - step and self._transport.borrows
            while step < last:
                upto = min(last, step + self._n_push - since)
                yield Pause(Event.COMPUTE, upto - step)
                loss, terms = window.train(self._local, step, upto, rate)
                self._loss += loss
                self._terms += terms
                since += upto - step
                step = upto
                if undivided:
                    parts = list(zip(window.selections, self._local, strict=True))
                else:
                    parts = self._differences(window.selections, more=step < last)
                for accrued, (selection, delta) in zip(self._accrued, parts, strict=bool(self._accrued)):
                    accrued.add(selection.rows, delta)
                if since == self._n_push or step == course.steps:
                    if self._accrued:
                        parts = [
                            accrued.take(placement)
                            for accrued, placement in zip(self._accrued, self._job.placements, strict=True)
                        ]
                    words = course.words(step) - course.words(reported)
                    yield Pause(Event.PUSHING, self._bytes(selection for selection, _ in parts))
                    self._push(parts, self._twins if undivided else None, rate, step, words)
                    since, reported = 0, step
                    yield Pause(Event.PUSHED, 0)
        self._transport.flush()
        if reported < course.steps or course.steps == 0:
            # Nothing of the chunk survived subsampling (or all of it was pushed by a dead worker).
            words = course.words(course.steps) - course.words(reported)
            self._desk.report(self._slot, Trained(course.steps, words, 0.0, 0, 0, 0))
        self._desk.finish(self._slot)

    def _bytes(self, selections: Iterable[Selection]) -> int:
        """Size of the values of rows."""
        return sum(4 * len(s.rows) * t.width for s, t in zip(selections, self._job.tables, strict=True))

    def _pull(self, selections: Sequence[Selection]) -> int:
        """Fetch rows into the private copies; returns the bytes moved."""
        for i, selection in enumerate(selections):
            n = len(selection.rows)
            if n > self._room[i].shape[1]:
                self._room[i] = aligned_zeros((2, n * 5 // 4, self._job.strides[i]))
        self._local = [room[0, : len(s.rows)] for room, s in zip(self._room, selections, strict=True)]
        self._twins = [room[1, : len(s.rows)] for room, s in zip(self._room, selections, strict=True)]
        wanted = []
        for shard in range(self._job.placements[0].shards):
            spans = [slice(s.ends[shard], s.ends[shard + 1]) for s in selections]
            wanted.append(
                Wanted(
                    [s.local[span] for s, span in zip(selections, spans, strict=True)],
                    [copy[span] for copy, span in zip(self._local, spans, strict=True)],
                    [twin[span] for twin, span in zip(self._twins, spans, strict=True)],
                )
            )
        self._seen = self._transport.pull(self._slot, wanted)
        if self._accrued:
            for i, selection in enumerate(selections):
                self._accrued[i].lay_on(selection.rows, self._local[i])
                self._twins[i][...] = self._local[i]
        pulled = self._bytes(selections)
        self._pulled += pulled
        return pulled

    def _differences(self, selections: Sequence[Selection], *, more: bool) -> list[tuple[Selection, Matrix]]:
        """The rows changed since the pull or the last call, and by how much."""
        parts = []
        for table, selection, copy, twin in zip(
            self._job.tables, selections, self._local, self._twins, strict=True
        ):
            delta = np.empty((len(copy), table.width), np.float32)
            index = np.empty(len(copy), np.int32)
            found = int(_kernels.changed_rows(copy, twin, delta, index))
            if more:
                twin[...] = copy
            index = index[:found]
            ends = np.searchsorted(index, selection.ends)
            parts.append((Selection(selection.rows[index], selection.local[index], ends), delta[:found]))
        return parts

    def _push(
        self,
        parts: Sequence[tuple[Selection, Matrix]],
        bases: Sequence[Matrix] | None,
        rate: float,
        step: int,
        words: int,
    ) -> None:
        self._pushes += 1
        pushes: list[Push | None] = []
        for shard, seen in enumerate(self._seen):
            spans = [slice(s.ends[shard], s.ends[shard + 1]) for s, _ in parts]
            if all(span.start == span.stop for span in spans):
                pushes.append(None)
                continue
            rows = [s.local[span] for (s, _), span in zip(parts, spans, strict=True)]
            deltas = [delta[span] for (_, delta), span in zip(parts, spans, strict=True)]
            cut = [base[span] for base, span in zip(bases, spans, strict=True)] if bases else None
            pushes.append(Push(self._slot, self._pushes, seen, rate, rows, deltas, cut))
        pushed = self._bytes(selection for selection, _ in parts)
        trained = Trained(step, words, self._loss, self._terms, self._pulled, pushed)
        self._loss, self._terms, self._pulled = 0.0, 0, 0
        self._transport.push(pushes, lambda: self._desk.report(self._slot, trained))


def drive(replica: Replica, *, latency: float = 0.0, patience: float = 0.001) -> None:
    """Run a replica through in real time.

    Args:
        replica: the worker.
        latency: seconds added to each pull and each push, to rehearse a slow network.
        patience: seconds between two questions where there is nothing to do.
    """
    for pause in replica.run():
        if pause.event is Event.WAIT:
            time.sleep(patience)
        elif latency > 0 and pause.event in (Event.PULLED, Event.PUSHING):
            time.sleep(latency)
