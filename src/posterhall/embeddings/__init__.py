"""Word vectors: training (word2vec, Downpour), files, queries and evaluation.

    from posterhall.embeddings import SkipGram, load
    vectors = SkipGram(dim=100).fit("corpus.txt", threads=4).vectors_
    vectors.nearest("river")
"""

from __future__ import annotations

from posterhall.embeddings.formats import load, save
from posterhall.embeddings.settings import Word2VecSettings
from posterhall.embeddings.vectors import WordVectors
from posterhall.embeddings.word2vec import CBOW, SkipGram

__all__ = ["CBOW", "SkipGram", "Word2VecSettings", "WordVectors", "load", "save"]
