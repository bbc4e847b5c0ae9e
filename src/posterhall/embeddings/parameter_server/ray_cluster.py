"""Workers and shards that are Ray actors, on one machine or many.

A message holds all rows of a window for one shard, both tables together, which is about a megabyte at
the default settings: a call costs up to a millisecond, so many small ones would be hopeless.

Ray has no authentication; see `posterhall.cluster`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from posterhall import cluster
from posterhall.embeddings.parameter_server.coordinator import (
    Coordinator,
    Lease,
    NoLease,
    Returned,
    Trained,
)
from posterhall.embeddings.parameter_server.fleet import Office, Plan, Shards, Standing, standing, work
from posterhall.embeddings.parameter_server.placement import Placement, Table
from posterhall.embeddings.parameter_server.recipe import Recipe
from posterhall.embeddings.parameter_server.server import (
    add_counts,
    join,
    name_states,
    shard_tables,
    state_of,
)
from posterhall.embeddings.parameter_server.settings import DistributedSettings
from posterhall.embeddings.parameter_server.shards import Matrix, Push, Rows, Rule, Shard
from posterhall.embeddings.parameter_server.transport import (
    RetryingTransport,
    Wanted,
    from_half,
    to_half,
)
from posterhall.errors import UsageError

if TYPE_CHECKING:
    from types import ModuleType

PATIENCE = 60.0
"""Seconds to wait for a shard before a pull or push is tried again."""

ATTEMPTS = 3


def _ray() -> ModuleType:
    return cluster.ray("the Ray backend")


class _ShardHost:
    """A shard as an actor."""

    def __init__(self, tables: Sequence[Table], rule: Rule, slots: int) -> None:
        self._shard = Shard(tables, rule, slots=slots)

    def call(self, method: str, *arguments: Any) -> Any:
        return getattr(self._shard, method)(*arguments)

    def pull(self, worker: int, rows: Sequence[Rows]) -> tuple[int, list[Matrix]]:
        tables = self._shard.tables
        into = [np.empty((len(r), t.width), np.float32) for r, t in zip(rows, tables, strict=True)]
        return self._shard.pull(worker, rows, into, [np.empty_like(each) for each in into]), into

    def push(
        self,
        head: tuple[int, int, int, float],
        rows: Sequence[Rows],
        deltas: Sequence[Any],
        half: bool,
    ) -> None:
        if half:
            deltas = [from_half(*delta) for delta in deltas]
        self._shard.push(Push(*head, rows, deltas))


class _OfficeHost:
    """The coordinator as an actor."""

    def __init__(self, chunks: NDArray[np.int64], epochs: int, options: DistributedSettings) -> None:
        self._coordinator = Coordinator(
            np.array(chunks),
            epochs,
            slots=options.slots,
            warm_start=options.warm_start,
            bound=options.bound,
        )

    def call(self, method: str, *arguments: Any) -> Any:
        return getattr(self._coordinator, method)(*arguments)

    def standing(self) -> Standing:
        return standing(self._coordinator)


class _WorkerHost:
    """A worker as an actor."""

    def run(
        self,
        recipe: tuple[str, Mapping[str, Any]],
        arrays: Mapping[str, Any],
        shards: Sequence[Any],
        office: Any,
        options: DistributedSettings,
        slot: int,
    ) -> None:
        ray = _ray()
        fetched = {name: ray.get(reference) for name, reference in arrays.items()}
        job = Recipe(*recipe, fetched).build()
        transport = RetryingTransport(RayTransport(shards, half=options.half), ATTEMPTS)
        work(job, transport, _RayDesk(office, bounded=options.bound is not None), options, slot)


class RayTransport:
    """A worker's way to shards that are actors; all shards work on a pull or push at once.

    Args:
        shards: actor handles.
        half: send differences in 16 bits.
    """

    borrows = False

    def __init__(self, shards: Sequence[Any], *, half: bool) -> None:
        self._shards, self._half, self._ray = tuple(shards), half, _ray()

    def pull(self, worker: int, wanted: Sequence[Wanted]) -> list[int]:
        """See `Transport`."""
        asked = [i for i, part in enumerate(wanted) if not part.empty]
        references = [self._shards[i].pull.remote(worker, list(wanted[i].rows)) for i in asked]
        seen = [0] * len(wanted)
        for i, (version, values) in zip(asked, self._ray.get(references, timeout=PATIENCE), strict=True):
            seen[i] = version
            for into, twin, rows in zip(wanted[i].into, wanted[i].twins, values, strict=True):
                into[:, : rows.shape[1]] = rows
                twin[:, : rows.shape[1]] = rows
        return seen

    def push(self, pushes: Sequence[Push | None], done: Callable[[], None]) -> None:
        """See `Transport`; returns when all are applied."""
        references = []
        for shard, push in zip(self._shards, pushes, strict=True):
            if push is not None:
                head = (push.worker, push.number, push.seen, push.rate)
                deltas = [to_half(delta) if self._half else delta for delta in push.deltas]
                references.append(shard.push.remote(head, list(push.rows), deltas, self._half))
        self._ray.get(references, timeout=PATIENCE)
        done()

    def flush(self) -> None:
        """See `Transport`."""


class _RayDesk:
    """A worker's way to a coordinator that is an actor."""

    def __init__(self, office: Any, *, bounded: bool) -> None:
        self._office, self._bounded, self._ray = office, bounded, _ray()

    def lease(self, slot: int) -> Lease | NoLease:
        found: Lease | NoLease = self._ray.get(self._office.call.remote("lease", slot))
        return found

    def may_step(self, slot: int) -> bool:
        return not self._bounded or bool(self._ray.get(self._office.call.remote("may_step", slot)))

    def report(self, slot: int, trained: Trained) -> None:
        self._office.call.remote("report", slot, trained)  # calls of one caller arrive in order

    def finish(self, slot: int) -> None:
        self._office.call.remote("finish", slot)


