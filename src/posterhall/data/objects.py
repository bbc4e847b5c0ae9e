"""Rows with all their fields, from JSON lines and Parquet, one after the other."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posterhall.data.documents import byte_blocks, expand, kind_of
from posterhall.errors import DataError

LONGEST_LINE = 64 << 20
"""Bytes of a line of JSON."""
_PARQUET_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Object:
    """One row."""

    fields: dict[str, Any]
    where: str
    """File and line, for messages."""


def objects(paths: str | Path | Iterable[str | Path]) -> Iterator[Object]:
    """Rows in order, streaming; empty lines are left out.

    Args:
        paths: JSON lines or Parquet (also .gz and .zst of the former), files, directories and patterns.

    Raises:
        DataError: naming file and line, for what cannot be read.
    """
    for path in expand(paths):
        match kind_of(path):
            case "jsonl":
                yield from _json_lines(path)
            case "parquet":
                yield from _parquet(path)
            case _:
                raise DataError(
                    f"{path}: plain text has no fields; give JSON lines (.jsonl, also .gz or .zst) or Parquet"
                )


def _json_lines(path: Path) -> Iterator[Object]:
    for number, line in _lines(path):
        where = f"{path}, line {number:,}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not JSON ({error}); each line must be one JSON object") from None
        if not isinstance(value, dict):
            raise DataError(f"{where}: not a JSON object; each line must be one, in braces")
        yield Object(value, where)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    number = held = 0
    parts: list[bytes] = []  # of a line that goes on over blocks
    for block in byte_blocks(path):
        first, *others = block.split(b"\n")
        parts.append(first)
        held += len(first)
        for after in others:
            number += 1
            line = b"".join(parts)
            if line.strip():
                yield number, line
            parts, held = [after], len(after)
        if held > LONGEST_LINE:
            raise DataError(f"{path}, line {number + 1:,}: over {LONGEST_LINE:,} bytes; is it JSON lines?")
    line = b"".join(parts)
    if line.strip():
        yield number + 1, line


def _parquet(path: Path) -> Iterator[Object]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                for value in batch.to_pylist():
                    number += 1
                    yield Object(value, f"{path}, row {number:,}")
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from None
