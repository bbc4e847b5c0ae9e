"""Packages whose modules and names are imported on first use, so that a room costs nothing until it is used.

    __getattr__, __dir__ = lazy.attributes(__name__, names={"fit": "loop"}, modules=("loop", "schedule"))

In a package's ``__init__``: ``package.fit`` then imports ``package.loop``. For type checkers the names are
also imported under TYPE_CHECKING, and for readers they stand in ``__all__``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["attributes"]


def attributes(
    package: str, *, names: Mapping[str, str] | None = None, modules: Iterable[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: its ``__name__``.
        names: what it offers, each with the module of the package that has it.
        modules: modules and packages in it that may be reached as its attributes.

    Returns:
        Two functions. The first raises AttributeError, with the nearest name, for what the package does not
        have; the second lists what it has, imported or not.
    """
    places = dict(names or {})
    within = frozenset(modules)
    offered = sorted({*places, *within})

    def get(name: str) -> Any:
        if name in places:
            return getattr(importlib.import_module(f"{package}.{places[name]}"), name)
        if name in within:
            return importlib.import_module(f"{package}.{name}")
        from posterhall.errors import did_you_mean  # which costs more to import than all rooms

        near = "" if name.startswith("_") else did_you_mean(name, offered)
        raise AttributeError(f"module '{package}' has no attribute '{name}'.{near}")

    def listed() -> list[str]:
        return list(offered)

    return get, listed