class _RayShards:
    """The server, as whoever runs the workers sees it."""

    def __init__(self, hosts: Sequence[Any], tables: Sequence[Table], placements: Sequence[Placement]):
        self._hosts, self._tables, self._placements = tuple(hosts), tuple(tables), tuple(placements)
        self._ray = _ray()

    def _all(self, method: str) -> list[Any]:
        found: list[Any] = self._ray.get([host.call.remote(method) for host in self._hosts])
        return found

    def assign(self, values: Sequence[Matrix]) -> None:
        parts = [
            [v[p.rows_of(i)] for v, p in zip(values, self._placements, strict=True)]
            for i in range(len(self._hosts))
        ]
        self._ray.get(
            [host.call.remote("assign", part) for host, part in zip(self._hosts, parts, strict=True)]
        )

    def values(self) -> list[Matrix]:
        return join(self._all("values"), self._tables, self._placements)

    def state(self) -> dict[str, NDArray[Any]]:
        return name_states(self._all("state"))

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self._ray.get([host.call.remote("restore", state_of(state, i)) for i, host in enumerate(self._hosts)])

    def staleness(self) -> NDArray[np.int64]:
        total: NDArray[np.int64] = np.sum(self._all("staleness"), axis=0, dtype=np.int64)
        return total

    def counts(self) -> dict[str, int]:
        return add_counts(self._all("counts"))


class _RayOffice:
    """The coordinator, as whoever runs the workers sees it."""

    def __init__(self, host: Any) -> None:
        self._host, self._ray = host, _ray()

    def _call(self, method: str, *arguments: Any) -> Any:
        return self._ray.get(self._host.call.remote(method, *arguments))

    def standing(self) -> Standing:
        found: Standing = self._ray.get(self._host.standing.remote())
        return found

    def release(self, slot: int) -> Returned | None:
        held: Returned | None = self._call("release", slot)
        return held

    def pause(self, paused: bool) -> None:
        self._call("pause", paused)

    def stop(self) -> None:
        self._call("stop")

    def losses(self) -> list[float]:
        return list(self._call("losses"))

    def traffic(self) -> tuple[int, int]:
        pulled, pushed = self._call("traffic")
        return pulled, pushed

    def words_by_slot(self) -> NDArray[np.int64]:
        return np.array(self._call("words_by_slot"))

    def state(self) -> dict[str, NDArray[Any]]:
        return dict(self._call("state"))

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self._call("restore", dict(state))


