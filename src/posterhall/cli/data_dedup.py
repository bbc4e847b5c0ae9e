"""`posterhall data dedup`: find the duplicates of a pool of text and write what stays."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posterhall.cli import pools
from posterhall.cli.output import ConfigFile, Json, Quiet, Seed, Sets, Threads, emit_json, emit_table
from posterhall.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from posterhall.curation.dedup import Outcome

_METHODS = ("minhash", "substring", "exact")


def dedup(
    pool: pools.Items = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="What stays: .jsonl, .jsonl.gz, .jsonl.zst or .parquet."),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            "--method", help="minhash (near duplicates), substring (shared passages) or exact (equal texts)."
        ),
    ] = "minhash",
    keep: Annotated[
        str | None,
        typer.Option(
            "--keep", help="first, longest or best (by --score) [first]; of substring: none or first [none]."
        ),
    ] = None,
    score: Annotated[
        str | None, typer.Option("--score", metavar="COLUMN", help="Numbers by which --keep best chooses.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="minhash: Jaccard similarity of duplicates [0.8].")
    ] = None,
    ngram: Annotated[
        int | None, typer.Option("--ngram", help="minhash: words or characters in a shingle [5].")
    ] = None,
    unit: Annotated[str | None, typer.Option("--unit", help="minhash: word or char [word].")] = None,
    bands: Annotated[
        int | None, typer.Option("--bands", help="minhash: bands [chosen from the threshold].")
    ] = None,
    rows: Annotated[
        int | None, typer.Option("--rows", help="minhash: rows of a band [chosen from the threshold].")
    ] = None,
    normalise: Annotated[
        bool | None,
        typer.Option(
            "--normalise/--no-normalise",
            help="Fold case and leave out punctuation [minhash: yes, exact: no].",
        ),
    ] = None,
    length: Annotated[
        int | None, typer.Option("--length", help="substring: characters of a shared passage [100].")
    ] = None,
    search: Annotated[
        str | None, typer.Option("--search", help="substring: sampled or suffix-array [sampled].")
    ] = None,
    cut: Annotated[
        bool, typer.Option("--cut", help="substring: cut the passages out instead of dropping documents.")
    ] = False,
    dropped: Annotated[
        Path | None,
        typer.Option("--dropped", metavar="FILE", help="uid, filter, value and reason of what goes."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="Pairs and similarities; of substring, every span."),
    ] = None,
    text_field: pools.TextField = "text",
    uid_field: pools.UidField = None,
    split: pools.Split = "file",
    encoding_errors: pools.Errors = "strict",
    max_document: pools.MaxDocument = None,
    memory: Annotated[
        str | None,
        typer.Option("--memory", metavar="BYTES", help="Held at most, as 500MB or 2GB; more goes to disk."),
    ] = None,
    workers: pools.Workers = 1,
    ray: pools.Ray = False,
    ray_address: pools.RayAddress = None,
    work: pools.Work = None,
    config: ConfigFile = None,
    sets: Sets = None,
    seed: Seed = None,
    threads: Threads = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Drop documents that repeat others: nearly, in a long passage, or altogether.

    Without -o nothing is written, and only what would go is told.
    """
    if not pool:
        raise UsageError("no pool: name one or more files or folders")
    if method not in _METHODS:
        raise UsageError(
            f"--method is {method!r}; there are {', '.join(_METHODS)}.{did_you_mean(method, _METHODS)}"
        )

    from posterhall.curation.dedup import Exact, MinHash, Substring, deduplicate
    from posterhall.curation.pool import Pool

    cls = {"minhash": MinHash, "substring": Substring, "exact": Exact}[method]
    flags = {
        "keep": keep, "threshold": threshold, "ngram": ngram, "unit": unit, "bands": bands, "rows": rows,
        "normalise": normalise, "length": length, "search": search,
        "memory": None if memory is None else pools.amount(memory, "--memory", of_bytes=True),
        "seed": seed, "threads": threads,
    }  # fmt: skip
    settings = _settings(cls, method, flags, config, sets or [])
    if (score is not None) != (settings.keep == "best"):
        raise UsageError(
            "--score COLUMN and --keep best go together: the document with the highest score stays"
        )
    if out is None and dropped is None and report is None and cut:
        raise UsageError("nothing would come of --cut: give -o FILE")
    reading = pools.reading(text_field, split, encoding_errors, max_document, uid_field)
    source = Pool.open(pool, **reading)
    cluster = ray_address or ("local" if ray else None)
    directory = pools.work_of(out, work, spread=cluster is not None or workers > 1)
    with pools.stages(quiet, _unit) as watch:
        outcome = deduplicate(
            source,
            settings,
            out=out,
            dropped=dropped,
            report=report,
            score=score,
            cut=cut,
            directory=directory,
            workers=workers,
            ray=cluster,
            watch=lambda stage, done: watch(stage, done, None),  # files may be compressed: no end is known
        )
    if directory is not None and work is None:
        shutil.rmtree(directory)
    if json:
        emit_json(_result(method, outcome, settings, out, dropped, report))
    else:
        _show(method, outcome, settings, out)


