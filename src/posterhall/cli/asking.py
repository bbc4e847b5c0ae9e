"""Options of every command that asks a model, and the model made from them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from posterhall.lm.metered import Meter, Usage
    from posterhall.lm.stack import Connected

# Declared once so that they mean the same everywhere: `def solve(model: Model, cache: Cache = None)`.
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="ADDRESS",
        help="Directory of a model or a run, owner/name on the hub, http://HOST/v1#NAME, replay:LOG, "
        "scripted:FILE, or echo.",
    ),
]
Cache = Annotated[
    str | None,
    typer.Option(
        "--cache",
        metavar="FILE|on|off",
        help="Where answers are kept, so that nothing is asked twice [on for a server, off otherwise].",
    ),
]
Log = Annotated[
    Path | None, typer.Option("--log", metavar="FILE", help="Append each call, for `--model replay:FILE`.")
]
MaxCalls = Annotated[int | None, typer.Option("--max-calls", min=0, help="Most requests to the model.")]
MaxTokensTotal = Annotated[
    int | None, typer.Option("--max-tokens-total", min=0, help="Most tokens, read and generated.")
]
MaxCost = Annotated[
    float | None, typer.Option("--max-cost", metavar="USD", min=0.0, help="Most US dollars to be spent.")
]
MaxSeconds = Annotated[
    float | None, typer.Option("--max-seconds", min=0.0, help="Ask for nothing more after so many seconds.")
]
Concurrency = Annotated[
    int | None, typer.Option("--concurrency", min=1, help="Requests under way at once [64].")
]
ApiKeyEnv = Annotated[
    str | None,
    typer.Option("--api-key-env", metavar="NAME", help="Environment variable with the key [OPENAI_API_KEY]."),
]
Device = Annotated[
    str | None, typer.Option("--device", help="Of a model on this machine: cpu, cuda, ... [cpu].")
]
Dtype = Annotated[
    str | None, typer.Option("--dtype", help="float32, bfloat16 or float16 [the file's], on this machine.")
]


def connect(
    model: str,
    *,
    cache: str | None = None,
    log: Path | None = None,
    max_calls: int | None = None,
    max_tokens_total: int | None = None,
    max_cost: float | None = None,
    max_seconds: float | None = None,
    concurrency: int | None = None,
    api_key_env: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    meter: Meter | None = None,
) -> Connected:
    """The model that the options name; see `posterhall.lm.stack.connect`.

    Raises:
        DataError: if there is no such model.
        UsageError: for options that do not go together.
    """
    from posterhall.lm.metered import Budget
    from posterhall.lm.stack import connect as connect_stack

    options: dict[str, Any] = {
        name: value
        for name, value in (("api_key_env", api_key_env), ("device", device), ("dtype", dtype))
        if value is not None
    }
    budget = Budget(calls=max_calls, tokens=max_tokens_total, cost=max_cost, seconds=max_seconds)
    places: dict[str | None, str | bool | None] = {None: None, "on": True, "off": False}
    return connect_stack(
        model,
        cache=places.get(cache, cache),
        log=log,
        budget=budget if meter is None else None,
        meter=meter,
        concurrency=concurrency,
        **options,
    )


def usage_json(usage: Usage) -> dict[str, Any]:
    """What was spent, for a command's JSON object; a cost is null if a price is unknown."""
    from dataclasses import asdict

    return {**asdict(usage), "cost_without_cache": usage.cost_without_cache}


def usage_line(usage: Usage) -> str:
    """What was spent, in one line."""
    from posterhall.lm.metered import money

    parts = [
        f"{usage.calls:,} calls",
        f"{usage.tokens_in:,} tokens read",
        f"{usage.tokens_out:,} generated",
        money(usage.cost),
    ]
    if usage.failed:
        parts.insert(1, f"{usage.failed:,} failed")
    if usage.tokens_estimated:
        parts.append(f"{usage.tokens_estimated:,} of the tokens estimated")
    if usage.calls_saved:
        instead = money(usage.cost_saved)
        parts.append(f"{usage.calls_saved:,} calls answered from the cache ({instead})")
    return " · ".join(parts)


def warn(message: str) -> None:
    """Say on stderr what is no error but should be known."""
    print(f"warning: {message}", file=sys.stderr)
