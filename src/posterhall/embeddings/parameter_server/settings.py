"""Settings of distributed training, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from posterhall.embeddings.parameter_server.shards import Rule
from posterhall.errors import DataError, UsageError

BackendName = Literal["processes", "threads", "ray"]


@dataclass(frozen=True)
class DistributedSettings:
    """How training is spread over workers and shards.

    None of these belongs to the model, but all of them may change the vectors a little.

    Raises:
        DataError: for a value outside its range, naming the field.
        UsageError: for two settings that contradict each other.
    """

    backend: BackendName = "processes"
    """Where workers run: processes or threads of this machine, or a Ray cluster."""
    workers: int = 2
    """Model replicas that train at the same time, >= 1."""
    shards: int = 2
    """Parts that the parameters are kept in, >= 1."""
    batch_words: int = 200
    """Words (centres, after subsampling) in a mini-batch, the unit of n_fetch and n_push.

    The more, the fewer rows are moved a word: words that recur within an exchange are moved once.
    """
    n_fetch: int = 100
    """Mini-batches between two pulls of rows. Dean et al. 2012 use 1, on mini-batches of their own size."""
    n_push: int = 100
    """Mini-batches between two pushes of the difference."""
    rule: Literal["sgd", "adagrad"] = "sgd"
    """What a shard does with a push: add it, or scale it by Adagrad (Dean et al. 2012, section 4.1)."""
    gamma: float = 0.05
    """Adagrad's scale: the size of the first step of every parameter."""
    clip: float = 0.0
    """Longest change of a row in one push; 0 is off."""
    warm_start: int = 0
    """Leases that one worker trains alone first (Dean et al. 2012, section 4.1).

    A lease is as many chunks of the corpus (`chunk_words`) as n_fetch or n_push mini-batches take, at
    least one. Both counts end with it, and the learning rate is read at its beginning.
    """
    bound: int | None = None
    """Most pushes that a worker may be ahead of the slowest (stale-synchronous, Ho et al. 2013)."""
    push_queue: int = 0
    """Pushes that may wait in the background while training goes on; 0 waits for each."""
    half: bool = False
    """Send differences in 16 bits (Ray only; shared memory sends nothing)."""
    latency: float = 0.0
    """Seconds added to every pull and push, to rehearse a slow network."""
    restarts: int = 0
    """Workers started in place of ones that died; without any the others take over."""
    ray_address: str | None = None
    """Address of a Ray cluster; None uses the one this process is connected to, else starts one here."""

    def __post_init__(self) -> None:
        at_least = {
            "workers": 1, "shards": 1, "batch_words": 1, "n_fetch": 1, "n_push": 1,
            "warm_start": 0, "push_queue": 0, "latency": 0, "restarts": 0,
        }  # fmt: skip
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise DataError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if self.backend not in ("processes", "threads", "ray"):
            raise DataError(f"backend is {self.backend!r}; it must be processes, threads or ray")
        if self.bound is not None and self.bound < 0:
            raise DataError(f"bound is {self.bound}; it must be at least 0 (or absent)")
        if self.bound is not None and self.push_queue:
            raise UsageError("bound limits staleness and push_queue adds to it; give one of them")
        self.update_rule  # noqa: B018 - checks the rest

    @property
    def update_rule(self) -> Rule:
        """The shards' rule."""
        return Rule(self.rule, gamma=self.gamma, clip=self.clip)

    @property
    def slots(self) -> int:
        """Workers there may ever be."""
        return self.workers + self.restarts


@dataclass(frozen=True)
class Death:
    """A worker that died.

    Attributes:
        worker: its slot.
        reason: the signal or the error.
        words_done: words that all workers had trained by then.
        epoch, chunk: lease that it was training (None: none); another worker went on with it.
        step: mini-batches of that lease it had pushed; what came after is lost and trained again.
        words_lost_at_most: words of that lost part (one push at most).
    """

    worker: int
    reason: str
    words_done: int
    epoch: int | None
    chunk: int | None
    step: int
    words_lost_at_most: int

    def __str__(self) -> str:
        lost = (
            f"at most {self.words_lost_at_most:,} words trained again" if self.epoch is not None else "idle"
        )
        return f"worker {self.worker} died ({self.reason}) after {self.words_done:,} words of all; {lost}"


@dataclass(frozen=True)
class DistributedReport:
    """How distributed training went.

    Attributes:
        words: tokens trained, over all epochs (with sentence ends, as the schedule counts).
        seconds: spent training, over all resumptions, from the moment that workers were there.
        startup_seconds: before that, this time.
        losses: mean loss of a term by epoch, in nats, as the workers' own copies saw it.
        pulled, pushed: bytes moved.
        staleness: pushes by how many pushes of other workers came between pull and push, int64 (1024,).
        pushes, repeats, refused: pushes applied, ignored as repeated, refused as not acceptable.
        words_by_worker: int64 (slots,).
        imbalance: for each table the load of the busiest shard over the mean.
        deaths: workers lost.
    """

    backend: str
    workers: int
    shards: int
    words: int
    seconds: float
    startup_seconds: float
    losses: list[float]
    pulled: int
    pushed: int
    staleness: NDArray[np.int64]
    pushes: int
    repeats: int
    refused: int
    words_by_worker: NDArray[np.int64]
    imbalance: dict[str, float]
    deaths: list[Death] = field(default_factory=list)

    @property
    def words_per_second(self) -> float:
        """Throughput, without the start-up."""
        return self.words / self.seconds if self.seconds else 0.0

    def staleness_summary(self) -> dict[str, float]:
        """Mean, median, 95th percentile and largest staleness of a push."""
        total = self.staleness.sum()
        if not total:
            return {"mean": 0.0, "median": 0.0, "p95": 0.0, "max": 0.0}
        below = np.cumsum(self.staleness) / total
        values = np.arange(len(self.staleness))
        return {
            "mean": float((values * self.staleness).sum() / total),
            "median": float(np.searchsorted(below, 0.5)),
            "p95": float(np.searchsorted(below, 0.95)),
            "max": float(np.flatnonzero(self.staleness)[-1]),
        }

    def to_dict(self) -> dict[str, object]:
        """As plain values, for JSON; the histogram without its empty bins."""
        return {
            "backend": self.backend,
            "workers": self.workers,
            "shards": self.shards,
            "words": self.words,
            "seconds": self.seconds,
            "startup_seconds": self.startup_seconds,
            "words_per_second": self.words_per_second,
            "losses": self.losses,
            "bytes_pulled_per_word": self.pulled / max(self.words, 1),
            "bytes_pushed_per_word": self.pushed / max(self.words, 1),
            "staleness": {int(i): int(self.staleness[i]) for i in np.flatnonzero(self.staleness)},
            "staleness_summary": self.staleness_summary(),
            "pushes": self.pushes,
            "repeats": self.repeats,
            "refused": self.refused,
            "words_by_worker": self.words_by_worker.tolist(),
            "imbalance": self.imbalance,
            "deaths": [str(death) for death in self.deaths],
        }
