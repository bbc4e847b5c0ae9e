"""Many workers on one clock: what staleness does to learning, apart from what it does to speed.

Every worker has its own stale copy, and the shards, rules, coordinator and worker loop are the real
ones; only time is made up. The same arguments give the same result, bit for bit.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from posterhall.embeddings.parameter_server.coordinator import Coordinator
from posterhall.embeddings.parameter_server.dense import DenseJob, Task
from posterhall.embeddings.parameter_server.replica import Event, Job, Pause, Replica
from posterhall.embeddings.parameter_server.rows import RowObserver, RowReport
from posterhall.embeddings.parameter_server.server import Server
from posterhall.embeddings.parameter_server.shards import Matrix, PoisonedPush, Rule
from posterhall.errors import DataError
from posterhall.seeds import generator


@dataclass(frozen=True)
class Timing:
    """How long things take, in units of a mini-batch's mean duration on an ordinary worker.

    Attributes:
        spread: coefficient of variation of a mini-batch's duration (gamma distributed).
        latency: of each pull and each push.
        stragglers: share of the workers that are slow, 0 to 1 (rounded down to whole workers).
        slowdown: how many times as long a slow worker takes.
    """

    spread: float = 0.2
    latency: float = 0.0
    stragglers: float = 0.0
    slowdown: float = 10.0

    def __post_init__(self) -> None:
        if self.spread < 0 or self.latency < 0 or not 0 <= self.stragglers <= 1 or self.slowdown <= 0:
            raise DataError(
                f"{self}: spread and latency are at least 0, stragglers a share, slowdown above 0"
            )

    def durations(self, worker: int, workers: int, seed: int) -> Iterator[float]:
        """Durations of a worker's mini-batches, without end."""
        rng = generator(seed, "durations", worker)
        mean = self.slowdown if worker < int(self.stragglers * workers) else 1.0
        while True:
            if self.spread == 0:
                yield mean
            else:
                shape = self.spread**-2
                yield from (mean / shape) * rng.gamma(shape, size=64)


@dataclass
class Simulation:
    """What happened.

    Attributes:
        parameters: final matrices, float32.
        curve: (time, chunks finished, loss) at each evaluation, the last at the end.
        staleness: pushes by how many pushes of others came between pull and push, int64 (1024,).
        seconds: simulated duration.
        diverged: a push was refused because it was not finite; training ended there.
        training_losses: mean loss of a term by epoch, in nats.
        rows: staleness and drift by row of each table, if asked for.
    """

    parameters: list[Matrix]
    curve: list[tuple[float, int, float]]
    staleness: NDArray[np.int64]
    seconds: float
    diverged: bool
    training_losses: list[float]
    rows: list[RowReport] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """The last evaluation; infinite if training diverged."""
        return float("inf") if self.diverged or not self.curve else self.curve[-1][2]

    @property
    def mean_staleness(self) -> float:
        """Mean number of others' pushes between a pull and its push."""
        return float((self.staleness * np.arange(len(self.staleness))).sum() / max(self.staleness.sum(), 1))


def simulate(
    make_job: Callable[[], Job],
    initial: Sequence[Matrix],
    chunks: NDArray[np.int64],
    *,
    epochs: int = 1,
    workers: int,
    rule: Rule | None = None,
    n_fetch: int = 1,
    n_push: int = 1,
    warm_start: int = 0,
    bound: int | None = None,
    synchronous: bool = False,
    timing: Timing | None = None,
    seed: int = 1,
    evaluate: Callable[[Sequence[Matrix]], float] | None = None,
    evaluate_every: int | None = None,
    watch_rows: bool = False,
) -> Simulation:
    """Train with `workers` replicas on a simulated clock.

    Args:
        make_job: called once a worker.
        initial: initial parameters, one matrix a table.
        chunks: words of each chunk (their number decides how many leases an epoch has), int64.
        epochs: passes over the chunks.
        workers: replicas, >= 1.
        rule: of the server; default SGD.
        n_fetch, n_push: mini-batches between pulls and between pushes.
        warm_start: chunks that one worker trains alone first.
        bound: most pushes a worker may be ahead of the slowest (stale-synchronous).
        synchronous: rounds in which all workers pull the same parameters, push, and wait for each other;
            the mean of their differences is applied (all-reduce).
        timing: durations; default `Timing()`.
        seed: draws the durations.
        evaluate: measures the loss of the server's parameters.
        evaluate_every: chunks between evaluations; None is only at the end.
        watch_rows: report staleness by row.
    """
    timing = timing if timing is not None else Timing()
    jobs = [make_job() for _ in range(workers)]
    server = Server(jobs[0].tables, jobs[0].placements, rule or Rule(), slots=workers)
    server.assign(initial)
    coordinator = Coordinator(chunks, epochs, slots=workers, warm_start=warm_start, bound=bound)
    observer = RowObserver(server, share=1.0 / workers if synchronous else 1.0, watch=watch_rows)
    replicas = [
        Replica(job, observer, coordinator, slot=slot, n_fetch=n_fetch, n_push=n_push).run()
        for slot, job in enumerate(jobs)
    ]
    durations = [timing.durations(slot, workers, seed) for slot in range(workers)]
    curve: list[tuple[float, int, float]] = []
    now, due, diverged = 0.0, evaluate_every or math.inf, False

    def measure() -> None:
        if evaluate is not None:
            curve.append((now, coordinator.chunks_finished, evaluate(server.values())))

    def cost(slot: int, pause: Pause) -> float:
        if pause.event is Event.COMPUTE:
            return float(sum(next(durations[slot]) for _ in range(pause.amount)))
        return timing.latency if pause.event in (Event.PULLED, Event.PUSHING) else 0.0

    ticks = _rounds(replicas, cost) if synchronous else _events(replicas, cost)
    try:
        for tick in ticks:
            now = tick
            if coordinator.chunks_finished >= due:
                measure()
                due += evaluate_every or math.inf
    except PoisonedPush:
        diverged = True
    if not diverged and (not curve or curve[-1][1] < coordinator.chunks_finished):
        measure()
    return Simulation(
        server.values(), curve, server.staleness(), now, diverged, coordinator.losses(), observer.report()
    )


