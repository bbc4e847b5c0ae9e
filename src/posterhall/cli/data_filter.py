"""`posterhall data filter`: score the items of a pool, keep the good ones, and say why the others went."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posterhall.cli import pools
from posterhall.cli.output import Json, Quiet, emit_json, emit_table
from posterhall.errors import UsageError

if TYPE_CHECKING:
    from posterhall.curation.filtering import Filtered
    from posterhall.curation.filters import Filter


def filter(
    pool: pools.Items = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help=".jsonl, .jsonl.gz, .jsonl.zst or .parquet.")
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep",
            metavar="EXPR",
            help="What to keep, as 'perplexity bottom 25% & words >= 50'; repeated: one after the other.",
        ),
    ] = None,
    score: Annotated[
        list[str] | None,
        typer.Option("--score", metavar="NAME", help="Add this score as a column; may be repeated."),
    ] = None,
    dropped: Annotated[
        Path | None,
        typer.Option("--dropped", metavar="FILE", help="uid, filter, value and reason of what goes."),
    ] = None,
    perplexity_model: Annotated[
        Path | None,
        typer.Option(
            "--perplexity-model", metavar="FILE", help="Language model: .npz, .arpa, or KenLM's own."
        ),
    ] = None,
    perplexity_train: Annotated[
        list[Path] | None,
        typer.Option(
            "--perplexity-train", metavar="POOL", help="Train the model on these texts; may be repeated."
        ),
    ] = None,
    perplexity_save: Annotated[
        Path | None,
        typer.Option("--perplexity-save", metavar="FILE", help="Keep the trained model: .npz or .arpa."),
    ] = None,
    perplexity_unit: Annotated[
        str | None,
        typer.Option(
            "--perplexity-unit",
            metavar="UNIT",
            help="How the model cuts text: words, whitespace, pieces:byte or pieces:PATH (of a tokeniser).",
        ),
    ] = None,
    order: Annotated[int, typer.Option("--order", help="Longest n-gram of the trained model.")] = 5,
    min_count: Annotated[
        int, typer.Option("--min-count", help="Rarer words are unknown to the trained model.")
    ] = 1,
    text_field: pools.TextField = "text",
    uid_field: pools.UidField = None,
    split: pools.Split = "file",
    encoding_errors: pools.Errors = "strict",
    max_document: pools.MaxDocument = None,
    workers: pools.Workers = 1,
    ray: pools.Ray = False,
    ray_address: pools.RayAddress = None,
    work: pools.Work = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score texts and keep those that an expression asks for.

    Scores are added to what is written. Without --keep everything is kept; `posterhall data scores` lists
    what can be asked for.
    """
    if not pool:
        raise UsageError("no pool: name one or more files or folders")
    if out is None:
        raise UsageError("give -o FILE for what is kept")
    if perplexity_model is not None and perplexity_train:
        raise UsageError(
            "--perplexity-model reads a model and --perplexity-train makes one; give one of them"
        )
    if perplexity_save is not None and not perplexity_train:
        raise UsageError("--perplexity-save keeps a model that was trained: give --perplexity-train too")

    from posterhall.curation.filtering import filter_pool
    from posterhall.curation.language import parse
    from posterhall.curation.ngram import NGramModel
    from posterhall.curation.pool import Pool

    filters = [parse(each) for each in keep or []]
    reading = pools.reading(text_field, split, encoding_errors, max_document, uid_field)
    source = Pool.open(pool, **reading)
    cluster = ray_address or ("local" if ray else None)
    directory = pools.work_of(out, work, spread=cluster is not None or workers > 1)
    model: Path | NGramModel | None = perplexity_model
    unit: Any = perplexity_unit or ("words" if perplexity_train else None)
    with pools.stages(quiet, _unit) as watch:
        if perplexity_train:
            reference = Pool.open(perplexity_train, **reading)
            model = NGramModel.train(_texts(reference, watch), order=order, min_count=min_count, unit=unit)
            if perplexity_save is not None:
                model.save(perplexity_save)
            if directory is not None:
                directory.mkdir(parents=True, exist_ok=True)
                model.save(directory / "model.npz")
                model = directory / "model.npz"
        done = filter_pool(
            source, out, keep=filters, scores=score or [], model=model, unit=unit, dropped=dropped,
            directory=directory, workers=workers, ray=cluster, watch=watch,
        )  # fmt: skip
    if directory is not None and work is None:
        shutil.rmtree(directory)
    if json:
        emit_json(_result(done, filters, out, dropped))
    else:
        _show(done, filters, out)


