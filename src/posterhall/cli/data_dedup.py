"""`posterhall data dedup`: find the duplicates of a pool of text and write what stays."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from posterhall.cli.data_filter import (
    Errors,
    Ray,
    RayAddress,
    Split,
    TextField,
    UidField,
    Work,
    Workers,
    work_of,
)
from posterhall.cli.output import ConfigFile, Json, Quiet, Seed, Sets, Threads, emit_json, emit_table
from posterhall.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from posterhall.curation.dedup import Outcome

_METHODS = ("minhash", "substring", "exact")


def dedup(
    pool: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="POOL...", help="JSON lines, Parquet or plain text, also .gz and .zst; files or folders."
        ),
    ] = None,
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
    text_field: TextField = "text",
    uid_field: UidField = None,
    split: Split = "file",
    encoding_errors: Errors = "strict",
    memory: Annotated[
        str | None,
        typer.Option("--memory", metavar="BYTES", help="Held at most, as 500MB or 2GB; more goes to disk."),
    ] = None,
    workers: Workers = 1,
    ray: Ray = False,
    ray_address: RayAddress = None,
    work: Work = None,
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
        "memory": None if memory is None else _bytes(memory), "seed": seed, "threads": threads,
    }  # fmt: skip
    settings = _settings(cls, method, flags, config, sets or [])
    if (score is not None) != (settings.keep == "best"):
        raise UsageError(
            "--score COLUMN and --keep best go together: the document with the highest score stays"
        )
    if out is None and dropped is None and report is None and cut:
        raise UsageError("nothing would come of --cut: give -o FILE")
    source = Pool.open(
        pool,
        text_field=text_field,
        uid_field=uid_field,
        split=cast("Any", split),
        encoding_errors=cast("Any", encoding_errors),
    )
    cluster = ray_address or ("local" if ray else None)
    directory = work_of(out, work, spread=cluster is not None or workers > 1)
    with _progress(quiet) as watch:
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
            watch=watch,
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


_UNITS = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
}


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]i?|)b?", text.strip().lower())
    if found is None:
        raise UsageError(f"--memory is {text!r}; it must be a number of bytes, as 500MB, 2GB or 1GiB")
    return int(float(found[1]) * _UNITS[found[2]])


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, int], None]]:
    """A bar for each stage in turn, without an end: files may be compressed."""
    from posterhall.progress import Progress

    with contextlib.ExitStack() as stack:
        shown: dict[str, Progress] = {}

        def watch(stage: str, done: int) -> None:
            if stage not in shown:
                stack.close()  # the stage before
                shown.clear()
                unit = "files" if stage.endswith(" files") else "bytes"
                shown[stage] = stack.enter_context(Progress(None, label=stage, unit=unit, quiet=quiet))
            shown[stage].update(done)

        yield watch
