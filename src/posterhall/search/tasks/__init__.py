"""Kinds of problems to search on: games of numbers, crosswords, writing, word grids, towers, a user's own.

from posterhall.search import tasks

task = tasks.Game24("4 9 10 13")
task = tasks.load("game24", sets=["target=10"])
task = tasks.load("my-task.yaml")
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posterhall import config
from posterhall.errors import DataError, did_you_mean
from posterhall.search.protocol import Task

if TYPE_CHECKING:
    from posterhall.search.tasks.crosswords import Crosswords
    from posterhall.search.tasks.declared import DeclaredTask
    from posterhall.search.tasks.game24 import Game24
    from posterhall.search.tasks.hanoi import Hanoi
    from posterhall.search.tasks.word_grid import WordGrid
    from posterhall.search.tasks.writing import Writing

__all__ = ["TASKS", "Crosswords", "DeclaredTask", "Game24", "Hanoi", "WordGrid", "Writing", "load"]

TASKS = {
    "game24": "posterhall.search.tasks.game24:Game24",
    "crosswords": "posterhall.search.tasks.crosswords:Crosswords",
    "writing": "posterhall.search.tasks.writing:Writing",
    "hanoi": "posterhall.search.tasks.hanoi:Hanoi",
    "word-grid": "posterhall.search.tasks.word_grid:WordGrid",
}
"""Name: where its class is."""


def task_class(name: str) -> type[Any]:
    """The class of a task that is built in: a frozen dataclass, whose fields are what can be set.

    Raises:
        DataError: if there is none of that name.
    """
    if name not in TASKS:
        raise DataError(
            f"no task is called {name!r}; there are {', '.join(TASKS)}, and files that end in .yaml."
            f"{did_you_mean(name, TASKS)}"
        )
    module, _, attribute = TASKS[name].partition(":")
    found: type[Any] = getattr(importlib.import_module(module), attribute)
    return found


def settings_class(name: str | Path) -> type[Any]:
    """The dataclass whose fields can be set of a task."""
    if is_file(name):
        from posterhall.search.tasks.declared import Declaration

        return Declaration
    return task_class(str(name))


def load(name: str | Path, *, problem: str | None = None, sets: Sequence[str] = ()) -> Task:
    """A task by its name, or from a file that declares one.

    Args:
        name: of `TASKS`, or the path of a YAML file.
        problem: what it is bound to; None: any.
        sets: settings of the task, as key=value.

    Raises:
        DataError: if there is no such task or file, or a setting or the problem is none.
    """
    if is_file(name):
        from posterhall.search.tasks.declared import Declaration, DeclaredTask

        return DeclaredTask(config.resolve(Declaration, file=name, sets=sets, environ={}), problem)
    made: Task = config.resolve(task_class(str(name)), sets=sets, flags={"problem": problem}, environ={})
    return made


def is_file(name: str | Path) -> bool:
    """Whether a task is meant to be read from a file."""
    return isinstance(name, Path) or Path(name).suffix in (".yaml", ".yml")


def __getattr__(name: str) -> Any:
    for place in (*TASKS.values(), "posterhall.search.tasks.declared:DeclaredTask"):
        module, _, attribute = place.partition(":")
        if attribute == name:
            return getattr(importlib.import_module(module), attribute)
    raise AttributeError(f"module 'posterhall.search.tasks' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
