"""Who trains what: chunks of the corpus are leased to workers, and come back if a worker dies.

Like a shard, a coordinator is arrays and a lock, so threads, processes on shared memory, a Ray actor and
the simulator use the same code.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from posterhall.embeddings.parameter_server.memory import ArraySpec, Block, Lock
from posterhall.errors import DataError

_FRESH, _RETURNED, _FINISHED, _PAUSED, _STOPPED, _OWNER = range(6)
_ITEM, _STEP, _CLOCK, _DEAD, _PRESENT = range(5)
_WORDS, _TERMS, _PULLED, _PUSHED = range(4)
_NONE = -1


@dataclass(frozen=True)
class Lease:
    """A chunk to train.

    Attributes:
        epoch, chunk: which.
        step: mini-batch to begin with; above 0 where another worker pushed the first part and died.
        share: part of all the words trained so far, 0 to 1: sets the learning rate.
    """

    epoch: int
    chunk: int
    step: int
    share: float


class NoLease(Enum):
    """Why there is nothing to train: not now, or never again."""

    WAIT = "wait"
    DONE = "done"


@dataclass(frozen=True)
class Returned:
    """What a dead worker held.

    Attributes:
        epoch, chunk: the chunk that goes to another worker; None if it held none.
        step: mini-batches of it that the dead worker had pushed.
    """

    epoch: int
    chunk: int
    step: int


@dataclass(frozen=True)
class Trained:
    """What a worker reports with a push.

    Attributes:
        step: mini-batches of the chunk pushed so far.
        words: words of the corpus since the last report.
        loss: sum of the terms' losses, in nats.
        terms: number of terms.
        pulled, pushed: bytes moved.
    """

    step: int
    words: int
    loss: float
    terms: int
    pulled: int
    pushed: int


class Desk(Protocol):
    """What a worker asks of the coordinator, wherever that is."""

    def lease(self, slot: int) -> Lease | NoLease:
        """Something to train."""

    def may_step(self, slot: int) -> bool:
        """Whether the worker is not too far ahead of the slowest (stale-synchronous)."""

    def report(self, slot: int, trained: Trained) -> None:
        """Part of the lease was pushed."""

    def finish(self, slot: int) -> None:
        """The lease was trained to its end."""


class Coordinator:
    """Leases every chunk of every epoch once, in order, and again if its worker dies.

    Args:
        words: words of each chunk, int64 (C,), C >= 1; they add up to the schedule's clock.
        epochs: passes over the chunks.
        slots: workers that may ever ask.
        warm_start: chunks that one worker trains alone before others may begin (Dean et al. 2012,
            section 4.1: "warmstart").
        bound: a worker may be at most this many pushes ahead of the slowest that has work
            (stale-synchronous, Ho et al. 2013); None is no bound.
        block: memory made from `specs`; None is private.
        lock: None is a thread lock.
    """

    def __init__(
        self,
        words: NDArray[np.int64],
        epochs: int,
        *,
        slots: int,
        warm_start: int = 0,
        bound: int | None = None,
        block: Block | None = None,
        lock: Lock | None = None,
    ) -> None:
        self.chunks = len(words)
        self.items = self.chunks * epochs
        self.total = int(words.sum()) * epochs
        self._warm_start = min(warm_start, self.items)
        self._bound = bound
        self._block = block if block is not None else Block(self.specs(epochs, slots=slots))
        self._lock = lock if lock is not None else threading.Lock()
        self._scalars = self._block["scalars"]
        self._leases = self._block["leases"]
        self._sums = self._block["sums"]
        self._losses = self._block["losses"]
        self._pool = self._block["returned"]
        if block is None:
            self.open()

    @staticmethod
    def specs(epochs: int, *, slots: int) -> list[ArraySpec]:
        """The arrays that a coordinator keeps."""
        return [
            ArraySpec("scalars", "<i8", (6,)),
            ArraySpec("leases", "<i8", (slots, 5)),
            ArraySpec("returned", "<i8", (slots + 64, 2)),
            ArraySpec("sums", "<i8", (slots, 4)),
            ArraySpec("losses", "<f8", (slots, epochs, 2)),
        ]

    def open(self) -> None:
        """Set the arrays to the beginning of training (once, by whoever made the block)."""
        self._scalars[:] = 0
        self._scalars[_OWNER] = _NONE
        self._leases[:] = 0
        self._leases[:, _ITEM] = _NONE

    # What workers ask.

    def lease(self, slot: int) -> Lease | NoLease:
        """The next chunk for a worker, in order of epochs and chunks; returned ones come first."""
        with self._lock:
            scalars = self._scalars
            self._leases[slot, _PRESENT] = 1
            if scalars[_FINISHED] == self.items or scalars[_STOPPED] or self._leases[slot, _DEAD]:
                return NoLease.DONE
            if scalars[_PAUSED]:
                return NoLease.WAIT
            if scalars[_FINISHED] < self._warm_start:
                if scalars[_OWNER] == _NONE:
                    scalars[_OWNER] = slot
                if scalars[_OWNER] != slot:
                    return NoLease.WAIT
            if scalars[_RETURNED]:
                scalars[_RETURNED] -= 1
                item, step = map(int, self._pool[scalars[_RETURNED]])
            elif scalars[_FRESH] < self.items:
                item, step = int(scalars[_FRESH]), 0
                scalars[_FRESH] += 1
            else:
                return NoLease.WAIT  # what others hold may still come back
            busy = self._leases[:, _ITEM] != _NONE
            if busy.any():  # who joins late must not hold up the others while it catches up
                clock = self._leases[busy, _CLOCK].min()
                self._leases[slot, _CLOCK] = max(self._leases[slot, _CLOCK], clock)
            self._leases[slot, _ITEM] = item
            self._leases[slot, _STEP] = step
            return Lease(item // self.chunks, item % self.chunks, step, self.share)

    def may_step(self, slot: int) -> bool:
        """Whether the worker may begin another step under the bound."""
        if self._bound is None:
            return True
        with self._lock:
            busy = self._leases[:, _ITEM] != _NONE
            slowest = self._leases[busy, _CLOCK].min() if busy.any() else 0
            return bool(self._leases[slot, _CLOCK] - slowest <= self._bound)

    def report(self, slot: int, trained: Trained) -> None:
        """Note what a push completed. Each slot has one writer, so this takes no lock."""
        lease = self._leases[slot]
        epoch = int(lease[_ITEM]) // self.chunks
        self._losses[slot, epoch, 0] += trained.loss
        self._losses[slot, epoch, 1] += trained.terms
        self._sums[slot] += (trained.words, trained.terms, trained.pulled, trained.pushed)
        lease[_CLOCK] += 1
        lease[_STEP] = trained.step

    def finish(self, slot: int) -> None:
        """Close the worker's lease."""
        with self._lock:
            self._leases[slot, _ITEM] = _NONE
            self._scalars[_FINISHED] += 1

    # What whoever runs the workers asks.

    def release(self, slot: int) -> Returned | None:
        """Bury a dead worker: what it held goes to the next that asks."""
        with self._lock:
            lease, scalars = self._leases[slot], self._scalars
            lease[_DEAD] = 1
            if scalars[_OWNER] == slot:
                scalars[_OWNER] = _NONE
            item, step = int(lease[_ITEM]), int(lease[_STEP])
            if item == _NONE:
                return None
            lease[_ITEM] = _NONE
            self._pool[scalars[_RETURNED]] = (item, step)
            scalars[_RETURNED] += 1
            return Returned(item // self.chunks, item % self.chunks, step)

    def pause(self, paused: bool) -> None:
        """While paused no lease is given out; running ones are trained to their end."""
        self._scalars[_PAUSED] = paused

    def stop(self) -> None:
        """Give out nothing more: workers end after their lease."""
        self._scalars[_STOPPED] = 1

    @property
    def quiet(self) -> bool:
        """Whether no worker holds a lease."""
        return bool((self._leases[:, _ITEM] == _NONE).all())

    @property
    def present(self) -> int:
        """Workers that have asked for a lease so far, the dead included."""
        return int(self._leases[:, _PRESENT].sum())

    @property
    def finished(self) -> bool:
        """Whether every chunk of every epoch was trained."""
        return bool(self._scalars[_FINISHED] == self.items)

    @property
    def chunks_finished(self) -> int:
        """Chunks trained so far, over all epochs."""
        return int(self._scalars[_FINISHED])

    @property
    def words(self) -> int:
        """Words trained and pushed so far, over all epochs."""
        return int(self._sums[:, _WORDS].sum())

    @property
    def share(self) -> float:
        """Part of the whole work done, 0 to 1."""
        return min(self.words / max(self.total, 1), 1.0)

    def traffic(self) -> tuple[int, int]:
        """Bytes pulled and pushed by all workers."""
        return int(self._sums[:, _PULLED].sum()), int(self._sums[:, _PUSHED].sum())

    def words_by_slot(self) -> NDArray[np.int64]:
        """Words that each slot trained, int64 (slots,)."""
        return self._sums[:, _WORDS].copy()

    def losses(self) -> list[float]:
        """Mean loss of a term, in nats, for each epoch begun."""
        sums = self._losses.sum(axis=0)
        return [float(loss / terms) for loss, terms in sums if terms > 0]

    def loss_sums(self) -> tuple[float, int]:
        """Summed loss and number of terms so far."""
        loss, terms = self._losses.sum(axis=(0, 1))
        return float(loss), int(terms)

    def state(self) -> dict[str, NDArray[Any]]:
        """A copy of the arrays.

        Raises:
            DataError: while a worker holds a lease, since the parameters would not agree with it.
        """
        with self._lock:
            if not self.quiet:
                raise DataError("a snapshot needs all leases finished: pause and wait until quiet")
            return {spec.name: self._block[spec.name].copy() for spec in self._block.specs}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from `state`, with as many or other workers: their dead are forgotten.

        Raises:
            DataError: if the state is of other chunks or epochs.
        """
        with self._lock:
            if state["losses"].shape[1] != self._losses.shape[1] or state["scalars"][_FRESH] > self.items:
                raise DataError("the snapshot is of another corpus or number of epochs")
            self.open()
            self._scalars[:] = state["scalars"]
            self._scalars[[_PAUSED, _STOPPED]] = 0
            self._scalars[_OWNER] = _NONE
            returned = int(state["scalars"][_RETURNED])
            if returned > len(self._pool):
                raise DataError(f"the snapshot holds {returned} chunks to redo, more than there are workers")
            self._pool[:returned] = state["returned"][:returned]
            self._sums[:] = 0
            self._losses[:] = 0
            self._sums[0] = state["sums"].sum(axis=0)
            self._losses[0] = state["losses"].sum(axis=0)
