"""A grid of recall as a job: settings in, a table and a run directory out; what is done is not done again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from posterhall import devices
from posterhall.config import to_dict
from posterhall.evals import grids
from posterhall.evals.grids import SCORES
from posterhall.evals.recall.settings import Cell, RecallSettings, cells
from posterhall.evals.recall.summary import frontier, summarise
from posterhall.extras import require
from posterhall.runs import Run

__all__ = ["KIND", "SCORES", "evaluate"]

KIND = "eval recall"


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
    kept = grids.finished(out, resume=resume)
    if kept is not None:
        return kept
    grid = cells(settings)
    _check(settings, grid)

    def train(cell: Cell, run: Run | None, told: grids.Told) -> dict[str, Any]:
        from posterhall.evals.recall import training

        del run
        return training.train(
            cell, settings, told=lambda step, found: told(step / settings.steps, {"step": step, **found})
        )

    def result(done: list[dict[str, Any]], run: Run | None) -> dict[str, Any]:
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

    return grids.evaluate(
        grid,
        train,
        result,
        kind=KIND,
        config=to_dict(settings),
        seeds=sorted({cell.seed for cell in grid}),
        out=out,
        resume=resume,
        quiet=quiet,
    )


def _check(settings: RecallSettings, grid: list[Cell]) -> None:
    """Take a step with each arm at each size: a mistake shows before an hour of training, and what is loaded
    and compiled only once is not counted among the first model's seconds."""
    from posterhall.evals.recall.training import rehearse

    for kind in {(cell.mixer, cell.length, cell.pairs, cell.width): cell for cell in grid}.values():
        rehearse(kind, settings)
