"""`posterhall train reward`: a reward model from preferences."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

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
    Epochs,
    EvalEvery,
    Steps,
    Tensorboard,
    tell,
    within,
)


def reward(
    model: Annotated[
        str, typer.Argument(help="The model to begin as: a directory, a run, or an id of the hub.")
    ],
    pairs: Annotated[
        list[str],
        typer.Argument(help="Preferences: .jsonl, .parquet; prompt, chosen and rejected, or HH, SHP, ..."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Run directory; the model is artifacts/model.")],
    held_out: Annotated[
        list[str] | None, typer.Option("--eval", help="Held-out preferences; may be repeated.")
    ] = None,
    eval_fraction: Annotated[
        float | None, typer.Option("--eval-fraction", help="Without --eval: prompts to hold out [0.05].")
    ] = None,
    eval_every: EvalEvery = None,
    margin: Annotated[
        float | None, typer.Option("--margin", help="By how much a chosen answer should win [0].")
    ] = None,
    centring: Annotated[
        float | None, typer.Option("--centring", help="Weight of the rewards' distance from 0 [0.01].")
    ] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Peak learning rate [1e-4].")] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", help="Comparisons a pass, over all processes [8].")
    ] = None,
    accumulate: Annotated[int | None, typer.Option("--accumulate", help="Passes a step [8].")] = None,
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

    Afterwards its rewards have mean 0 over the data. All other settings (score_margin, boundary, too_long,
    warmup, ...) go through --set.
    """
    from posterhall import config as settings_room
    from posterhall.train.reward_settings import RewardSettings

    settings = settings_room.resolve(
        RewardSettings,
        file=config,
        sets=sets or (),
        flags={
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
        ("model", result["model"]),
        (
            "preferences",
            f"{result['comparisons']:,} comparisons of {result['answers']:,} answers to "
            f"{result['prompts']:,} prompts; {result['contradictions']:,} contradict another",
        ),
    ]
    if result["refused"]:
        lines.append(("refused", "; ".join(f"{n:,} {reason}" for reason, n in result["refused"].items())))
    if result["cut_prompts"]:
        lines.append(("cut", f"the beginning of {result['cut_prompts']:,} prompts"))
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
