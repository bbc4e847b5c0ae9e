"""What commands share: the common options, and results as one JSON object or as aligned columns."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

# Common options, declared once so that they mean the same everywhere: `def train(json: Json = False)`.
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", "-c", help="Settings from a YAML file.")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting; may be repeated.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run that is in the directory.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Everything drawn at random follows from it.")]
Threads = Annotated[int | None, typer.Option("--threads", "-t", min=1, help="Default: all usable cores.")]


def emit_json(result: Any) -> None:
    """Print a result on stdout as one JSON object; numpy and paths are allowed, NaN becomes null."""
    from posterhall.config import finite, plain

    print(json.dumps(finite(plain(result)), indent=2, ensure_ascii=False))


def emit_table(
    rows: Iterable[Sequence[object]],
    *,
    header: Sequence[str] | None = None,
    right: Iterable[int] = (),
    gap: int = 2,
    stream: TextIO | None = None,
) -> None:
    """Print rows in aligned columns on stdout; the last column may be as long as it likes.

    Args:
        rows: cells; None is shown as "-". Numbers should come formatted.
        header: names of the columns.
        right: columns to align on the right (numbers of different length), counted from 0.
        gap: spaces between columns.
        stream: where to print; None means stdout.
    """
    for line in format_table(rows, header=header, right=right, gap=gap):
        print(line, file=sys.stdout if stream is None else stream)


def format_table(
    rows: Iterable[Sequence[object]],
    *,
    header: Sequence[str] | None = None,
    right: Iterable[int] = (),
    gap: int = 2,
) -> list[str]:
    """The lines that `emit_table` prints, without trailing spaces."""
    from rich.cells import cell_len  # terminal columns, of which a Chinese character takes two

    cells = [["-" if cell is None else printable(str(cell)) for cell in row] for row in rows]
    if header is not None:
        cells.insert(0, list(header))
    columns = max(map(len, cells), default=0)
    widths = [max((cell_len(row[i]) for row in cells if i < len(row)), default=0) for i in range(columns)]
    on_right = set(right)
    lines = []
    for row in cells:
        padded = []
        for i, cell in enumerate(row):
            space = " " * (widths[i] - cell_len(cell))
            padded.append(space + cell if i in on_right else cell + space)
        lines.append((" " * gap).join(padded).rstrip())
    return lines


def printable(text: str) -> str:
    """Text with control characters written out (\\x1b), so that data cannot steer a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
