"""Reading and representing data: corpora, vocabularies, phrases, and generated corpora of known truth.

Modules are imported on first use: `posterhall.data.corpus`, `.vocabulary`, `.phrases`, `.python_text`,
`.synthetic`.
"""

from __future__ import annotations

import importlib
from types import ModuleType

_MODULES = ("corpus", "encoded", "phrases", "python_text", "sources", "synthetic", "vocabulary")


def __getattr__(name: str) -> ModuleType:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'posterhall.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted((*globals(), *_MODULES))
