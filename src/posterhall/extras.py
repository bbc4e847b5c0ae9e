"""torch where it is installed, and otherwise a stand-in that says how to get it when it is used.

    from posterhall.extras import nn, torch

Modules whose classes derive from `nn.Module` must still import with the core alone (for their
documentation, for settings, for type checks). The stand-in can be subclassed and its attributes taken;
calling it, or making an object of a class derived from it, raises MissingExtra. Module level code may
therefore subclass `nn.Module` or `torch.autograd.Function`, and must not call anything of torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from posterhall.errors import MissingExtra

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as functional
    from torch import nn

__all__ = ["functional", "nn", "require", "torch"]


class _Absent:
    """Stands for a module, class or function of a package that is not installed."""

    def __init__(self, name: str, extra: str) -> None:
        self._name = name
        self._extra = extra

    def __getattr__(self, name: str) -> _Absent:
        if name.startswith("__"):  # inspection must not take this for something it is not
            raise AttributeError(name)
        return _Absent(f"{self._name}.{name}", self._extra)

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise MissingExtra(self._extra, self._name)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type]:
        absent = self

        class Base:
            """What a class derived from something absent is derived from."""

            def __new__(cls, *_: Any, **__: Any) -> Any:
                return absent()

        return (Base,)


def require(module: str, extra: str, purpose: str) -> Any:
    """Import a module of an extra.

    Args:
        module: its name.
        extra: the extra that brings it.
        purpose: what it is needed for, completing "... needs the extra".

    Raises:
        MissingExtra: if it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise  # it is there, and broken
        raise MissingExtra(extra, purpose) from None


if not TYPE_CHECKING:
    try:
        import torch
        import torch.nn.functional as functional
        from torch import nn
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        torch = _Absent("torch", "train")
        functional = _Absent("torch.nn.functional", "train")
        nn = _Absent("torch.nn", "train")