def _settings(cls: Any, method: str, flags: dict[str, Any], config: Path | None, sets: list[str]) -> Any:
    """Settings of the method; an option of another one is refused rather than ignored."""
    from dataclasses import fields

    from posterhall.config import resolve

    known = {field.name for field in fields(cls)}
    for name, value in flags.items():
        if value is not None and name not in known:
            raise UsageError(f"--{name.replace('_', '-')} means nothing to --method {method}")
    given = {name: value for name, value in flags.items() if name in known}
    return resolve(cls, file=config, sets=sets, flags=given)


def _result(
    method: str, outcome: Outcome, settings: Any, out: Path | None, dropped: Path | None, report: Path | None
) -> dict[str, Any]:
    from posterhall import config, devices

    return {
        "method": method,
        "documents": outcome.documents,
        "kept": outcome.kept,
        "dropped": outcome.documents - outcome.kept,
        **{name: value for name, value in outcome.found.facts.items() if name != "documents"},
        "settings": config.to_dict(settings),
        "s_curve": [{"jaccard": j, "chance": chance} for j, chance in _curve(method, outcome)],
        "output": out,
        "dropped_file": dropped,
        "report": report,
        "peak_bytes": devices.peak_bytes(),
    }


def _curve(method: str, outcome: Outcome) -> list[tuple[float, float]]:
    """The chance that documents of a similarity are compared."""
    if method != "minhash":
        return []
    from posterhall.curation.dedup import s_curve

    facts = outcome.found.facts
    steps = [i / 20 for i in range(6, 21)]
    return list(zip(steps, s_curve(steps, facts["bands"], facts["rows"]).tolist(), strict=True))


def _show(method: str, outcome: Outcome, settings: Any, out: Path | None) -> None:
    from posterhall.progress import size

    facts = outcome.found.facts
    gone = outcome.documents - outcome.kept
    lines = [
        ("documents", f"{outcome.documents:,} ({size(facts['bytes'])})"),
        ("kept", f"{outcome.kept:,}"),
        ("dropped", f"{gone:,} ({100 * gone / outcome.documents:.2f} %)"),
    ]
    if method == "minhash":
        lines += [
            ("equal texts", f"{facts['copies']:,}"),
            ("pairs compared", f"{facts['pairs_compared']:,}"),
            ("bands", f"{facts['bands']} of {facts['rows']} rows"),
        ]
    elif method == "substring":
        lines.append(("shared characters", f"{facts['shared_characters']:,}"))
    emit_table(lines)
    if curve := _curve(method, outcome):
        print()
        emit_table(
            [
                (f"{j:.2f}", f"{chance:.4f}", "threshold" if j == settings.threshold else "")
                for j, chance in curve
            ],
            header=("Jaccard", "chance to be compared"),
            right=(0, 1),
        )
    if out is not None:
        print(f"\nwritten to {out}")


def _unit(stage: str) -> str:
    return "files" if stage.endswith("files") else "bytes"
