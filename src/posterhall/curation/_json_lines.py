"""JSON lines through Arrow's parser: whole blocks at once, and the exact place of an error."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json as arrow_json

from posterhall.data import documents as reading
from posterhall.data.sources import EncodingErrors
from posterhall.errors import DataError, did_you_mean

BLOCK_BYTES = 1 << 23
"""Bytes that are parsed at once."""


def tables(
    path: Path,
    known: Any,
    *,
    others: bool,
    text_field: str,
    uid_field: str,
    max_document_bytes: int = reading.MAX_DOCUMENT_BYTES,
    encoding_errors: EncodingErrors = "strict",
) -> Iterator[Any]:
    """A file's rows as Arrow tables.

    Args:
        path: the file; gzip and zstd are taken apart.
        known: schema of the fields whose types are known; others are left out unless `others`.
        others: infer the types of fields that are not known.
        text_field: the field that every row must have, as text.
        uid_field: a field that is text or a whole number.
        max_document_bytes: longest line.
        encoding_errors: what becomes of bytes that are not UTF-8.

    Raises:
        DataError: naming the line, for what is not UTF-8, not JSON, not one object a line, has a field of
            another type than before, or no text.
    """
    behaviour = "infer" if others else "ignore"
    for block, line in _line_blocks(path, max_document_bytes):
        if not block.strip():
            continue
        try:
            text = block.decode("utf-8", encoding_errors)  # Arrow does not look
            if encoding_errors != "strict":
                block = text.encode()
            table = _parse(block, known, behaviour, uid_field)
            whole = table.column(text_field).null_count == 0
        except (UnicodeDecodeError, pa.ArrowException) as error:
            raise _explain(path, block, line, text_field, error) from None
        if not whole:
            raise _explain(path, block, line, text_field, None)
        yield table


def _line_blocks(path: Path, max_line_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Whole lines, about `BLOCK_BYTES` at once, each block with the number of its first line."""
    line = 1
    held: list[bytes] = []
    size = open_line = 0
    for chunk in reading.byte_blocks(path):
        end = chunk.rfind(b"\n") + 1
        open_line = len(chunk) - end if end else open_line + len(chunk)
        if open_line > max_line_bytes:
            line += sum(part.count(b"\n") for part in (*held, chunk))
            raise _too_long(path, line, max_line_bytes)
        if end and size + end >= BLOCK_BYTES:
            block = b"".join((*held, chunk[:end]))
            _check_lines(path, block, line, max_line_bytes)
            yield block, line
            line += block.count(b"\n")
            held, size = [chunk[end:]], len(chunk) - end
            continue
        held.append(chunk)
        size += len(chunk)
    if size:
        block = b"".join(held) + b"\n"
        _check_lines(path, block, line, max_line_bytes)
        yield block, line


def _check_lines(path: Path, block: bytes, line: int, most: int) -> None:
    """Refuse a line of over ``most`` bytes within a block."""
    if len(block) > most:  # or there is nothing to look for
        for number, raw in enumerate(block.split(b"\n"), line):
            if len(raw) > most:
                raise _too_long(path, number, most)


def _too_long(path: Path, line: int, most: int) -> DataError:
    return DataError(
        f"{path}, line {line:,}: longer than {most:,} bytes; write one object a line. If it is one, raise "
        "max_document_bytes (--max-document)"
    )


def _parse(block: bytes, known: Any, behaviour: str, uid_field: str) -> Any:
    reading_options = arrow_json.ReadOptions(use_threads=False, block_size=len(block) + 1)

    def parse(schema: Any) -> Any:
        options = arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior=behaviour)
        return arrow_json.read_json(io.BytesIO(block), read_options=reading_options, parse_options=options)

    if uid_field not in known.names:
        return parse(known)
    place = known.get_field_index(uid_field)
    try:
        return parse(known)
    except pa.ArrowException:
        table = parse(known.set(place, pa.field(uid_field, pa.int64())))  # uids may be numbers
    place = table.schema.get_field_index(uid_field)
    return table.set_column(place, uid_field, table.column(uid_field).cast(pa.string()))


def _explain(path: Path, block: bytes, line: int, text_field: str, error: Exception | None) -> DataError:
    """The first line that is at fault, found with Python's parser."""
    kinds: dict[str, tuple[str, int]] = {}
    for number, raw in enumerate(block.split(b"\n"), line):
        if not raw.strip():
            continue
        where = f"{path}, line {number:,}"
        try:
            row = json.loads(raw.decode())
        except UnicodeDecodeError as wrong:
            return DataError(
                f"{where}: byte {wrong.start + 1:,} of the line ({raw[wrong.start : wrong.start + 1]!r}) is "
                "not UTF-8; convert the file (iconv -t utf-8), or read it with encoding_errors 'replace' or "
                "'ignore'"
            )
        except RecursionError:
            return DataError(f"{where}: JSON nested too deep to be read")
        except ValueError as wrong:
            return DataError(f"{where}: not JSON ({wrong}); write one object a line")
        if not isinstance(row, dict):
            return DataError(f"{where}: {_kind(row)} instead of an object; write one object a line")
        if row.get(text_field) is None:
            near = did_you_mean(text_field, row) or f" There are: {', '.join(row) or 'none'}."
            return DataError(f"{where}: no field '{text_field}'.{near} Name the field that holds the text")
        if not isinstance(row[text_field], str):
            return DataError(f"{where}: field '{text_field}' is {_kind(row[text_field])}; it must be text")
        for name, value in row.items():
            if value is None:
                continue
            before, first = kinds.setdefault(name, (_kind(value), number))
            if before != _kind(value):
                return DataError(
                    f"{where}: field '{name}' is {_kind(value)}, and {before} in line {first:,}; a field has "
                    "one type in all rows"
                )
    reason = str(error).splitlines()[0] if error else "a row without text"
    return DataError(f"{path}, lines {line:,} to {line + block.count(10):,}: {reason}")


def _kind(value: Any) -> str:
    match value:
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case dict():
            return "an object"
        case _:
            return "null"
