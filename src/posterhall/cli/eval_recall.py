"""`posterhall eval recall`: small models of any mixer, on tasks that are solved by looking back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from posterhall.cli.output import (
    ConfigFile,
    Json,
    Quiet,
    Resume,
    Seed,
    Sets,
    Threads,
    emit_json,
    emit_table,
)
from posterhall.errors import UsageError


def recall(
    mixers: Annotated[
        str | None,
        typer.Option(
            "--mixers",
            metavar="LIST",
            help="Names, with settings as based:feature_dim=8, with + between mixers that take turns over "
            "the layers; commas between [attention,based].",
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="mqar, associative, induction or copying [mqar].")
    ] = None,
    lengths: Annotated[
        str | None, typer.Option("--lengths", metavar="LIST", help="Tokens of a row [64].")
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option("--pairs", metavar="LIST", help="Keys to recall; one for all lengths, or one each [8]."),
    ] = None,
    widths: Annotated[
        str | None, typer.Option("--widths", metavar="LIST", help="Width of the models [64].")
    ] = None,
    vocab: Annotated[int | None, typer.Option("--vocab", help="Tokens there are [256].")] = None,
    layers: Annotated[int | None, typer.Option("--layers", help="Of each model [2].")] = None,
    conv: Annotated[
        int | None, typer.Option("--conv", help="Taps of a short convolution before every mixer [0: none].")
    ] = None,
    lr: Annotated[
        str | None,
        typer.Option("--lr", metavar="LIST", help="Learning rates; each arm is told with its best [3e-3]."),
    ] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", help="Models of each kind [1].")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Most steps of a training [4000].")] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", help="Most CPU seconds of a training [no limit].")
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option("--figure", metavar="FILE", help="Draw curves and frontier as .svg, .png or .pdf."),
    ] = None,
    frontier: Annotated[
        bool, typer.Option("--frontier", help="Print which models recall most for the bytes of their state.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="RUN", help="Run directory.")] = None,
    seed: Seed = None,
    threads: Threads = None,
    config: ConfigFile = None,
    sets: Sets = None,
    resume: Resume = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train small models on recall, all in the same way, and tell accuracy, cost and size of state.

    --set changes anything else (filler, passes, power, heads, positions, ffn_dim, enough, ...). Models this
    small gain nothing from several threads: the default is one.
    """
    from posterhall import config as settings_room
    from posterhall.devices import limit_threads
    from posterhall.evals.recall.jobs import evaluate
    from posterhall.evals.recall.settings import RecallSettings

    limit_threads(threads or 1)
    settings = settings_room.resolve(
        RecallSettings,
        file=config,
        sets=sets or [],
        flags={
            "mixers": mixers,
            "task": task,
            "lengths": lengths,
            "pairs": pairs,
            "widths": widths,
            "vocab": vocab,
            "layers": layers,
            "conv": conv,
            "lr": lr,
            "seeds": seeds,
            "steps": steps,
            "seconds": seconds,
            "seed": seed,
        },
    )
    if resume and out is None:
        raise UsageError("--resume goes on with a run; name its directory with -o")
    if figure is not None:
        from posterhall.report.emergence_plot import checked_ending

        checked_ending(figure)
    result = evaluate(settings, out=out, resume=resume, quiet=quiet)
    if figure is not None:
        from posterhall.report.recall_plot import draw

        draw(result, figure)
    if json:
        emit_json(result)
        return
    _show(result, frontier)


def _show(result: dict[str, Any], frontier: bool) -> None:
    emit_table(
        [
            (
                row["mixer"],
                row["length"],
                row["pairs"],
                row["width"],
                f"{row['lr']:g}",
                _percent(row["accuracy"]),
                " ".join("failed" if each is None else _percent(each) for each in row["accuracies"]),
                f"{row['solved']}/{result['seeds']}",
                _percent(row["plateau"]),
                f"{row['steps']:,.0f}",
                f"{row['seconds']:.1f}",
                f"{row['parameters']:,}",
                None if row["state_bytes"] is None else f"{row['state_bytes']:,}",
            )
            for row in result["table"]
        ],
        header=(
            *("mixer", "length", "pairs", "width", "lr", "%", "% by seed", "solved", "plateau %", "steps"),
            *("CPU s", "parameters", "state bytes"),
        ),
        right=(1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12),
    )
    if frontier:
        print()
        emit_table(
            [
                (
                    row["length"],
                    row["pairs"],
                    f"{row['state_bytes']:,}",
                    _percent(row["accuracy"]),
                    f"{row['mixer']}, width {row['width']}",
                )
                for row in result["frontier"]
            ],
            header=("length", "pairs", "state bytes", "%", "most accurate so far"),
            right=(0, 1, 2, 3),
        )
    if result["run"]:
        print()
        print(f"run: {result['run']}")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
