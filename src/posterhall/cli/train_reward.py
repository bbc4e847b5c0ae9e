"""`posterhall train reward`: a reward model from preferences."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from posterhall.cli.output import ConfigFile, Json, Quiet, Resume, Seed, Sets, Threads
from posterhall.cli.training import (
    Accumulate,
    CheckpointSeconds,
    Comparisons,
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
    Pairs,
    Quantize,
    Steps,
    Tensorboard,
    left_out,
    tell,
    within,
)


def reward(
    model: Model,
    pairs: Pairs,
    out: Out,
    quantize: Quantize = None,
    lora_rank: LoraRank = None,
    lora_alpha: LoraAlpha = None,
    lora_targets: LoraTargets = None,
    held_out: HeldOut = None,
    eval_fraction: EvalFraction = None,
    eval_every: EvalEvery = None,
    margin: Annotated[
        float | None, typer.Option("--margin", help="By how much a chosen answer should win [0].")
    ] = None,
    centring: Annotated[
        float | None, typer.Option("--centring", help="Weight of the rewards' distance from 0 [0.01].")
    ] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Peak learning rate [1e-4].")] = None,
    batch: Comparisons = None,
    accumulate: Accumulate = None,
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
    """Train a reward model: a number for an answer, from which of two is better.

    A model that is an adapter is trained on; --lora-rank puts a new one on a model. Afterwards rewards have
    mean 0 over the data. All other settings (score_margin, boundary, too_long, warmup, ...) go through --set.
    """
    from posterhall import config as settings_room
    from posterhall.train.reward_settings import RewardSettings

    settings = settings_room.resolve(
        RewardSettings,
        file=config,
        sets=sets or (),
        flags={
            "quantize": quantize,
            "lora_rank": lora_rank,
            "lora_alpha": lora_alpha,
            "lora_targets": lora_targets,
            "eval_fraction": eval_fraction,
            "eval_every": eval_every,
            "margin": margin,
            "centring": centring,
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
        from posterhall.train.reward import train_reward  # torch, which takes its threads on loading

        result = train_reward(
            settings,
            model,
            [Path(each) for each in pairs],
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

    lines = [
        (result["saved"], result["model"]),
        ("parameters", f"{result['params_trained']:,} trained of {result['params']:,}"),
        (
            "preferences",
            f"{result['comparisons']:,} comparisons of {result['answers']:,} answers to "
            f"{result['prompts']:,} prompts; {result['contradictions']:,} contradict another",
        ),
    ]
    lines += left_out(result)
    lines += [
        ("trained", f"{result['seen']:,} comparisons in {result['steps']:,} steps"),
        ("train loss", f"{result['train_loss']:.4f} (a coin: 0.6931)"),
    ]
    if result["eval"] is not None:
        told = result["eval"]
        lines.append(
            (
                "held out",
                f"{told['accuracy']:.3f} of {result['eval_comparisons']:,} in order; nll {told['nll']:.4f}, "
                f"Brier {told['brier']:.4f}, calibration error {told['ece']:.4f}",
            )
        )
    lines += [
        (
            "rewards",
            f"mean 0 (shifted by {-result['reward_offset']:.4g}), deviation {result['reward_std']:.4g}",
        ),
        (
            "speed",
            f"{quantity(result['comparisons_per_second'])} comparisons/s, {duration(result['seconds'])}",
        ),
        ("run", result["run"]),
    ]
    return lines
