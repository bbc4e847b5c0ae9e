"""`posterhall eval slices`: perplexity on what could be recalled from the context, and on the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from posterhall.cli.output import (
    ConfigFile,
    Json,
    Quiet,
    Seed,
    Sets,
    Threads,
    emit_json,
    emit_table,
)


def slices(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Directory of a model or a run, or owner/name on the hub.")
    ],
    corpus: Annotated[list[Path], typer.Argument(metavar="CORPUS...", help="Text to be scored.")],
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against", metavar="MODEL", help="Another model on the same tokenizer; may be repeated."
        ),
    ] = None,
    train: Annotated[
        list[Path] | None,
        typer.Option(
            "--train", metavar="FILE|DIR", help="Training text, whose pairs are counted; may be repeated."
        ),
    ] = None,
    context: Annotated[int | None, typer.Option("--context", help="Most tokens of a context [1024].")] = None,
    tokens: Annotated[int | None, typer.Option("--tokens", help="Most tokens of the text [all].")] = None,
    cap: Annotated[
        int | None,
        typer.Option("--cap", help="Most occurrences of a hit's pair in --train [1250 for 10^10 tokens]."),
    ] = None,
    control: Annotated[
        int | None,
        typer.Option("--control", help="Hits to score again without the first occurrence of their pair [0]."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="RUN", help="Run directory.")] = None,
    device: Annotated[str, typer.Option("--device", help="Of the models: cpu, cuda, ...")] = "cpu",
    seed: Seed = None,
    threads: Threads = None,
    config: ConfigFile = None,
    sets: Sets = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tell perplexity on hits of associative recall from that on other tokens.

    A hit is a token that ends a pair of neighbours which was there before in the context, and is rare in the
    training text.
    """
    from posterhall import config as settings_room
    from posterhall.devices import cores, limit_threads
    from posterhall.evals.recall.sliced import SliceSettings, evaluate

    limit_threads(threads or cores())
    settings = settings_room.resolve(
        SliceSettings,
        file=config,
        sets=sets or [],
        flags={"context": context, "tokens": tokens, "cap": cap, "control": control, "seed": seed},
    )
    result = evaluate(
        [model, *(against or [])], corpus, settings, train=train or [], device=device, out=out, quiet=quiet
    )
    if json:
        emit_json(result)
        return
    _show(result)


def _show(result: dict[str, Any]) -> None:
    emit_table(
        [
            (each["model"], *(_number(each[name]["perplexity"]) for name in ("all", "hits", "others")))
            for each in result["models"]
        ],
        header=("model", "perplexity", "of hits", "of others"),
        right=(1, 2, 3),
    )
    print()
    cap = "" if result["cap"] is None else f", of pairs seen at most {result['cap']:,} times in training"
    print(f"hits: {100 * result['hits']:.1f} % of {result['tokens']:,} tokens{cap}")
    for gap in result["gaps"]:
        told = (
            f"share undefined: {gap['why']}"
            if gap["share"] is None
            else f"{100 * gap['share']:.1f} % in hits"
        )
        print(f"gap of {gap['worse']} to {gap['better']}: {gap['nats']:.4f} nats a token, {told}")
    for each in result["models"]:
        if each["control"]:
            found = each["control"]
            print(
                f"control of {each['model']}: {found['hits']:,} hits cost {found['nll']:.3f} nats each, and "
                f"{found['nll_without']:.3f} without the first occurrence of their pair"
            )
    if result["run"]:
        print()
        print(f"run: {result['run']}")


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"
