"""A grid of recall as a job: settings in, a table and a run directory out; what is done is not done again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posterhall import devices
from posterhall.config import finite, plain, to_dict
from posterhall.evals.recall.settings import Cell, RecallSettings, cells
from posterhall.evals.recall.summary import frontier, summarise
from posterhall.extras import require
from posterhall.progress import Progress
from posterhall.runs import Run, is_run, read_manifest, write_atomic

KIND = "eval recall"
SCORES = "scores.json"
_DONE = "models.jsonl"


def evaluate(
    settings: RecallSettings | None = None,
    *,
    out: Path | None = None,
    resume: bool = False,
    quiet: bool = True,
) -> dict[str, Any]:
    """Train and test every model of a grid.

    Args:
        settings: the grid; None means the defaults.
        out: directory of the run, whose metrics hold every evaluation; None keeps nothing.
        resume: go on with the run that is there: models that are finished are not trained again.
        quiet: no progress on stderr.

    Returns:
        What scores.json holds; see docs/reference/json.md.

    Raises:
        DataError: for mixers or settings that do not exist, before anything is trained; or a run that is
            there already.
        MissingExtra: without torch.
    """
    settings = settings or RecallSettings()
    require("torch", "train", "training models")
    grid = cells(settings)
    _check(settings, grid)
    if out is None:
        return _result(settings, _work(settings, grid, None, quiet), None)
    if resume and is_run(out) and read_manifest(out)["status"] == "done":
        result: dict[str, Any] = json.loads((out / "artifacts" / SCORES).read_bytes())
        return result
    seeds = sorted({cell.seed for cell in grid})
    with Run.start(out, kind=KIND, config=to_dict(settings), seeds=seeds, resume=resume) as run:
        result = _result(settings, _work(settings, grid, run, quiet), run)
        write_atomic(
            run.artifact(SCORES), json.dumps(finite(plain(result)), indent=2, ensure_ascii=False) + "\n"
        )
        run.checkpoint(_DONE).unlink(missing_ok=True)
        run.finish(models=len(grid), table=result["table"])
    return result


def _check(settings: RecallSettings, grid: list[Cell]) -> None:
    """Take a step with each arm at each size: a mistake shows before an hour of training, and what is loaded
    and compiled only once is not counted among the first model's seconds."""
    from posterhall.evals.recall.training import rehearse

    for kind in {(cell.mixer, cell.length, cell.pairs, cell.width): cell for cell in grid}.values():
        rehearse(kind, settings)


def _work(settings: RecallSettings, grid: list[Cell], run: Run | None, quiet: bool) -> list[dict[str, Any]]:
    from posterhall.evals.recall.training import train

    kept = _read(run.checkpoint(_DONE)) if run else {}
    if run is not None:  # of a model that a kill cut short, evaluations come again
        names = {cell.name for cell in grid if cell.name in kept}
        lines = [line for line in run.metrics() if line.get("model") in names]
        if len(lines) < len(run.metrics()):
            run.rewind(elapsed=max((line["elapsed"] for line in lines), default=-1.0))
    done = []
    began = sum(cell.name in kept for cell in grid)
    with Progress(len(grid), label="recall", unit="models", quiet=quiet, start=began) as progress:
        for number, cell in enumerate(grid):
            if cell.name not in kept:

                def told(
                    step: int, found: Mapping[str, float], cell: Cell = cell, number: int = number
                ) -> None:
                    if run is not None:
                        run.log(model=cell.name, step=step, **found)
                    progress.update(number + step / settings.steps, accuracy=found["accuracy"])

                kept[cell.name] = train(cell, settings, told=told)
                if run is not None:
                    _append(run.checkpoint(_DONE), {"model": cell.name, **kept[cell.name]})
            done.append(kept[cell.name])
            progress.update(number + 1)
    return done


def _result(settings: RecallSettings, done: list[dict[str, Any]], run: Run | None) -> dict[str, Any]:
    table = summarise(settings, done)
    return {
        "task": settings.task,
        "seed": settings.seed,
        "seeds": settings.seeds,
        "threads": devices.cores(),
        "table": table,
        "frontier": frontier(table),
        "models": done,
        "run": str(run.path) if run else None,
    }


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Models finished before a kill; a line that it tore is cut off."""
    if not path.exists():
        return {}
    *lines, torn = path.read_bytes().split(b"\n")
    if torn:
        os.truncate(path, sum(len(line) + 1 for line in lines))
    return {each.pop("model"): each for each in map(json.loads, lines)}


def _append(path: Path, line: Mapping[str, Any]) -> None:
    with open(path, "ab") as file:
        file.write((json.dumps(finite(plain(line))) + "\n").encode())
