"""Workers that are processes of this machine, on parameters in shared memory.

A worker runs the shard's own code on the shared arrays, under the shard's lock, so a push costs no
message and no copy. Workers are started as fresh interpreters: no script of the user's is run again, and
nothing is pickled. If the parent goes, they go.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from posterhall.embeddings.parameter_server.coordinator import Coordinator
from posterhall.embeddings.parameter_server.fleet import LocalOffice, Office, Plan, Shards, work
from posterhall.embeddings.parameter_server.memory import ArraySpec, Block, RecordLock, nameless_file
from posterhall.embeddings.parameter_server.recipe import Recipe
from posterhall.embeddings.parameter_server.replica import Job
from posterhall.embeddings.parameter_server.server import Server, shard_tables
from posterhall.embeddings.parameter_server.settings import DistributedSettings
from posterhall.embeddings.parameter_server.shards import Shard
from posterhall.errors import PosterhallError

_BOARD_LOCK = 1 << 20
"""Byte of the lock file for the coordinator; the shards have the first ones."""

_BOOT = (
    "import json, sys; task = json.loads(sys.stdin.buffer.readline()); sys.path[:] = task['path']; "
    "from posterhall.embeddings.parameter_server.processes import main; main(task)"
)


class ProcessFleet:
    """Workers that are processes."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        job, options = plan.job, plan.options
        self._lock_file = nameless_file(0)
        self._blocks = [Block.shared(specs) for specs in _shard_specs(job, options)]
        self._board = Block.shared(Coordinator.specs(plan.epochs, slots=options.slots))
        read_only = {"chunks": plan.chunks, **plan.recipe.arrays}
        self._arrays = Block.shared([_spec(name, array) for name, array in read_only.items()])
        for name, array in read_only.items():
            self._arrays[name][...] = array
        self.shards: Shards = _server(job, options, self._blocks, self._lock_file)
        self._coordinator = _coordinator(plan.chunks, plan.epochs, options, self._board, self._lock_file)
        self._coordinator.open()
        self.office: Office = LocalOffice(self._coordinator)
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._complaints: dict[int, IO[bytes]] = {}

    def launch(self, slot: int) -> None:
        """See `Fleet`."""
        recipe, options = self._plan.recipe, self._plan.options
        task = {
            "path": sys.path,
            "slot": slot,
            "options": asdict(options),
            "epochs": self._plan.epochs,
            "recipe": {"target": recipe.target, "config": recipe.config, "files": dict(recipe.files)},
            "arrays": {"fd": self._arrays.fd, "specs": [asdict(spec) for spec in self._arrays.specs]},
            "blocks": [block.fd for block in self._blocks],
            "board": self._board.fd,
            "locks": self._lock_file,
        }
        inherited = [block.fd for block in (*self._blocks, self._board, self._arrays)]
        complaints = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        child = subprocess.Popen(  # noqa: S603 - this interpreter, a constant program
            [sys.executable, "-c", _BOOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=complaints,
            pass_fds=[fd for fd in (*inherited, self._lock_file, *recipe.files.values()) if fd is not None],
            start_new_session=True,  # Ctrl-C goes to the parent alone, which lets the workers finish
        )
        self._children[slot], self._complaints[slot] = child, complaints
        with suppress(BrokenPipeError):  # it is dead already, which `fallen` will tell
            assert child.stdin is not None  # noqa: S101 - for the type checker
            child.stdin.write(json.dumps(task).encode() + b"\n")
            child.stdin.flush()

    @property
    def pids(self) -> dict[int, int]:
        """Process ids of the workers that run, by slot."""
        return {slot: child.pid for slot, child in self._children.items() if child.poll() is None}

    def fallen(self) -> list[tuple[int, str]]:
        """See `Fleet`."""
        fallen = []
        for slot, child in list(self._children.items()):
            if child.poll() is None:
                continue
            reason = self._farewell(slot)
            if child.returncode != 0:
                fallen.append((slot, reason))
        return fallen

    def _farewell(self, slot: int) -> str:
        """Forget an ended child; returns why it ended."""
        child, complaints = self._children.pop(slot), self._complaints.pop(slot)
        if child.stdin is not None:
            with suppress(BrokenPipeError):
                child.stdin.close()
        complaints.seek(0)
        lines = complaints.read().decode(errors="replace").strip().splitlines()
        complaints.close()
        if child.returncode < 0:
            return f"signal {-child.returncode}, {signal.Signals(-child.returncode).name}"
        return lines[-1] if lines else f"exit code {child.returncode}"

    def working(self) -> int:
        """See `Fleet`."""
        return len(self.pids)

    def wait(self, seconds: float) -> None:
        """See `Fleet`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and all(c.poll() is None for c in self._children.values()):
            time.sleep(min(seconds, 0.005))

    def close(self) -> None:
        """See `Fleet`; a worker that does not end within ten seconds is killed."""
        self._coordinator.stop()
        for child in self._children.values():
            if child.stdin is not None:
                with suppress(BrokenPipeError):
                    child.stdin.close()  # the worker sees that and goes at once
        for slot, child in list(self._children.items()):
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            self._farewell(slot)
        for block in (*self._blocks, self._board, self._arrays):
            block.close()
        if self._lock_file >= 0:
            os.close(self._lock_file)
            self._lock_file = -1


def main(task: Mapping[str, Any]) -> None:
    """A worker process, from the task that its parent wrote to standard input."""
    threading.Thread(target=_go_with_parent, daemon=True).start()
    try:
        _work(task)
    except BaseException as error:
        told = error if isinstance(error, PosterhallError) else f"{type(error).__name__}: {error}"
        print(told, file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)  # the watching thread must not hold up the end


def _go_with_parent() -> None:
    os.read(0, 1)  # returns when the parent closes the pipe, by intent or by dying
    os._exit(0)


def _work(task: Mapping[str, Any]) -> None:
    options = DistributedSettings(**task["options"])
    specs = [ArraySpec(s["name"], s["dtype"], tuple(s["shape"])) for s in task["arrays"]["specs"]]
    arrays = Block(specs, task["arrays"]["fd"])
    recipe = task["recipe"]
    named = {spec.name: arrays[spec.name] for spec in specs}
    job = Recipe(recipe["target"], recipe["config"], named, recipe["files"]).build()
    blocks = [Block(each, fd) for each, fd in zip(_shard_specs(job, options), task["blocks"], strict=True)]
    server = _server(job, options, blocks, task["locks"])
    board = Block(Coordinator.specs(task["epochs"], slots=options.slots), task["board"])
    coordinator = _coordinator(arrays["chunks"], task["epochs"], options, board, task["locks"])
    work(job, server.transport(), coordinator, options, task["slot"])


def _spec(name: str, array: NDArray[Any]) -> ArraySpec:
    return ArraySpec(name, array.dtype.str, array.shape)


def _shard_specs(job: Job, options: DistributedSettings) -> list[list[ArraySpec]]:
    return [
        Shard.specs(shard_tables(job.tables, job.placements, shard), options.update_rule, slots=options.slots)
        for shard in range(job.placements[0].shards)
    ]


def _server(job: Job, options: DistributedSettings, blocks: Sequence[Block], locks: int) -> Server:
    """The shards on shared memory; byte i of the lock file is shard i's lock."""
    return Server(
        job.tables,
        job.placements,
        options.update_rule,
        slots=options.slots,
        blocks=blocks,
        locks=[RecordLock(locks, i) for i in range(len(blocks))],
    )


def _coordinator(
    chunks: NDArray[np.int64], epochs: int, options: DistributedSettings, board: Block, locks: int
) -> Coordinator:
    """The coordinator on shared memory."""
    return Coordinator(
        chunks,
        epochs,
        slots=options.slots,
        warm_start=options.warm_start,
        bound=options.bound,
        block=board,
        lock=RecordLock(locks, _BOARD_LOCK),
    )
