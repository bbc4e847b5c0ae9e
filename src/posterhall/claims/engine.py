"""Running claims: every (claim, seed) is a task for a pool of processes and a file in the run."""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posterhall import config, devices
from posterhall.claims import kinds, pool
from posterhall.claims.base import MIN_SEEDS, Claim, coerce
from posterhall.claims.registry import select
from posterhall.claims.results import Outcome, Results, adjust, conclude
from posterhall.claims.rows import Budget, Row, Scalar
from posterhall.errors import DataError, Interrupted, UsageError, did_you_mean
from posterhall.progress import Progress
from posterhall.runs import Run, is_run, read_manifest, write_atomic

SCHEMA = 1
RESULTS = "claims.json"
REPORT = "report.html"


@dataclass
class _Job:
    """A claim with what this run asks of it, and what came back."""

    claim: Claim
    budget: Budget
    seeds: tuple[int, ...]
    answers: dict[int, dict[str, Any]]
    error: str | None = None

    @property
    def missing(self) -> list[int]:
        return [seed for seed in self.seeds if seed not in self.answers]


def run(
    names: str | Sequence[str] = (),
    *,
    scale: str = "smoke",
    seeds: int | None = None,
    first_seed: int = 0,
    workers: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    params: Mapping[str, Scalar] | None = None,
    modules: Sequence[str] | None = None,
    quiet: bool = False,
    headline: bool = False,
    kind: str = "claims",
    replace: bool = False,
) -> Results:
    """Run claims and decide them.

    Args:
        names: ids of claims or names of papers; none runs all.
        scale: ``smoke``, ``laptop``, ``full``, or another that the claims declare.
        seeds: seeds a claim, instead of the scale's own number; at least 5 where seeds are the unit.
        first_seed: the seeds are this one and those after it.
        workers: processes at a time; all cores unless given.
        out: the run's directory; ``runs/claims-TIME`` unless given.
        resume: continue the run in `out`: only seeds without rows are computed.
        params: values for parameters that claims declare, given to every selected claim that has them.
        modules: modules that declare claims, instead of those of the registered papers.
        quiet: show no progress.
        headline: only headline claims.
        kind: what the run calls itself in its manifest.
        replace: if `out` holds an earlier run of this kind, remove that first.

    Returns:
        Outcomes by claim. A claim that raised, or whose process died, has the verdict ``failed`` and the
        reason; the others are not affected.

    Raises:
        UsageError: on an unknown name, scale or parameter, or too few seeds.
        DataError: if `out` holds another run, or `resume` does not match it.
        Interrupted: on Ctrl-C; finished seeds are kept.
    """
    chosen = select([names] if isinstance(names, str) else list(names), modules)
    if headline:
        chosen = [cls for cls in chosen if cls.headline]
        if not chosen:
            raise UsageError("none of these claims is a headline claim")
    jobs = [_job(cls, scale, seeds, first_seed, params or {}) for cls in chosen]
    _check_params(params or {}, chosen)
    path = Path(out) if out is not None else Path("runs") / time.strftime("claims-%Y%m%d-%H%M%S")
    given = {"scale": scale, **{job.claim.id: _declaration(job) for job in jobs}}
    if replace:
        _clear(path, kind)
    every_seed = sorted({seed for job in jobs for seed in job.seeds})
    with Run.start(
        path, kind=kind, config=given, inputs=_inputs(params or {}), seeds=every_seed, resume=resume
    ) as running:
        for job in jobs:
            job.answers = _stored(running, job, scale)
        try:
            _perform(running, jobs, scale, workers or devices.cores(), quiet)
        except KeyboardInterrupt:
            kept = sum(len(job.answers) for job in jobs)
            raise Interrupted(
                f"stopped with {kept} of {sum(len(job.seeds) for job in jobs)} seeds done; "
                f"continue with --resume -o {path}"
            ) from None
        results = Results(scale, path, adjust([_outcome(job, scale) for job in jobs]))
        text = json.dumps({"schema": SCHEMA, **results.to_json(figures=True)}, indent=1, allow_nan=False)
        write_atomic(running.artifact(RESULTS), text + "\n")
        running.finish("failed" if results.failed else "done", verdicts={o.id: o.verdict for o in results})
    return results


