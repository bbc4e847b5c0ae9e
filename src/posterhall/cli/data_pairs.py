"""`posterhall data pairs`: preferences from a model's own answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from posterhall.cli import asking
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


def pairs(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="What answers: a directory, a run, a hub id, http://HOST/v1#NAME, ..."
        ),
    ],
    prompts: Annotated[
        list[Path],
        typer.Argument(
            help="Prompts: .jsonl or .parquet with prompt (text, or messages), or text, one a line."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="RUN|FILE.jsonl", help="Run directory, or file of the pairs."),
    ],
    score: Annotated[
        str,
        typer.Option(
            "--score",
            metavar="REWARD",
            help="A reward model's directory or run, lexicon:FILE, length:WORDS, classifier:DIR or "
            "judge:MODEL.",
        ),
    ],
    samples: Annotated[int | None, typer.Option("--samples", "-n", help="Answers to a prompt [4].")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", help="Of the answers [1].")] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", help="Most tokens of an answer [128].")
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option("--stop", help="Text that ends an answer; may be repeated.")
    ] = None,
    text: Annotated[
        bool | None,
        typer.Option(
            "--text/--chat",
            help="Continue a prompt that is a text, or answer it [--chat on a server, --text otherwise].",
        ),
    ] = None,
    label_temperature: Annotated[
        float | None,
        typer.Option(
            "--label-temperature",
            help="Draw labels from the scores, at this temperature [0: the higher wins].",
        ),
    ] = None,
    rows: Annotated[
        str | None, typer.Option("--rows", help="pairs, or rankings of all answers with scores [pairs].")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Only the first so many prompts.")] = None,
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
    threads: Threads = None,
    config: ConfigFile = None,
    sets: Sets = None,
    resume: Resume = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Sample answers from a model, score them, and write all pairs of them, better first.

    Answers to messages are written as messages, for the chat template of the model that is trained on them.
    Limits hold for the model that answers and the one that judges together. What was answered is never
    asked again: --resume goes on. `posterhall train dpo` and `train reward` read what is written.
    """
    from posterhall import config as settings_room
    from posterhall.curation.pairs import PairSettings, collect
    from posterhall.devices import cores, limit_threads
    from posterhall.lm.metered import Budget, Meter, Usage
    from posterhall.lm.stack import is_remote
    from posterhall.train.scorers import scorer

    if text is None and config is None and not any(each.startswith("form") for each in sets or []):
        text = not is_remote(model)
    settings = settings_room.resolve(
        PairSettings,
        file=config,
        sets=sets or (),
        flags={
            "samples": samples,
            "temperature": temperature,
            "max_tokens": max_tokens,
            "stop": tuple(stop) if stop else None,
            "form": None if text is None else "text" if text else "chat",
            "label_temperature": label_temperature,
            "rows": rows,
            "limit": limit,
            "seed": seed,
        },
    )
    limit_threads(threads or cores())
    meter = Meter(Budget(calls=max_calls, tokens=max_tokens_total, cost=max_cost, seconds=max_seconds))
    judge: dict[str, Any] = {
        "cache": {None: None, "on": True, "off": False}.get(cache, cache),
        "meter": meter,
        **({} if api_key_env is None else {"api_key_env": api_key_env}),
    }
    lm = asking.connect(
        model,
        cache=cache,
        log=log,
        concurrency=concurrency,
        api_key_env=api_key_env,
        device=device,
        dtype=dtype,
        meter=meter,
    )
    with lm, scorer(score, device=device or "cpu", **judge) as scored:
        result = collect(lm, scored, prompts, settings, out=out, resume=resume, quiet=quiet, warn=asking.warn)
    usage, judging = Usage(**result["usage"]), Usage(**result["judging"])
    if json:
        spent = {"usage": asking.usage_json(usage), "judging": asking.usage_json(judging)}
        emit_json({**result, **spent})
        return
    lines: list[tuple[str, object]] = [
        (settings.rows, result["pairs"]),
        (
            "written",
            f"{result['rows']:,} from {result['answers']:,} answers to {result['prompts']:,} prompts",
        ),
    ]
    lines += [
        (name, "; ".join(f"{n:,} {reason}" for reason, n in result[name].items()))
        for name in ("refused", "dropped")
        if result[name]
    ]
    if result["failed"]:
        lines.append(("failed", f"{result['failed']:,} prompts that the model refuses"))
    if result["cut"]:
        lines.append(("cut", f"{result['cut']:,} answers, at {settings.max_tokens:,} tokens"))
    lines.append(("spent", asking.usage_line(usage)))
    if judging.calls:
        lines.append(("judging", asking.usage_line(judging)))
    emit_table(lines)
