"""`posterhall train ppo`: a model from a reward."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from posterhall.cli import asking
from posterhall.cli.output import ConfigFile, Json, Quiet, Resume, Seed, Sets, Threads
from posterhall.cli.training import (
    Accumulate,
    CheckpointSeconds,
    Device,
    Dtype,
    EvalEvery,
    EvalFraction,
    HeldOut,
    LoraAlpha,
    LoraRank,
    LoraTargets,
    Model,
    Out,
    Quantize,
    Tensorboard,
    left_out,
    tell,
    within,
)


def ppo(
    model: Model,
    prompts: Annotated[
        list[str],
        typer.Argument(
            help="Prompts: .jsonl or .parquet with prompt (text, or messages), or text, one a line."
        ),
    ],
    out: Out,
    reward: Annotated[
        str | None,
        typer.Option(
            "--reward",
            metavar="REWARD",
            help="A reward model's directory or run, lexicon:FILE, length:WORDS, classifier:DIR or "
            "judge:MODEL.",
        ),
    ] = None,
    quantize: Quantize = None,
    lora_rank: LoraRank = None,
    lora_alpha: LoraAlpha = None,
    lora_targets: LoraTargets = None,
    held_out: HeldOut = None,
    eval_fraction: EvalFraction = None,
    eval_every: EvalEvery = None,
    advantage: Annotated[
        str | None,
        typer.Option("--advantage", help="gae, or without a critic leave_one_out or group [gae]."),
    ] = None,
    beta: Annotated[
        float | None, typer.Option("--beta", help="Price of a nat away from the reference [0.05].")
    ] = None,
    target_kl: Annotated[
        float | None, typer.Option("--target-kl", help="Nats an answer to which the price adapts [off].")
    ] = None,
    rollout_prompts: Annotated[
        int | None, typer.Option("--prompts", help="Prompts of a rollout [64].")
    ] = None,
    samples: Annotated[int | None, typer.Option("--samples", help="Answers to a prompt [1].")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", help="Most tokens of an answer [53].")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", help="Of the answers, above 0 [0.7].")
    ] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Peak learning rate [3e-6].")] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Answers a pass [8].")] = None,
    accumulate: Accumulate = None,
    epochs: Annotated[
        float | None,
        typer.Option("--epochs", help="Passes over the prompts [1]; whole rollouts, rounded up."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Length in steps; whole rollouts, rounded up.")
    ] = None,
    dtype: Dtype = None,
    seed: Seed = None,
    device: Device = None,
    threads: Threads = None,
    cache: asking.Cache = None,
    max_calls: asking.MaxCalls = None,
    max_cost: asking.MaxCost = None,
    api_key_env: asking.ApiKeyEnv = None,
    checkpoint_seconds: CheckpointSeconds = 300.0,
    tensorboard: Tensorboard = False,
    resume: Resume = False,
    config: ConfigFile = None,
    sets: Sets = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model on a reward by PPO; its reference is itself, before.

    Prompts of messages take the form of the model's chat template. With --lora-rank only an adapter is
    trained, and the reference takes no memory. Options of models on servers (cache, limits, key) are for
    --reward judge:MODEL. All other settings (passes, clip_ratio, value_weight, missing_end_penalty, ...) go
    through --set.
    """
    from posterhall import config as settings_room
    from posterhall.errors import UsageError
    from posterhall.lm.metered import Budget
    from posterhall.train.ppo_settings import PpoSettings

    settings = settings_room.resolve(
        PpoSettings,
        file=config,
        sets=sets or (),
        flags={
            "reward": reward,
            "quantize": quantize,
            "lora_rank": lora_rank,
            "lora_alpha": lora_alpha,
            "lora_targets": lora_targets,
            "eval_fraction": eval_fraction,
            "eval_every": eval_every,
            "advantage": advantage,
            "beta": beta,
            "target_kl": target_kl,
            "prompts": rollout_prompts,
            "samples": samples,
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "lr": lr,
            "batch": batch,
            "accumulate": accumulate,
            "epochs": epochs,
            "steps": steps,
            "dtype": dtype,
            "seed": seed,
        },
    )
    if not settings.reward:
        raise UsageError("give --reward: a reward model's directory, lexicon:FILE, length:WORDS, ...")
    judge: dict[str, Any] = {
        "cache": {None: None, "on": True, "off": False}.get(cache, cache),
        "budget": Budget(calls=max_calls, cost=max_cost),
        **({} if api_key_env is None else {"api_key_env": api_key_env}),
    }
    with within(threads):
        from posterhall.train.ppo import train_ppo  # torch, which takes its number of threads on loading

        result = train_ppo(
            settings,
            model,
            [Path(each) for each in prompts],
            out,
            held_out=[Path(each) for each in held_out or ()],
            device=device,
            judge_options=judge,
            checkpoint_seconds=checkpoint_seconds,
            tensorboard=tensorboard,
            resume=resume,
            quiet=quiet,
            warn=asking.warn,
        )
    tell(result, _lines, json=json)


def _lines(result: dict[str, Any]) -> list[tuple[str, str]]:
    from posterhall.progress import duration

    def told(of: dict[str, float], *names: str) -> str:
        return ", ".join(f"{name} {of[name]:.4g}" for name in names if of.get(name) is not None)

    lines = [
        (result["saved"], result["model"]),
        ("parameters", f"{result['params_trained']:,} trained of {result['params']:,}"),
    ]
    lines += left_out(result)
    lines += [
        (
            "trained",
            f"{result['answers']:,} answers to {result['prompts']:,} prompts in {result['rollouts']:,} "
            f"rollouts, {result['steps']:,} steps",
        ),
        ("at the end", told(result["train"], "reward", "kl", "entropy", "length", "clip_share")),
    ]
    if result["eval"]:
        lines.append(("held out", told(result["eval"], "reward", "kl", "length")))
    if result["unread"]:
        lines.append(("unread", f"{result['unread']:,} replies of the judge without a score"))
    lines += [("time", duration(result["seconds"])), ("run", result["run"])]
    return lines
