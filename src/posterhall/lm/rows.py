"""Documents with all their fields, for prompts that need more than the text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posterhall.data.documents import Split, byte_blocks, documents, expand, kind_of
from posterhall.errors import DataError

_PARQUET_ROWS = 1024
LONGEST_LINE = 64 << 20
"""Bytes of a line of JSON."""


@dataclass(frozen=True, slots=True)
class Row:
    """One document."""

    uid: str
    fields: dict[str, str]
    """Its fields as text; what is no text in the file is as JSON."""
    where: str
    """File and line, for messages."""


def rows(
    paths: Sequence[Path | str], *, uid_field: str | None = None, split: Split = "line"
) -> Iterator[Row]:
    """Documents in order, streaming.

    Args:
        paths: JSON lines, Parquet or plain text, files, directories and patterns; see `documents`. A document
            of plain text has one field, text.
        uid_field: field that names a document; None: "path:line".
        split: how plain text is cut.

    Raises:
        DataError: naming file and line, for what cannot be read or has no such field.
    """
    for path in expand(paths):
        kind = kind_of(path)
        if kind == "text":
            for each in documents(path, split=split):
                yield Row(each.uid, {"text": each.text}, f"{path}, line {each.line:,}")
            continue
        found = _json_lines(path) if kind == "jsonl" else _parquet(path)
        for number, value in found:
            where = f"{path}, {'line' if kind == 'jsonl' else 'row'} {number:,}"
            fields = {name: _text(each) for name, each in value.items() if each is not None}
            if uid_field is not None and uid_field not in fields:
                raise DataError(f"{where}: no field '{uid_field}'. There are: {', '.join(list(fields)[:12])}")
            yield Row(fields[uid_field] if uid_field else f"{path}:{number}", fields, where)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    number, rest = 0, b""
    for block in byte_blocks(path):
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            number += 1
            if line.strip():
                yield number, line
        if len(rest) > LONGEST_LINE:
            raise DataError(f"{path}, line {number + 1:,}: over {LONGEST_LINE:,} bytes; is it JSON lines?")
    if rest.strip():
        yield number + 1, rest


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in _lines(path):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}, line {number:,}: not JSON ({error}); each line must be an object, as "
                '{"text": "..."}'
            ) from None
        if not isinstance(value, dict):
            raise DataError(f'{path}, line {number:,}: not a JSON object; write {{"text": ...}}')
        yield number, value


def _parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                for value in batch.to_pylist():
                    number += 1
                    yield number, value
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from None
