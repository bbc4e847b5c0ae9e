"""`posterhall data mix`: put sources together to a budget, at exact shares."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posterhall.cli import pools
from posterhall.cli.output import Json, Quiet, Seed, emit_json, emit_table
from posterhall.errors import UsageError

if TYPE_CHECKING:
    from posterhall.curation.mixing import Measure, Source


def mix(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE[:SHARE]...",
            help="File, folder or quoted pattern, and its share: prose.jsonl:0.7 'src/*.py:30%' [equal].",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help=".jsonl, .jsonl.gz, .jsonl.zst or .parquet.")
    ] = None,
    tokens: Annotated[
        str | None, typer.Option("--tokens", help="Size of the result, as 1e8 or 100M.")
    ] = None,
    bytes_: Annotated[
        str | None, typer.Option("--bytes", help="Instead: its size in bytes of text, as 2GB.")
    ] = None,
    unique_tokens: Annotated[
        str | None,
        typer.Option("--unique-tokens", help="Repeat so many tokens of the sources instead of taking more."),
    ] = None,
    unique_bytes: Annotated[str | None, typer.Option("--unique-bytes", help="The same in bytes.")] = None,
    tokenizer: Annotated[
        str, typer.Option("--tokenizer", metavar="byte|PATH", help="What --tokens counts in.")
    ] = "byte",
    text_field: pools.TextField = "text",
    split: pools.Split = "file",
    encoding_errors: pools.Errors = "strict",
    max_document: pools.MaxDocument = None,
    seed: Seed = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Mix sources, as prose and code, by shares of a budget, and repeat what is unique over epochs.

    A smaller unique part is contained in a larger one. Beside the result, OUT.manifest.json tells what came
    from where.
    """
    if not sources:
        raise UsageError("no source: name files, folders or patterns, each with its share (prose.jsonl:0.7)")
    if out is None:
        raise UsageError("give -o FILE for the mixture")
    if (tokens is None) == (bytes_ is None):
        raise UsageError("give the size of the result: either --tokens or --bytes")
    if (unique_tokens if tokens is None else unique_bytes) is not None:
        raise UsageError(
            "the unique part has the unit of the budget: --tokens with --unique-tokens, or bytes"
        )

    from posterhall.curation import mixing

    measure, unit = _measure(tokenizer) if tokens is not None else (mixing.byte_sizes, "bytes")
    unique = unique_tokens if tokens is not None else unique_bytes
    with pools.stages(quiet, lambda stage: "items") as watch:
        done = mixing.mix(
            _sources(sources, pools.reading(text_field, split, encoding_errors, max_document)),
            out,
            budget=pools.amount(tokens or bytes_ or "", f"--{unit}", of_bytes=tokens is None),
            measure=measure,
            unit=unit,
            unique=None
            if unique is None
            else pools.amount(unique, f"--unique-{unit}", of_bytes=tokens is None),
            seed=1 if seed is None else seed,
            watch=watch,
        )
    if json:
        emit_json({**vars(done), "manifest": f"{done.output}.manifest.json"})
        return
    emit_table(
        [
            (
                part.name, f"{100 * part.share:.2f} %", f"{part.size:,}", f"{part.documents:,}",
                f"{part.unique:,}", f"{part.available:,}", f"{part.epochs:.2f}",
            )
            for part in done.sources
        ],
        header=("source", "share", unit, "documents", f"unique {unit}", "available", "epochs"),
        right=range(1, 7),
    )  # fmt: skip
    print()
    print(f"{done.size:,} {unit} in {done.output}")


def _sources(given: list[str], reading: dict[str, Any]) -> list[Source]:
    from posterhall.curation.mixing import Source
    from posterhall.curation.pool import Pool

    found = []
    for each in given:
        path, colon, share = each.rpartition(":")
        weight = _weight(share) if colon else None
        name = path if weight is not None else each
        pool = Pool.open(name, **reading)
        found.append((pool, weight, name))
    if len({weight is None for _, weight, _ in found}) > 1:
        raise UsageError("some sources have a share and some have none; give all of them one, or none")
    return [Source(pool, 1.0 if weight is None else weight, name) for pool, weight, name in found]


def _weight(text: str) -> float | None:
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        return None


def _measure(tokenizer: str) -> tuple[Measure, str]:
    from posterhall.curation import mixing
    from posterhall.data import tokenizer as tokenizers

    return mixing.token_sizes(tokenizers.load(tokenizer)), "tokens"
