"""Training on a reward by PPO or without a critic: from Python with any reward, and as a job."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.data import prompts as reading
from posterhall.data.documents import expand
from posterhall.data.preference_tokens import LONG
from posterhall.data.prompts import PromptTokens
from posterhall.data.special_tokens import SpecialTokens
from posterhall.errors import DataError, UsageError
from posterhall.extras import nn, torch
from posterhall.models import hub
from posterhall.objectives import ppo
from posterhall.runs import Run
from posterhall.seeds import generator
from posterhall.train import distributed, loop, scorers, starting
from posterhall.train.jobs import run_job
from posterhall.train.ppo_settings import KIND, PpoSettings
from posterhall.train.rollouts import (
    TOLD,
    ActorCritic,
    Reference,
    Reward,
    Rollouts,
    Sampler,
    layout_of,
    summary,
)


@dataclass(frozen=True)
class PpoObjective:
    """The objective of `fit` for batches of `Rollouts`."""

    settings: PpoSettings

    def __call__(
        self, actor: ActorCritic, batch: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """Policy loss and, with a critic, `value_weight` times value loss, means over the answers' tokens."""
        settings = self.settings
        logp, values = actor.read(dict(batch))
        loss, metrics = ppo.policy_loss(logp, batch["old"], batch["advantages"], clip=settings.clip_ratio)
        metrics["policy_loss"] = loss.detach()
        if values is not None:
            missed, more = ppo.value_loss(
                values, batch["old_values"], batch["returns"], clip=settings.clip_value
            )
            loss = loss + settings.value_weight * missed
            metrics |= {"value_loss": missed.detach(), **more}
        told = dict(zip(TOLD, batch["told"], strict=True))
        if values is None:
            del told["explained_variance"]
        return loss, {"tokens": len(logp), **metrics, **told}


def fit_ppo(
    model: nn.Module,
    prompts: Sequence[Sequence[int] | NDArray[np.int32]],
    *,
    reward: Reward,
    settings: PpoSettings,
    reference: nn.Module | None = None,
    stop_ids: Sequence[int] = (),
    names: Sequence[str] | None = None,
    held_out: Sequence[NDArray[np.int32]] | None = None,
    out: Run | Path | str | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 300.0,
    tensorboard: bool = False,
    quiet: bool = True,
) -> loop.Trained:
    """Train a model on a reward, in place.

    Each rollout draws answers with the model as it is, has them rewarded, and is passed over `passes` times.
    Answers are paid `reward - beta KL`, with the KL to the reference.

    Args:
        model: on the device on which it is to be trained. With adapters, only they are trained.
        prompts: token ids of each, at least one, with room for an answer in the model.
        reward: gives the rewards (B,), finite, of whole texts; see `posterhall.train.rollouts.Reward`.
        settings: how.
        reference: what the model is tied to. None: the model as it is now (its adapters off if it has
            any; else a copy, which takes as much memory once more). To resume, give the model as it was.
        stop_ids: tokens that end an answer; they are part of it. None of them: all have max_new_tokens.
        names: what each prompt is called in messages of errors, as file and line.
        held_out: prompts to evaluate on: "loss" is beta KL - reward of their answers, by which the best
            weights are chosen.
        out, resume, checkpoint_seconds, tensorboard, quiet: see `posterhall.train.fit`. Training stops and
            leaves checkpoints between rollouts only.

    Returns:
        What came of it; its `model` is the one given.

    Raises:
        DataError: for prompts that do not fit; a reward that is not finite or not one an answer, before
            anything is learnt from the rollout.
        PosterhallError, Interrupted: see `posterhall.train.fit`.
    """
    _one_process()
    arrays = [np.asarray(ids, np.int32) for ids in prompts]
    called = list(names) if names is not None else [f"prompt {i + 1:,}" for i in range(len(arrays))]
    if len(called) != len(arrays):
        raise DataError(f"{len(called)} names for {len(arrays)} prompts; give one each")
    longest = int(model.config.max_length)  # type: ignore[arg-type,union-attr]
    _check(arrays, called, longest)
    held = list(held_out or ())
    _check(held, [f"held-out prompt {i + 1:,}" for i in range(len(held))], longest, some=False)
    tied = Reference.of(model) if reference is None else Reference(reference)
    actor = ActorCritic(model, settings)
    sampler = Sampler(actor, reward, tied, settings, stop_ids=stop_ids, layout=layout_of(model))
    trained = loop.fit(
        actor,
        Rollouts(sampler, arrays, called),
        objective=PpoObjective(settings),
        settings=settings,
        out=out,
        evaluate=_evaluation(sampler, held) if held else None,
        resume=resume,
        checkpoint_seconds=checkpoint_seconds,
        tensorboard=tensorboard,
        quiet=quiet,
    )
    trained.model = model
    return trained


