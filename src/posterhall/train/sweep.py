"""A grid of trainings: each a run of its own, done by processes, gone on with after a kill."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posterhall import cluster
from posterhall import config as configs
from posterhall.devices import THREAD_VARIABLES, cores
from posterhall.errors import DataError, Interrupted
from posterhall.runs import is_run, read_manifest, write_atomic
from posterhall.train.lm_settings import LmSettings, finished

MOST_RUNS = 10_000
"""A larger grid is a mistake in the file."""
_KEYS = ("text", "eval", "fixed", "cases", "grid")
_LONGEST_NAME = 100
_PATIENCE = 120.0
"""Seconds that an interrupted process has for its checkpoint."""


@dataclass(frozen=True)
class Planned:
    """One training of a sweep."""

    name: str
    """What varies, as "dim=32,seed=0"; also the folder's name."""
    varying: Mapping[str, Any]
    settings: LmSettings


@dataclass(frozen=True)
class Sweep:
    """What a sweep's file says."""

    text: tuple[str, ...]
    held_out: tuple[str, ...]
    runs: tuple[Planned, ...]


def read(file: Path) -> Sweep:
    """Read a sweep's file: YAML with text, eval, fixed, cases and grid.

    ::

        text: [books/*.txt]          # as `train lm` takes it
        eval: [held-out.txt]         # optional
        fixed: {context: 128}        # settings that all runs share
        cases:                       # settings that go together, one run each
          - {dim: 64, tokens: 2e6}
          - {dim: 128, tokens: 8e6}
        grid:                        # lists that are crossed with each other and with the cases
          seed: [0, 1, 2]

    Raises:
        DataError: for what is not like this, a setting that does not exist or fit, or two equal runs.
    """
    content = _yaml(file)
    for key in content:
        if key not in _KEYS:
            raise DataError(f"{file}: unknown key '{key}'; a sweep has {', '.join(_KEYS)}")
    text, held_out = (_texts(content.get(key) or [], f"{file}: {key}") for key in ("text", "eval"))
    if not text:
        raise DataError(f"{file}: no text; add 'text: [FILE, ...]'")
    fixed = _mapping(content.get("fixed") or {}, f"{file}: fixed")
    grid = _mapping(content.get("grid") or {}, f"{file}: grid")
    cases = content.get("cases") or [{}]
    if not isinstance(cases, list):
        raise DataError(f"{file}: cases is a list of groups of settings, one a line, as '- {{dim: 64}}'")
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise DataError(f"{file}: grid: {name} is {values!r}; give a list of values to cross")
    count = len(cases)
    for values in grid.values():
        count *= len(values)
    if count > MOST_RUNS:
        raise DataError(f"{file}: that makes {count:,} runs; at most {MOST_RUNS:,} are taken for meant")
    runs: dict[str, Planned] = {}
    for number, case in enumerate(cases, 1):
        case = _mapping(case, f"{file}: case {number}")
        for values in itertools.product(*grid.values()):
            varying = {**case, **dict(zip(grid, values, strict=True))}
            given = len(fixed) + len(case) + len(grid)
            if len({**fixed, **varying}) < given:
                raise DataError(f"{file}: case {number}: a setting stands in two of fixed, cases and grid")
            name = _name(varying)
            try:
                settings = configs.resolve(LmSettings, flags={**fixed, **varying})
            except DataError as error:
                raise DataError(f"{file}: {name}: {str(error).removeprefix('--')}") from None
            if name in runs:
                raise DataError(f"{file}: two runs are {name}; each must differ from all others")
            runs[name] = Planned(name, varying, settings)
    return Sweep(text, held_out, tuple(runs.values()))


