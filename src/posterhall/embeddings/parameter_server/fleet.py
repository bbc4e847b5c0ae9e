"""What every backend offers: the shards, the coordinator, and workers to start and to miss."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from posterhall.embeddings.parameter_server.coordinator import Coordinator, Returned
from posterhall.embeddings.parameter_server.recipe import Recipe
from posterhall.embeddings.parameter_server.replica import Job, Replica, drive
from posterhall.embeddings.parameter_server.server import Server
from posterhall.embeddings.parameter_server.settings import DistributedSettings
from posterhall.embeddings.parameter_server.shards import Matrix
from posterhall.embeddings.parameter_server.transport import BackgroundTransport, Transport


@dataclass(frozen=True)
class Plan:
    """What a fleet is to do.

    Attributes:
        recipe: builds each worker's job.
        job: one built here, for its tables and placements.
        chunks: words of each chunk, int64.
        epochs: passes over the chunks.
        options: of distribution.
    """

    recipe: Recipe
    job: Job
    chunks: NDArray[np.int64]
    epochs: int
    options: DistributedSettings


class Shards(Protocol):
    """The server as whoever runs it sees it."""

    def assign(self, values: Sequence[Matrix]) -> None:
        """Set all parameters."""

    def values(self) -> list[Matrix]:
        """A copy of all parameters."""

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything the shards keep."""

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from `state`."""

    def staleness(self) -> NDArray[np.int64]:
        """Pushes by staleness."""

    def counts(self) -> dict[str, int]:
        """Pushes, repeats, refused, clipped rows."""


@dataclass(frozen=True)
class Standing:
    """How far the work is.

    Attributes:
        present: workers that have asked for work so far.
        words: trained and pushed.
        quiet: no worker holds a lease.
        loss_sum, terms: summed loss, in nats, and number of terms.
    """

    present: int
    words: int
    chunks_finished: int
    finished: bool
    quiet: bool
    loss_sum: float
    terms: int


class Office(Protocol):
    """The coordinator as whoever runs the workers sees it."""

    def standing(self) -> Standing:
        """How far the work is."""

    def release(self, slot: int) -> Returned | None:
        """Bury a worker."""

    def pause(self, paused: bool) -> None:
        """Give out no lease meanwhile."""

    def stop(self) -> None:
        """Give out no lease any more."""

    def losses(self) -> list[float]:
        """Mean loss by epoch."""

    def traffic(self) -> tuple[int, int]:
        """Bytes pulled and pushed."""

    def words_by_slot(self) -> NDArray[np.int64]:
        """Words by slot."""

    def state(self) -> dict[str, NDArray[Any]]:
        """The coordinator's arrays."""

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from `state`."""


class Fleet(Protocol):
    """Workers of one backend."""

    @property
    def shards(self) -> Shards:
        """The parameters."""

    @property
    def office(self) -> Office:
        """The coordinator."""

    def launch(self, slot: int) -> None:
        """Start a worker."""

    def fallen(self) -> list[tuple[int, str]]:
        """Slots and reasons of workers that died since the last call."""

    def working(self) -> int:
        """Workers that run."""

    def wait(self, seconds: float) -> None:
        """Return after so long, or earlier if a worker ended."""

    def close(self) -> None:
        """End all workers and give everything back."""


class LocalOffice:
    """A coordinator in this process's memory, or in memory shared with the workers."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self.release, self.pause, self.stop = coordinator.release, coordinator.pause, coordinator.stop
        self.losses, self.traffic = coordinator.losses, coordinator.traffic
        self.words_by_slot = coordinator.words_by_slot
        self.state, self.restore = coordinator.state, coordinator.restore

    def standing(self) -> Standing:
        """See `Office`."""
        return standing(self._coordinator)


def standing(coordinator: Coordinator) -> Standing:
    """What `Office.standing` tells."""
    loss, terms = coordinator.loss_sums()
    return Standing(
        coordinator.present,
        coordinator.words,
        coordinator.chunks_finished,
        coordinator.finished,
        coordinator.quiet,
        loss,
        terms,
    )


def work(job: Job, transport: Transport, desk: Any, options: DistributedSettings, slot: int) -> None:
    """A worker's whole life, on any backend."""
    background = BackgroundTransport(transport, options.push_queue) if options.push_queue else None
    replica = Replica(
        job, background or transport, desk, slot=slot, n_fetch=options.n_fetch, n_push=options.n_push
    )
    try:
        drive(replica, latency=options.latency)
    finally:
        if background is not None:
            background.close()


class ThreadFleet:
    """Workers that are threads; the kernels release the interpreter's lock."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        job, options = plan.job, plan.options
        self._server = Server(job.tables, job.placements, options.update_rule, slots=options.slots)
        self._coordinator = Coordinator(
            plan.chunks, plan.epochs, slots=options.slots, warm_start=options.warm_start, bound=options.bound
        )
        self.shards: Shards = self._server
        self.office: Office = LocalOffice(self._coordinator)
        self._threads: dict[int, threading.Thread] = {}
        self._errors: dict[int, BaseException] = {}
        self._ended = threading.Event()

    def launch(self, slot: int) -> None:
        """See `Fleet`."""
        thread = threading.Thread(target=self._run, args=(slot,), name=f"worker {slot}", daemon=True)
        self._threads[slot] = thread
        thread.start()

    def _run(self, slot: int) -> None:
        try:
            work(
                self._plan.recipe.build(),
                self._server.transport(),
                self._coordinator,
                self._plan.options,
                slot,
            )
        except BaseException as error:
            self._errors[slot] = error
        finally:
            self._ended.set()

    def fallen(self) -> list[tuple[int, str]]:
        """See `Fleet`."""
        fallen = []
        for slot, thread in list(self._threads.items()):
            if not thread.is_alive():
                del self._threads[slot]
                if slot in self._errors:
                    error = self._errors[slot]
                    fallen.append((slot, f"{type(error).__name__}: {error}"))
        return fallen

    def working(self) -> int:
        """See `Fleet`."""
        return sum(thread.is_alive() for thread in self._threads.values())

    def wait(self, seconds: float) -> None:
        """See `Fleet`."""
        self._ended.wait(seconds)
        self._ended.clear()

    def close(self) -> None:
        """See `Fleet`; threads end with their lease."""
        self._coordinator.stop()
        for thread in self._threads.values():
            thread.join()
