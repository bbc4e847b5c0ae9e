"""Posterhall: the landmark systems of NeurIPS 2023 as one library that runs.

Rooms are imported on first use (`posterhall.embeddings`, `posterhall.claims`, ...), so that
`import posterhall` costs milliseconds and needs none of the extras.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__version__ = "0.1.0"

_ROOMS = (
    "adapters",
    "claims",
    "config",
    "curation",
    "data",
    "devices",
    "embeddings",
    "errors",
    "evals",
    "lm",
    "metrics",
    "models",
    "objectives",
    "quantize",
    "report",
    "runs",
    "scaling",
    "search",
    "seeds",
    "stats",
    "train",
)

__all__ = ["__version__", *_ROOMS]


def __getattr__(name: str) -> ModuleType:
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'posterhall' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
