"""Long range: classifiers of long sequences on any mixer, of one size, tuned over one grid (Tay et al. 2021).

Modules are imported on first use: `.settings` (a grid, and what an arm of it is), `.tasks` (what there is
to classify), `.training` (one model), `.jobs` (the grid as a run), `.summary` (what came out, by arm and
length).
"""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["jobs", "settings", "summary", "tasks", "training"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'posterhall.evals.long_range' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
