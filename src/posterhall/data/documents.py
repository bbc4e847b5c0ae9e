"""Documents, one after the other, from whatever text comes in: plain files, JSON lines, Parquet.

Each may be compressed (gzip, zstd), and a directory or a pattern stands for the files in it. Memory holds
one document at a time, which is why a document has a largest size; a compressed file that expands out of
all proportion is refused before it fills the memory or the disk.
"""

from __future__ import annotations

import glob
import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, get_args

from posterhall.data.sources import EncodingErrors
from posterhall.errors import DataError, UsageError, did_you_mean

Split = Literal["file", "line", "blank"]
Kind = Literal["text", "jsonl", "parquet"]

MAX_DOCUMENT_BYTES = 256 << 20
"""Largest document by default; a longer one is a file that was not cut into documents."""
BOMB_BYTES = 64 << 20
"""Uncompressed bytes below which any ratio is accepted."""
BOMB_RATIO = 250.0
"""Uncompressed bytes a compressed byte beyond which a file is refused; text stays below about 20."""

_BLOCK_BYTES = 1 << 20
_BATCH_ROWS = 1024
_ENDINGS: dict[str, Kind] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_COMPRESSED = {".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd"}
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Document:
    """One document and where it came from."""

    uid: str
    """The field asked for, or "path" (a whole file) or "path:line"."""
    text: str
    source: Path
    """The file, as it was named or found."""
    line: int
    """Line on which it starts, or row of a Parquet file; 1 for the first."""


def documents(
    paths: str | Path | Iterable[str | Path],
    *,
    text_field: str = "text",
    uid_field: str | None = None,
    split: Split = "file",
    encoding_errors: EncodingErrors = "strict",
    max_document_bytes: int = MAX_DOCUMENT_BYTES,
) -> Iterator[Document]:
    """Read documents in order, streaming.

    What a file is, its name tells (before .gz or .zst): .jsonl, .ndjson and .json are one JSON object a
    line, .parquet and .pq are Parquet, everything else is plain text. Rows of JSON lines and of Parquet
    are documents, empty ones too; of plain text, pieces that are only white space are left out.

    Args:
        paths: files, directories and patterns; see `expand`.
        text_field: field or column that holds the text.
        uid_field: field or column that holds the name of a document (text or integer).
        split: how plain text is cut: the whole file is a document, each line is one, or what stands
            between blank lines. Lines end with a newline (a carriage return before it is dropped).
        encoding_errors: bytes that are not UTF-8: strict raises, replace puts U+FFFD, ignore drops them.
        max_document_bytes: largest document, in bytes of UTF-8 (of a line, for JSON lines).

    Raises:
        DataError: naming file and line, for what is not there, not UTF-8, not JSON, without the field, too
            large, or a decompression bomb. Documents before that place have been given out already.
        UsageError: for an unknown `split` or `encoding_errors`.
    """
    if split not in get_args(Split):
        raise UsageError(f"split is {split!r}; allowed are file, line and blank")
    if encoding_errors not in get_args(EncodingErrors):
        raise UsageError(f"encoding_errors is {encoding_errors!r}; allowed are strict, replace and ignore")
    reader = _Reader(text_field, uid_field, split, encoding_errors, max_document_bytes)
    for path in expand(paths):
        yield from reader.read(path)


