"""Pools: tables of items with a uid, a text and any other columns, streamed in bounded memory.

    pool = Pool.open(["part-*.jsonl.zst", "more.parquet"])
    for batch in pool.batches(["uid", "text"]):
        ...
    write_kept(pool, keep, "kept.jsonl", dropped="dropped.jsonl")

Every batch begins with `uid` (string) and, in a pool of texts, `text` (large_string); whatever else the
files hold are further columns. Files are JSON lines, Parquet or plain text, the first and the last also
compressed (.gz, .zst).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as parquet

from posterhall.curation import _json_lines
from posterhall.curation._uids import Namer
from posterhall.curation._writing import Written, write, write_kept
from posterhall.data.documents import MAX_DOCUMENT_BYTES, Split, documents, expand, kind_of
from posterhall.data.sources import EncodingErrors
from posterhall.errors import DataError, UsageError, did_you_mean

__all__ = ["Pool", "Written", "write", "write_kept"]

UID = "uid"
TEXT = "text"
SOURCE = "source"

_BATCH_BYTES = 1 << 23
"""Aimed at: what makes one row after the other slow is small batches, what fills the memory is large ones."""
_BATCH_ROWS = 1 << 14


@dataclass(frozen=True)
class Pool:
    """Items in files; make one with `Pool.open`.

    Attributes:
        paths: the files, in order.
        text_field: field that holds the text; it is called "text" in the batches.
        uid_field: field that holds the uid; it is called "uid" in the batches.
        split: how plain text is cut into items: file, line or blank (see `data.documents`).
        max_document_bytes: largest item.
        encoding_errors: bytes that are not UTF-8: strict, replace or ignore.
    """

    paths: tuple[Path, ...]
    text_field: str = TEXT
    uid_field: str = UID
    split: Split = "file"
    max_document_bytes: int = MAX_DOCUMENT_BYTES
    encoding_errors: EncodingErrors = "strict"
    _found: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(
        cls,
        paths: Path | str | Iterable[Path | str],
        *,
        text_field: str = TEXT,
        uid_field: str | None = None,
        split: Split = "file",
        max_document_bytes: int = MAX_DOCUMENT_BYTES,
        encoding_errors: EncodingErrors = "strict",
    ) -> Pool:
        """Open files, folders and patterns as one pool; nothing is read yet.

        Args:
            paths: what to read, in this order; see `posterhall.data.documents.expand`.
            text_field: field or column that holds the text.
            uid_field: field or column that holds the uid, text or a whole number; by default "uid" where
                there is one. An item without gets the 128-bit BLAKE2b hash of its text as 32 hexadecimal
                digits, so that the same text has the same uid everywhere. The second item with a uid is
                called "uid#2", and so on.
            split: how plain text is cut into items.
            max_document_bytes: largest item.
            encoding_errors: bytes that are not UTF-8: strict raises, replace puts U+FFFD, ignore drops them.

        Raises:
            DataError: if a path does not exist or stands for nothing.
            UsageError: for an unknown `split` or `encoding_errors`.
        """
        for name, given, kind in (
            ("split", split, Split),
            ("encoding_errors", encoding_errors, EncodingErrors),
        ):
            if given not in get_args(kind):
                raise UsageError(f"{name} is {given!r}; allowed are {', '.join(get_args(kind))}")
        return cls(
            tuple(expand(paths)), text_field, uid_field or UID, split, max_document_bytes, encoding_errors
        )

    @property
    def reading(self) -> dict[str, Any]:
        """How its files are read, in what JSON can hold: ``Pool(paths, **pool.reading)`` reads others so."""
        return {**self._fields(), "split": self.split}

    @property
    def schema(self) -> Any:
        """The columns, uid and text first.

        JSON lines say what they hold only at their end: the first look reads such files once, whole.

        Raises:
            DataError: if a field has types that cannot be reconciled.
        """
        if "schema" not in self._found:
            schema = _head()
            for path in self.paths:
                for part in self._schemas(path):
                    try:
                        schema = pa.unify_schemas([schema, part], promote_options="permissive")
                    except pa.ArrowException as error:
                        raise self._conflict(path, schema, part, error) from None
            self._found["schema"] = pa.schema([_settled(each) for each in schema])
        return self._found["schema"]

    def count(self) -> int:
        """Number of items."""
        if "rows" not in self._found:
            self._found["rows"] = sum(self._count(path) for path in self.paths)
        return int(self._found["rows"])

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """Record batches of a few megabytes, in the order of the files.

        Args:
            columns: which, in this order; None means all of `schema`. The fewer, the faster: with nothing
                but text and uid, JSON lines are parsed once and the rest of them not at all.

        Raises:
            DataError: for an unknown column; and naming file and line, for what cannot be read.
        """
        wanted = self._wanted(columns)
        namer = Namer() if UID in wanted.names else None
        for path in self.paths:
            for table in self._tables(path, wanted):
                for batch in table.to_batches():
                    if batch.num_rows:
                        yield self._finished(path, batch, wanted, namer)

    def _wanted(self, columns: Sequence[str] | None) -> Any:
        if columns is None:
            return self.schema
        known = _head() if set(columns) <= {UID, TEXT} else self.schema
        for name in columns:
            if name not in known.names:
                near = did_you_mean(name, known.names) or f" There are: {', '.join(known.names)}."
                raise DataError(f"the pool has no column '{name}'.{near}")
        return pa.schema([known.field(name) for name in columns])

    def _tables(self, path: Path, wanted: Any) -> Iterator[Any]:
        """Tables of a file with its own names of columns, at least those that are wanted and there."""
        names = set(wanted.names) | {TEXT}  # the text, because it may have to stand in for the uid
        match kind_of(path):
            case "jsonl":
                known = pa.schema([f for f in (*_head(), *wanted) if f.name not in (UID, TEXT)])
                known = known.insert(0, pa.field(self.text_field, pa.large_string()))
                known = known.insert(0, pa.field(self.uid_field, pa.string())) if UID in names else known
                yield from _json_lines.tables(path, known, others=False, **self._fields())
            case "parquet":
                own = {UID: self.uid_field, TEXT: self.text_field}
                yield from self._parquet(path, {own.get(name, name) for name in names})
            case _:
                yield from self._plain(path)

    def _fields(self) -> dict[str, Any]:
        return {
            "text_field": self.text_field,
            "uid_field": self.uid_field,
            "max_document_bytes": self.max_document_bytes,
            "encoding_errors": self.encoding_errors,
        }

    def _parquet(self, path: Path, names: set[str]) -> Iterator[Any]:
        with _parquet_file(path) as file:
            self._check(path, file.schema_arrow)
            columns = [name for name in file.schema_arrow.names if name in names]
            try:
                for batch in file.iter_batches(batch_size=_rows_at_once(file.metadata), columns=columns):
                    yield pa.Table.from_batches([batch])
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{path}: cannot be read on ({_first_line(error)}); copy it again") from None

    def _plain(self, path: Path) -> Iterator[Any]:
        texts: list[str] = []
        held = 0
        for document in documents(
            path,
            split=self.split,
            encoding_errors=self.encoding_errors,
            max_document_bytes=self.max_document_bytes,
        ):
            texts.append(document.text)
            held += len(document.text)
            if held >= _BATCH_BYTES:
                yield self._texts(path, texts)
                texts, held = [], 0
        if texts:
            yield self._texts(path, texts)

    def _texts(self, path: Path, texts: list[str]) -> Any:
        columns = [pa.array(texts, pa.large_string()), pa.array([str(path)] * len(texts), pa.string())]
        return pa.table(columns, names=[self.text_field, SOURCE])

    def _check(self, path: Path, schema: Any) -> None:
        """Refuse a table without text, or whose names would clash."""
        for name in (TEXT, UID):
            own = self.text_field if name == TEXT else self.uid_field
            if own != name and name in schema.names and own in schema.names:
                raise DataError(
                    f"{path}: has a column '{name}' beside '{own}', which is to be called so; rename one"
                )
        if self.text_field not in schema.names:
            near = did_you_mean(self.text_field, schema.names) or f" There are: {', '.join(schema.names)}."
            raise DataError(f"{path}: no column '{self.text_field}'.{near}")
        kind = schema.field(self.text_field).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
            raise DataError(f"{path}: column '{self.text_field}' is {kind}, not text")

    def _finished(self, path: Path, batch: Any, wanted: Any, namer: Namer | None) -> Any:
        """The batch in the wanted columns and types, with uids."""
        texts = batch.column(self.text_field)
        if texts.null_count:
            row = texts.is_null().index(True).as_py()
            raise DataError(f"{path}: the text of an item is null (row {row + 1:,} of a batch); remove it")
        texts = texts.cast(pa.large_string())
        columns = []
        for each in wanted:
            if each.name == TEXT:
                columns.append(texts)
            elif each.name == UID:
                given = batch.column(self.uid_field) if self.uid_field in batch.schema.names else None
                columns.append(namer.name(_as_names(path, given), texts) if namer else texts)
            elif each.name in batch.schema.names:
                columns.append(_cast(path, batch.column(each.name), each))
            else:
                columns.append(pa.nulls(batch.num_rows, each.type))
        return pa.RecordBatch.from_arrays(columns, schema=wanted)

    def _schemas(self, path: Path) -> Iterator[Any]:
        """Schemas of a file's parts, with the pool's names."""
        match kind_of(path):
            case "jsonl":
                known = pa.schema([pa.field(self.text_field, pa.large_string())])
                for table in _json_lines.tables(path, known, others=True, **self._fields()):
                    self._check(path, table.schema)
                    yield self._renamed(table.schema)
            case "parquet":
                with _parquet_file(path) as file:
                    self._check(path, file.schema_arrow)
                    yield self._renamed(file.schema_arrow)
            case _:
                yield pa.schema([pa.field(SOURCE, pa.string())])

    def _renamed(self, schema: Any) -> Any:
        own = (self.text_field, self.uid_field)
        return pa.schema([_plain_type(each) for each in schema if each.name not in own])

    def _count(self, path: Path) -> int:
        if kind_of(path) == "parquet":
            with _parquet_file(path) as file:
                return int(file.metadata.num_rows)
        return sum(table.num_rows for table in self._tables(path, pa.schema([_head().field(TEXT)])))

    def _conflict(self, path: Path, schema: Any, part: Any, error: Exception) -> DataError:
        for each in part:
            if each.name in schema.names:
                before = schema.field(each.name).type
                try:
                    pa.unify_schemas(
                        [pa.schema([each]), pa.schema([schema.field(each.name)])],
                        promote_options="permissive",
                    )
                except pa.ArrowException:
                    return DataError(
                        f"{path}: field '{each.name}' is {each.type}, and {before} before; a field has one "
                        "type in all files of a pool"
                    )
        return DataError(f"{path}: does not fit the files before it ({_first_line(error)})")


def _head() -> Any:
    return pa.schema([pa.field(UID, pa.string()), pa.field(TEXT, pa.large_string())])


def _as_names(path: Path, given: Any) -> Any:
    if given is None or given.type == pa.string():
        return given
    kind = given.type.value_type if pa.types.is_dictionary(given.type) else given.type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise DataError(f"{path}: the column of uids is {given.type}; a uid is text or a whole number")
    return given.cast(pa.string())


def _cast(path: Path, column: Any, wanted: Any) -> Any:
    try:
        return column.cast(wanted.type)
    except pa.ArrowException as error:
        raise DataError(
            f"{path}: column '{wanted.name}' is not {wanted.type} ({_first_line(error)})"
        ) from None


def _plain_type(each: Any) -> Any:
    """The field without what makes equal things differ: dates that were found in text, dictionaries."""
    return pa.field(each.name, _without(each.type))


def _without(kind: Any) -> Any:
    if pa.types.is_dictionary(kind):
        return _without(kind.value_type)
    if pa.types.is_timestamp(kind) and kind.unit == "s" and kind.tz is None:
        return pa.string()  # the JSON parser's guess; the text is to stay as it is
    if pa.types.is_list(kind):
        return pa.list_(_without(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([_plain_type(kind.field(i)) for i in range(kind.num_fields)])
    return kind


def _settled(each: Any) -> Any:
    """A field that was null everywhere is text."""
    return pa.field(each.name, pa.string()) if pa.types.is_null(each.type) else each


def _parquet_file(path: Path) -> Any:
    try:
        return parquet.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({_first_line(error)})") from None


def _rows_at_once(metadata: Any) -> int:
    """Rows of about `_BATCH_BYTES`, by the longest rows of a row group on average."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    longest = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=1.0)
    return int(min(_BATCH_ROWS, max(1, _BATCH_BYTES // max(longest, 1.0))))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
