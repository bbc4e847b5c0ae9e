"""A map over shards: one file in, one file out, and a marker when it is done.

A shard that has its marker is not worked on again, so that a map that was killed goes on where it was, and
ends as one that was not. Work is spread over processes of this machine, over a Ray cluster, or by whatever
starts the same command again: markers and results appear whole or not at all.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posterhall import cluster
from posterhall.config import plain
from posterhall.errors import DataError, PosterhallError, UsageError
from posterhall.runs import write_atomic

Task = Callable[[Path, Mapping[str, Any], Path], Mapping[str, Any]]
"""Reads a shard, writes the file it is given, and returns facts about it that JSON can hold."""

_AHEAD = 2  # tasks given to Ray for each CPU


@dataclass(frozen=True)
class Done:
    """A finished shard.

    Attributes:
        shard: what was read.
        out: what was written.
        facts: what the task returned.
        again: whether it had been done before.
    """

    shard: Path
    out: Path
    facts: Mapping[str, Any]
    again: bool


@dataclass(frozen=True)
class _Work:
    target: str
    config: Mapping[str, Any]
    shard: Path
    out: Path
    key: str

    @property
    def marker(self) -> Path:
        return self.out.with_name(f"{self.out.name}.done")

    def found(self) -> Done | None:
        """What an earlier map left, if it did the same with the same input."""
        try:
            marker = json.loads(self.marker.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(marker, dict) or marker.get("key") != self.key or not self.out.exists():
            return None
        return Done(self.shard, self.out, marker.get("facts", {}), again=True)


def map_shards(
    target: str,
    config: Mapping[str, Any],
    shards: Sequence[Path],
    directory: Path,
    *,
    suffix: str = ".parquet",
    workers: int = 1,
    ray: str | None = None,
    own: Sequence[Mapping[str, Any]] | None = None,
    observe: Callable[[int], None] | None = None,
) -> list[Done]:
    """Run a task on every shard that is not done yet.

    Args:
        target: the task, "module:function"; a `Task`.
        config: its settings, what JSON can hold; results of other settings do not count as done.
        shards: files; one that has changed since is done again.
        own: further settings of each shard.
        directory: where results and markers go, named by number and shard.
        suffix: ending of the results.
        workers: processes on this machine (1: this one), or CPUs of a Ray cluster started here.
        ray: address of a Ray cluster that shares its files with this machine, or "local" for one that is
            started here; None for no Ray.
        observe: called with the number of finished shards.

    Returns:
        All of them, in the order of the shards.

    Raises:
        DataError, and whatever else the task raises: after the shards that were being worked on, which
            keep their markers, as all before them do.
        MissingExtra: for Ray without the extra.
    """
    if workers < 1:
        raise UsageError(f"workers is {workers}; it must be at least 1")
    directory.mkdir(parents=True, exist_ok=True)
    work = []
    for number, shard in enumerate(shards):
        settings = plain({**config, **(own[number] if own is not None else {})})
        out = directory / f"{number:05d}-{shard.name[:100]}{suffix}"
        work.append(_Work(target, settings, shard.resolve(), out.resolve(), _key(target, settings, shard)))
    done = {each.out: found for each in work if (found := each.found()) is not None}
    waiting = [each for each in work if each.out not in done]
    if observe is not None:
        observe(len(done))
    run = _on_ray if ray is not None else _in_processes if workers > 1 and len(waiting) > 1 else _here
    for finished in run(waiting, workers, ray):
        done[finished.out] = finished
        if observe is not None:
            observe(len(done))
    return [done[each.out] for each in work]


def _key(target: str, config: Mapping[str, Any], shard: Path) -> str:
    """Changes with the task, its settings, and the shard's place, size and time."""
    try:
        stat = shard.stat()
    except OSError as error:
        raise DataError(f"{shard}: cannot be read ({error.strerror})") from None
    parts = [target, config, str(shard.resolve()), stat.st_size, stat.st_mtime_ns]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _do(work: _Work) -> Done:
    module, _, name = work.target.partition(":")
    task: Task = getattr(importlib.import_module(module), name)
    work.marker.unlink(missing_ok=True)
    facts = dict(task(work.shard, work.config, work.out))
    write_atomic(work.marker, json.dumps({"key": work.key, "facts": plain(facts)}))
    return Done(work.shard, work.out, facts, again=False)


def _here(waiting: Sequence[_Work], workers: int, ray: str | None) -> Iterator[Done]:
    del workers, ray
    for each in waiting:
        yield _do(each)


def _in_processes(waiting: Sequence[_Work], workers: int, ray: str | None) -> Iterator[Done]:
    del ray
    # Fresh interpreters: a fork would copy whatever threads hold locks here.
    context = multiprocessing.get_context("spawn")
    before = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(min(workers, len(waiting)), mp_context=context, initializer=_ignore_ctrl_c)
    try:
        futures = [executor.submit(_do, each) for each in waiting]
        for future in as_completed(futures):
            yield future.result()
        executor.shutdown()
    except BrokenProcessPool:
        raise PosterhallError(
            "a worker process was killed; out of memory? Run the same again, with fewer workers: shards "
            "that are done stay done"
        ) from None
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
            child.join()


def _ignore_ctrl_c() -> None:
    """Ctrl-C is for the parent, which ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _on_ray(waiting: Sequence[_Work], workers: int, address: str | None) -> Iterator[Done]:
    ray: Any = cluster.ray("a map over a Ray cluster")
    started = cluster.connect(workers, address=None if address == "local" else address)
    try:
        remote = ray.remote(num_cpus=1, max_retries=2)(_do)
        queue = list(waiting)[::-1]
        running: list[Any] = []
        most = _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        while queue or running:
            while queue and len(running) < most:
                running.append(remote.remote(queue.pop()))
            ready, running = ray.wait(running)
            for each in ready:
                try:
                    yield ray.get(each)
                except ray.exceptions.RayTaskError as error:
                    cause = getattr(error, "cause", None)
                    raise (cause if isinstance(cause, PosterhallError) else error) from None
    finally:
        if started:
            ray.shutdown()