def expand(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """The files that are meant, each once, in a fixed order.

    A directory stands for all files below it in the order of their names, without hidden ones and
    without following links to directories; a pattern (``*``, ``?``, ``[a-z]``, ``**``) for the files it
    matches, in the same order. Files named one by one keep the order in which they are named.

    Raises:
        DataError: for a path that does not exist, a pattern that matches nothing, an empty directory, or
            nothing given at all.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not given:
        raise DataError("no text given; name files, directories or patterns")
    found: dict[Path, None] = {}
    for each in given:
        path = Path(each)
        if path.is_dir():
            below = _files_below(path)
            if not below:
                raise DataError(f"{path}: the directory holds no file")
            found.update(dict.fromkeys(below))
        elif path.is_file():
            found[path] = None
        elif path.exists():
            raise DataError(f"{path}: neither a file nor a directory; write what it gives to a file first")
        elif glob.has_magic(str(each)):
            matches = _matches(path)
            if not matches:
                raise DataError(f"{each}: no file matches this pattern")
            found.update(dict.fromkeys(matches))
        else:
            raise DataError(f"{path}: no such file or directory")
    return list(found)


def kind_of(path: Path) -> Kind:
    """What a file's name says it is: see `documents`."""
    name = path.with_suffix("") if path.suffix in _COMPRESSED else path
    return _ENDINGS.get(name.suffix.lower(), "text")


def _files_below(directory: Path) -> list[Path]:
    found = []
    for folder, folders, files in os.walk(directory):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = (Path(folder) / name for name in files if not name.startswith("."))
        found += [path for path in below if path.is_file()]
    return sorted(found)


def _matches(pattern: Path) -> list[Path]:
    # pathlib, not glob: its ** does not follow links to directories, which may lead in circles.
    base, relative = Path(pattern.anchor), pattern.relative_to(pattern.anchor)
    hidden = any(part.startswith(".") for part in relative.parts)
    try:
        found = sorted(path for path in base.glob(str(relative)) if path.is_file())
    except ValueError as error:
        raise DataError(f"{pattern}: not a pattern ({error})") from None
    return [
        path
        for path in found
        if hidden or not any(part.startswith(".") for part in path.relative_to(base).parts)
    ]


@dataclass(frozen=True)
class _Reader:
    text_field: str
    uid_field: str | None
    split: Split
    encoding_errors: EncodingErrors
    limit: int

    def read(self, path: Path) -> Iterator[Document]:
        match kind_of(path):
            case "jsonl":
                return self._json_lines(path)
            case "parquet":
                return self._parquet(path)
            case _:
                return self._plain(path)

    def _plain(self, path: Path) -> Iterator[Document]:
        if self.split == "file":
            pieces = _whole(path, self.limit)
        elif self.split == "line":
            pieces = _lines(path, self.limit)
        else:
            pieces = _paragraphs(_lines(path, self.limit), path, self.limit)
        for line, raw in pieces:
            text = self._decoded(raw, path, line)
            if text and not text.isspace():
                yield Document(str(path) if self.split == "file" else f"{path}:{line}", text, path, line)

    def _json_lines(self, path: Path) -> Iterator[Document]:
        for line, raw in _lines(path, self.limit):
            if not raw.strip():
                continue
            where = f"{path}, line {line:,}"
            try:
                row = json.loads(self._decoded(raw, path, line))
            except RecursionError:
                raise DataError(f"{where}: JSON nested too deep to be read") from None
            except ValueError as error:
                if isinstance(error, DataError):
                    raise
                raise DataError(
                    f"{where}: not JSON ({error}); each line must be one JSON object, as "
                    f'{{"{self.text_field}": "..."}}'
                ) from None
            if not isinstance(row, dict):
                raise DataError(f"{where}: a JSON {_json_type(row)}; each line must be a JSON object")
            text = self._field(row, self.text_field, where)
            if not isinstance(text, str):
                raise DataError(f"{where}: '{self.text_field}' is a JSON {_json_type(text)}, not text")
            if not text.isascii():
                _check_encodable(text, where)
            yield Document(self._uid(row, f"{path}:{line}", where), text, path, line)

    def _parquet(self, path: Path) -> Iterator[Document]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if path.suffix in _COMPRESSED:
            raise DataError(f"{path}: Parquet compresses its columns itself; decompress the file first")
        try:
            with pq.ParquetFile(path) as file:
                names = file.schema_arrow.names
                wanted = [self.text_field, *([self.uid_field] if self.uid_field else [])]
                for name in wanted:
                    if name not in names:
                        raise DataError(f"{path}: no column '{name}'.{_known(name, names)}")
                kind = file.schema_arrow.field(self.text_field).type
                if pa.types.is_dictionary(kind):
                    kind = kind.value_type
                if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                    raise DataError(f"{path}: column '{self.text_field}' is {kind}, not text (string)")
                row = 0
                for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=wanted):
                    texts = batch.column(self.text_field).to_pylist()
                    uids = batch.column(self.uid_field).to_pylist() if self.uid_field else [None] * len(texts)
                    for text, uid in zip(texts, uids, strict=True):
                        row += 1
                        where = f"{path}, row {row:,}"
                        if text is None:
                            raise DataError(f"{where}: '{self.text_field}' is null; remove the row")
                        if len(text) * 4 > self.limit and len(text.encode()) > self.limit:
                            raise _too_large(where, self.limit)
                        name = f"{path}:{row}"
                        if self.uid_field:
                            name = self._uid({self.uid_field: uid}, name, where)
                        yield Document(name, text, path, row)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: cannot be read as Parquet ({_first_line(error)})") from None

    def _decoded(self, raw: bytes, path: Path, line: int) -> str:
        try:
            text = raw.decode("utf-8", self.encoding_errors)
        except UnicodeDecodeError as error:
            line += raw.count(b"\n", 0, error.start)
            column = error.start - (raw.rfind(b"\n", 0, error.start) + 1)
            bad = raw[error.start : error.start + 4]
            raise DataError(
                f"{path}, line {line:,}: byte {column + 1:,} of the line ({bad!r}) is not UTF-8. Convert the "
                "file (iconv), or read it with encoding_errors 'replace' or 'ignore'."
            ) from None
        if "\0" in text:
            line += text.count("\n", 0, text.index("\0"))
            raise DataError(
                f"{path}, line {line:,}: a NUL byte. Is this a binary file, or UTF-16? Convert it with "
                "iconv -t utf-8."
            )
        return text

    def _field(self, row: dict[str, Any], name: str, where: str) -> Any:
        if name not in row:
            raise DataError(f"{where}: no field '{name}'.{_known(name, list(row))}")
        return row[name]

    def _uid(self, row: dict[str, Any], default: str, where: str) -> str:
        if self.uid_field is None:
            return default
        uid = self._field(row, self.uid_field, where)
        if isinstance(uid, bool) or not isinstance(uid, str | int):
            raise DataError(f"{where}: '{self.uid_field}' is {uid!r}; a uid is text or an integer")
        return str(uid)