class RayFleet:
    """Workers that are Ray actors.

    Shards and the coordinator live on the driver's node, so that the loss of any other node costs no
    parameters; workers are spread over the cluster.

    Raises:
        MissingExtra: without Ray.
        UsageError: if the cluster has fewer CPUs than there are workers.
    """

    def __init__(self, plan: Plan) -> None:
        self._ray = ray = _ray()
        self._plan = plan
        options, job = plan.options, plan.job
        arrays = dict(plan.recipe.arrays)
        for name, fd in plan.recipe.files.items():  # a descriptor means nothing on another machine
            arrays[name] = np.memmap(f"/dev/fd/{fd}", np.int32, "r")
        messages = options.workers * sum(table.bytes for table in job.tables)
        self._started = cluster.connect(
            options.workers,
            address=options.ray_address,
            store_bytes=2 * messages + sum(array.nbytes for array in arrays.values()),
        )
        have = int(ray.cluster_resources().get("CPU", 0))
        if have < options.workers:
            self._disconnect()
            raise UsageError(f"the Ray cluster has {have} CPUs for {options.workers} workers; ask for fewer")
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        host = ray.remote(num_cpus=0, scheduling_strategy=here)
        self._hosts = [
            host(_ShardHost).remote(
                shard_tables(job.tables, job.placements, i), options.update_rule, options.slots
            )
            for i in range(job.placements[0].shards)
        ]
        self._host = host(_OfficeHost).remote(plan.chunks, plan.epochs, options)
        self.shards: Shards = _RayShards(self._hosts, job.tables, job.placements)
        self.office: Office = _RayOffice(self._host)
        self._arrays = {name: ray.put(np.asarray(array)) for name, array in arrays.items()}
        self.actors: dict[int, Any] = {}
        self._runs: dict[Any, int] = {}

    def launch(self, slot: int) -> None:
        """See `Fleet`."""
        recipe, options = self._plan.recipe, self._plan.options
        make = self._ray.remote(num_cpus=1, scheduling_strategy="SPREAD", max_restarts=0)
        actor = make(_WorkerHost).remote()
        run = actor.run.remote(
            (recipe.target, dict(recipe.config)), self._arrays, self._hosts, self._host, options, slot
        )
        self.actors[slot], self._runs[run] = actor, slot

    def fallen(self) -> list[tuple[int, str]]:
        """See `Fleet`."""
        if not self._runs:
            return []
        ended, _ = self._ray.wait(list(self._runs), num_returns=len(self._runs), timeout=0)
        fallen = []
        for run in ended:
            slot = self._runs.pop(run)
            del self.actors[slot]
            try:
                self._ray.get(run)
            except self._ray.exceptions.RayError as error:
                cause = getattr(error, "cause", None) or error
                fallen.append((slot, f"{type(cause).__name__}: {str(cause).splitlines()[0]}"))
        return fallen

    def working(self) -> int:
        """See `Fleet`."""
        return len(self._runs)

    def wait(self, seconds: float) -> None:
        """See `Fleet`."""
        if self._runs:
            self._ray.wait(list(self._runs), timeout=max(seconds, 0.05))
        else:
            time.sleep(seconds)

    def close(self) -> None:
        """See `Fleet`."""
        for actor in (*self.actors.values(), *self._hosts, self._host):
            self._ray.kill(actor)
        self._disconnect()

    def _disconnect(self) -> None:
        if self._started:
            self._ray.shutdown()
