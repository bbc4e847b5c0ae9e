"""A pool of worker processes that outlives any of its workers."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)


@dataclass(frozen=True)
class Task:
    """One claim on one seed.

    Attributes:
        module: where the claim is declared.
        claim: its id.
        seed: the seed to run.
        budget, params: as JSON objects.
        weight: expected CPU seconds; the heaviest start first.
    """

    module: str
    claim: str
    seed: int
    budget: Mapping[str, Any]
    params: Mapping[str, Any]
    weight: float = 1.0

    def line(self) -> bytes:
        """The task as `posterhall.claims.worker` reads it."""
        fields = {k: getattr(self, k) for k in ("module", "claim", "seed")}
        fields |= {"budget": dict(self.budget), "params": dict(self.params)}
        return json.dumps(fields).encode() + b"\n"


class _Worker:
    """A process, the task it is at, and what it has answered so far."""

    def __init__(self, log: Path, one_thread: bool) -> None:
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
        if one_thread:
            environment.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
        self.log = log
        self.task: Task | None = None
        self._buffer = bytearray()
        with log.open("ab") as stderr:
            # Its own session: Ctrl-C reaches only this process, which then ends the worker's whole group.
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "posterhall.claims.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
                start_new_session=True,
                bufsize=0,
            )

    @property
    def fd(self) -> int:
        assert self.process.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
        return self.process.stdout.fileno()

    def give(self, task: Task) -> None:
        self.task = task
        assert self.process.stdin is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):  # it died while idle: reading from it will say so
            self.process.stdin.write(task.line())

    def read(self) -> dict[str, Any] | None:
        """An answer, if it is whole; a dead worker answers with an error."""
        data = os.read(self.fd, 1 << 20)
        if not data:
            return {"error": self._obituary()}
        self._buffer += data
        if not self._buffer.endswith(b"\n"):
            return None
        answer: dict[str, Any] = json.loads(self._buffer)
        self._buffer.clear()
        return answer

    def _obituary(self) -> str:
        code = self.process.wait()
        if code < 0:
            name = signal.Signals(-code).name
            hint = "; out of memory?" if -code == signal.SIGKILL else ""
            return f"the worker process was killed by {name}{hint}"
        return f"the worker process ended with code {code}; its log: {self.log}"

    @property
    def dead(self) -> bool:
        return self.process.poll() is not None

    def end(self) -> None:
        """Kill the process and whatever it started, and collect it."""
        with contextlib.suppress(ProcessLookupError):  # already gone, with all its children
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def execute(
    tasks: Iterable[Task],
    *,
    workers: int,
    logs: Path,
    done: Callable[[Task, dict[str, Any]], None],
    failed: Callable[[Task, str], None],
    one_thread: bool = True,
) -> None:
    """Run tasks in processes, heaviest first; a claim that failed gets no further seed.

    Args:
        tasks: what to run.
        workers: processes at a time, >= 1.
        logs: folder for what the workers print.
        done: called here, in this thread, with each finished task and its answer.
        failed: called with a task that raised, or whose worker died, and the reason.
        one_thread: keep numerical libraries in the workers to one thread each.
    """
    waiting = deque(sorted(tasks, key=lambda t: -t.weight))
    if not waiting:
        return
    logs.mkdir(parents=True, exist_ok=True)
    broken: set[str] = set()
    crew: dict[int, _Worker] = {}  # by file descriptor
    started = 0
    with selectors.DefaultSelector() as selector:

        def hire() -> _Worker:
            nonlocal started
            worker = _Worker(logs / f"worker-{started}.txt", one_thread)
            started += 1
            crew[worker.fd] = worker
            selector.register(worker.fd, selectors.EVENT_READ)
            return worker

        def feed(worker: _Worker | None) -> None:
            while waiting and waiting[0].claim in broken:
                waiting.popleft()
            if waiting:
                (worker or hire()).give(waiting.popleft())

        try:
            for _ in range(min(workers, len(waiting))):
                feed(None)
            while any(w.task is not None for w in crew.values()):
                for key, _ in selector.select():
                    worker = crew[key.fd]
                    answer = worker.read()
                    if answer is None:
                        continue
                    task, worker.task = worker.task, None
                    if task is None:
                        pass  # died while idle
                    elif "error" in answer:
                        broken.add(task.claim)
                        failed(task, answer["error"])
                    else:
                        done(task, answer)
                    if worker.dead:
                        selector.unregister(worker.fd)
                        del crew[key.fd]
                        worker.end()
                        feed(None)
                    else:
                        feed(worker)
        finally:
            for worker in crew.values():
                worker.end()
