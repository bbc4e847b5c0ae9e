"""`posterhall train sft`: a model from conversations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from posterhall.cli.output import ConfigFile, Json, Quiet, Resume, Seed, Sets, Threads
from posterhall.cli.training import (
    CheckpointSeconds,
    Device,
    Dtype,
    Epochs,
    EvalEvery,
    EvalFraction,
    HeldOut,
    LoraAlpha,
    LoraRank,
    LoraTargets,
    Model,
    Out,
    Quantize,
    Steps,
    Tensorboard,
    tell,
    within,
)


def sft(
    model: Model,
    chats: Annotated[
        list[str],
        typer.Argument(help="Conversations: .jsonl, .parquet; messages, prompt and completion, ..."),
    ],
    out: Out,
    quantize: Quantize = None,
    lora_rank: LoraRank = None,
    lora_alpha: LoraAlpha = None,
    lora_targets: LoraTargets = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="Settings of published runs: guanaco. Others win.")
    ] = None,
    held_out: HeldOut = None,
    eval_fraction: EvalFraction = None,
    eval_every: EvalEvery = None,
    max_length: Annotated[
        int | None, typer.Option("--max-length", help="Longest conversation, in tokens [the model's].")
    ] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Peak learning rate [2e-4].")] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", help="Conversations a pass, over all processes [4].")
    ] = None,
    accumulate: Annotated[int | None, typer.Option("--accumulate", help="Passes a step [4].")] = None,
    epochs: Epochs = None,
    steps: Steps = None,
    dtype: Dtype = None,
    seed: Seed = None,
    device: Device = None,
    threads: Threads = None,
    checkpoint_seconds: CheckpointSeconds = 300.0,
    tensorboard: Tensorboard = False,
    resume: Resume = False,
    config: ConfigFile = None,
    sets: Sets = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a model on conversations: all of its weights, or an adapter, over quantised ones (QLoRA).

    Conversations take the form of the model's chat template, and only answers are learnt. All other settings
    (too_long, learn_from, paged, memory_budget, gradient_checkpointing, ...) go through --set.
    """
    from posterhall import config as settings_room
    from posterhall.errors import UsageError, did_you_mean
    from posterhall.train.sft_settings import PRESETS, SftSettings

    if preset is not None and preset not in PRESETS:
        raise UsageError(
            f"no preset '{preset}'; there is {', '.join(PRESETS)}.{did_you_mean(preset, PRESETS)}"
        )
    settings = settings_room.resolve(
        SftSettings if preset is None else PRESETS[preset],
        file=config,
        # A preset's length is in steps; one in epochs is meant instead of it.
        sets=[*(["steps=none"] if preset and epochs is not None else []), *(sets or ())],
        flags={
            "quantize": quantize,
            "lora_rank": lora_rank,
            "lora_alpha": lora_alpha,
            "lora_targets": lora_targets,
            "eval_fraction": eval_fraction,
            "eval_every": eval_every,
            "max_length": max_length,
            "lr": lr,
            "batch": batch,
            "accumulate": accumulate,
            "epochs": epochs,
            "steps": steps,
            "dtype": dtype,
            "seed": seed,
        },
    )
    with within(threads):
        from posterhall.train.sft import train_sft  # torch, which takes its number of threads on loading

        result = train_sft(
            settings,
            model,
            [Path(each) for each in chats],
            out,
            held_out=[Path(each) for each in held_out or ()],
            device=device,
            checkpoint_seconds=checkpoint_seconds,
            tensorboard=tensorboard,
            resume=resume,
            quiet=quiet,
        )
    tell(result, _lines, json=json)


def _lines(result: dict[str, Any]) -> list[tuple[str, str]]:
    from posterhall.progress import duration, quantity

    form = f" ({result['quantize']})" if result["quantize"] else ""
    lines = [
        (result["saved"], result["model"]),
        (
            "parameters",
            f"{result['params_trained']:,} trained of {result['params']:,} of {result['base']}{form}",
        ),
        (
            "data",
            f"{result['conversations']:,} conversations, {result['answer_tokens']:,} of "
            f"{result['tokens']:,} tokens to be learnt ({result['template']} chat template)",
        ),
    ]
    if result["refused"]:
        lines.append(("refused", "; ".join(f"{n:,} {reason}" for reason, n in result["refused"].items())))
    if result["cut"]:
        lines.append(("cut", f"{result['cut']:,} conversations"))
    lines += [
        ("trained", f"{result['seen']:,} tokens of answers in {result['steps']:,} steps"),
        ("train loss", f"{result['train_loss']:.4f} nats/token"),
    ]
    if result["loss"] is not None:
        best = ""
        if result["best_step"] != result["steps"]:
            best = f"; best {result['best_loss']:.4f} at step {result['best_step']:,}"
        lines.append(("held-out loss", f"{result['loss']:.4f} nats/token{best}"))
    lines += [
        ("speed", f"{quantity(result['tokens_per_second'])} tokens/s, {duration(result['seconds'])}"),
        ("run", result["run"]),
    ]
    return lines
