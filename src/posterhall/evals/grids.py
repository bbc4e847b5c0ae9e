"""Grids of small models as runs: what is done is not done again, and a kill costs one model at most.

An evaluation that trains says what a cell of its grid is (anything with a name), how one is trained, and what
all came to; here is the rest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from posterhall.config import finite, plain
from posterhall.progress import Progress
from posterhall.runs import Run, is_run, read_manifest, write_atomic

SCORES = "scores.json"
_DONE = "models.jsonl"

Told = Callable[[float, Mapping[str, Any]], None]
"""(share of a cell's work that is done, a line for the run's metrics)."""


class Cell(Protocol):
    """One model of a grid."""

    @property
    def name(self) -> str:
        """What tells it from the others."""


C = TypeVar("C", bound=Cell)


def finished(out: Path | None, *, resume: bool) -> dict[str, Any] | None:
    """What scores.json of a run that is to be resumed holds, if nothing is left to do."""
    if not resume or out is None or not is_run(out) or read_manifest(out)["status"] != "done":
        return None
    kept: dict[str, Any] = json.loads((out / "artifacts" / SCORES).read_bytes())
    return kept


def evaluate(
    grid: Sequence[C],
    train: Callable[[C, Run | None, Told], dict[str, Any]],
    result: Callable[[list[dict[str, Any]], Run | None], dict[str, Any]],
    *,
    kind: str,
    config: Mapping[str, Any],
    seeds: Sequence[int],
    inputs: Sequence[Path] = (),
    out: Path | None = None,
    resume: bool = False,
    quiet: bool = True,
) -> dict[str, Any]:
    """Train every cell of a grid, and keep what came out.

    Args:
        grid: cells, in the order in which they are trained.
        train: (cell, run, told) -> what is to be known of its model, as JSON takes it.
        result: (that of all cells in order, run) -> what is returned, with a "table".
        kind, config, seeds, inputs: of the run; see `Run.start`. The last word of `kind` names the progress.
        out: directory of the run, whose metrics hold what is told; None keeps nothing.
        resume: go on with the run that is there: cells that are finished are not trained again.
        quiet: no progress on stderr.

    Returns:
        What scores.json holds.
    """
    label = kind.split()[-1]
    if out is None:
        return result(_work(grid, train, None, label, quiet), None)
    with Run.start(out, kind=kind, config=config, inputs=inputs, seeds=seeds, resume=resume) as run:
        found = result(_work(grid, train, run, label, quiet), run)
        written = json.dumps(finite(plain(found)), indent=2, ensure_ascii=False)
        write_atomic(run.artifact(SCORES), written + "\n")
        run.checkpoint(_DONE).unlink(missing_ok=True)
        run.finish(models=len(grid), table=found["table"])
    return found


def _work(
    grid: Sequence[C],
    train: Callable[[C, Run | None, Told], dict[str, Any]],
    run: Run | None,
    label: str,
    quiet: bool,
) -> list[dict[str, Any]]:
    kept = _read(run.checkpoint(_DONE)) if run else {}
    if run is not None:  # of a model that a kill cut short, evaluations come again
        names = {cell.name for cell in grid if cell.name in kept}
        lines = [line for line in run.metrics() if line.get("model") in names]
        if len(lines) < len(run.metrics()):
            run.rewind(elapsed=max((line["elapsed"] for line in lines), default=-1.0))
    done = []
    began = sum(cell.name in kept for cell in grid)
    with Progress(len(grid), label=label, unit="models", quiet=quiet, start=began) as progress:
        for number, cell in enumerate(grid):
            if cell.name not in kept:

                def told(share: float, line: Mapping[str, Any], cell: C = cell, number: int = number) -> None:
                    if run is not None:
                        run.log(model=cell.name, **line)
                    progress.update(number + share, accuracy=line["accuracy"])

                kept[cell.name] = train(cell, run, told)
                if run is not None:
                    _append(run.checkpoint(_DONE), {"model": cell.name, **kept[cell.name]})
            done.append(kept[cell.name])
            progress.update(number + 1)
    return done


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
