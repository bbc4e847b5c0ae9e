"""`posterhall runs sweep` and `runs export`: many trainings, and the table of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from posterhall.cli.output import Json, Quiet, emit_json, emit_table


def sweep(
    file: Annotated[
        Path, typer.Option("--config", "-c", help="YAML: text, eval, fixed, cases, grid (see the how-to).")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory of the runs.")],
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Runs at a time [one a core].")
    ] = None,
    threads: Annotated[int, typer.Option("--threads", "-t", min=1, help="Threads of each run.")] = 1,
    ray: Annotated[
        bool, typer.Option("--ray", help="Let Ray place the runs, on a cluster started here.")
    ] = False,
    ray_address: Annotated[
        str | None, typer.Option("--ray-address", help="Let this Ray cluster place the runs.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a grid of language models, each a run of its own.

    The same command again goes on: finished runs are skipped, killed ones resumed. The settings are those
    of `train lm`.
    """
    from posterhall.devices import cores
    from posterhall.errors import PosterhallError
    from posterhall.progress import Progress
    from posterhall.train import sweep as sweeps

    planned = sweeps.read(file)
    ended = 0
    with Progress(len(planned.runs), label="sweep", unit="runs", quiet=quiet) as progress:

        def count(run: sweeps.Planned) -> None:
            nonlocal ended
            ended += 1
            progress.update(ended, last=run.name)

        results = sweeps.run(
            planned,
            out,
            workers=workers or max(1, cores() // threads),
            threads=threads,
            ray=ray_address or ("local" if ray else None),
            done=count,
        )
    failed = [result for result in results if result["status"] == "failed"]
    if json:
        emit_json({"directory": out, "failed": len(failed), "runs": results})
    else:
        emit_table(
            [_row(result) for result in results],
            header=("run", "status", "params", "tokens", "loss", "time"),
            right=(2, 3, 4, 5),
        )
    if failed:
        raise PosterhallError(
            f"{len(failed)} of {len(results)} runs failed; the first says why in {failed[0]['log']}"
        )


def export(
    roots: Annotated[list[Path], typer.Argument(help="Run directories, or directories of them.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="CSV file; else it is printed.")] = None,
    json: Json = False,
) -> None:
    """Write the table of finished `train lm` runs that `scale fit` reads, one row a run.

    Columns: run, params, params_non_embedding, tokens, unique_tokens, epochs, flops (6 params tokens), loss
    (held-out, nats a token, of the last weights), best_loss, seed, and the settings in which the runs differ.
    """
    from posterhall.runs import write_atomic
    from posterhall.train.table import collect

    table = collect(roots)
    if table.unfinished:
        names = ", ".join(map(str, table.unfinished[:3]))
        more = ", ..." if len(table.unfinished) > 3 else ""
        print(f"left out, not finished: {len(table.unfinished)} ({names}{more})", file=sys.stderr)
    if out is not None:
        write_atomic(out, table.csv())
    if json:
        emit_json({"csv": out, "columns": table.columns, "rows": table.rows})
    elif out is None:
        print(table.csv(), end="")
    else:
        emit_table([("table", f"{out}  {len(table.rows):,} runs x {len(table.columns)} columns")])


def _row(result: dict[str, Any]) -> list[str | None]:
    from posterhall.progress import duration

    facts = result["facts"]
    if facts is None:
        return [result["run"], f"{result['status']}: {result['log']}"]
    loss = None if facts["loss"] is None else f"{facts['loss']:.4f}"
    numbers = [f"{facts['params']:,}", f"{facts['tokens']:,}", loss, duration(facts["seconds"])]
    return [result["run"], result["status"], *numbers]