def run(
    sweep: Sweep,
    out: Path,
    *,
    workers: int,
    threads: int = 1,
    ray: str | None = None,
    done: Callable[[Planned], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Do the runs of a sweep that are not done, each in a process of its own.

    What they print goes to logs/NAME.txt. A run that fails does not stop the others. The text is tokenised
    once, in tokens/.

    Args:
        sweep: what to do.
        out: directory of the run directories.
        workers: processes at a time, >= 1 (with Ray, the cluster's cores decide).
        threads: of each process.
        ray: address of a Ray cluster that places the processes, on machines that share this directory, or
            "local" for one that is started here; None for no Ray.
        done: called with each run that ended, well or not.

    Returns:
        For each run, in the sweep's order: "run" (its directory), "settings" (those that vary), "status"
        ("done" or "failed"), "facts" (what `train lm` prints) and "log".

    Raises:
        DataError: if a finished run in the way was made with other settings.
        Interrupted: on Ctrl-C, after the running ones wrote their checkpoints.
        MissingExtra: if Ray is asked for and not installed.
    """
    waiting = [planned for planned in sweep.runs if finished(out / planned.name, planned.settings) is None]
    for folder in ("logs", "configs"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for planned in sweep.runs:
        write_atomic(out / "configs" / f"{planned.name}.yaml", configs.dump(planned.settings))
        if planned not in waiting:
            done(planned)
    commands = {planned.name: _command(sweep, planned, out, threads) for planned in waiting}
    by_name = {planned.name: planned for planned in waiting}
    if ray is not None:
        ended = _by_ray(commands, out, ray, threads)
    else:
        ended = _by_processes(commands, out, workers, threads)
    for name in ended:
        done(by_name[name])
    return [_result(planned, out) for planned in sweep.runs]


def _by_processes(commands: Mapping[str, list[str]], out: Path, workers: int, threads: int) -> Iterator[str]:
    """Names of runs as their processes end."""
    waiting = iter(commands.items())
    crew: dict[str, subprocess.Popen[bytes]] = {}
    try:
        while True:
            for name, command in itertools.islice(waiting, workers - len(crew)):
                crew[name] = _start(command, out / "logs" / f"{name}.txt", threads)
            if not crew:
                return
            ended = [name for name, process in crew.items() if process.poll() is not None]
            for name in ended:
                del crew[name]
                yield name
            if not ended:
                time.sleep(0.05)
    except KeyboardInterrupt:
        for process in crew.values():
            process.terminate()  # what Ctrl-C does: a checkpoint, then the end
        for process in crew.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE)
        raise Interrupted("sweep stopped; the same command goes on with it") from None
    finally:
        for process in crew.values():
            if process.poll() is None:
                process.kill()
                process.wait()


def _start(command: list[str], log: Path, threads: int) -> subprocess.Popen[bytes]:
    with log.open("ab") as stream:
        return subprocess.Popen(  # noqa: S603 - this program, without a shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env=_environment(threads),
            start_new_session=True,  # Ctrl-C reaches the sweep alone, which ends the others in order
        )


def _by_ray(commands: Mapping[str, list[str]], out: Path, address: str, threads: int) -> Iterator[str]:
    ray: Any = cluster.ray("a sweep on Ray")
    started = cluster.connect(cores(), address=None if address == "local" else address)
    try:
        execute = ray.remote(num_cpus=threads, max_retries=2)(_execute)
        waiting = {
            execute.remote(
                command, str((out / "logs" / f"{name}.txt").resolve()), str(Path.cwd()), threads
            ): name
            for name, command in commands.items()
        }
        while waiting:
            ended, _ = ray.wait(list(waiting))
            for each in ended:
                yield waiting.pop(each)
    except KeyboardInterrupt:
        raise Interrupted("sweep stopped; the same command goes on with it") from None
    finally:
        if started:
            ray.shutdown()


def _execute(command: list[str], log: str, directory: str, threads: int) -> int:
    """What a Ray worker does."""
    with open(log, "ab") as stream:
        return subprocess.call(  # noqa: S603 - this program, without a shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            cwd=directory,
            env=_environment(threads),
        )


def _command(sweep: Sweep, planned: Planned, out: Path, threads: int) -> list[str]:
    options = ["-o", str(out / planned.name), "-c", str(out / "configs" / f"{planned.name}.yaml")]
    options += ["--cache", str(out / "tokens"), "--threads", str(threads), "--resume", "--quiet"]
    for path in sweep.held_out:
        options += ["--eval", path]
    return [sys.executable, "-P", "-m", "posterhall", "train", "lm", *options, "--", *sweep.text]


def _environment(threads: int) -> dict[str, str]:
    """This process's, with its import path and number of threads; settings come from the file alone."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(configs.ENVIRONMENT_PREFIX)}
    paths = os.pathsep.join(path for path in sys.path if path)
    return {**kept, **dict.fromkeys(THREAD_VARIABLES, str(threads)), "PYTHONPATH": paths}


def _result(planned: Planned, out: Path) -> dict[str, Any]:
    directory = out / planned.name
    manifest = read_manifest(directory) if is_run(directory) else {}
    done = manifest.get("status") == "done"
    return {
        "run": str(directory),
        "settings": {name: getattr(planned.settings, name) for name in planned.varying},
        "status": "done" if done else "failed",
        "facts": manifest.get("facts") if done else None,
        "log": str(out / "logs" / f"{planned.name}.txt"),
    }


def _name(varying: Mapping[str, Any]) -> str:
    name = ",".join(f"{key}={re.sub(r'[^A-Za-z0-9_.+-]', '_', str(value))}" for key, value in varying.items())
    if len(name) > _LONGEST_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:12]
        name = f"{name[: _LONGEST_NAME - 13]}-{digest}"
    return name or "run"


def _yaml(file: Path) -> dict[str, Any]:
    import yaml

    try:
        if file.stat().st_size > configs.LARGEST_FILE:
            raise DataError(f"{file}: over 1 MiB, which is no sweep")
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise DataError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from None
    return _mapping(content, f"{file}")


def _mapping(content: Any, where: str) -> dict[str, Any]:
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise DataError(f"{where}: expected lines of the form 'name: value'")
    return content


def _texts(content: Any, where: str) -> tuple[str, ...]:
    items: Sequence[Any] = [content] if isinstance(content, str) else content
    if not isinstance(items, list) or not all(isinstance(each, str) for each in items):
        raise DataError(f"{where}: expected a list of files, directories or patterns")
    return tuple(items)
