"""A job that can be built in another process: a function by name, and its arguments as plain data."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from numpy.typing import NDArray

from posterhall.embeddings.parameter_server.replica import Job
from posterhall.errors import UsageError


@dataclass(frozen=True)
class Recipe:
    """How every worker builds its own job. Nothing is pickled.

    Attributes:
        target: "module:function"; called with `config`, `arrays` and `files`, returns a `Job`.
        config: what JSON can hold.
        arrays: read by all workers, shared by processes.
        files: descriptors of open files; only for workers on this machine.
    """

    target: str
    config: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    files: Mapping[str, int] = field(default_factory=dict)

    def build(self) -> Job:
        """The job, new."""
        return cast(Job, find(self.target)(self.config, self.arrays, self.files))


def find(name: str) -> Callable[..., Any]:
    """The function called `module:function`.

    Raises:
        UsageError: if there is none.
    """
    module, _, attributes = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"'{name}' is not a function that workers can import: {error}") from None
    return cast(Callable[..., Any], found)


def name_of(function: Callable[..., Any]) -> str:
    """The name by which another process finds a function.

    Raises:
        UsageError: for what it could not find: a lambda, a nested function, one of a script or notebook.
    """
    module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", "")
    if not name or "<" in name or module in ("", "__main__"):
        raise UsageError(
            f"{function!r} cannot be found by another process; move it to the top level of a module of its "
            "own, or use the threads backend"
        )
    return f"{module}:{name}"