def simulate_task(
    task: Task,
    *,
    pushes: int,
    rate: float,
    workers: int,
    rule: Rule | None = None,
    shards: int = 1,
    n_fetch: int = 1,
    n_push: int = 1,
    warm_start: int = 0,
    bound: int | None = None,
    synchronous: bool = False,
    timing: Timing | None = None,
    seed: int = 1,
    evaluate_every: int | None = None,
) -> Simulation:
    """Simulate a dense task: `pushes` times `n_push` mini-batches in all.

    Args:
        task: model, data and loss.
        pushes: in all, by all workers together; also the unit of `warm_start` and `evaluate_every`.
        rate: learning rate of the workers' own steps; with SGD also that of the server. With Adagrad the
            server's scale is `rule.gamma`.
        shards: of the server.
        seed: draws initial parameters, mini-batches and durations.

    Other arguments are those of `simulate`.
    """
    steps = max(n_fetch, n_push)
    chunks = pushes * n_push // steps

    def job() -> DenseJob:
        return DenseJob.of(task, shards, seed=seed, steps=steps, rate=rate)

    form = job()
    return simulate(
        job,
        [form.table(task.initial(generator(seed, "initial")))],
        np.full(chunks, steps, np.int64),
        workers=workers,
        rule=rule,
        n_fetch=n_fetch,
        n_push=n_push,
        warm_start=warm_start * n_push // steps,
        bound=bound,
        synchronous=synchronous,
        timing=timing,
        seed=seed,
        evaluate=lambda tables: task.loss(form.views(tables[0])),
        evaluate_every=None if evaluate_every is None else max(evaluate_every * n_push // steps, 1),
    )


def _events(replicas: list[Iterator[Pause]], cost: Callable[[int, Pause], float]) -> Iterator[float]:
    """Let each worker go on when its time comes; yields the time after each event."""
    heap = [(0.0, slot, slot) for slot in range(len(replicas))]
    serial = len(replicas)  # ties go in order of arrival
    waiting: list[int] = []
    while heap:
        now, _, slot = heapq.heappop(heap)
        pause = next(replicas[slot], None)
        if pause is not None and pause.event is Event.WAIT:
            waiting.append(slot)
        else:
            # Whatever happened may be what the others wait for.
            awake, waiting = ([slot] if pause is not None else []) + waiting, []
            for each in awake:
                later = cost(slot, pause) if pause is not None and each == slot else 0.0
                heapq.heappush(heap, (now + later, serial, each))
                serial += 1
        yield now


def _rounds(replicas: list[Iterator[Pause]], cost: Callable[[int, Pause], float]) -> Iterator[float]:
    """Let all workers go on to their next push, then push together; a round takes as long as its slowest."""
    now = 0.0
    going = dict(enumerate(replicas))
    while going:
        longest = 0.0
        ready = []
        for slot, replica in list(going.items()):
            spent = 0.0
            for pause in replica:
                spent += cost(slot, pause)
                if pause.event is Event.PUSHING:
                    ready.append(slot)
                    break
                if pause.event is Event.WAIT:
                    break
            else:
                del going[slot]
            longest = max(longest, spent)
        for slot in ready:
            next(going[slot])  # applies the push and stops before the next pull
        now += longest
        yield now
