"""Deduplicating a pool: from files to files, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from posterhall.curation.dedup.exact import Exact, exact_duplicates
from posterhall.curation.dedup.minhash import MinHash, near_duplicates
from posterhall.curation.dedup.passes import Here, Mapped, Passes, Watch
from posterhall.curation.dedup.result import Duplicates
from posterhall.curation.dedup.substring import SharedSpans, Substring, shared_spans
from posterhall.curation.pool import Pool, write, write_kept
from posterhall.errors import DataError, UsageError

Settings = MinHash | Substring | Exact


@dataclass(frozen=True)
class Outcome:
    """What became of a pool.

    Attributes:
        found: the duplicates, or the shared passages.
        documents: in the pool.
        kept: of them.
    """

    found: Duplicates | SharedSpans
    documents: int
    kept: int


def deduplicate(
    pool: Pool,
    settings: Settings,
    *,
    out: Path | None = None,
    dropped: Path | None = None,
    report: Path | None = None,
    score: str | None = None,
    cut: bool = False,
    directory: Path | None = None,
    workers: int = 1,
    ray: str | None = None,
    watch: Watch | None = None,
) -> Outcome:
    """Find the duplicates of a pool and write what stays.

    With a directory the files are read one by one, on as many processes or machines as there are, and what
    was found of each is kept there: see `Mapped`. Sketches, hashes and samples are then put together, and the
    output is written, in this process. The result is the same.

    Args:
        pool: read two to five times, a batch at a time.
        settings: of the method: `MinHash`, `Substring` or `Exact`.
        out: the pool without duplicates, in a format of `posterhall.curation.pool.write`.
        dropped: uid, filter, value (similarity) and reason of each document that goes.
        report: of the documents that go, what stays for them, the most similar one and the similarities (or,
            of `Substring`, each shared span: uid, start, stop, repeat), in the same formats.
        score: column by which ``keep="best"`` chooses.
        cut: for `Substring`: cut shared spans out instead of dropping documents; a document of which nothing
            but white space is left goes.
        directory: where to keep what was found of each file, so that a killed run goes on.
        workers, ray: see `posterhall.curation.shards.map_shards`; they need a directory.
        watch: told the progress.

    Raises:
        DataError: for unreadable files, or an empty pool.
        UsageError: if ``cut`` is asked of another method, or workers of no directory.
    """

    if cut and not isinstance(settings, Substring):
        raise UsageError("only shared passages can be cut out: use the method substring")
    if dropped is not None and (cut or out is None):
        instead = (
            "nothing is dropped where spans are cut out" if cut else "it is written along with the output"
        )
        raise UsageError(f"no file of dropped documents: {instead}; a report tells what was found")

    if directory is None and (workers > 1 or ray is not None):
        raise UsageError("several processes need a directory for what they find")

    def texts() -> Iterator[Any]:
        return (batch.column("text") for batch in pool.batches(["text"]))

    passes: Passes = Here(texts, watch)
    if directory is not None:
        passes = Mapped(pool, directory, workers=workers, ray=ray, watch=watch)
    found: Duplicates | SharedSpans
    scores = _scores(pool, score) if score is not None else None
    if isinstance(settings, Substring):
        found = shared_spans(passes, settings, watch=watch)
    elif isinstance(settings, MinHash):
        found = near_duplicates(passes, settings, scores=scores, watch=watch)
    else:
        found = exact_duplicates(passes, settings, scores=scores, watch=watch)
    if not found.keep.size:
        raise DataError(f"the pool is empty: no document in {', '.join(map(str, pool.paths))}")
    uids = _uids(pool) if dropped is not None or report is not None else None
    kept = int(found.keep.sum())
    if out is not None and cut and isinstance(found, SharedSpans) and isinstance(settings, Substring):
        kept = write(_cut(pool, found, settings), out)
    elif out is not None:
        write_kept(pool, found.keep, out, dropped, why=None if uids is None else _Why(found, uids))
    if report is not None:
        table = found.table(uids)
        write(table.to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)], report)
    return Outcome(found, found.keep.size, kept)


class _Why:
    """The reason for a row that goes, as `write_kept` wants it."""

    def __init__(self, found: Duplicates | SharedSpans, uids: Any) -> None:
        self._found = found
        self._uids = uids

    def __call__(self, row: int) -> tuple[str, float | None, str]:
        match = self._uids[int(self._found.match[row])].as_py()
        if isinstance(self._found, SharedSpans):
            return "substring", None, f"shares a passage with {match}"
        value = float(self._found.similarity[row])
        kept = self._uids[int(self._found.kept[row])].as_py()
        like = "equal to" if value == 1 else "like"
        reason = f"{like} {kept}" if kept == match else f"{like} {match}; {kept} stays for both"
        return "duplicate", value, reason


def _uids(pool: Pool) -> Any:
    return pa.concat_arrays([batch.column("uid") for batch in pool.batches(["uid"])])


def _scores(pool: Pool, name: str) -> NDArray[np.float64]:
    parts = []
    for batch in pool.batches([name]):
        column = batch.column(name)
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            raise DataError(f"column '{name}' is {column.type}; a score is a number")
        parts.append(column.cast(pa.float64()).to_numpy(zero_copy_only=False))
    return np.concatenate([np.empty(0), *parts])


def _cut(pool: Pool, found: SharedSpans, settings: Substring) -> Iterator[Any]:
    """The pool's batches with shared spans cut out of their texts."""
    row = 0
    touched = set((found.repeats if settings.keep == "first" else found.spans)[:, 0].tolist())
    for batch in pool.batches():
        numbers = [i for i in range(batch.num_rows) if row + i in touched]
        if numbers:
            texts = batch.column("text").to_pylist()
            for i in numbers:
                texts[i] = found.cut(row + i, texts[i], settings.keep)
            place = batch.schema.get_field_index("text")
            whole = batch.set_column(place, "text", pa.array(texts, batch.schema.field(place).type))
            left = np.ones(batch.num_rows, np.bool_)
            left[numbers] = [bool(texts[i].strip()) for i in numbers]
            yield whole.filter(pa.array(left))
        else:
            yield batch
        row += batch.num_rows
