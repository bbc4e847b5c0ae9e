"""An evaluation as a job: a model and tasks in, a table of scores and a run directory out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from posterhall.config import canonical, digest, finite, plain, to_dict
from posterhall.errors import DataError, UsageError
from posterhall.evals import harness as harness_room
from posterhall.evals.items import Row, ask
from posterhall.evals.scores import Rows, as_line, long_rows, overall, summarise
from posterhall.evals.shots import Plan, plan
from posterhall.evals.tasks import Task
from posterhall.lm.protocol import LM, server_facts, wait
from posterhall.progress import Progress
from posterhall.runs import Run, atomic_file, is_run, read_manifest, write_atomic

KIND = "eval tasks"
_BATCHES = "batches.jsonl"
ITEMS, OUTPUTS, SCORES = "items.jsonl", "outputs.jsonl", "scores.json"


@dataclass(frozen=True)
class EvalSettings:
    """Everything that determines the scores beside the model and the task files."""

    shots: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    """Numbers of examples, each >= 0; scores are averaged over them (Muennighoff et al. 2023, §7)."""
    limit: int | None = None
    """Most items of a task, >= 1, drawn at random; the paper takes 3000."""
    seed: int = 0
    """Of the draws of examples and items, and of the bootstrap."""
    batch: int = 64
    """Items asked at once and kept together: what a kill can lose, >= 1."""
    resamples: int = 2000
    """Of the bootstrap, >= 100."""
    family: str | None = None
    """What models to be compared across scales have in common, where there are several families."""
    scale: float | None = None
    """The model's size or compute, for `scale emergence`; default: its parameters, where known."""
    task_set: tuple[str, ...] = ()
    """key=value of TaskSettings, for all tasks."""
    harness: tuple[str, ...] = ()
    """Names of lm-evaluation-harness's tasks, to be run beside."""

    def __post_init__(self) -> None:
        if not self.shots or any(each < 0 for each in self.shots):
            raise DataError(f"shots is {list(self.shots)}; give one or more numbers, none below 0")
        if len(set(self.shots)) < len(self.shots):
            raise DataError(f"shots is {list(self.shots)}; give each number once")
        for name in ("limit", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DataError(f"{name} is {value}; it must be at least 1")
        if self.resamples < 100:
            raise DataError(f"resamples is {self.resamples}; it must be at least 100")


@dataclass(frozen=True)
class _Batch:
    """Some items of a plan at one number of examples: what is asked, and kept, together."""

    plan: Plan
    shots: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        return canonical([self.plan.task.name, self.shots, self.start])


@dataclass
class _Kept:
    """The batches done, in a file to which each is appended at once; none without a file."""

    path: Path | None
    rows: dict[str, list[Row]] = field(default_factory=dict)

    def load(self) -> None:
        """Take up what is in the file; a line torn by a kill is cut off."""
        if self.path is None or not self.path.exists():
            return
        *lines, torn = self.path.read_bytes().split(b"\n")
        for line in lines:
            value = json.loads(line)
            self.rows[value["batch"]] = [Row(**each) for each in value["rows"]]
        if torn:
            os.truncate(self.path, sum(len(line) + 1 for line in lines))

    def add(self, name: str, rows: list[Row]) -> None:
        """Keep a batch; it survives the death of the process from the moment this returns."""
        self.rows[name] = rows
        if self.path is not None:
            # Python's JSON: what is read again is the same floats, infinities included.
            line = json.dumps({"batch": name, "rows": [asdict(row) for row in rows]}) + "\n"
            with open(self.path, "ab") as file:
                file.write(line.encode())


def evaluate(
    lm: LM,
    tasks: Sequence[Task],
    settings: EvalSettings | None = None,
    *,
    out: Path | None = None,
    inputs: Sequence[Path] = (),
    resume: bool = False,
    quiet: bool = True,
    warn: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Ask a model the items of tasks, and score its answers.

    Args:
        lm: the model.
        tasks: from `tasks.load`.
        settings: numbers of examples, and the rest; None means the defaults.
        out: directory of the run; None keeps nothing.
        inputs: what the model and the tasks were read from, for the run's record.
        resume: go on with the run that is there; a finished one is left as it is.
        quiet: no progress on stderr.
        warn: is told what the user should know.

    Returns:
        What scores.json holds; see docs/reference/json.md.

    Raises:
        DataError: for tasks with too few examples, prompts that do not fit in the model's context, or a run
            that is there already.
        UsageError: without any task.
        MissingExtra: if lm-evaluation-harness is wanted and not installed.
    """
    settings = settings or EvalSettings()
    if not tasks and not settings.harness:
        raise UsageError("no task: give --task FILE.jsonl, a directory, or --harness NAME")
    plans = [plan(each, shots=settings.shots, seed=settings.seed, limit=settings.limit) for each in tasks]
    for each in plans:
        if each.contaminated:
            warn(f"{each.task.name}: passed over {each.contaminated} examples that equal an item asked")
    if settings.harness:
        harness_room.require_harness()
    if out is None:
        return _work(lm, plans, settings, None, quiet)[0]
    if resume and is_run(out) and read_manifest(out)["status"] == "done":
        result: dict[str, Any] = json.loads((out / "artifacts" / SCORES).read_bytes())
        return result
    with Run.start(
        out, kind=KIND, config=to_dict(settings), inputs=inputs, seeds=[settings.seed], resume=resume
    ) as run:
        result, rows = _work(lm, plans, settings, run, quiet)
        _write(run, lm, plans, rows, settings, result)
        run.checkpoint(_BATCHES).unlink(missing_ok=True)
        run.finish(model=lm.name, tasks=len(result["tasks"]), mean=result["mean"], **server_facts(lm))
    return result


def _work(
    lm: LM, plans: Sequence[Plan], settings: EvalSettings, run: Run | None, quiet: bool
) -> tuple[dict[str, Any], list[Rows]]:
    """Ask everything, and sum up."""
    kept = _Kept(run.checkpoint(_BATCHES) if run else None)
    kept.load()
    batches = list(_batches(plans, settings))
    total = sum(each.stop - each.start for each in batches)
    done = sum(each.stop - each.start for each in batches if each.name in kept.rows)
    with Progress(total, label="evaluate", unit="items", quiet=quiet, start=done) as progress:
        for each in batches:
            if each.name in kept.rows:
                continue
            items = each.plan.items[each.start : each.stop]
            kept.add(each.name, wait(ask(lm, each.plan, each.shots, items)))
            done += len(items)
            progress.update(done, task=each.plan.task.name, shots=float(each.shots))
    rows = [_gathered(each, settings, kept) for each in plans]
    summaries = [
        summarise(each, found, seed=settings.seed, resamples=settings.resamples)
        for each, found in zip(plans, rows, strict=True)
    ]
    result = {
        "model": lm.name,
        "family": settings.family,
        "scale": _scale(lm, settings),
        "seed": settings.seed,
        "limit": settings.limit,
        "tasks": summaries,
        "mean": overall(summaries, seed=settings.seed, resamples=settings.resamples),
        "harness": harness_room.run_tasks(lm, settings, run) if settings.harness else [],
        "run": str(run.path) if run else None,
    }
    return result, rows


def _scale(lm: LM, settings: EvalSettings) -> float | None:
    scale = settings.scale if settings.scale is not None else lm.parameters
    return None if scale is None else float(scale)


def _batches(plans: Sequence[Plan], settings: EvalSettings) -> Iterator[_Batch]:
    """All that is to be asked. The longest prompts come first, so that one that is too long shows at once."""
    for shots in sorted(settings.shots, reverse=True):
        for each in plans:
            for start in range(0, len(each.items), settings.batch):
                yield _Batch(each, shots, start, min(start + settings.batch, len(each.items)))


def _gathered(wanted: Plan, settings: EvalSettings, kept: _Kept) -> Rows:
    rows: dict[int, list[Row]] = {shots: [] for shots in settings.shots}
    for each in _batches([wanted], settings):
        rows[each.shots] += kept.rows[each.name]
    return rows


def _write(
    run: Run,
    lm: LM,
    plans: Sequence[Plan],
    rows: Sequence[Rows],
    settings: EvalSettings,
    result: dict[str, Any],
) -> None:
    """The artifacts: rows of items, what the model said, and the scores."""
    scale = _scale(lm, settings)
    with atomic_file(run.artifact(ITEMS)) as file:
        for each, found in zip(plans, rows, strict=True):
            for line in long_rows(each, found, model=lm.name, family=settings.family, scale=scale):
                file.write(as_line(line).encode())
    with atomic_file(run.artifact(OUTPUTS)) as file:
        for each, found in zip(plans, rows, strict=True):
            for shots in sorted(found):
                lead = digest({"lead": each.lead(shots)})[:12]
                for row in found[shots]:
                    said = {"task": each.task.name, "shots": shots, "item": row.item, "lead": lead}
                    file.write(as_line({**said, **row.output}).encode())
    write_atomic(run.artifact(SCORES), json.dumps(finite(plain(result)), indent=2, ensure_ascii=False) + "\n")
