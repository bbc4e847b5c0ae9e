"""Posterhall: the landmark systems of NeurIPS 2023 as one library that runs.

Rooms are imported on first use (`posterhall.embeddings`, `posterhall.claims`, ...), so that
`import posterhall` costs milliseconds and needs none of the extras.
"""

from __future__ import annotations

from posterhall import lazy

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

__getattr__, __dir__ = lazy.attributes(__name__, modules=_ROOMS)