def read(path: str | Path) -> Results:
    """Read the results of a finished run of claims.

    Raises:
        DataError: if `path` is no such run, or an unfinished one.
    """
    run = Path(path)
    file = run / "artifacts" / RESULTS
    if not file.is_file():
        known = (run / "manifest.json").is_file()
        hint = "it has not finished: continue it with --resume" if known else "there is no run of claims"
        raise DataError(f"{run}: {hint} ({file.name} is missing)")
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            raise DataError(
                f"{file}: schema {data['schema']}, this version reads {SCHEMA}; run the claims again"
            )
        claims = tuple(Outcome.from_json(item) for item in data["claims"])
        return Results(str(data["scale"]), run, claims)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{file}: not the results of claims ({error!r})") from None


def stored_rows(path: str | Path, claim: str, scale: str) -> list[Row]:
    """All rows of a claim in a run, by seed; empty if it failed before its first."""
    folder = Path(path) / "artifacts" / "rows" / claim
    files = sorted(folder.glob(f"{scale}-*.json"), key=lambda p: int(p.stem.rsplit("-", 1)[1]))
    return [row for file in files for row in _rows(_answer(file))]


def _job(
    cls: type[Claim], scale: str, seeds: int | None, first_seed: int, params: Mapping[str, Scalar]
) -> _Job:
    budget = cls.budget(scale)
    if seeds is not None:
        if seeds < 1 or (seeds < MIN_SEEDS and cls.unit == "seed"):
            raise UsageError(f"{seeds} seeds for '{cls.id}'; a verdict over seeds needs {MIN_SEEDS} or more")
        budget = budget.replace(seeds=seeds)
    if first_seed < 0:
        raise UsageError(f"seed {first_seed} is negative; give 0 or more")
    own = {
        k: coerce(k, cls.params[k], v) if isinstance(v, str) else v
        for k, v in params.items()
        if k in cls.params
    }
    return _Job(cls(own), budget, tuple(range(first_seed, first_seed + budget.seeds)), {})


def _check_params(params: Mapping[str, Scalar], chosen: Sequence[type[Claim]]) -> None:
    known = {name for cls in chosen for name in cls.params}
    for name in params:
        if name not in known:
            raise UsageError(
                f"no selected claim has a parameter '{name}'; they have: "
                f"{', '.join(sorted(known)) or 'none'}.{did_you_mean(name, known)}"
            )


def _inputs(params: Mapping[str, Scalar]) -> list[Path]:
    """Files named by parameters: the manifest keeps their size and sha256."""
    return [Path(v) for v in params.values() if isinstance(v, str) and Path(v).is_file()]


def _declaration(job: _Job) -> dict[str, Any]:
    """What must be the same for two runs to be one: the claim as stated, its budget and parameters."""
    cls = type(job.claim)
    stated = {
        "statement": cls.statement,
        "test": dict(kinds.to_json(cls.kind)),
        "control": dict(kinds.to_json(cls.control_kind())),
        "unit": cls.unit,
        "diverged": dict(cls.diverged),
    }
    return {
        "budget": dict(job.budget),
        "first_seed": job.seeds[0],
        "params": dict(job.claim.params),
        "stated": config.digest(stated),
    }


def _file(running: Run, job: _Job, scale: str, seed: int) -> Path:
    return running.artifact(f"rows/{job.claim.id}/{scale}-{seed}.json")


def _answer(file: Path) -> dict[str, Any]:
    try:
        answer = json.loads(file.read_text(encoding="utf-8"))
        float(answer["wall_seconds"]), float(answer["cpu_seconds"])
        list(answer["rows"])
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file}: not rows of a claim ({error!r}); delete it and run with --resume") from None
    return dict(answer)


def _rows(answer: Mapping[str, Any]) -> list[Row]:
    return [Row.from_json(row) for row in answer["rows"]]


def _stored(running: Run, job: _Job, scale: str) -> dict[int, dict[str, Any]]:
    files = {seed: _file(running, job, scale, seed) for seed in job.seeds}
    return {seed: _answer(file) for seed, file in files.items() if file.is_file()}


