"""What the commands on pools of text share: options of reading, sizes in words, a bar for each stage."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from posterhall.errors import UsageError

Items = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="POOL...", help="JSON lines, Parquet or plain text, also .gz and .zst; files or folders."
    ),
]
TextField = Annotated[str, typer.Option("--text-field", help="Field that holds the text.")]
UidField = Annotated[
    str | None, typer.Option("--uid-field", help="Field that holds the uid [uid, else a hash of the text].")
]
Split = Annotated[
    str, typer.Option("--split", help="A document of plain text is a: file, line or blank-line block.")
]
Errors = Annotated[
    str, typer.Option("--encoding-errors", help="Bytes that are not UTF-8: strict, replace or ignore.")
]
MaxDocument = Annotated[
    str | None,
    typer.Option(
        "--max-document", metavar="BYTES", help="Largest document; a longer one is not cut [256MiB]."
    ),
]
Workers = Annotated[
    int, typer.Option("--workers", min=1, help="Processes that read files (with --ray: its CPUs).")
]
Ray = Annotated[bool, typer.Option("--ray", help="Read files on a Ray cluster started here.")]
RayAddress = Annotated[str | None, typer.Option("--ray-address", help="Read files on this Ray cluster.")]
Work = Annotated[
    Path | None,
    typer.Option(
        "--work", metavar="DIR", help="Keep what finished files gave, to go on after a kill [OUT.work]."
    ),
]

_SCALES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12}
_SCALES |= {f"{name}i": 2 ** (10 * power) for power, name in enumerate("kmgt", 1)}
_AMOUNT = re.compile(r"([0-9.]+(?:e[0-9]+)?)\s*([kmgtb]i?)?")


def reading(
    text_field: str, split: str, encoding_errors: str, max_document: str | None, uid_field: str | None = None
) -> dict[str, Any]:
    """The options of reading as `posterhall.curation.pool.Pool.open` takes them."""
    found: dict[str, Any] = {
        "text_field": text_field,
        "uid_field": uid_field,
        "split": split,
        "encoding_errors": encoding_errors,
    }
    if max_document is not None:
        found["max_document_bytes"] = amount(max_document, "--max-document", of_bytes=True)
    return found


def amount(text: str, option: str, *, of_bytes: bool = False) -> int:
    """A number of tokens or bytes: 1e8, 100M, 250_000; of bytes also 2GB and 1GiB.

    Raises:
        UsageError: if it is none.
    """
    word = text.strip().lower().replace("_", "").replace(",", "")
    if of_bytes:
        word = word.removesuffix("b")
    found = _AMOUNT.fullmatch(word)
    value = math.nan
    # Tokens come in billions, b, bytes in powers of two, Ki, too.
    if found is not None and not (found[2] or "").endswith("b" if of_bytes else "i"):
        with contextlib.suppress(ValueError):
            value = float(found[1]) * _SCALES.get(found[2] or "", math.nan)
    if not 1 <= value < 2**63:
        example = "500MB, 2GB or 1GiB" if of_bytes else "1e8, 100M or 2G"
        raise UsageError(f"{option} is {text!r}; give a number of at least 1, as {example}")
    return round(value)


def work_of(out: Path | None, work: Path | None, *, spread: bool) -> Path | None:
    """Where the results of single files go: the place named, one beside the output, or none."""
    if work is not None or not spread:
        return work
    if out is None:
        raise UsageError("give --work DIR for what the processes find, or -o FILE")
    return out.with_name(f"{out.name}.work")


@contextlib.contextmanager
def stages(quiet: bool, unit: Callable[[str], str]) -> Iterator[Callable[[str, int, int | None], None]]:
    """A bar for each stage in turn: a function that is told stage, amount done and total (None: unknown).

    Args:
        quiet: no bars.
        unit: of a stage's amounts.
    """
    from posterhall.progress import Progress

    with contextlib.ExitStack() as stack:
        shown: dict[str, Progress] = {}

        def watch(stage: str, done: int, total: int | None = None) -> None:
            if stage not in shown:
                stack.close()  # the bar of the stage before
                shown.clear()
                shown[stage] = stack.enter_context(
                    Progress(total, label=stage, unit=unit(stage), quiet=quiet)
                )
            shown[stage].update(done)

        yield watch
