"""A run in progress: its lock, its log, its end."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from posterhall import config as settings
from posterhall import devices
from posterhall.errors import DataError, Interrupted, PosterhallError, UsageError
from posterhall.runs import provenance
from posterhall.runs.files import TEMPORARY, fingerprint, write_atomic
from posterhall.runs.reading import (
    ARTIFACTS,
    CHECKPOINTS,
    CONFIG,
    LOCK,
    MANIFEST,
    METRICS,
    SCHEMA_VERSION,
    is_run,
    read_manifest,
    read_metrics,
)


class Run:
    """A run in progress, made by `Run.start`; use it in a `with` block.

    Leaving the block marks it done; by an exception, failed or (Ctrl-C) interrupted. Either way it can
    be resumed.

    Attributes:
        path: the directory.
        manifest: what manifest.json holds.
        resumed: whether the run had been started before.
    """

    path: Path
    manifest: dict[str, Any]
    resumed: bool
    _lock: int | None = None

    def __init__(self, path: Path, manifest: dict[str, Any], *, resumed: bool, lock: int) -> None:
        self.path = path
        self.manifest = manifest
        self.resumed = resumed
        self._entered = False
        self._begun = time.monotonic()
        self._before = float(manifest["wall_seconds"])
        self._log = os.open(path / METRICS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        self._lock = lock
        _open_runs.add(self)

    def __del__(self) -> None:
        self.close()  # a run dropped without an end, as in a notebook, can be resumed

    @classmethod
    def start(
        cls,
        path: Path | str,
        *,
        kind: str,
        config: Mapping[str, Any],
        inputs: Sequence[Path | str] = (),
        seeds: Sequence[int] = (),
        resume: bool = False,
    ) -> Run:
        """Begin a run in a new or empty directory, or go on with one.

        The manifest gets: schema_version, kind, status (running, done, failed, interrupted), argv,
        config and config_digest, git (commit and dirty of the working directory, if it is a checkout),
        packages, machine, seeds, inputs (path, bytes, sha256), start and end (UTC), wall_seconds (over
        all resumes), peak_bytes, resumes, and in the end facts (what `finish` was told) or error.

        Args:
            path: the directory; made if need be.
            kind: what is done, as "embed train"; a run resumes only as the same kind.
            config: all settings that determine the result, and no others (not threads, not paths).
            inputs: files or directories read; their contents must be the same on resuming.
            seeds: every seed used.
            resume: go on with the run that is there, if there is one.

        Raises:
            DataError: if a run is there and `resume` is not set, or it differs from this one, or another
                process works in it, or the directory holds other things. Nothing there is changed then.
                A run that failed before it left anything (for a wrong input, say) is in nobody's way.
        """
        path = Path(path)
        try:
            if is_run(path):
                if resume or not _is_barren(path):
                    _check_wanted(path, resume=resume)
            elif path.is_dir() and not _is_empty(path):
                raise DataError(
                    f"{path} is not empty and not a run (it has no {MANIFEST}); "
                    "choose another directory with -o"
                )
            fresh = {
                "schema_version": SCHEMA_VERSION,
                "kind": kind,
                "status": "running",
                "argv": provenance.redacted(sys.argv),
                "config": json.loads(settings.canonical(config)),
                "config_digest": settings.digest(config),
                **provenance.git_state(),
                "packages": provenance.versions(),
                "machine": devices.describe(),
                "seeds": [int(seed) for seed in seeds],
                "inputs": [fingerprint(Path(each)) for each in inputs],
                "start": provenance.now(),
                "end": None,
                "wall_seconds": 0.0,
                "peak_bytes": 0,
                "resumes": 0,
            }
            path.mkdir(parents=True, exist_ok=True)
            lock = _acquire(path)
        except OSError as error:
            raise DataError(f"cannot use {path} for a run: {error.strerror}; choose another place") from error
        try:
            resumed = is_run(path) and (resume or not _is_barren(path))
            manifest = _continued(path, fresh, resume=resume) if resumed else fresh
            if not resumed:
                (path / CONFIG).unlink(missing_ok=True)  # of a barren run
            write_atomic(path / MANIFEST, _as_json(manifest))
            for directory in (path, path / CHECKPOINTS, path / ARTIFACTS):
                directory.mkdir(exist_ok=True)
                _remove_temporaries(directory)
            if not (path / CONFIG).exists():
                write_atomic(path / CONFIG, settings.dump(config))
            _drop_torn_line(path / METRICS)
            return cls(path, manifest, resumed=resumed, lock=lock)
        except BaseException:
            os.close(lock)
            raise

    def elapsed(self) -> float:
        """Wall seconds worked on this run, over all resumes."""
        return self._before + time.monotonic() - self._begun

    def log(self, **metrics: Any) -> None:
        """Append one line to metrics.jsonl; "elapsed" is added. Infinities and NaN become null.

        A line survives the death of the process from the moment this returns.
        """
        line = {"elapsed": round(self.elapsed(), 3), **metrics}
        data = (json.dumps(settings.finite(settings.plain(line)), ensure_ascii=False) + "\n").encode()
        try:
            while data:
                data = data[os.write(self._log, data) :]
        except OSError:  # the disk is full: leave no half line for the next one to run into
            _drop_torn_line(self.path / METRICS)
            raise

    def metrics(self) -> list[dict[str, Any]]:
        """The lines logged so far, those of earlier starts included."""
        return read_metrics(self.path)

    def rewind(self, **last: float) -> None:
        """Drop lines logged after a checkpoint: with `rewind(step=100)`, those whose step is above 100.

        For resuming: the work after the last checkpoint is done, and logged, again.
        """
        lines = self.metrics()
        kept = [line for line in lines if all(line.get(name, at) <= at for name, at in last.items())]
        if len(kept) < len(lines):
            data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept)
            write_atomic(self.path / METRICS, data)
            os.close(self._log)
            self._log = os.open(self.path / METRICS, os.O_WRONLY | os.O_APPEND)

    def checkpoint(self, name: str) -> Path:
        """The path of a file in checkpoints/; write it with `atomic_file`."""
        return self._inside(CHECKPOINTS, name)

    def artifact(self, name: str) -> Path:
        """The path of a file in artifacts/; write it with `atomic_file`."""
        return self._inside(ARTIFACTS, name)

    def finish(self, status: str = "done", **facts: Any) -> None:
        """Record the end: status, wall seconds, peak bytes, and facts worth having without the metrics."""
        if self._lock is None:
            raise UsageError(f"the run in {self.path} is finished")
        self.manifest.update(
            status=status,
            end=provenance.now(),
            wall_seconds=round(self.elapsed(), 3),
            peak_bytes=max(self.manifest["peak_bytes"], devices.peak_bytes()),
        )
        if facts:
            self.manifest["facts"] = self.manifest.get("facts", {}) | settings.plain(facts)
        write_atomic(self.path / MANIFEST, _as_json(self.manifest))
        if not self._entered:
            self.close()

    def close(self) -> None:
        """Let others at the directory; harmless if done before. A run not finished counts as killed."""
        if self._lock is not None:
            os.close(self._log)
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Run:
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        leaves = isinstance(error, SystemExit) and not error.code
        try:
            if error is not None and not leaves:
                status = "interrupted" if _is_interrupt(error) else "failed"
                self.manifest["error"] = f"{type(error).__name__}: {error}".strip(": ")
                with contextlib.suppress(OSError, DataError):  # the first error is the one to tell
                    self.finish(status)
            elif self.manifest["status"] == "running":
                self.finish()
        finally:
            self.close()

    def _inside(self, directory: str, name: str) -> Path:
        path = Path(name)
        if not name or path.is_absolute() or ".." in path.parts:
            raise UsageError(f"'{name}' does not name a file inside {directory}/")
        path = self.path / directory / path
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


_open_runs: weakref.WeakSet[Run] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """A forked worker must not keep the lock of a parent that was killed."""
    for run in list(_open_runs):
        if run._lock is not None:
            os.close(run._lock)
            run._lock = None


os.register_at_fork(after_in_child=_after_fork_in_child)


def _is_barren(path: Path) -> bool:
    """Whether the run that is there failed before it logged or left anything."""
    left = [each for part in (CHECKPOINTS, ARTIFACTS) for each in (path / part).rglob("*") if each.is_file()]
    return not left and read_manifest(path)["status"] == "failed" and not read_metrics(path)


def _check_wanted(path: Path, *, resume: bool) -> dict[str, Any]:
    """The manifest of the run that is there; DataError unless it is meant to go on."""
    old = read_manifest(path)
    if not resume:
        raise DataError(
            f"{path} holds a run already ({old['kind']}, {old['status']}, started {old['start']}); "
            "go on with it by --resume, or choose another directory with -o"
        )
    return old


def _continued(path: Path, fresh: dict[str, Any], *, resume: bool) -> dict[str, Any]:
    """The manifest with which to go on with the run in `path`, or DataError if that cannot be."""
    old = _check_wanted(path, resume=resume)
    if old["status"] == "running":  # the lock is ours, so whoever said this is gone
        old["status"] = "killed"
    if differences := _differences(old, fresh):
        raise DataError(
            f"cannot resume {path}, which was started with: {'; '.join(differences)}. "
            "Give the same again, or choose another directory with -o"
        )
    session = ("argv", "git", "packages", "machine", "status", "end", "error")
    before = {key: old.pop(key) for key in session if key in old}
    logged = max((line.get("elapsed", 0.0) for line in read_metrics(path)[-1:]), default=0.0)
    return {
        **old,
        **{key: fresh[key] for key in session if key in fresh},
        "seeds": fresh["seeds"],
        "wall_seconds": max(old["wall_seconds"], logged),  # a killed run left only its log
        "resumes": old["resumes"] + 1,
        "history": [*old.get("history", []), before],
    }


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What keeps `new` from going on with `old`, each in words with both values."""
    if old["kind"] != new["kind"]:
        return [f"kind {old['kind']!r} (now {new['kind']!r})"]
    missing = object()
    found = []
    for key in {**old["config"], **new["config"]}:
        was, now = old["config"].get(key, missing), new["config"].get(key, missing)
        if was != now:
            said = [("absent" if each is missing else settings.canonical(each)) for each in (was, now)]
            found.append(f"{key} {said[0]} (now {said[1]})")
    if len(old["inputs"]) != len(new["inputs"]):
        return [*found, f"{len(old['inputs'])} input files (now {len(new['inputs'])})"]
    for was, now in zip(old["inputs"], new["inputs"], strict=True):
        if was["sha256"] != now["sha256"]:
            found.append(
                f"input {was['path']} of {was['bytes']:,} bytes, sha256 {was['sha256'][:12]} "
                f"(now {now['path']}, {now['bytes']:,} bytes, sha256 {now['sha256'][:12]})"
            )
    return found


