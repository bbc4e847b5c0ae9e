"""`posterhall claims`: list the claims, put them to the test, and report on what was found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posterhall.cli.output import Json, Quiet, Resume, Sets, Threads, emit_json, emit_table

if TYPE_CHECKING:
    from posterhall.claims import Claim, Results

app = typer.Typer(help="Put headline claims of papers to the test.", no_args_is_help=True)

Scale = Annotated[str, typer.Option("--scale", help="smoke (seconds), laptop (minutes), full.")]


@app.command("list")
def list_claims(
    names: Annotated[list[str] | None, typer.Argument(help="Ids or papers; all if none is given.")] = None,
    json: Json = False,
) -> None:
    """List claims: id, paper, scales with their seeds, and the statement."""
    from posterhall import claims

    chosen = claims.select(names or [])
    if json:
        emit_json({"claims": [_described(cls) for cls in chosen]})
        return
    rows = [
        (cls.id, cls.paper, ", ".join(f"{name} {b.seeds}" for name, b in cls.scales.items()), cls.statement)
        for cls in chosen
    ]
    emit_table(rows, header=("claim", "paper", "scales and seeds", "statement"))


@app.command("run")
def run_claims(
    names: Annotated[list[str] | None, typer.Argument(help="Ids or papers; all if none is given.")] = None,
    scale: Scale = "smoke",
    seeds: Annotated[
        int | None, typer.Option("--seeds", help="Seeds a claim, 5 or more; default: the scale's own.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The first seed; the others follow it.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The run's directory; default: runs/claims-TIME.")
    ] = None,
    resume: Resume = False,
    sets: Sets = None,
    threads: Threads = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run claims on several seeds, print their verdicts, and write a report beside them.

    --set gives a parameter (as corpus=PATH) to every selected claim that has it. The exit code is 0
    whatever the verdicts are, and 1 if a claim could not be run.
    """
    from posterhall import claims

    results = claims.run(
        names or [],
        scale=scale,
        seeds=seeds,
        first_seed=seed,
        workers=threads,
        out=out,
        resume=resume,
        params=params(sets),
        quiet=quiet,
    )
    show(results, json=json)


@app.command("report")
def report_claims(
    runs: Annotated[list[Path], typer.Argument(help="Directories of finished runs of claims.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The HTML file; default: report.html in the first run.")
    ] = None,
) -> None:
    """Write one report over stored runs; several scales of a claim stand side by side in it."""
    from posterhall import report

    print(report.write(runs, out if out is not None else runs[0] / "report.html"))


def show(results: Results, *, json: bool) -> None:
    """Write the report, print the verdicts and the report's path; exit with 1 if a claim failed."""
    from posterhall import report

    page = report.write([results.run], results.run / "report.html")
    if json:
        emit_json({**results.to_json(), "report": str(page)})
    else:
        print(results)
        for id in results.failed:
            print(f"{id}: {results[id].reason}")
        print(page)
    if results.failed:
        raise typer.Exit(1)


def params(sets: Sequence[str] | None) -> dict[str, str]:
    """KEY=VALUE pairs as a mapping.

    Raises:
        UsageError: if one is no such pair.
    """
    from posterhall.errors import UsageError

    found: dict[str, str] = {}
    for text in sets or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {text}: give KEY=VALUE, as corpus=text.txt")
        found[key.strip()] = value
    return found


def _described(cls: type[Claim]) -> dict[str, Any]:
    return {
        "id": cls.id,
        "paper": cls.paper,
        "where": cls.where,
        "statement": cls.statement,
        "headline": cls.headline,
        "exclusive": cls.exclusive,
        "paper_value": cls.paper_value,
        "claimed": cls.kind.promise(),
        "refuted_by": cls.refuted_by,
        "negative_control": cls.negative_control,
        "deviates": cls.deviates,
        "scales": {name: dict(budget) for name, budget in cls.scales.items()},
        "params": dict(cls.params),
    }
