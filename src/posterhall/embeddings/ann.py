"""Approximate nearest words through a usearch index, for vocabularies of millions (extra `ann`).

An index is two files: `NAME.usearch`, which usearch alone can open too (keys are rows), and
`NAME.usearch.json` with the words. Answers are approximate: a few of the true neighbours may be missing.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from posterhall.embeddings._search import suggestions
from posterhall.embeddings.vectors import Neighbor, WordVectors
from posterhall.errors import DataError, MissingExtra
from posterhall.runs import atomic_file, write_atomic

_BLOCK = 65_536


def _usearch(purpose: str) -> ModuleType:
    try:
        import usearch.index
    except ImportError:
        raise MissingExtra("ann", purpose) from None
    module: ModuleType = usearch.index
    return module


def words_file(path: Path) -> Path:
    """Where the words of an index are."""
    return path.with_name(path.name + ".json")


class AnnIndex:
    """Words and a graph index over their unit vectors, by cosine.

    Args:
        words: row r of the index is words[r].
        index: a usearch index with keys 0 to V - 1.
    """

    def __init__(self, words: list[str], index: Any) -> None:
        self.words = words
        self._index = index
        self._rows = {word: row for row, word in enumerate(words)}

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self._rows

    @property
    def dimensions(self) -> int:
        """Length of each vector."""
        return int(self._index.ndim)

    @classmethod
    def build(
        cls, vectors: WordVectors, *, connectivity: int = 16, expansion: int = 128, threads: int = 0
    ) -> AnnIndex:
        """Index the vectors, in float32.

        Args:
            vectors: what to index; words without direction are left out of every answer.
            connectivity: neighbours a node of the graph has, from 2; more finds more and needs more memory.
            expansion: candidates kept while inserting, from 1; more finds more and takes longer.
            threads: 0 for all cores.

        Raises:
            MissingExtra: without the extra `ann`.
        """
        module = _usearch("an approximate index")
        if connectivity < 2 or expansion < 1:
            raise DataError(
                f"connectivity is {connectivity} and expansion {expansion}; they need at least 2 and 1"
            )
        index = module.Index(
            ndim=vectors.dimensions,
            metric="cos",
            dtype="f32",
            connectivity=connectivity,
            expansion_add=expansion,
        )
        for start in range(0, len(vectors), _BLOCK):
            unit = vectors.unit_rows(start, min(start + _BLOCK, len(vectors)))
            directed = np.flatnonzero(unit.any(axis=1))
            index.add((start + directed).astype(np.uint64), unit[directed], threads=threads)
        return cls(list(vectors.words), index)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write both files, each whole or not at all."""
        path = Path(path)
        with atomic_file(path) as file:
            self._index.save(file.name)
        facts = {"dimensions": self.dimensions, "bytes": path.stat().st_size, "words": self.words}
        write_atomic(words_file(path), json.dumps(facts, ensure_ascii=True))

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, mmap: bool = True) -> AnnIndex:
        """Open an index that `save` wrote; with `mmap` it stays in its file.

        Raises:
            DataError: if a file is missing, cut short, or the two do not belong together.
            MissingExtra: without the extra `ann`.
        """
        path = Path(path)
        module = _usearch(f"reading {path}")
        beside = words_file(path)
        if not path.is_file():
            raise DataError(
                f"{path} does not exist; make it with `posterhall embed convert FILE {path.name}`"
            )
        try:
            facts = json.loads(beside.read_text(encoding="utf-8"))
            words, dimensions, size = facts["words"], facts["dimensions"], facts["bytes"]
        except OSError as error:
            raise DataError(
                f"{beside} cannot be read ({error.strerror}); it holds the words of {path.name} and must be "
                "beside it"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{beside} does not hold the words of an index ({error}); convert again"
            ) from None
        # The library trusts its file, so a cut one must not reach it.
        if path.stat().st_size != size:
            raise DataError(
                f"{path} has {path.stat().st_size:,} bytes but its words file says {size:,}; convert again"
            )
        try:
            index = module.Index.restore(path, view=mmap)
        except (RuntimeError, ValueError) as error:
            raise DataError(f"{path} is not a usearch index ({error}); convert again") from None
        if index is None or index.ndim != dimensions or len(index) > len(words):
            raise DataError(f"{path} and {beside.name} do not belong together; convert again")
        return cls(words, index)

    def nearest(self, query: str | npt.NDArray[np.floating[Any]], top: int = 10) -> list[Neighbor]:
        """About the `top` words with the highest cosine to a word (itself excluded) or a vector.

        Raises:
            DataError: on an unknown word, one without direction, or a vector of another length.
        """
        if top < 1:
            raise DataError(f"top is {top}; ask for at least 1 answer")
        own = -1
        if isinstance(query, str):
            own = self._rows.get(query, -1)
            if own < 0:
                near = suggestions(query, self.words, self._rows)
                hint = f" Did you mean: {', '.join(near)}?" if near else ""
                raise DataError(f"'{query}' is not in the vocabulary ({len(self):,} words).{hint}")
            target = self._index.get(own)
            if target is None:
                raise DataError(f"the vector of '{query}' is zero: nothing is near it")
        else:
            target = np.asarray(query, np.float32)
            if target.shape != (self.dimensions,):
                raise DataError(f"the query has shape {target.shape}; this index needs ({self.dimensions},)")
        matches = self._index.search(target, top + (own >= 0))
        found = zip(matches.keys.tolist(), matches.distances.tolist(), strict=True)
        return [Neighbor(self.words[row], 1.0 - far) for row, far in found if row != own][:top]
