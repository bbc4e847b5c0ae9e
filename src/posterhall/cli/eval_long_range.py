"""`posterhall eval long-range`: classifiers of long sequences on any mixer, of one size and tuned alike."""

from __future__ import annotations

import sys
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


def long_range(
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            metavar="NAME[:PATH]",
            help="digits, pathfinder, path-x, list-ops, mnist:DIR, cifar:DIR, lra:DIR, audio:DIR, dna:FILE "
            "[digits].",
        ),
    ] = None,
    mixers: Annotated[
        str | None,
        typer.Option(
            "--mixers",
            metavar="LIST",
            help="Names, with settings as s4d:state=32, with + between mixers that take turns over the "
            "layers; also transformer, lstm, gru [s4d,transformer,lstm,gru].",
        ),
    ] = None,
    lengths: Annotated[
        str | None, typer.Option("--lengths", metavar="LIST", help="Positions of a row [the task's].")
    ] = None,
    evaluate_at: Annotated[
        str | None,
        typer.Option("--evaluate-at", metavar="LIST", help="Further lengths to test trained models at."),
    ] = None,
    rates: Annotated[
        str | None,
        typer.Option(
            "--rates", metavar="LIST", help="Sampling rates, by the training's, to test trained models at."
        ),
    ] = None,
    width: Annotated[
        int | None, typer.Option("--width", help="Of the first arm; the others get its size [48].")
    ] = None,
    layers: Annotated[int | None, typer.Option("--layers", help="Of each model [3].")] = None,
    both_ways: Annotated[
        bool | None, typer.Option("--both-ways", help="Let look ahead what can.", show_default=False)
    ] = None,
    lr: Annotated[
        str | None,
        typer.Option(
            "--lr", metavar="LIST", help="Rates from which each model's is chosen [0.001,0.004,0.01]."
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", help="Models of each kind [5].")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Of each training [500].")] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", help="Most CPU seconds of a training [no limit].")
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option("--figure", metavar="FILE", help="Draw accuracy over length as .svg, .png or .pdf."),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Save the models in the run (artifacts/models).")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="RUN", help="Run directory.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, ... [cpu].")] = None,
    seed: Seed = None,
    threads: Threads = None,
    config: ConfigFile = None,
    sets: Sets = None,
    resume: Resume = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train classifiers of long sequences, of one size and over the same rates, and tell how well they do.

    --set changes anything else (batch, dropout, heads, train_rows, sample_rate, dashes, ...). Models this
    small gain nothing from several threads: the default is one.
    """
    from posterhall import config as settings_room
    from posterhall.devices import limit_threads
    from posterhall.evals.long_range.jobs import evaluate
    from posterhall.evals.long_range.settings import LongRangeSettings

    limit_threads(threads or 1)
    settings = settings_room.resolve(
        LongRangeSettings,
        file=config,
        sets=sets or [],
        flags={
            "task": task,
            "mixers": mixers,
            "lengths": lengths,
            "evaluate_at": evaluate_at,
            "rates": rates,
            "width": width,
            "layers": layers,
            "both_ways": both_ways,
            "lr": lr,
            "seeds": seeds,
            "steps": steps,
            "seconds": seconds,
            "device": device,
            "seed": seed,
        },
    )
    for flag, given in (("--resume goes on with a run", resume), ("--keep saves models in a run", keep)):
        if given and out is None:
            raise UsageError(f"{flag}; name its directory with -o")
    if figure is not None:
        from posterhall.report.emergence_plot import checked_ending

        checked_ending(figure)
    if settings.device != "cpu":
        from posterhall.cli.model import device_of

        device_of(settings.device)
    result = evaluate(
        settings,
        out=out,
        keep=keep,
        resume=resume,
        quiet=quiet,
        warn=lambda message: print(f"warning: {message}", file=sys.stderr),
    )
    if figure is not None:
        from posterhall.report.long_range_plot import draw

        draw(result, figure)
    if json:
        emit_json(result)
        return
    _show(result)


def _show(result: dict[str, Any]) -> None:
    table = result["table"]
    emit_table(
        [
            (
                row["mixer"],
                f"{row['length']:,}",
                _percent(row["accuracy"]),
                _percent(row["sd"]),
                None if row["interval"] is None else " to ".join(_percent(each) for each in row["interval"]),
                " ".join("failed" if each is None else _percent(each) for each in row["accuracies"]),
                _percent(row["chance"]),
                " ".join("-" if each is None else f"{each:g}" for each in row["lr"]),
                f"{row['seconds']:.1f}",
                f"{row['parameters']:,}",
                row["width"],
                "both ways" if row["looks_ahead"] else "back",
            )
            for row in table
        ],
        header=(
            *("mixer", "length", "%", "sd", "95 %", "% by seed", "chance %", "lr by seed", "CPU s"),
            *("parameters", "width", "looks"),
        ),
        right=(1, 2, 3, 4, 6, 8, 9, 10),
    )
    _show_lengths(table)
    _show_rates(table)
    if result["run"]:
        print()
        print(f"run: {result['run']}")


def _show_lengths(table: list[dict[str, Any]]) -> None:
    """Accuracy at lengths other than those of the training, and who was bound to that."""
    rows = [(row, each) for row in table for each in row["at"]]
    if not rows:
        return
    print()
    emit_table(
        [
            (row["mixer"], f"{row['length']:,}", f"{each['length']:,}", _refused(each, row))
            for row, each in rows
        ],
        header=("mixer", "trained at", "tested at", "%"),
        right=(1, 2),
    )


def _show_rates(table: list[dict[str, Any]]) -> None:
    """Accuracy at other sampling rates, and whether the model's steps were scaled."""
    rows = [(row, each) for row in table for each in row["rates"]]
    if not rows:
        return
    print()
    emit_table(
        [
            (
                row["mixer"],
                f"{each['rate']:g}",
                f"{each['length']:,}",
                "steps scaled" if row["continuous"] else "counts positions",
                _refused(each, row),
            )
            for row, each in rows
        ],
        header=("mixer", "rate", "positions", "time", "%"),
        right=(1, 2),
    )


def _refused(each: dict[str, Any], row: dict[str, Any]) -> str:
    return f"bound to {row['length']:,}" if each["refused"] else _percent(each["accuracy"])


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