def scores(json: Json = False) -> None:
    """List the scores that `posterhall data filter` can compute, and the named filters."""
    from posterhall.curation.filtering import PERPLEXITY
    from posterhall.curation.presets import PRESETS
    from posterhall.curation.scores import NAMES

    named = {**NAMES, PERPLEXITY: "surprise a word under a language model (--perplexity-model)"}
    if json:
        emit_json({"scores": named, "filters": {name: str(each) for name, each in PRESETS.items()}})
        return
    emit_table(named.items(), header=("score", "what it is"))
    print()
    emit_table(((name, str(each)) for name, each in PRESETS.items()), header=("filter", "what it keeps"))


def is_pool(path: Path) -> bool:
    """Whether `posterhall data stats` takes a path for documents rather than running text."""
    from posterhall.data.documents import kind_of

    return path.suffix == ".zst" or path.is_dir() or kind_of(path) != "text"


def describe_pool(paths: list[Path], reading: dict[str, Any], *, json: bool, quiet: bool) -> None:
    """Print what a pool holds."""
    from posterhall.curation.pool import Pool
    from posterhall.curation.statistics import QUANTILES, describe

    pool = Pool.open(paths, **reading)
    with pools.stages(quiet, _unit) as watch:
        found = describe(pool, observe=lambda done: watch("read", done, None))
    if json:
        emit_json(found)
        return
    share = 100 * found.duplicates / found.documents
    emit_table(
        [
            ("files", f"{found.files:,}"),
            ("documents", f"{found.documents:,}"),
            ("without a word", f"{found.empty:,}"),
            ("exact duplicates", f"{found.duplicates:,} ({share:.2f} %), {found.duplicate_bytes:,} bytes"),
            ("bytes of text", f"{found.bytes:,}"),
            ("characters", f"{found.characters:,}"),
            ("words", f"{found.words:,}"),
        ]
    )
    print()
    emit_table(
        [
            (name, *(f"{length[key]:,.0f}" for key in ("mean", *QUANTILES)))
            for name, length in found.lengths.items()
        ],
        header=("a document", "mean", "min", "5 %", "25 %", "median", "75 %", "95 %", "max"),
        right=range(1, 9),
    )


def _unit(stage: str) -> str:
    return "files" if stage.endswith("files") else "items"


def _texts(reference: Any, watch: Callable[[str, int, int | None], None]) -> Iterator[Any]:
    rows = 0
    for batch in reference.batches(["text"]):
        yield batch.column("text")
        rows += batch.num_rows
        watch("train", rows, None)


def _result(done: Filtered, filters: list[Filter], out: Path, dropped: Path | None) -> dict[str, Any]:
    return {
        "rows": done.written.rows,
        "kept": done.written.kept,
        "dropped": done.written.dropped,
        "keep": [str(each) for each in filters],
        "dropped_by": done.decision.dropped_by,
        "computed": list(done.computed),
        "scores": {name: quantiles(column) for name, column in done.scores.items()},
        "output": out,
        "dropped_file": dropped,
    }


def _show(done: Filtered, filters: list[Filter], out: Path) -> None:
    if done.scores:
        rows = []
        for name, column in done.scores.items():
            found = quantiles(column)
            cells = [found[key] for key in ("min", "p25", "median", "p75", "max")]
            rows.append((name, *("-" if c is None else f"{c:.4g}" for c in cells), f"{found['missing']:,}"))
        header = ("score", "min", "25 %", "median", "75 %", "max", "without")
        emit_table(rows, header=header, right=range(1, 7))
        print()
    if done.decision.dropped_by:
        emit_table(
            [(f"{many:,}", name) for name, many in done.decision.dropped_by.items()],
            header=("dropped", "by"),
            right=(0,),
        )
        print()
    share = 100 * done.written.kept / done.written.rows
    print(f"{done.written.kept:,} of {done.written.rows:,} items ({share:.1f} %) in {out}")


def quantiles(column: Any) -> dict[str, float | int | None]:
    """What `--json` tells of a column of scores."""
    import numpy as np

    known = column[~np.isnan(column)]
    cuts = np.quantile(known, (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)) if known.size else [None] * 7
    found: dict[str, float | int | None] = dict(
        zip(("min", "p5", "p25", "median", "p75", "p95", "max"), cuts, strict=True)
    )
    return {**found, "missing": int(column.size - known.size)}
