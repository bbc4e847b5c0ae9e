"""Where a training's metrics go: a list in memory, the run's metrics.jsonl, TensorBoard, the screen."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from types import TracebackType
from typing import Any

from posterhall.extras import require
from posterhall.progress import Progress
from posterhall.runs import Run


class Metrics:
    """All the places at once; one that was not asked for costs nothing.

    Args:
        run: its metrics.jsonl gets the lines; None keeps them in `history` alone.
        step: steps done before; lines of later ones, logged before a kill, are dropped.
        total: work in all, in `unit`.
        done: work done before.
        unit: what is counted, in the plural.
        label: what the progress is called; None shows none.
        tensorboard: folder of event files; None writes none.

    Raises:
        MissingExtra: if TensorBoard is asked for without tensorboardX.
    """

    def __init__(
        self,
        run: Run | None,
        *,
        step: int,
        total: float,
        done: float,
        unit: str,
        label: str | None,
        tensorboard: Path | None,
    ) -> None:
        self._run = run
        self.history: list[dict[str, Any]] = []
        if run is not None:
            run.rewind(step=step)
            self.history = run.metrics()
        self._writer: Any = None
        if tensorboard is not None:
            board = require("tensorboardX", "train", "writing TensorBoard events")
            # What an earlier process wrote beyond its checkpoint is hidden by purge_step.
            self._writer = board.SummaryWriter(str(tensorboard), purge_step=step + 1 if step else None)
        self._progress = Progress(total, label=label or "", unit=unit, quiet=label is None, start=done)

    def __enter__(self) -> Metrics:
        self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):  # a full disk must not hide the first error
                self._writer.close()
        self._progress.__exit__(kind, error, trace)

    def log(self, step: int, **values: Any) -> None:
        """One line; numbers also go to TensorBoard, by their names."""
        line = {"step": step, **values}
        self.history.append(line)
        if self._run is not None:
            self._run.log(**line)
        if self._writer is not None:
            for name, value in values.items():
                if isinstance(value, int | float) and math.isfinite(value):
                    self._writer.add_scalar(name, value, step)

    def show(self, done: float, **fields: float) -> None:
        """Move the progress on."""
        self._progress.update(done, **fields)