def _clear(path: Path, kind: str) -> None:
    """Remove an earlier run of this kind, and nothing else; leave the complaint to `Run.start`."""
    if not is_run(path):
        return
    manifest = read_manifest(path)
    own = {"manifest.json", "config.yaml", "metrics.jsonl", "checkpoints", "artifacts", ".lock", REPORT}
    if manifest["kind"] != kind or manifest["status"] == "running" or {p.name for p in path.iterdir()} - own:
        return
    # The manifest last: a kill in between leaves a run that can be removed the next time.
    for name in [*sorted(own - {".lock", "manifest.json"}), "manifest.json"]:
        part = path / name
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part)
        else:
            part.unlink(missing_ok=True)


def _perform(running: Run, jobs: Sequence[_Job], scale: str, workers: int, quiet: bool) -> None:
    by_id = {job.claim.id: job for job in jobs}
    total = sum(len(job.seeds) for job in jobs)
    finished = total - sum(len(job.missing) for job in jobs)
    with Progress(total, label=f"claims at {scale}", unit="seeds", quiet=quiet, start=finished) as progress:

        def advance(task: pool.Task) -> None:
            nonlocal finished
            finished += 1
            progress.update(finished, claim=task.claim)

        def done(task: pool.Task, answer: dict[str, Any]) -> None:
            job = by_id[task.claim]
            record = {"claim": task.claim, "scale": scale, "seed": task.seed, **answer}
            file = _file(running, job, scale, task.seed)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(file, json.dumps(record, allow_nan=False) + "\n")
            job.answers[task.seed] = record
            running.log(claim=task.claim, seed=task.seed, cpu_seconds=answer["cpu_seconds"])
            advance(task)

        def failed(task: pool.Task, reason: str) -> None:
            by_id[task.claim].error = f"seed {task.seed}: {reason}"
            running.log(claim=task.claim, seed=task.seed, error=reason)
            advance(task)

        shared = [job for job in jobs if not type(job.claim).exclusive]
        alone = [job for job in jobs if type(job.claim).exclusive]
        start = _starter(running, done, failed)
        start(_tasks(shared), workers=workers, one_thread=True)
        start(_tasks(alone), workers=1, one_thread=False)


def _starter(
    running: Run,
    done: Callable[[pool.Task, dict[str, Any]], None],
    failed: Callable[[pool.Task, str], None],
) -> Callable[..., None]:
    def start(tasks: list[pool.Task], *, workers: int, one_thread: bool) -> None:
        logs = running.artifact("logs")
        pool.execute(tasks, workers=workers, logs=logs, done=done, failed=failed, one_thread=one_thread)

    return start


def _tasks(jobs: Sequence[_Job]) -> list[pool.Task]:
    return [
        pool.Task(
            type(job.claim).__module__,
            job.claim.id,
            seed,
            dict(job.budget),
            dict(job.claim.params),
            float(job.budget.get("seconds", 1.0)),
        )
        for job in jobs
        for seed in job.missing
    ]


def _outcome(job: _Job, scale: str) -> Outcome:
    answers = [job.answers[seed] for seed in job.seeds if seed in job.answers]
    return conclude(
        job.claim,
        [row for answer in answers for row in _rows(answer)],
        scale=scale,
        budget=job.budget,
        error=job.error,
        wall_seconds=sum(answer["wall_seconds"] for answer in answers),
        cpu_seconds=sum(answer["cpu_seconds"] for answer in answers),
        command=_command(job, scale),
    )


def _command(job: _Job, scale: str) -> str:
    """The command that runs this claim alone in the same way."""
    cls = type(job.claim)
    words = ["posterhall", "claims", "run", cls.id, "--scale", scale]
    if job.budget.seeds != cls.scales[scale].seeds:
        words += ["--seeds", str(job.budget.seeds)]
    if job.seeds[0] != 0:
        words += ["--seed", str(job.seeds[0])]
    for name, value in job.claim.params.items():
        if value != cls.params[name]:
            words += ["--set", f"{name}={value}"]
    return shlex.join(words)
