"""`posterhall train dpo`: a model from preferences."""

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


def dpo(
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
    loss: Annotated[
        str | None,
        typer.Option(
            "--loss",
            help="dpo, robust, ipo, hinge, plackett_luce, kto, simpo, orpo, preferred_ft, unlikelihood "
            "[dpo].",
        ),
    ] = None,
    beta: Annotated[float | None, typer.Option("--beta", help="Tie to the reference [0.1].")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Peak learning rate [1e-6].")] = None,
    batch: Comparisons = None,
    accumulate: Accumulate = None,
    epochs: Epochs = None,
    steps: Steps = None,
    dtype: Dtype = None,
    seed: Seed = None,
    device: Device = None,
    threads: Threads = None,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Keep the reference's answers here, for several runs.")
    ] = None,
    checkpoint_seconds: CheckpointSeconds = 300.0,
    tensorboard: Tensorboard = False,
    resume: Resume = False,
    config: ConfigFile = None,
    sets: Sets = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model on preferences (DPO and its rivals); its reference is itself, before.

    A model that is an adapter is trained on; --lora-rank puts a new one on a model. All other settings
    (label_smoothing, boundary, too_long, warmup, optimiser, ...) go through --set. logp_chosen may fall while
    the model gets better: the margin to logp_rejected is what is trained.
    """
    from posterhall import config as settings_room
    from posterhall.train.dpo_settings import DpoSettings

    settings = settings_room.resolve(
        DpoSettings,
        file=config,
        sets=sets or (),
        flags={
            "quantize": quantize,
            "lora_rank": lora_rank,
            "lora_alpha": lora_alpha,
            "lora_targets": lora_targets,
            "eval_fraction": eval_fraction,
            "eval_every": eval_every,
            "loss": loss,
            "beta": beta,
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
        from posterhall.train.dpo import train_dpo  # torch, which takes its number of threads on loading

        result = train_dpo(
            settings,
            model,
            [Path(each) for each in pairs],
            out,
            held_out=[Path(each) for each in held_out or ()],
            device=device,
            cache=cache,
            checkpoint_seconds=checkpoint_seconds,
            tensorboard=tensorboard,
            resume=resume,
            quiet=quiet,
        )
    tell(result, _lines, json=json)


def _lines(result: dict[str, Any]) -> list[tuple[str, str]]:
    from posterhall.progress import duration, quantity

    def told(of: dict[str, float]) -> str:
        said = [f"{name} {of[name]:.4g}" for name in of]
        return f"  ({', '.join(said)})" if said else ""

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
    lines.append(("trained", f"{result['seen']:,} comparisons in {result['steps']:,} steps"))
    if result["start_loss"] is not None:
        lines.append(("start", f"DPO's loss {result['start_loss']:.7f} (ln 2 is 0.6931472)"))
    lines.append(("train loss", f"{result['train_loss']:.4f}{told(result['train'])}"))
    if result["loss"] is not None:
        lines.append(("held-out loss", f"{result['loss']:.4f}{told(result['eval'])}"))
    lines += [
        (
            "speed",
            f"{quantity(result['comparisons_per_second'])} comparisons/s, {duration(result['seconds'])}",
        ),
        ("run", result["run"]),
    ]
    return lines
