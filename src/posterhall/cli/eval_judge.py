"""`posterhall eval judge`: a model says which of two answers is better."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from posterhall.cli import asking
from posterhall.cli.output import ConfigFile, Json, Quiet, Resume, Seed, Sets, emit_json, emit_table
from posterhall.errors import UsageError


def judge(
    answers: Annotated[
        list[Path],
        typer.Argument(
            metavar="ANSWERS...",
            help="A JSONL file for each of two or more models: id, answer (or reply), and question.",
        ),
    ],
    model: asking.Model,
    questions: Annotated[
        Path | None,
        typer.Option("--questions", metavar="FILE", help="Rows with id, question and perhaps category."),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--name", help="Of each model, in order; may be repeated [the rows', or the file's]."),
    ] = None,
    scores: Annotated[
        bool, typer.Option("--scores", help="Ask for scores from 1 to 10 in place of a verdict.")
    ] = False,
    temperature: Annotated[float | None, typer.Option("--temperature", help="Of the judge [0.2].")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", help="Of a reply [1024].")] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Only the first so many questions.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="RUN", help="Run directory.")] = None,
    cache: asking.Cache = None,
    log: asking.Log = None,
    max_calls: asking.MaxCalls = None,
    max_tokens_total: asking.MaxTokensTotal = None,
    max_cost: asking.MaxCost = None,
    max_seconds: asking.MaxSeconds = None,
    concurrency: asking.Concurrency = None,
    api_key_env: asking.ApiKeyEnv = None,
    device: asking.Device = None,
    dtype: asking.Dtype = None,
    seed: Seed = None,
    config: ConfigFile = None,
    sets: Sets = None,
    resume: Resume = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Have a model compare the answers of two or more models, question by question, each pair in both orders.

    Replies in which no verdict can be read are counted and never guessed. `eval arena RUN` rates the models.
    """
    from posterhall import config as settings_room
    from posterhall.evals.judge import jobs
    from posterhall.evals.judge.answers import load

    settings = settings_room.resolve(
        jobs.JudgeSettings,
        file=config,
        sets=sets or [],
        flags={
            "form": "scores" if scores else None,
            "temperature": temperature,
            "max_tokens": max_tokens,
            "limit": limit,
            "seed": seed,
        },
    )
    if resume and out is None:
        raise UsageError("--resume goes on with a run; name its directory with -o")
    asked, found = load(answers, questions=questions, names=name or None)
    lm = asking.connect(
        model,
        cache=cache,
        log=log,
        max_calls=max_calls,
        max_tokens_total=max_tokens_total,
        max_cost=max_cost,
        max_seconds=max_seconds,
        concurrency=concurrency,
        api_key_env=api_key_env,
        device=device,
        dtype=dtype,
    )
    with lm:
        inputs = [*answers, *([questions] if questions else []), *([lm.source] if lm.source else [])]
        result = jobs.judge(lm, asked, found, settings, out=out, inputs=inputs, resume=resume, quiet=quiet)
        spent = asking.usage_line(lm.usage)
    if json:
        emit_json(result)
        return
    _show(result)
    print(spent)
    if result["run"]:
        print(f"run: {result['run']}")


def _show(result: dict[str, Any]) -> None:
    emit_table(
        [
            (
                each["model_a"],
                each["model_b"],
                f"{each['questions']:,}",
                f"{each['a']:,}",
                f"{each['b']:,}",
                f"{each['tie']:,}",
                f"{each['changed']:,}",
                None if each["share"] is None else f"{100 * each['share']:.1f} %",
                None if each["share"] is None else f"{100 * each['low']:.1f} to {100 * each['high']:.1f}",
            )
            for each in result["pairs"]
        ],
        header=("a", "b", "questions", "a better", "b better", "tie", "order decides", "a's share", "95 %"),
        right=range(2, 9),
    )
    print()
    print(
        f"judge {result['judge']}: {result['comparisons']:,} comparisons, {result['unread']:,} replies "
        f"without a verdict, {result['failed']:,} refused"
    )
    if result["cut"]:
        print(f"cut off at the limit of tokens: {result['cut']:,} replies; --max-tokens raises it")
    position = result["position"]
    for key, what in (
        ("first", "of wins to the answer shown first"),
        ("flipped", "of winners change when the order is turned"),
    ):
        if position[key]:
            print(f"{_share(position[key])} {what}")
    if result["relative"]:
        for each in result["relative"]["players"]:
            print(f"score of {each['player']} relative to {result['relative']['reference']}: {_share(each)}")


def _share(found: dict[str, Any]) -> str:
    return f"{100 * found['estimate']:.1f} % ({100 * found['low']:.1f} to {100 * found['high']:.1f})"
