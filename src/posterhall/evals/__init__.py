"""Evaluation of models: few-shot tasks, each item scored by every metric that one pass can give; planning.

Modules are imported on first use: `posterhall.evals.tasks` (what a task is, and its files), `.shots`,
`.items` (the scores of an item), `.scores` (over items), `.jobs` (an evaluation as a run), `.harness`
(the tasks of lm-evaluation-harness), `.planning` (on graphs that are told in words), `.grids` (small models
that are trained to be compared), of which `.recall` and `.long_range` are made.
"""

from __future__ import annotations

from posterhall import lazy

__all__ = [
    "grids", "harness", "items", "jobs", "long_range", "planning", "recall", "scores", "shots", "tasks",
]  # fmt: skip

__getattr__, __dir__ = lazy.attributes(__name__, modules=__all__)
