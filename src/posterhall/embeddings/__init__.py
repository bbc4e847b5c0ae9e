"""Word vectors: training (word2vec, Downpour), files, queries and evaluation.

::

    from posterhall.embeddings import SkipGram, load
    vectors = SkipGram(dim=100).fit("corpus.txt", threads=4).vectors_
    vectors.nearest("river")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posterhall.embeddings.formats import load, save
    from posterhall.embeddings.parameter_server.training import Downpour
    from posterhall.embeddings.settings import Word2VecSettings
    from posterhall.embeddings.vectors import WordVectors
    from posterhall.embeddings.word2vec import CBOW, SkipGram

__all__ = ["CBOW", "Downpour", "SkipGram", "Word2VecSettings", "WordVectors", "load", "save"]

# Imported on first use: asking vectors a question should not wait for the trainer.
_HOMES = {
    "CBOW": "word2vec",
    "Downpour": "parameter_server.training",
    "SkipGram": "word2vec",
    "Word2VecSettings": "settings",
    "WordVectors": "vectors",
    "load": "formats",
    "save": "formats",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
        raise AttributeError(f"module '{__name__}' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted(__all__)
