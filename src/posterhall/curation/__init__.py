"""Pools of items: scores, filters, duplicates, mixtures, and maps over shards.

A pool is a table of items, each with a uid, a text or other payload, and columns of scores. A score adds
a column, a filter keeps rows and remembers why it dropped the others. Modules are imported on first use:
`posterhall.curation.pool`, `.scores`, `.filters`, `.language`, `.filtering`, `.ngram`, `.dedup`,
`.mixing`, `.shards`.
"""

from __future__ import annotations

from posterhall import lazy

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

__getattr__, __dir__ = lazy.attributes(__name__, modules=_MODULES)