def _acquire(path: Path) -> int:
    """Lock the directory for this process; the descriptor holds the lock and dies with the process."""
    descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    # A few tries, because somebody who looks whether the lock is held (`runs list`) holds it meanwhile.
    for attempt in range(5):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(0.02 * attempt)
        except OSError as error:
            os.close(descriptor)
            raise PosterhallError(f"{path}: this file system cannot lock files ({error.strerror})") from error
    else:
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise DataError(f"{path} is in use by process {holder}; wait for it, or choose another directory")
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _is_empty(path: Path) -> bool:
    """Whether a directory holds nothing but what a run killed in its first instants left."""
    return all(each.name == LOCK or TEMPORARY.fullmatch(each.name) for each in path.iterdir())


def _remove_temporaries(directory: Path) -> None:
    for each in directory.iterdir():
        if TEMPORARY.fullmatch(each.name):
            each.unlink(missing_ok=True)


def _drop_torn_line(path: Path) -> None:
    """Cut a log after its last whole line, so that the next one does not run into a torn one."""
    if not path.exists():
        return
    with open(path, "r+b") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - (1 << 16))
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                file.truncate(start + newline + 1)
                return
            end = start
        file.truncate(0)


def _is_interrupt(error: BaseException) -> bool:
    stopped = isinstance(error, KeyboardInterrupt | Interrupted)
    return stopped or (isinstance(error, SystemExit) and error.code in (130, 143))


def _as_json(manifest: Mapping[str, Any]) -> str:
    return json.dumps(settings.finite(manifest), indent=2, ensure_ascii=False) + "\n"
