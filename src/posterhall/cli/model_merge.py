"""`posterhall model merge`: an adapter becomes part of its model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posterhall.cli.output import Json, Quiet, Threads, emit_json, emit_table

if TYPE_CHECKING:
    from posterhall.models.merged import Merged


def merge(
    adapter: Annotated[
        str, typer.Argument(metavar="ADAPTER", help="Directory of an adapter, or the run that trained it.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the merged model.")],
    base: Annotated[
        str | None, typer.Option("--base", metavar="MODEL", help="Where its base is [what the adapter says].")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype", help="float32, bfloat16 or float16 [the base's if that has 16 bits, bfloat16]."
        ),
    ] = None,
    threads: Threads = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Add an adapter to its base's weights; transformers reads the result without further packages."""
    from posterhall import devices
    from posterhall.models.merged import merge_checkpoint

    devices.limit_threads(threads or devices.cores())
    found = merge_checkpoint(adapter, out, base=base, dtype=dtype, quiet=quiet)
    if json:
        emit_json(_facts(adapter, found))
        return
    emit_table(_lines(found))


def _facts(adapter: str, found: Merged) -> dict[str, Any]:
    from dataclasses import asdict

    was, again = found.quantization, found.requantized
    scheme = {"code": again.code, "block": again.block, "double": again.double}
    return {
        "adapter": adapter,
        "base": found.base,
        "base_code": None if was is None else was.code,
        "path": found.directory,
        "dtype": found.dtype,
        "layers": found.layers,
        "adapter_parameters": found.parameters,
        "requantized": {**scheme, **asdict(found.erased)},
    }


def _lines(found: Merged) -> list[tuple[str, str]]:
    was, again, erased = found.quantization, found.requantized, found.erased
    restored = "" if was is None else f", restored from {was.code}"
    return [
        ("base", f"{found.base}{restored}"),
        ("adapter", f"{found.parameters:,} numbers on {found.layers} layers"),
        (
            f"back in {again.code}",
            f"{erased.kept:.0%} of the change would be kept, with an error {erased.share:.2f} times as large "
            f"as the change; {erased.unchanged:.1%} of the codes would not change",
        ),
        ("weights", found.dtype),
        ("model", str(found.directory)),
    ]
