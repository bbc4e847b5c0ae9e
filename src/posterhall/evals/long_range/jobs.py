"""A grid of long range as a job: settings in, a table and a run directory out."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from posterhall import devices
from posterhall.config import to_dict
from posterhall.errors import UsageError
from posterhall.evals import grids
from posterhall.evals.long_range import tasks
from posterhall.evals.long_range.settings import Cell, LongRangeSettings, cells
from posterhall.evals.long_range.summary import summarise
from posterhall.extras import require
from posterhall.runs import Run

KIND = "eval long-range"
MODELS = "models"
"""In the run's artifacts: a directory for each model that is kept."""


def evaluate(
    settings: LongRangeSettings | None = None,
    *,
    out: Path | None = None,
    keep: bool = False,
    resume: bool = False,
    quiet: bool = True,
    warn: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Train, choose and test every model of a grid.

    Args:
        settings: the grid; None means the defaults.
        out: directory of the run, whose metrics hold every evaluation; None keeps nothing.
        keep: save the models in the run (artifacts/models); `posterhall.models.classifier.load` reads
            them.
        resume: go on with the run that is there: models that are finished are not trained again.
        quiet: no progress on stderr.
        warn: is told of what a reader left out.

    Returns:
        What scores.json holds; see docs/reference/json.md.

    Raises:
        DataError: for mixers, settings, lengths or files that are not right, before anything is trained; or a
            run that is there already.
        UsageError: if models are to be kept without a run.
        MissingExtra: without torch; for digits, without scikit-learn.
    """
    settings = settings or LongRangeSettings()
    if keep and out is None:
        raise UsageError("models are kept in a run; name its directory")
    require("torch", "train", "training models")
    kept = grids.finished(out, resume=resume)
    if kept is not None:
        return kept
    grid = cells(settings)
    try:
        left_out = _check(settings)
        if left_out and warn is not None:
            warn(f"left out: {left_out}")
        return _evaluated(settings, grid, left_out, out, keep, resume, quiet)
    finally:  # rows are kept for the models of a grid, not for files that may change afterwards
        tasks.load.cache_clear()


def _evaluated(
    settings: LongRangeSettings,
    grid: list[Cell],
    left_out: str,
    out: Path | None,
    keep: bool,
    resume: bool,
    quiet: bool,
) -> dict[str, Any]:
    def train(cell: Cell, run: Run | None, told: grids.Told) -> dict[str, Any]:
        from posterhall.evals.long_range import training

        place = None
        if keep and run is not None:
            place = run.artifact(f"{MODELS}/{_folder(settings, cell)}")
        return training.train(cell, settings, told=told, keep=place)

    def result(done: list[dict[str, Any]], run: Run | None) -> dict[str, Any]:
        return {
            "task": settings.task,
            "seed": settings.seed,
            "seeds": settings.seeds,
            "threads": devices.cores(),
            "left_out": left_out,
            "table": summarise(settings.mixers, done),
            "models": done,
            "run": str(run.path) if run else None,
        }

    return grids.evaluate(
        grid,
        train,
        result,
        kind=KIND,
        config={**to_dict(settings), "keep": keep},
        seeds=sorted({cell.seed for cell in grid}),
        inputs=[settings.path] if settings.path is not None else [],
        out=out,
        resume=resume,
        quiet=quiet,
    )


def _check(settings: LongRangeSettings) -> str:
    """Make what will be classified, and take a step with each arm at each length: a mistake shows before an
    hour of training, and what is loaded and compiled only once is not counted among a model's seconds.

    Returns:
        What the readers left out, in words.
    """
    from posterhall.evals.long_range import training

    for length in settings.evaluate_at:
        tasks.load(settings, length, settings.seed)
    left_out: dict[str, None] = {}
    for length in settings.trained_lengths:
        for rate in settings.rates:
            tasks.load(settings, length, settings.seed, rate)
        data = tasks.load(settings, length, settings.seed)
        left_out[data.refusals.reasons()] = None
        training.rehearse(settings, data)
    return "; ".join(each for each in left_out if each)


def _folder(settings: LongRangeSettings, cell: Cell) -> str:
    """A name for a model's directory; arms that differ in signs alone are told apart by their number."""
    arm = re.sub(r"[^\w.]+", "-", cell.mixer)[:60]
    return f"{settings.mixers.index(cell.mixer) + 1}-{arm}-length-{cell.length or 'own'}-seed-{cell.seed}"
