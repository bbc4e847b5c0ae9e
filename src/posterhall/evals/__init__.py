"""Evaluation of models: few-shot tasks, each item scored by every metric that one pass can give; planning.

Modules are imported on first use: `posterhall.evals.tasks` (what a task is, and its files), `.shots`,
`.items` (the scores of an item), `.scores` (over items), `.jobs` (an evaluation as a run), `.harness`
(the tasks of lm-evaluation-harness), `.planning` (on graphs that are told in words), `.grids` (small models
that are trained to be compared), of which `.recall` and `.long_range` are made.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = [
    "grids", "harness", "items", "jobs", "long_range", "planning", "recall", "scores", "shots", "tasks",
]  # fmt: skip


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'posterhall.evals' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
