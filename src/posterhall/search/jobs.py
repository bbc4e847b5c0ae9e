"""Many problems at once, as a job: a run that can be killed and taken up again."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posterhall.config import plain, to_dict
from posterhall.errors import DataError, Interrupted
from posterhall.lm.flow import each
from posterhall.lm.metered import Meter, Metered, Usage
from posterhall.lm.protocol import LM, server_facts, wait
from posterhall.progress import Progress
from posterhall.runs import Run, write_atomic
from posterhall.search.journal import UTF8, Journaled
from posterhall.search.protocol import Task
from posterhall.search.settings import SearchSettings
from posterhall.search.shared import Shared
from posterhall.search.solution import Solution
from posterhall.search.solving import asolve, changed, unsolved

KIND = "search solve"
REPLIES = "replies.jsonl"
SOLUTIONS = "solutions.jsonl"
PARALLEL = 64
"""Problems that are worked on at once, unless told otherwise."""


@dataclass(frozen=True)
class Report:
    """What a search has found for many problems."""

    solutions: tuple[Solution, ...]
    """One a problem, in their order; what could not be finished says so in `stopped_by`."""
    paid: Usage
    """What the model was asked and what a cache saved, over all resumes of the run."""
    seconds: float
    """Wall time, over all resumes."""
    run: Path | None = None
    """The run directory."""

    @property
    def unfinished(self) -> int:
        """Problems that ended before their search did: by a budget or an error."""
        return sum(solution.stopped_by is not None for solution in self.solutions)

    @property
    def usage(self) -> Usage:
        """What all problems asked, were each the only one: what the method costs, without cache."""
        return sum((solution.usage for solution in self.solutions), start=Usage())

    def to_dict(self) -> dict[str, Any]:
        """Totals: problems, how many are solved in each sense, usage as asked and as paid."""
        return {
            "problems": len(self.solutions),
            "solved": sum(each.solved for each in self.solutions),
            "any_solved": sum(each.any_solved for each in self.solutions),
            "share_solved": sum(each.share_solved for each in self.solutions) / max(1, len(self.solutions)),
            "unfinished": self.unfinished,
            "asked": dataclasses.asdict(self.usage),
            "paid": dataclasses.asdict(self.paid),
            "seconds": round(self.seconds, 3),
            "run": None if self.run is None else str(self.run),
        }


def solve_all(
    task: Task,
    problems: Sequence[str],
    lm: LM,
    *,
    settings: SearchSettings | None = None,
    out: Path | str | None = None,
    resume: bool = False,
    parallel: int = PARALLEL,
    inputs: Sequence[Path] = (),
    quiet: bool = True,
    done: Callable[[int, Solution], None] | None = None,
    **changes: Any,
) -> Report:
    """Solve many problems; see `asolve_all`.

    Raises:
        Interrupted: on Ctrl-C with a run; what was asked for is kept.
    """
    settings = changed(settings, changes)
    work = asolve_all(
        task,
        problems,
        lm,
        settings=settings,
        out=out,
        resume=resume,
        parallel=parallel,
        inputs=inputs,
        quiet=quiet,
        done=done,
    )
    try:
        return wait(work)
    except KeyboardInterrupt:
        if out is None:
            raise
        raise Interrupted(f"stopped; go on with the run in {out} by --resume") from None


async def asolve_all(
    task: Task,
    problems: Sequence[str],
    lm: LM,
    *,
    settings: SearchSettings,
    out: Path | str | None = None,
    resume: bool = False,
    parallel: int = PARALLEL,
    inputs: Sequence[Path] = (),
    quiet: bool = True,
    done: Callable[[int, Solution], None] | None = None,
) -> Report:
    """Solve many problems, none of which waits for another; what several ask is asked once.

    With `out` it is a run: artifacts/replies.jsonl has each reply before it is used, and
    artifacts/solutions.jsonl a line a problem, with its tree. A run that was killed goes on in the middle of
    its trees, pays for no reply twice, and finds the same. A limit of the model's meter (calls, tokens,
    money, seconds of all) ends all problems with the best they have; so does an error of a single one (a
    prompt too long for the model) that problem. Those are taken up again on resuming.

    Args:
        task: what kind of problems they are.
        problems: as the task reads them.
        lm: the model, which stays open.
        settings: of the search.
        out: the run directory; None leaves nothing on disk.
        resume: go on with the run in `out`, if there is one.
        parallel: problems at once, >= 1; the result does not depend on it.
        inputs: files the problems came from, for the run's record.
        quiet: show no progress.
        done: told of each solution with its number, as it is found.

    Raises:
        DataError: for a problem that the task cannot read, a run that is there already or another one, or
            what ended every single problem.
    """
    if not problems:
        raise DataError("no problems; give one a line")
    read = [_read(task, number, text) for number, text in enumerate(problems, 1)]
    meter, lm = _metered(lm)
    if out is None:
        before, began = meter.usage, time.perf_counter()
        solutions = await _work(task, read, Shared(lm), settings, {}, parallel, quiet, done)
        return Report(solutions, meter.usage - before, time.perf_counter() - began)
    config = {
        **to_dict(settings),
        "task": task.name,
        "task_settings": described(task),
        "model": lm.fingerprint(),
        "problems": read,
    }
    with Run.start(
        out, kind=KIND, config=config, inputs=list(inputs), seeds=[settings.seed], resume=resume
    ) as run:
        path = run.artifact(SOLUTIONS)
        earlier = _finished(path)
        before = meter.usage
        journal = Journaled(lm, run.artifact(REPLIES), meter)

        def found(number: int, solution: Solution) -> None:
            if not _open(solution):
                _append(path, number, solution)
            run.log(
                problem=number,
                solved=solution.solved,
                any_solved=solution.any_solved,
                calls=solution.usage.calls,
                tokens=solution.usage.tokens,
            )
            if done is not None:
                done(number, solution)

        try:
            solutions = await _work(task, read, Shared(journal), settings, earlier, parallel, quiet, found)
        finally:
            await journal.aclose()
        write_atomic(path, b"".join(_line(number, each) for number, each in enumerate(solutions)))
        report = Report(solutions, meter.usage - before, run.elapsed(), run.path)
        facts = {name: value for name, value in report.to_dict().items() if name != "run"}
        run.finish(**facts, **server_facts(lm))
    return report


def read_solutions(run: Path) -> list[Solution]:
    """The solutions of a run, in the order of its problems; of one that is not done, those so far.

    Raises:
        DataError: if there are none, or they cannot be read.
    """
    path = run / "artifacts" / SOLUTIONS
    if not path.exists():
        raise DataError(f"{run} has no {SOLUTIONS}; give the directory of a run of `{KIND}`")
    return [solution for _, solution in sorted(_lines(path).items())]


async def _work(
    task: Task,
    problems: Sequence[str],
    lm: LM,
    settings: SearchSettings,
    earlier: dict[int, Solution],
    parallel: int,
    quiet: bool,
    done: Callable[[int, Solution], None] | None,
) -> tuple[Solution, ...]:
    """All solutions in order; the error of a problem is raised only where no problem was without one."""
    failed: list[DataError] = []
    found = dict(earlier)
    left = [number for number in range(len(problems)) if number not in found]
    solved = sum(solution.solved for solution in found.values())

    async def work(number: int) -> Solution:
        try:
            return await asolve(task, problems[number], lm, settings=settings)
        except DataError as error:
            failed.append(error)
            return unsolved(task, problems[number], f"error: {error}")

    progress = Progress(
        len(problems), label=f"search {task.name}", unit="problems", quiet=quiet, start=len(found)
    )
    with _fewer_collections(), progress:
        async for place, solution in each(work, left, width=max(1, min(parallel, len(left) or 1))):
            found[left[place]] = solution
            solved += solution.solved
            if done is not None:
                done(left[place], solution)
            progress.update(len(found), solved=f"{solved}/{len(found)}")
    if failed and len(failed) == len(problems):
        raise failed[0]
    return tuple(found[number] for number in range(len(problems)))


_COLLECTIONS = 50_000
"""Objects made before the youngest of them are looked through for garbage; Python's own number is 700."""
_jobs = 0
_thresholds: tuple[int, int, int] = (0, 0, 0)
_counting = threading.Lock()


