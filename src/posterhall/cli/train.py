"""`posterhall train`: models from data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from posterhall.cli import train_dpo, train_ppo, train_reward, train_sft
from posterhall.cli.output import (
    ConfigFile,
    Json,
    Quiet,
    Resume,
    Seed,
    Sets,
    Threads,
)
from posterhall.cli.training import (
    CheckpointSeconds,
    Device,
    Dtype,
    EvalEvery,
    Steps,
    Tensorboard,
    tell,
    within,
)

app = typer.Typer(help="Train language models.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Train language models."""


@app.command()
def lm(
    text: Annotated[
        list[str],
        typer.Argument(help="Plain text, .jsonl, .parquet (+ .gz, .zst); directories and patterns too."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Run directory; the model is artifacts/model.")],
    held_out: Annotated[
        list[str] | None, typer.Option("--eval", help="Held-out text; may be repeated.")
    ] = None,
    eval_fraction: Annotated[
        float | None, typer.Option("--eval-fraction", help="Without --eval: share to hold out [0.05].")
    ] = None,
    eval_every: EvalEvery = None,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="byte, bpe:N (learnt), or a tokenizer.json [byte].")
    ] = None,
    dim: Annotated[int | None, typer.Option("--dim", help="Width [256].")] = None,
    layers: Annotated[int | None, typer.Option("--layers", help="Blocks [4].")] = None,
    heads: Annotated[int | None, typer.Option("--heads", help="Query heads [4].")] = None,
    kv_heads: Annotated[int | None, typer.Option("--kv-heads", help="Key and value heads [as many].")] = None,
    context: Annotated[int | None, typer.Option("--context", help="Tokens a row [256].")] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", help="Rows a pass, over all processes [32].")
    ] = None,
    accumulate: Annotated[int | None, typer.Option("--accumulate", help="Passes a step [1].")] = None,
    epochs: Annotated[
        float | None, typer.Option("--epochs", help="Length in passes over the text [1].")
    ] = None,
    steps: Steps = None,
    tokens: Annotated[str | None, typer.Option("--tokens", help="Length in tokens, as 5e6.")] = None,
    unique_tokens: Annotated[
        str | None, typer.Option("--unique-tokens", help="Use only that many tokens of the text.")
    ] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Peak learning rate [6e-4].")] = None,
    schedule: Annotated[
        str | None, typer.Option("--schedule", help="cosine, linear, constant or wsd [cosine].")
    ] = None,
    dtype: Dtype = None,
    seed: Seed = None,
    init: Annotated[
        Path | None, typer.Option("--init", help="Go on from a model's directory, with its tokeniser.")
    ] = None,
    device: Device = None,
    threads: Threads = None,
    shard: Annotated[
        bool, typer.Option("--shard", help="Under torchrun: divide the weights too (FSDP2).")
    ] = False,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Keep tokenised text here, for several runs.")
    ] = None,
    checkpoint_seconds: CheckpointSeconds = 300.0,
    tensorboard: Tensorboard = False,
    resume: Resume = False,
    config: ConfigFile = None,
    sets: Sets = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a decoder on text and save it as transformers loads it (Llama's architecture, or Mamba's).

    All other settings (mixers, weight_decay, warmup, clip, packing, dropout, keep, ...) go through --set.
    Under torchrun the same command trains on several processes.
    """
    from posterhall import config as settings_room
    from posterhall.train.lm_settings import LmSettings

    settings = settings_room.resolve(
        LmSettings,
        file=config,
        sets=sets or (),
        flags={
            "eval_fraction": eval_fraction,
            "eval_every": eval_every,
            "tokenizer": tokenizer,
            "dim": dim,
            "layers": layers,
            "heads": heads,
            "kv_heads": kv_heads,
            "context": context,
            "batch": batch,
            "accumulate": accumulate,
            "epochs": epochs,
            "steps": steps,
            "tokens": tokens,
            "unique_tokens": unique_tokens,
            "lr": lr,
            "schedule": schedule,
            "dtype": dtype,
            "seed": seed,
        },
    )

    with within(threads):
        from posterhall.train.lm import train_lm  # torch, which takes its number of threads on loading

        result = train_lm(
            settings,
            [Path(each) for each in text],
            out,
            held_out=[Path(each) for each in held_out or ()],
            init=init,
            device=device,
            cache=cache,
            checkpoint_seconds=checkpoint_seconds,
            tensorboard=tensorboard,
            shard=shard,
            resume=resume,
            quiet=quiet,
        )
    tell(result, _lines, json=json)


app.command()(train_sft.sft)
app.command()(train_dpo.dpo)
app.command()(train_reward.reward)
app.command()(train_ppo.ppo)


def _lines(result: dict[str, object]) -> list[tuple[str, str]]:
    from posterhall.progress import duration, quantity

    def number(name: str) -> float:
        value = result[name]
        assert isinstance(value, int | float)  # noqa: S101 - for the type checker
        return value

    lines = [
        ("model", str(result["model"])),
        (
            "parameters",
            f"{number('params'):,} ({number('params_non_embedding'):,} without embeddings), "
            f"{number('vocab_size'):,} tokens ({result['tokenizer']})",
        ),
        (
            "trained",
            f"{number('tokens'):,} tokens in {number('steps'):,} steps, "
            f"{number('tokens') / number('text_tokens'):.3g} times the text's {number('text_tokens'):,}",
        ),
        ("train loss", f"{number('train_loss'):.4f} nats/token"),
    ]
    if result["loss"] is not None:
        bits = f", {number('bits_per_byte'):.4f} bits/byte" if result["bits_per_byte"] is not None else ""
        best = (
            ""
            if result["best_step"] == result["steps"]
            else (f"; best {number('best_loss'):.4f} at step {number('best_step'):,}")
        )
        lines.append(("held-out loss", f"{number('loss'):.4f} nats/token{bits}{best}"))
    lines += [
        ("speed", f"{quantity(number('tokens_per_second'))} tokens/s, {duration(number('seconds'))}"),
        ("run", str(result["run"])),
    ]
    return lines
