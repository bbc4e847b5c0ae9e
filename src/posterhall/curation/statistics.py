"""What a pool holds, in numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from posterhall.curation import scores as scoring
from posterhall.curation._uids import Numbering, digests
from posterhall.curation.pool import TEXT, Pool
from posterhall.errors import DataError

QUANTILES = {"min": 0.0, "p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}


@dataclass(frozen=True)
class PoolStatistics:
    """Numbers of a pool of texts.

    Attributes:
        files: how many it is read from.
        documents: items.
        empty: items without a word.
        bytes: of text, as UTF-8, decompressed.
        characters: code points.
        words: what stands between white space.
        duplicates: items whose text, byte for byte, came before.
        duplicate_bytes: bytes of those.
        lengths: for bytes, characters and words a document: mean and `QUANTILES`.
    """

    files: int
    documents: int
    empty: int
    bytes: int
    characters: int
    words: int
    duplicates: int
    duplicate_bytes: int
    lengths: dict[str, dict[str, float]]


def describe(pool: Pool, *, observe: Callable[[int], None] | None = None) -> PoolStatistics:
    """Go through a pool once; memory holds about 75 bytes a document.

    Args:
        pool: the items.
        observe: called with the number of items done.

    Raises:
        DataError: if the pool is empty, or cannot be read.
    """
    parts: dict[str, list[NDArray[np.float64]]] = {"bytes": [], "chars": [], "words": []}
    numbering = Numbering()
    documents = duplicates = duplicate_bytes = 0
    for batch in pool.batches([TEXT]):
        texts = batch.column(TEXT)
        sizes = np.asarray(pa.compute.binary_length(texts).to_numpy(zero_copy_only=False), np.float64)
        parts["bytes"].append(sizes)
        for name, column in scoring.compute(("chars", "words"), texts).items():
            parts[name].append(column)
        again = numbering.seen_before(digests(texts)) > 0
        duplicates += int(again.sum())
        duplicate_bytes += int(sizes[again].sum())
        documents += batch.num_rows
        if observe is not None:
            observe(documents)
    if documents == 0:
        raise DataError("the pool is empty: it holds no document")
    columns = {name: np.concatenate(each) for name, each in parts.items()}
    names = {"bytes": "bytes", "characters": "chars", "words": "words"}
    return PoolStatistics(
        files=len(pool.paths),
        documents=documents,
        empty=int((columns["words"] == 0).sum()),
        bytes=int(columns["bytes"].sum()),
        characters=int(columns["chars"].sum()),
        words=int(columns["words"].sum()),
        duplicates=duplicates,
        duplicate_bytes=duplicate_bytes,
        lengths={name: _lengths(columns[column]) for name, column in names.items()},
    )


def _lengths(column: NDArray[np.float64]) -> dict[str, float]:
    cuts = np.quantile(column, list(QUANTILES.values()))
    return {"mean": float(column.mean()), **dict(zip(QUANTILES, cuts.tolist(), strict=True))}
