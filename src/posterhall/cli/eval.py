"""`posterhall eval`: how well a model does; tasks here, planning in the file beside."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from posterhall.cli import eval_arena, eval_judge, eval_long_range, eval_planning, eval_recall, eval_slices
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

app = typer.Typer(help="Evaluate a model: on tasks, at planning, in a tournament.", no_args_is_help=True)
app.command("planning")(eval_planning.planning)
app.command("arena")(eval_arena.arena)
app.command("judge")(eval_judge.judge)
app.command("recall")(eval_recall.recall)
app.command("slices")(eval_slices.slices)
app.command("long-range")(eval_long_range.long_range)


@app.callback()
def _group() -> None:
    """Evaluate a model: on tasks, at planning, in a tournament."""


@app.command()
def tasks(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Directory of a model or a training run, owner/name on the hub, scripted:FILE, or echo.",
        ),
    ],
    task: Annotated[
        list[Path] | None,
        typer.Option(
            "--task",
            metavar="FILE|DIR",
            help="Items as JSONL, a directory of such files, or MMLU's directory; may be repeated.",
        ),
    ] = None,
    shots: Annotated[
        str | None,
        typer.Option("--shots", metavar="N|FROM-TO|N,N", help="Examples before an item; averaged [0-5]."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", help="Most items of a task, drawn at random.")
    ] = None,
    harness: Annotated[
        list[str] | None,
        typer.Option(
            "--harness", metavar="NAME", help="A task of lm-evaluation-harness (lm_eval); may be repeated."
        ),
    ] = None,
    family: Annotated[
        str | None, typer.Option("--family", help="What models of other sizes share with this one.")
    ] = None,
    scale: Annotated[
        float | None, typer.Option("--scale", help="The model's size or compute [its parameters].")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="RUN", help="Run directory.")] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="Of a model on this machine: cpu, cuda, ... [cpu].")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="float32, bfloat16 or float16 [the file's].")
    ] = None,
    seed: Seed = None,
    threads: Threads = None,
    config: ConfigFile = None,
    sets: Sets = None,
    resume: Resume = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Ask a model the items of tasks, few-shot, and score its answers by every metric that one pass gives.

    --set changes how all tasks are put (style, template, stop, max_tokens, ...), or batch and resamples.
    """
    from posterhall import config as settings_room
    from posterhall.devices import cores, limit_threads
    from posterhall.evals import tasks as task_room
    from posterhall.evals.jobs import EvalSettings, evaluate
    from posterhall.lm.connection import connect

    limit_threads(threads or cores())
    own, others = _parted(sets or [], EvalSettings)
    settings = settings_room.resolve(
        EvalSettings,
        file=config,
        sets=own,
        flags={
            "shots": None if shots is None else _numbers(shots),
            "limit": limit,
            "seed": seed,
            "family": family,
            "scale": scale,
            "task_set": others or None,
            "harness": harness,
        },
    )
    if resume and out is None:
        raise UsageError("--resume goes on with a run; name its directory with -o")
    found = task_room.load(task or [], sets=settings.task_set)
    options = {name: value for name, value in (("device", device), ("dtype", dtype)) if value is not None}
    with connect(model, **options) as lm:
        result = evaluate(
            lm,
            found,
            settings,
            out=out,
            inputs=[*([lm.source] if lm.source else []), *(path for each in found for path in each.files)],
            resume=resume,
            quiet=quiet,
            warn=lambda message: print(f"warning: {message}", file=sys.stderr),
        )
    if json:
        emit_json(result)
        return
    _show(result)


def _show(result: dict[str, Any]) -> None:
    rows = []
    for task in result["tasks"]:
        for name, score in task["scores"].items():
            above = score["rescaled"]["score"] if score["rescaled"] else None
            rows.append(
                (
                    task["task"],
                    name,
                    f"{score['items']:,}",
                    _number(score["score"]),
                    None if score["low"] is None else f"{_number(score['low'])} to {_number(score['high'])}",
                    _number(score["chance"]),
                    _number(above),
                    *(_number(score["by_shots"][str(shots)]) for shots in task["shots"]),
                )
            )
    if rows:
        shots = result["tasks"][0]["shots"]
        emit_table(
            rows,
            header=(
                *("task", "metric", "items", "score", "95 %", "chance", "above"),
                *(f"{each}-shot" for each in shots),
            ),
            right=range(2, 7 + len(shots)),
        )
    if result["harness"]:
        if rows:
            print()
        emit_table(
            [
                (row["task"], row["metric"], row["shots"], _number(row["score"]), _number(row["stderr"]))
                for row in result["harness"]
            ],
            header=("harness task", "metric", "shots", "score", "std. error"),
            right=(2, 3, 4),
        )
    mean = result["mean"]
    if mean and mean["tasks"] > 1:
        print()
        print(
            f"mean above chance of {mean['tasks']} tasks: {_number(mean['score'])}, "
            f"{_number(mean['low'])} to {_number(mean['high'])}"
        )
    if result["run"]:
        print()
        print(f"run: {result['run']}")


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"


def _numbers(text: str) -> list[int]:
    """ "0-5" or "0,2,5" or "3" as numbers."""
    numbers: list[int] = []
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()) or (dash and int(high) < int(low)):
            raise UsageError(
                f"--shots is {text!r}; give a number, as 3, a range, as 0-5, or a list, as 0,1,4"
            )
        if int(high or low) > 1000:
            raise UsageError(f"--shots is {text!r}; no model reads over a thousand examples")
        numbers += range(int(low), int(high or low) + 1)
    return numbers


def _parted(sets: list[str], cls: type) -> tuple[list[str], list[str]]:
    """--set texts for the evaluation, and those for its tasks."""
    from dataclasses import fields

    names = {each.name for each in fields(cls)}
    own = [each for each in sets if each.partition("=")[0].strip().replace("-", "_") in names]
    return own, [each for each in sets if each not in own]