def _check(
    prompts: Sequence[NDArray[np.int32]], names: Sequence[str], longest: int, *, some: bool = True
) -> None:
    if some and not prompts:
        raise DataError("no prompts; give token ids of at least one")
    for ids, name in zip(prompts, names, strict=True):
        if not 1 <= len(ids) <= longest:
            raise DataError(
                f"{name} has {len(ids):,} tokens; it must have 1 to {longest:,}, the model's longest text. "
                "Cut it, or leave it out"
            )


def _evaluation(sampler: Sampler, prompts: Sequence[NDArray[np.int32]]) -> loop.Evaluation:
    """The mean reward of answers to prompts, and what their KL costs; drawn with the same seeds each time."""

    def evaluate(_: Any) -> dict[str, float]:
        names = [f"held-out prompt {i + 1:,}" for i in range(len(prompts))]
        told = summary(sampler.draw(prompts, names, "evaluation"), sampler.settings.beta)
        return {
            "loss": -told["objective"],
            **{name: told[name] for name in ("reward", "kl", "length", "ended")},
        }

    return evaluate


def train_ppo(
    settings: PpoSettings,
    model: Path | str,
    sources: Sequence[Path],
    out: Path,
    *,
    held_out: Sequence[Path] = (),
    device: str | None = None,
    judge_options: Mapping[str, Any] | None = None,
    checkpoint_seconds: float = 300.0,
    tensorboard: bool = False,
    resume: bool = False,
    quiet: bool = True,
    warn: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Train a model on the reward that the settings name, with checkpoints, and save it with its tokeniser.

    Prompts of messages take the form of the model's chat template; the reward reads them as messages.

    Args:
        settings: how.
        model: what is trained, and as it is now its own reference: a directory, a run, or an id of the hub.
        sources: files of prompts; see `posterhall.data.prompts.read`.
        out: the run directory; the model goes to artifacts/model in it.
        held_out: prompts to evaluate on; without them a share of the others (`eval_fraction`).
        device: as torch names it; None takes an accelerator if there is one.
        judge_options: of the model that judges; see `posterhall.lm.stack.connect`.
        checkpoint_seconds: time between checkpoints.
        tensorboard: also write event files.
        resume: go on with the run that is there; a finished one is left as it is.
        quiet: show no progress.
        warn: is told, before anything is sampled, which prompts are too long.

    Returns:
        What `posterhall train ppo --json` prints.

    Raises:
        DataError: for bad input, prompts of messages and a model without a chat template, or a run that is
            there already.
        Interrupted: on Ctrl-C, after a checkpoint.
    """
    directory = hub.locate(model)

    def work(run: Run | None, _: distributed.World) -> dict[str, Any]:
        _one_process()
        now = starting.time_of(out)
        start = starting.begin(settings, model, device=device, now=now)
        found, train, held = _prompts(settings, start, sources, held_out)
        for part in (train, held):
            _tell_long(part, settings, start, warn)
        policy, tokenizer = start.model, start.tokenizer
        how = {"device": policy.device, "now": now, **(judge_options or {})}
        with scorers.scorer(settings.reward, **how) as scorer:
            _check_reads(scorer, [*train.ids, *held.ids], settings)
            trained = fit_ppo(
                policy,
                train.ids,
                reward=scorer.of_tokens(tokenizer, train.conversations() | held.conversations()),
                settings=settings,
                stop_ids=sorted(_ends(start)),
                names=[row.where for row in train.rows],
                held_out=held.ids,
                out=run,
                checkpoint_seconds=checkpoint_seconds,
                tensorboard=tensorboard,
                quiet=quiet,
            )
            unread = scorer.unread
        place = out / "artifacts" / starting.MODEL
        starting.save(start, place, template=start.template)
        facts = _facts(settings, start, place, trained, train, found.refused + train.refused, held.ids)
        return {"run": str(out), **facts, "unread": unread}

    facts = run_job(
        settings,
        out,
        kind=KIND,
        inputs=lambda: [
            *expand(sources),
            *(expand(held_out) if held_out else []),
            directory,
            *scorers.files(settings.reward),
        ],
        resume=resume,
        work=work,
    )
    assert facts is not None  # noqa: S101 - there is one process
    return facts


def _one_process() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("PPO trains in one process; start it without torchrun")


def _ends(start: starting.Start) -> set[int]:
    """Tokens that end an answer: those that the model says, and that with which its template ends a turn."""
    found = set(hub.end_ids(start.directory))
    if start.tokenizer.eos_id is not None:
        found.add(start.tokenizer.eos_id)
    if start.template is not None:
        found.update(SpecialTokens(start.tokenizer).closing(start.template)[:1])
    return found


def _prompts(
    settings: PpoSettings, start: starting.Start, sources: Sequence[Path], held_out: Sequence[Path]
) -> tuple[reading.Prompts, PromptTokens, PromptTokens]:
    """What was read, what is trained on, and what is held out."""
    longest = start.model.config.max_length
    room = longest - settings.max_new_tokens
    if room < 1:
        raise DataError(
            f"max_new_tokens is {settings.max_new_tokens}, which leaves no room for a prompt in a model of "
            f"{longest:,} tokens; ask for fewer"
        )

    def encoded(rows: Sequence[reading.Prompt]) -> PromptTokens:
        return reading.encode(
            rows,
            start.tokenizer,
            max_length=room,
            template=start.template,
            begin=settings.begin,
            too_long=settings.too_long,
        )

    found = reading.read(sources)
    train = encoded(found.rows)
    if held_out:
        return found, train, encoded(reading.read(held_out).rows)
    order = generator(settings.seed, "held-out prompts").permutation(len(train.ids))
    apart = set(order[: int(settings.eval_fraction * len(order))].tolist())
    parts = [PromptTokens(), PromptTokens(refused=train.refused, first=train.first, cut=train.cut)]
    for i, (ids, row) in enumerate(zip(train.ids, train.rows, strict=True)):
        part = parts[i not in apart]
        part.ids.append(ids)
        part.rows.append(row)
    return found, parts[1], parts[0]


def _check_reads(scorer: scorers.Scorer, prompts: Sequence[NDArray[np.int32]], settings: PpoSettings) -> None:
    """Refuse a reward that could not read what is going to be sampled."""
    longest = max(map(len, prompts)) + settings.max_new_tokens
    if scorer.longest is not None and longest > scorer.longest:
        raise DataError(
            f"the reward model {scorer.name} reads at most {scorer.longest:,} tokens; prompts with answers "
            f"have up to {longest:,}. Lower --max-new-tokens, leave out long prompts, or train one on "
            "a model of longer texts"
        )


def _tell_long(
    prompts: PromptTokens, settings: PpoSettings, start: starting.Start, warn: Callable[[str], None]
) -> None:
    """Name the first prompt that is left out because no answer would fit behind it."""
    count = prompts.refused[LONG]
    if count:
        longest = start.model.config.max_length
        warn(
            f"{prompts.first[LONG]}: left out{f', with {count - 1:,} more' if count > 1 else ''}: above "
            f"{longest - settings.max_new_tokens:,} tokens, behind which no answer of "
            f"{settings.max_new_tokens:,} fits into the model's {longest:,}. Lower --max-new-tokens, or "
            "--set too_long=cut_prompt"
        )


def _facts(
    settings: PpoSettings,
    start: starting.Start,
    place: Path,
    trained: loop.Trained,
    train: PromptTokens,
    refused: Mapping[str, int],
    held: Sequence[Any],
) -> dict[str, Any]:
    """What came out."""
    trainable, parameters = start.counts()
    last: dict[str, Any] = next((line for line in reversed(trained.history) if "loss" in line), {})
    names = (
        "reward",
        "kl",
        "objective",
        "beta",
        "entropy",
        "length",
        "ended",
        "clip_share",
        "explained_variance",
    )
    return {
        "model": str(place),
        "saved": "adapter" if start.adapted else "model",
        "reference": str(start.directory),
        "params": parameters,
        "params_trained": trainable,
        "reward_name": settings.reward,
        "advantage": settings.advantage,
        "prompts": len(train.ids),
        "refused": dict(sorted(refused.items())),
        "cut_prompts": train.cut,
        "rollouts": trained.steps * settings.rows_a_step // settings.phase,
        "answers": trained.steps * settings.rows_a_step // settings.passes,
        "steps": trained.steps,
        "train_loss": trained.loss,
        "train": {name: last[name] for name in names if name in last},
        "eval_prompts": len(held),
        "eval": {name: value for name, value in trained.evaluation.items() if name != "loss"},
        "loss": trained.evaluation.get("loss"),
        "best_loss": trained.best_loss,
        "best_step": trained.best_step,
        "seconds": trained.seconds,
    }
