"""Writing pools: JSON lines or Parquet, whole or not at all, and why the dropped rows were dropped."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from posterhall.data.documents import kind_of
from posterhall.errors import DataError, UsageError
from posterhall.runs import atomic_file

if TYPE_CHECKING:
    from posterhall.curation.pool import Pool

_CODECS = {".gz": "gzip", ".zst": "zstd"}
_REASONS = pa.schema(
    [
        pa.field("uid", pa.string()),
        pa.field("filter", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("reason", pa.string()),
    ]
)

Why = Callable[[int], tuple[str, float | None, str]]
"""From the row of a dropped item to the filter that dropped it, the value it saw, and the reason."""


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        rows: items in the pool.
        kept: items written.
        dropped: items that were not.
    """

    rows: int
    kept: int
    dropped: int


def write(batches: Iterable[Any], out: Path | str) -> int:
    """Write record batches as a pool.

    Args:
        batches: all of one schema; of Parquet, the first one's.
        out: .jsonl, .jsonl.gz, .jsonl.zst or .parquet. It appears whole or not at all. In JSON lines a
            null is left out, which is how it was read.

    Returns:
        Rows written.

    Raises:
        UsageError: for another ending.
        DataError: if nothing can be written there, or a value has no form in JSON.
    """
    with _Sink.open(Path(out)) as sink:
        for batch in batches:
            sink.write(batch)
    return sink.rows


def write_kept(
    pool: Pool,
    kept: NDArray[np.bool_] | Collection[str],
    out: Path | str,
    dropped: Path | str | None = None,
    *,
    why: Why | None = None,
    extra: Mapping[str, NDArray[Any]] | None = None,
    observe: Callable[[int], None] | None = None,
) -> Written:
    """Write the rows of a pool that are kept, and say of the others why they are not.

    Args:
        pool: where the rows come from; it is read once more, with all columns.
        kept: (rows,) bool in the order of the pool, or uids.
        out: see `write`.
        dropped: where to write uid, filter, value and reason of each row that is not kept, in the same
            formats.
        why: what to write there.
        extra: further columns (rows,), as scores; they take the place of columns of the same names, and
            NaN becomes null.
        observe: called with the number of rows done.

    Raises:
        DataError: if the pool has another number of rows than `kept`, or a file of the pool would be
            overwritten.
    """
    out = Path(out)
    for path in (out, dropped):
        if path is not None:
            refuse_input(Path(path), pool.paths)
    mask = kept if isinstance(kept, np.ndarray) and kept.dtype == np.bool_ else None
    names = set() if mask is not None else set(kept)
    columns = {name: _column(values) for name, values in (extra or {}).items()}
    rows = 0
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(_Sink.open(out))
        reasons = stack.enter_context(_Sink.open(Path(dropped))) if dropped is not None else None
        for batch in pool.batches():
            begin, rows = rows, rows + batch.num_rows
            if mask is not None:
                if rows > len(mask):
                    raise DataError(
                        f"the pool holds more than the {len(mask):,} rows decided on; did it change?"
                    )
                chosen = mask[begin:rows]
            else:
                chosen = np.array([uid in names for uid in batch.column("uid").to_pylist()], np.bool_)
            for name, column in columns.items():
                batch = _with(batch, name, column.slice(begin, batch.num_rows))
            sink.write(batch.filter(pa.array(chosen)))
            if reasons is not None:
                reasons.write(_reasons(batch.column("uid"), np.flatnonzero(~chosen), begin, why))
            if observe is not None:
                observe(rows)
        if mask is not None and rows != len(mask):
            raise DataError(
                f"the pool holds {rows:,} rows, and {len(mask):,} were decided on; did it change?"
            )
    return Written(rows, sink.rows, rows - sink.rows)


def refuse_input(out: Path, inputs: Iterable[Path]) -> None:
    """Refuse to write over a file that is read.

    Raises:
        DataError: if `out` is one of them.
    """
    for path in inputs:
        if out.resolve() == path.resolve():
            raise DataError(f"{out} is read and would be overwritten; write to another file")


def _column(values: NDArray[Any]) -> Any:
    return pa.array(values, from_pandas=True)  # NaN becomes null


def _with(batch: Any, name: str, column: Any) -> Any:
    place = batch.schema.get_field_index(name)
    return batch.append_column(name, column) if place < 0 else batch.set_column(place, name, column)


def _reasons(uids: Any, rows: NDArray[np.int64], begin: int, why: Why | None) -> Any:
    found = [why(begin + int(row)) if why is not None else ("", None, "") for row in rows]
    columns = [
        uids.take(pa.array(rows)).cast(pa.string()),
        pa.array([each[0] for each in found], pa.string()),
        pa.array([each[1] for each in found], pa.float64(), from_pandas=True),
        pa.array([each[2] for each in found], pa.string()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=_REASONS)


class _Sink:
    """A file that record batches are written to."""

    def __init__(self, path: Path, handle: BinaryIO) -> None:
        self.rows = 0
        self._path = path
        self._handle: Any = handle
        self._parquet = kind_of(path) == "parquet"
        self._writer: Any = None
        codec = _CODECS.get(path.suffix)
        if codec is not None:
            self._handle = pa.CompressedOutputStream(pa.PythonFile(handle, mode="w"), codec)

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path) -> Iterator[_Sink]:
        """The sink of a file, which appears when the block ends well."""
        if kind_of(path) == "text" or (kind_of(path) == "parquet" and path.suffix in _CODECS):
            raise UsageError(
                f"cannot tell the format of {path}: name it .jsonl, .jsonl.gz, .jsonl.zst or .parquet"
            )
        with atomic_file(path) as handle:
            sink = cls(path, handle)
            yield sink
            sink._close(handle)

    def write(self, batch: Any) -> None:
        """Write a batch; batches without rows settle the schema of Parquet."""
        self.rows += batch.num_rows
        if self._parquet:
            try:
                if self._writer is None:
                    self._writer = parquet.ParquetWriter(self._handle, batch.schema, compression="zstd")
                self._writer.write_batch(batch)
            except pa.ArrowException as error:
                reason = str(error).splitlines()[0]
                raise DataError(f"cannot write {self._path} as Parquet ({reason}); write .jsonl") from None
        else:
            self._handle.write(self._lines(batch))

    def _lines(self, batch: Any) -> bytes:
        lines = []
        for row in batch.to_pylist():
            fields = {k: v for k, v in row.items() if v is not None and not _is_nan(v)}
            try:
                lines.append(json.dumps(fields, ensure_ascii=False, allow_nan=False))
            except (TypeError, ValueError) as error:
                raise DataError(
                    f"cannot write {self._path}: item {row.get('uid')} holds a value that JSON has no form "
                    f"for ({error}); write .parquet"
                ) from None
        return ("\n".join(lines) + "\n").encode() if lines else b""

    def _close(self, handle: BinaryIO) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._handle is not handle:
            self._handle.close()


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
