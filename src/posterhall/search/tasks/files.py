"""Files of problems, and problems shown in one line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from posterhall.errors import DataError, did_you_mean

FIELDS = ("problem", "Puzzles")
"""Columns and keys that hold the problem unless another is named; the second is that of the paper's files."""
LARGEST = 64 << 20
"""Bytes of a file of problems."""


def read(path: Path, *, field: str | None = None) -> list[str]:
    """The problems of a file, as text for `Task.read`.

    What a file is, its name tells: .jsonl and .ndjson hold a JSON value a line, .json a list of them, .csv a
    table with a header; anything else a problem a line. A JSON text is a problem; an object that has the
    field and nothing else but an answer is one, and so is what stands in the field of any other that has it;
    an object without the field, or a list, is itself the problem.

    Args:
        path: the file.
        field: the column or key; None for one of `FIELDS`.

    Raises:
        DataError: naming file and line, if it cannot be read or holds none.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path}: larger than {LARGEST >> 20} MiB; cut it into several files")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; convert it first") from None
    kind = path.suffix.lower()
    if kind == ".csv":
        found = list(_table(path, text, field))
    elif kind in (".jsonl", ".ndjson"):
        lines = ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
        found = [_of(_json(f"{path}:{number}", line), f"{path}:{number}", field) for number, line in lines]
    elif kind == ".json":
        value = _json(str(path), text)
        if not isinstance(value, list):
            raise DataError(f"{path}: holds no list; a single problem goes into a .jsonl file, on one line")
        found = [_of(each, f"{path}: item {number}", field) for number, each in enumerate(value, 1)]
    else:
        found = [line.strip() for line in text.splitlines() if line.strip()]
    if not found:
        raise DataError(f"{path}: holds no problem")
    return found


def one_line(problem: str, width: int = 60) -> str:
    """A problem for people: of JSON its texts, on one line, cut at a width."""
    text = problem
    if problem.startswith("{"):
        try:
            value = json.loads(problem)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            text = " / ".join(
                "; ".join(map(str, each)) if isinstance(each, list) else str(each)
                for name, each in value.items()
                if name not in ("answer", "solution", "words")
            )
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"


def _json(where: str, text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: no JSON ({error})") from None


def _of(value: object, where: str, field: str | None) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        names = FIELDS if field is None else (field,)
        for name in names:
            if name in value:
                inner = value[name]
                if value.keys() == {"problem", "answer"}:
                    return json.dumps(value, ensure_ascii=False)
                return inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False)
        if field is not None:
            raise DataError(f"{where}: has no {field!r}.{did_you_mean(field, map(str, value))}")
    if not isinstance(value, dict | list):
        raise DataError(f"{where}: is {value!r}, no problem; put it in quotes")
    return json.dumps(value, ensure_ascii=False)


def _table(path: Path, text: str, field: str | None) -> Iterator[str]:
    try:
        rows = csv.DictReader(text.splitlines(), strict=True)
        header: Sequence[str] = rows.fieldnames or ()
        names = [name for name in ((field,) if field is not None else FIELDS) if name in header]
        if not names:
            wanted = field or " or ".join(FIELDS)
            raise DataError(
                f"{path}: has no column {wanted}; it has {', '.join(header)}. Name one with --field."
            )
        for row in rows:
            if (row[names[0]] or "").strip():
                yield row[names[0]].strip()
    except csv.Error as error:
        raise DataError(f"{path}: no CSV ({error})") from None
