"""What every training as a job does: join the other processes, keep a run, and leave no checkpoint behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from posterhall.config import to_dict
from posterhall.runs import Run
from posterhall.train import distributed, loop
from posterhall.train.lm_settings import finished
from posterhall.train.settings import TrainSettings

Work = Callable[[Run | None, distributed.World], dict[str, Any]]
"""(run, processes) -> facts. In all processes but the first the run is None and facts are not looked at."""


def run_job(
    settings: TrainSettings,
    out: Path,
    *,
    kind: str,
    inputs: Callable[[], Sequence[Path | str]],
    resume: bool,
    work: Work,
) -> dict[str, Any] | None:
    """Do a job in a run directory, in one process or several.

    Args:
        settings: what determines the result.
        out: the run directory.
        kind: of run.
        inputs: makes the list of files and directories read; the first process asks.
        resume: go on with the run that is there; a finished one is left as it is.
        work: the job.

    Returns:
        Its facts; None in all processes but the first.

    Raises:
        DataError: for a run that is there already, or was made otherwise.
    """
    if resume and (facts := finished(out, settings)) is not None:
        return facts if distributed.rank() == 0 else None
    with distributed.world() as where:
        if not where.first:
            where.wait()
            work(None, where)
            return None
        with Run.start(
            out, kind=kind, config=to_dict(settings), inputs=inputs(), seeds=[settings.seed], resume=resume
        ) as run:
            where.wait()  # from now on the others find the run
            facts = work(run, where)
            for name in (loop.CHECKPOINT, loop.BEST):
                run.checkpoint(name).unlink(missing_ok=True)
            run.finish(**facts)
    return facts