def byte_blocks(path: Path) -> Iterator[bytes]:
    """The file's bytes, decompressed, without a byte-order mark."""
    total = 0
    try:
        with path.open("rb") as raw:
            stream = _decompressed(path, raw)
            while block := stream.read(_BLOCK_BYTES):
                start = total == 0
                total += len(block)
                if stream is not raw and total > BOMB_BYTES and total > BOMB_RATIO * raw.tell():
                    raise DataError(
                        f"{path}: expands to {total:,} bytes and more from {raw.tell():,}, over "
                        f"{BOMB_RATIO:.0f} for one: a decompression bomb? Decompress it first if not."
                    )
                yield block.removeprefix(_BOM) if start else block
    except DataError:
        raise
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(
            f"{path}: cannot be read after {total:,} bytes of text ({_first_line(error)})"
        ) from None


def _decompressed(path: Path, raw: Any) -> IO[bytes] | Any:
    magic = raw.peek(4)[:4]
    if magic.startswith(_COMPRESSED[".gz"]):
        return gzip.GzipFile(fileobj=raw, mode="rb")
    if magic.startswith(_COMPRESSED[".zst"]):
        import pyarrow as pa

        return pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")
    if magic and path.suffix in _COMPRESSED:
        raise DataError(
            f"{path}: is named {path.suffix} but starts with {magic!r}; rename it if it is not compressed"
        )
    return raw


def _whole(path: Path, limit: int) -> Iterator[tuple[int, bytes]]:
    parts: list[bytes] = []
    held = 0
    for block in byte_blocks(path):
        parts.append(block)
        held += len(block)
        if held > limit:
            raise _too_large(str(path), limit, "; is it many? Then cut it by split 'line' or 'blank'")
    yield 1, b"".join(parts)


def _lines(path: Path, limit: int) -> Iterator[tuple[int, bytes]]:
    """(number, bytes without the line's end) of each line."""
    number = 0
    carry: list[bytes] = []  # pieces of a line that goes on
    held = 0
    for block in byte_blocks(path):
        *whole, rest = block.split(b"\n")
        if whole:
            carry.append(whole[0])
            whole[0] = b"".join(carry)
            carry, held = [], 0
        for line in whole:
            number += 1
            if len(line) > limit:
                raise _too_large(f"{path}, line {number:,}", limit)
            yield number, line.removesuffix(b"\r")
        if rest:
            carry.append(rest)
            held += len(rest)
            if held > limit:
                raise _too_large(f"{path}, line {number + 1:,}", limit)
    if carry:
        yield number + 1, b"".join(carry).removesuffix(b"\r")


def _paragraphs(lines: Iterator[tuple[int, bytes]], path: Path, limit: int) -> Iterator[tuple[int, bytes]]:
    parts: list[bytes] = []
    held = begin = 0
    for number, line in lines:
        if line.strip():
            begin = begin if parts else number
            parts.append(line)
            held += len(line) + 1
            if held > limit:
                raise _too_large(f"{path}, line {begin:,}", limit)
        elif parts:
            yield begin, b"\n".join(parts)
            parts, held = [], 0
    if parts:
        yield begin, b"\n".join(parts)


def _too_large(where: str, limit: int, hint: str = "") -> DataError:
    return DataError(
        f"{where}: a document of over {limit:,} bytes{hint}. If it is one, raise max_document_bytes "
        "(--max-document)."
    )


def _check_encodable(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: half of a surrogate pair at character {error.start}; it is not text"
        ) from None


def _known(name: str, names: list[str]) -> str:
    near = did_you_mean(name, names)
    return near or (f" There are: {', '.join(names[:12])}." if names else " It is empty.")


def _json_type(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
