"""Recall: small models of any mixer, trained on tasks that are solved by looking back (Arora et al. 2023).

Modules are imported on first use: `.settings` (a grid, and what an arm of it is), `.training` (one model),
`.jobs` (the grid as a run), `.summary` (what came out, by arm and size); `.slices` (which tokens of a text
are hits of recall), `.sliced` (perplexities by slice, of any checkpoints), `.published` (the published ones,
checked).
"""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["jobs", "published", "settings", "sliced", "slices", "summary", "training"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'posterhall.evals.recall' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
