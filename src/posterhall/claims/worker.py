"""A worker process: one claim and seed a line on stdin, its rows a line on stdout, both JSON.

A process of its own and not `multiprocessing`: nothing is pickled, a user's script needs no
`if __name__ == "__main__"`, and the death of one worker is noticed and survived.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

from posterhall.claims.base import declared
from posterhall.claims.rows import Budget, Row
from posterhall.errors import PosterhallError


def perform(task: dict[str, Any]) -> dict[str, Any]:
    """Run one claim on one seed; see `posterhall.claims.pool.Task` for the fields."""
    importlib.import_module(task["module"])
    cls = next(c for c in declared(task["module"]) if c.id == task["claim"])
    began, cpu = time.perf_counter(), _cpu_seconds()
    rows = list(cls(task["params"]).run(Budget(**task["budget"]), task["seed"]))
    for row in rows:
        if not isinstance(row, Row) or row.seed != task["seed"]:
            raise TypeError(
                f"run() gave {row!r}; it must yield Rows of the seed it was given, {task['seed']}"
            )
    return {
        "rows": [row.to_json() for row in rows],
        "wall_seconds": round(time.perf_counter() - began, 3),
        "cpu_seconds": round(_cpu_seconds() - cpu, 3),
    }


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _tasks() -> Iterator[dict[str, Any]]:
    """Lines of stdin. When it closes the parent is done or dead: then end at once, children and all."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def watch() -> None:
        for line in sys.stdin:
            lines.put(line)
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    while True:
        yield json.loads(lines.get())


def main() -> None:
    """Answer tasks until stdin closes."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a claim prints belongs in the log, not among the answers
    for task in _tasks():
        try:
            answer = perform(task)
        except Exception as error:
            traceback.print_exc()
            ours = isinstance(error, PosterhallError)
            answer = {"error": str(error) if ours else f"{type(error).__name__}: {error}"}
        sys.stdout.flush()
        sys.stderr.flush()
        answers.write(json.dumps(answer, allow_nan=False) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
