"""Word vectors: training (word2vec, Downpour), files, queries and evaluation.

::

    from posterhall.embeddings import SkipGram, load
    vectors = SkipGram(dim=100).fit("corpus.txt", threads=4).vectors_
    vectors.nearest("river")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from posterhall import lazy

if TYPE_CHECKING:
    from posterhall.embeddings.formats import load, save
    from posterhall.embeddings.parameter_server.training import Downpour
    from posterhall.embeddings.settings import Word2VecSettings
    from posterhall.embeddings.vectors import WordVectors
    from posterhall.embeddings.word2vec import CBOW, SkipGram

__all__ = ["CBOW", "Downpour", "SkipGram", "Word2VecSettings", "WordVectors", "load", "save"]

# Imported on first use: asking vectors a question should not wait for the trainer.
_MODULES = (
    "analogies",
    "ann",
    "clusters",
    "formats",
    "huffman",
    "jobs",
    "parameter_server",
    "plans",
    "projection",
    "recurrent",
    "sampling",
    "settings",
    "similarity",
    "trainer",
    "vectors",
    "word2vec",
)
_HOMES = {
    "CBOW": "word2vec",
    "Downpour": "parameter_server.training",
    "SkipGram": "word2vec",
    "Word2VecSettings": "settings",
    "WordVectors": "vectors",
    "load": "formats",
    "save": "formats",
}

__getattr__, __dir__ = lazy.attributes(__name__, names=_HOMES, modules=_MODULES)
