"""Pools of items: scores, filters, duplicates, mixtures, and maps over shards.

A pool is a table of items, each with a uid, a text or other payload, and columns of scores. A score adds
a column, a filter keeps rows and remembers why it dropped the others. Modules are imported on first use:
`posterhall.curation.pool`, `.scores`, `.filters`, `.language`, `.filtering`, `.ngram`, `.dedup`,
`.mixing`, `.shards`.
"""

from __future__ import annotations

import importlib
from types import ModuleType

_MODULES = (
    "dedup",
    "filtering",
    "filters",
    "language",
    "mixing",
    "ngram",
    "pairs",
    "pool",
    "scores",
    "shards",
    "statistics",
)


def __getattr__(name: str) -> ModuleType:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'posterhall.curation' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted((*globals(), *_MODULES))
