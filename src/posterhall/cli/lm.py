"""`posterhall lm`: ask language models, one question or the same of many documents."""

from __future__ import annotations

import sys
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
    printable,
)
from posterhall.errors import DataError, UsageError

app = typer.Typer(
    help="Ask language models: one question, or the same of many documents.", no_args_is_help=True
)

System = Annotated[str | None, typer.Option("--system", help="What a chat model is told first.")]
Text = Annotated[
    bool | None,
    typer.Option(
        "--text/--chat", help="Continue the prompt, or answer it [--chat on a server, --text otherwise]."
    ),
]
PromptFile = Annotated[
    Path | None, typer.Option("--prompt-file", metavar="FILE|-", help="The same from a file or stdin.")
]
MaxTokens = Annotated[int | None, typer.Option("--max-tokens", help="Most tokens of a reply [256].")]
Samples = Annotated[int | None, typer.Option("--samples", "-n", help="Replies to a prompt [1].")]
Temperature = Annotated[
    float | None, typer.Option("--temperature", help="0 takes the likeliest token each time [0].")
]
Stop = Annotated[list[str] | None, typer.Option("--stop", help="Text that ends a reply; may be repeated.")]


@app.command("map")
def map_(
    documents: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="DOCS...", help="JSON lines, Parquet or plain text, also .gz and .zst; files or folders."
        ),
    ] = None,
    model: asking.Model = "",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="RUN|FILE.jsonl", help="Run directory, or file of the replies."),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", "-p", help="With fields of a document, as '{text}'; {{ for a brace."),
    ] = None,
    prompt_file: PromptFile = None,
    system: System = None,
    text: Text = None,
    max_tokens: MaxTokens = None,
    samples: Samples = None,
    temperature: Temperature = None,
    stop: Stop = None,
    parse: Annotated[
        str | None,
        typer.Option(
            "--parse",
            metavar="HOW",
            help="Value of a reply: none, answer, json, classes:yes,no or integer:0-5 [none].",
        ),
    ] = None,
    schema: Annotated[
        Path | None, typer.Option("--schema", metavar="FILE", help="JSON Schema of a reply; --parse json.")
    ] = None,
    uid_field: Annotated[
        str | None, typer.Option("--uid-field", help="Field that names a document [its file and line].")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Only the first so many documents.")] = None,
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
    """Ask a model the same of many documents, once each, whatever happens in between.

    Replies are kept as they come, and end up in the order of the documents, one JSON object a line.
    """
    from posterhall import config as settings_room
    from posterhall.devices import cores, limit_threads
    from posterhall.lm.mapping import MapSettings, run
    from posterhall.lm.stack import is_remote

    if not documents:
        raise UsageError("no documents: name one or more files or folders")
    if out is None:
        raise UsageError("give -o for the replies: a directory, or a file that ends in .jsonl")
    if prompt is not None and prompt_file is not None:
        raise UsageError("give either --prompt TEXT or --prompt-file FILE (- is standard input)")
    if prompt_file is not None:
        prompt = _read(prompt_file)
    if text is None and not any(each.partition("=")[0].strip() == "form" for each in sets or []):
        text = None if config is not None else not is_remote(model)
    settings = settings_room.resolve(
        MapSettings,
        file=config,
        sets=sets or [],
        flags={
            "prompt": prompt,
            "system": system,
            "form": None if text is None else "text" if text else "chat",
            "max_tokens": max_tokens,
            "temperature": temperature,
            "stop": tuple(stop) if stop else None,
            "n": samples,
            "seed": seed,
            "parse": parse,
            "schema": None if schema is None else _read(schema),
            "uid_field": uid_field,
            "limit": limit,
        },
    )
    limit_threads(threads or cores())
    with _connect(
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
    ) as lm:
        result = run(lm, documents, settings, out=out, resume=resume, quiet=quiet)
    from posterhall.lm.metered import Usage

    usage = Usage(**result["usage"])
    if json:
        emit_json({**result, "usage": asking.usage_json(usage)})
        return
    rows: list[tuple[str, object]] = [
        ("replies", result["replies"]),
        ("documents", f"{result['documents']:,}"),
    ]
    if result["failed"]:
        rows.append(("failed", f"{result['failed']:,} (rows with error)"))
    if result["unread"] is not None:
        found = ", ".join(f"{name} {count:,}" for name, count in result["how"].items())
        rows += [("read", found), ("unread", f"{result['unread']:,}")]
    rows.append(("spent", asking.usage_line(usage)))
    emit_table(rows)


@app.command()
def ask(
    prompt: Annotated[str | None, typer.Argument(help="What is asked; without it, --prompt-file.")] = None,
    model: asking.Model = "",
    prompt_file: PromptFile = None,
    system: System = None,
    text: Text = None,
    max_tokens: MaxTokens = None,
    samples: Samples = None,
    temperature: Temperature = None,
    stop: Stop = None,
    cache: asking.Cache = None,
    log: asking.Log = None,
    api_key_env: asking.ApiKeyEnv = None,
    device: asking.Device = None,
    dtype: asking.Dtype = None,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Ask a model one thing and print what it says."""
    if (prompt is None) == (prompt_file is None):
        raise UsageError("give either a prompt or --prompt-file FILE (- is standard input)")
    from dataclasses import asdict

    from posterhall.lm.mapping import MapSettings
    from posterhall.lm.stack import is_remote

    asked = _read(prompt_file) if prompt_file is not None else prompt or ""
    form = "text" if (not is_remote(model) if text is None else text) else "chat"
    settings = MapSettings(
        prompt="{text}",
        system=system,
        form=form,  # type: ignore[arg-type]
        max_tokens=256 if max_tokens is None else max_tokens,
        temperature=0.0 if temperature is None else temperature,
        stop=tuple(stop or ()),
        n=1 if samples is None else samples,
        seed=seed or 0,
    )
    with _connect(model, cache=cache, log=log, api_key_env=api_key_env, device=device, dtype=dtype) as lm:
        [found] = lm.generate([settings.request(asked)])
        usage = lm.usage
    if json:
        emit_json(
            {"model": lm.name, "samples": [asdict(each) for each in found], "usage": asking.usage_json(usage)}
        )
        return
    for number, sample in enumerate(found, 1):
        if len(found) > 1:
            print(f"--- {number}")
        for line in sample.text.split("\n"):
            print(printable(line.replace("\t", "    ")))
        if sample.finish_reason != "stop":
            print(f"({sample.finish_reason} after {sample.tokens_out} tokens)", file=sys.stderr)


@app.command("cache")
def cache_(
    path: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="The cache [the one that commands use].")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Drop what is in it.")] = False,
    older: Annotated[
        float | None, typer.Option("--older", metavar="DAYS", help="With --clear: only what is older.")
    ] = None,
    json: Json = False,
) -> None:
    """Show the cache of answers, or clear it."""
    import time

    from posterhall.lm.stack import default_cache
    from posterhall.lm.store import Store
    from posterhall.progress import size

    if older is not None and not clear:
        raise UsageError("--older says what --clear drops; give both")
    place = default_cache() if path is None else path
    if path is not None and not path.exists():
        raise DataError(f"{path}: no such file")
    store = Store(place)
    dropped = None
    if clear:
        dropped = store.clear(before=None if older is None else time.time() - older * 86400)
    found = store.contents()
    store.close()
    if json:
        emit_json(
            {
                "path": place,
                "answers": found.answers,
                "bytes": found.bytes,
                "oldest": _day(found.oldest),
                "newest": _day(found.newest),
                "dropped": dropped,
            }
        )
        return
    rows: list[tuple[str, object]] = [
        ("cache", place),
        ("answers", f"{found.answers:,}"),
        ("size", size(found.bytes)),
    ]
    if found.oldest is not None:
        rows.append(("made", f"{_day(found.oldest)} to {_day(found.newest)}"))
    if dropped is not None:
        rows.append(("dropped", f"{dropped:,}"))
    emit_table(rows)


@app.command()
def prices(json: Json = False) -> None:
    """Show what tokens of models cost, and where to correct it."""
    from dataclasses import asdict

    from posterhall.lm.prices import table, user_file

    found = table()
    if json:
        emit_json({"own": user_file(), "prices": {name: asdict(each) for name, each in found.items()}})
        return
    emit_table(
        [
            (name, f"{each.input:g}", _rate(each.cached_input), f"{each.output:g}", each.as_of)
            for name, each in found.items()
        ],
        header=("model", "input", "cached", "output", "as of"),
        right=(1, 2, 3),
    )
    print()
    print(
        f"US dollars a million tokens. Your own: {user_file()}, lines as 'name: {{input: 0.5, output: 1.5}}'"
    )


def _connect(model: str, **options: Any) -> Any:
    if not model:
        raise UsageError("give --model: a directory, a hub id, http://HOST/v1#NAME, replay:LOG, or echo")
    return asking.connect(model, **options)


def _read(path: Path) -> str:
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        return data.decode("utf-8")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; convert it first") from None


def _rate(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"


def _day(seconds: int | None) -> str | None:
    import datetime

    return (
        None if seconds is None else datetime.datetime.fromtimestamp(seconds, datetime.UTC).date().isoformat()
    )