@contextlib.contextmanager
def _fewer_collections() -> Iterator[None]:
    """Look for cyclic garbage less often meanwhile.

    Trees and replies live until the end of a job, and looking through them over and over took a quarter of
    a search's own time. Jobs may overlap: the last one to end puts things back.
    """
    global _jobs, _thresholds
    with _counting:
        if _jobs == 0:
            _thresholds = gc.get_threshold()
            if 0 < _thresholds[0] < _COLLECTIONS:
                gc.set_threshold(_COLLECTIONS, *_thresholds[1:])
        _jobs += 1
    try:
        yield
    finally:
        with _counting:
            _jobs -= 1
            if _jobs == 0:
                gc.set_threshold(*_thresholds)


def _metered(lm: LM) -> tuple[Meter, LM]:
    """The meter around a model, and the model with one around it if there was none."""
    inside: Any = lm
    while inside is not None:
        if isinstance(meter := getattr(inside, "meter", None), Meter):
            return meter, lm
        inside = getattr(inside, "inner", None)
    metered = Metered(lm)
    return metered.meter, metered


def _read(task: Task, number: int, text: str) -> str:
    try:
        return task.read(text)
    except DataError as error:
        raise DataError(f"problem {number}: {error}") from None


def described(task: Task) -> dict[str, Any]:
    """The settings of a task: its fields (of a dataclass), or attributes, those that have a plain form."""
    # Not all that a dataclass's instance has: what it has worked out and kept is no setting.
    names = [each.name for each in dataclasses.fields(task)] if dataclasses.is_dataclass(task) else vars(task)
    found = {}
    for name in sorted(names):
        if name not in ("problem", "name") and not name.startswith("_"):
            try:
                found[name] = plain(getattr(task, name))
            except TypeError:
                continue
    return found


def _open(solution: Solution) -> bool:
    """Whether a resumed run takes a problem up again: it was not its own limit that ended it."""
    return solution.stopped_by is not None and not solution.stopped_by.startswith("the problem's budget")


def _line(number: int, solution: Solution) -> bytes:
    value = {"number": number, **solution.to_dict()}
    return (json.dumps(value, ensure_ascii=False) + "\n").encode(*UTF8)


def _append(path: Path, number: int, solution: Solution) -> None:
    with open(path, "ab") as file:
        file.write(_line(number, solution))


def _finished(path: Path) -> dict[int, Solution]:
    """The problems that need not be taken up again; what a kill has torn off is cut off."""
    if not path.exists():
        return {}
    data = path.read_bytes()
    os.truncate(path, data.rfind(b"\n") + 1)
    return {number: solution for number, solution in _lines(path).items() if not _open(solution)}


def _lines(path: Path) -> dict[int, Solution]:
    found = {}
    for at, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            value = json.loads(line.decode(*UTF8))
            found[int(value["number"])] = Solution.from_dict(value)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}:{at}: not a line of solutions: {error}") from None
    return found
