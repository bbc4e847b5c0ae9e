"""`posterhall eval arena`: a tournament's ratings from verdicts on pairs of answers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from posterhall.cli.output import ConfigFile, Json, Seed, Sets, Threads, emit_json, emit_table
from posterhall.errors import UsageError


def arena(
    verdicts: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="VERDICTS...",
            help="CSV or JSONL with question, model_a, model_b, winner (a, b, tie, none), and perhaps judge, "
            "order (ab, ba), score_a, score_b; or runs of eval judge.",
        ),
    ] = None,
    example: Annotated[
        bool, typer.Option("--example", help="GPT-4's 4,480 verdicts on eight models (QLoRA's tournament).")
    ] = False,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column", metavar="NAME=COLUMN", help="Which column is what, as winner=choice; may be repeated."
        ),
    ] = None,
    judge: Annotated[
        str | None, typer.Option("--judge", metavar="NAME", help="Count this judge's verdicts only.")
    ] = None,
    majority: Annotated[
        str | None,
        typer.Option(
            "--majority",
            metavar="JUDGES",
            help="Add a judge 'majority': what most of these say; commas between.",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option("--reference", metavar="MODEL", help="Relative scores too, against this model's."),
    ] = None,
    ties: Annotated[
        Literal["half", "drop"] | None,
        typer.Option("--ties", help="Half a win for each, or no game [half]."),
    ] = None,
    anchor: Annotated[
        str | None,
        typer.Option("--anchor", metavar="MODEL=POINTS", help="Fix a rating [the mean is 1000]."),
    ] = None,
    ridge: Annotated[
        float | None, typer.Option("--ridge", help="Of Bradley-Terry, to keep every rating finite [0].")
    ] = None,
    orderings: Annotated[int | None, typer.Option("--orderings", help="Of Elo [10000].")] = None,
    resamples: Annotated[
        int | None, typer.Option("--resamples", help="Of the prompts, for intervals; 0: none [1000].")
    ] = None,
    seed: Seed = None,
    threads: Threads = None,
    config: ConfigFile = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Rate models from verdicts: Bradley-Terry, and Elo over random orderings, with intervals over prompts.

    Says too how far each judge favours the first place and flips when the order is turned, and how far judges
    agree.
    """
    from posterhall import config as settings_room
    from posterhall.devices import cores, limit_threads
    from posterhall.evals.arena import judges
    from posterhall.evals.arena import verdicts as files
    from posterhall.evals.arena.table import ArenaSettings, report

    if example == bool(verdicts):
        raise UsageError("give files of verdicts, or --example, and not both")
    limit_threads(threads or cores())
    settings = settings_room.resolve(
        ArenaSettings,
        file=config,
        sets=sets or [],
        flags={
            "ties": ties,
            "anchor": anchor,
            "ridge": ridge,
            "orderings": orderings,
            "resamples": resamples,
            "seed": seed,
        },
    )
    games = (
        files.example()
        if example
        else files.read(verdicts or [], columns=_columns(column or []), repeats=settings.repeats)
    )
    if majority is not None:
        games = judges.majority(games, [name.strip() for name in majority.split(",")])
    result = report(games, settings, judge=judge, reference=reference, threads=threads)
    if json:
        emit_json(result)
        return
    _show(result)


def _columns(texts: list[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, column = text.partition("=")
        if not equals or not name.strip() or not column.strip():
            raise UsageError(f"--column is {text!r}; write which column is what, as winner=choice")
        found[name.strip()] = column.strip()
    return found


def _show(result: dict[str, Any]) -> None:
    emit_table(
        [
            (
                each["player"],
                f"{each['games']:,}",
                f"{each['wins']:,}",
                f"{each['ties']:,}",
                f"{each['losses']:,}",
                _points(each["bradley_terry"]["rating"]),
                _range(each["bradley_terry"]),
                _points(each["elo"]["rating"]),
                _range(each["elo"]),
            )
            for each in result["players"]
        ],
        header=("model", "games", "won", "tied", "lost", "bradley-terry", "95 %", "elo", "95 %"),
        right=range(1, 9),
    )
    print()
    print(
        f"{result['games']:,} games on {result['prompts']:,} prompts"
        + "".join(
            f"; {result[name]:,} {said}"
            for name, said in (
                ("unjudged", "rows without a verdict"),
                ("self_play", "rows of a model against itself left out"),
                ("repeated", "repeated rows left out"),
            )
            if result[name]
        )
    )
    noise = max(each["elo"]["ordering_error"] for each in result["players"])
    print(
        "95 %: over prompts. From the order of games alone, Elo's mean has a standard error of "
        f"{noise:.1f} points."
    )
    for each in result["players"]:
        if each["bradley_terry"]["bound"]:
            print(f"{each['player']}: {each['bradley_terry']['bound']}; --ridge 0.1 makes its rating finite")
    for each in result["judges"]:
        name = f"judge {each['judge']}" if each["judge"] else "judge"
        parts = [f"{100 * each['ties']:.1f} % ties"]
        for key, what in (
            ("first", "of wins to the answer shown first"),
            ("flipped", "of winners change when the order is turned"),
        ):
            if each[key]:
                parts.append(f"{_share(each[key])} {what}")
        if each["unjudged"]:
            parts.append(f"{each['unjudged']:,} without a verdict")
        print(f"{name}: {'; '.join(parts)}")
    for each in result["agreement"]:
        names = " and ".join(name or "(no name)" for name in each["judges"])
        if not each["n"]:
            print(f"{names}: no prompt and pair in common")
            continue
        kappa = each["kappa"]
        beyond = (
            ""
            if kappa is None
            else (f", kappa {kappa['estimate']:.2f} ({kappa['low']:.2f} to {kappa['high']:.2f})")
        )
        print(f"{names}: agree on {100 * each['same']:.1f} % of {each['n']:,}{beyond}")
    if result["relative"]:
        print()
        emit_table(
            [
                (
                    each["player"],
                    f"{each['games']:,}",
                    f"{100 * each['estimate']:.1f} %",
                    f"{100 * each['low']:.1f} to {100 * each['high']:.1f}",
                )
                for each in result["relative"]["players"]
            ],
            header=(f"relative to {result['relative']['reference']}", "games", "score", "95 %"),
            right=(1, 2, 3),
        )


def _points(value: float) -> str:
    if math.isnan(value):
        return "?"
    return f"{value:,.0f}" if math.isfinite(value) else "∞" if value > 0 else "-∞"


def _range(found: dict[str, Any]) -> str | None:
    if math.isnan(found["low"]) or math.isnan(found["high"]):
        return None
    return f"{_points(found['low'])} to {_points(found['high'])}"


def _share(found: dict[str, Any]) -> str:
    return f"{100 * found['estimate']:.1f} % ({100 * found['low']:.1f} to {100 * found['high']:.1f})"
