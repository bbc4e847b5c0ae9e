"""Training a reward model on comparisons, as an objective for the training loop and as a job.

A prompt stands in a batch once for all its answers, as in training on preferences; an answer's reward is
read off the state of its last token, the one that ends it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from posterhall.data.documents import expand
from posterhall.data.preference import Preferences
from posterhall.data.preference_tokens import Layout, PreferenceBatches, PreferenceTokens, pack
from posterhall.errors import DataError
from posterhall.extras import torch
from posterhall.models import hub, reward_files
from posterhall.models.reward import RewardModel
from posterhall.objectives.reward import bradley_terry
from posterhall.runs import Run
from posterhall.train import distributed, loop, starting
from posterhall.train.jobs import run_job
from posterhall.train.language import trees
from posterhall.train.preferences import read_tokens, split
from posterhall.train.references import passes
from posterhall.train.reward_settings import KIND, RewardSettings

BINS = 10
"""Of a calibration, by confidence from 1/2 to 1."""


@dataclass(frozen=True)
class RewardObjective:
    """The objective of `fit` for a `RewardModel` and `PreferenceBatches` of `whole` tokens."""

    settings: RewardSettings

    def __call__(
        self, model: RewardModel, batch: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """Bradley and Terry's loss of a batch's comparisons; "tokens" of the metrics counts them."""
        settings, items = self.settings, batch["items"]
        rewards = answer_rewards(model, batch)
        chosen, rejected = rewards[items[:, 0]], rewards[items[:, 1]]
        margin = None
        if settings.margin or settings.score_margin:
            margin = torch.full_like(chosen, settings.margin)
            if settings.score_margin:
                if "gaps" not in batch:
                    raise DataError(
                        f"score_margin is {settings.score_margin:g}, but some rows have no scores; give "
                        "rankings with prompt, answers and scores, or leave it at 0"
                    )
                margin = margin + settings.score_margin * batch["gaps"].to(chosen.dtype)
        loss, metrics = bradley_terry(chosen, rejected, margin=margin, centring=settings.centring)
        return loss, {"tokens": len(items), **metrics}


def whole(tokens: PreferenceTokens) -> PreferenceTokens:
    """The same with one token more behind each answer: batches read all tokens but the last, which is only
    predicted, and a reward is read off the one that ends the answer."""
    return replace(tokens, answers=[np.append(ids, ids[-1]).astype(np.int32) for ids in tokens.answers])


def answer_rewards(model: RewardModel, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Rewards of the answers of a batch of `whole` tokens, (answers,), with gradients."""
    ends = batch["lengths"].cumsum(0) - 1
    return model.at(batch["ids"], batch["sources"][ends], trees=trees(batch) if "trunks" in batch else None)


def rewards_of(
    model: RewardModel, tokens: PreferenceTokens, *, layout: Layout = "trees"
) -> NDArray[np.float64]:
    """Rewards of all answers of `whole` tokens, (answers,)."""
    found = np.empty(len(tokens.answers))
    was = model.training
    model.eval()
    try:
        with torch.no_grad():
            for some in passes(tokens):
                batch = {
                    name: torch.as_tensor(array).to(model.device)
                    for name, array in pack(tokens, some, layout=layout).items()
                }
                found[some] = answer_rewards(model, batch).cpu().double().numpy()
    finally:
        model.train(was)
    return found


def calibration(gaps: NDArray[np.float64]) -> dict[str, Any]:
    """How far the chances that a reward model gives can be trusted.

    sigmoid(gap) is the chance it gives to the chosen answer, and its confidence the larger of that and its
    complement.

    Args:
        gaps: (n,) reward of the chosen less that of the rejected answer, of comparisons that it has not been
            trained on.

    Returns:
        accuracy (ties a half), nll (nats; 0.693 for a coin), brier (0.25 for a coin), ece (expected
        calibration error over bins: the mean distance of confidence and share of right ones), and bins, each
        with confidence, accuracy and pairs.
    """
    if not len(gaps) or not np.isfinite(gaps).all():
        raise DataError(f"{len(gaps)} differences of rewards; give at least one, all finite")
    chance = expit(gaps)
    confidence, right = np.maximum(chance, 1 - chance), (np.sign(gaps) + 1) / 2
    bin_of = np.minimum(((confidence - 0.5) * 2 * BINS).astype(int), BINS - 1)
    bins = [
        {
            "confidence": float(confidence[bin_of == i].mean()),
            "accuracy": float(right[bin_of == i].mean()),
            "pairs": int((bin_of == i).sum()),
        }
        for i in np.unique(bin_of)
    ]
    return {
        "accuracy": float(right.mean()),
        "nll": float(np.logaddexp(0, -gaps).mean()),
        "brier": float(((1 - chance) ** 2).mean()),
        "ece": sum(each["pairs"] * abs(each["confidence"] - each["accuracy"]) for each in bins) / len(gaps),
        "bins": bins,
    }


def train_reward(
    settings: RewardSettings,
    model: Path | str,
    sources: Sequence[Path],
    out: Path,
    *,
    held_out: Sequence[Path] = (),
    device: str | None = None,
    checkpoint_seconds: float = 300.0,
    tensorboard: bool = False,
    resume: bool = False,
    quiet: bool = True,
) -> dict[str, Any] | None:
    """Train a reward model on preferences, with checkpoints, and save it, or its adapter, with its tokeniser
    and chat template.

    Afterwards its rewards are shifted to mean 0 over the answers that it was trained on.

    Args:
        settings: how.
        model: what it begins as: a directory of a model or an adapter, a run, or an id of the hub.
        sources: files of preferences; see `posterhall.data.preference.read`.
        out: the run directory; the model goes to artifacts/model in it.
        held_out: preferences to evaluate on; without them a share of the prompts (`eval_fraction`).
        device: as torch names it; None takes an accelerator if there is one.
        checkpoint_seconds: time between checkpoints.
        tensorboard: also write event files.
        resume: go on with the run that is there; a finished one is left as it is.
        quiet: show no progress.

    Returns:
        What `posterhall train reward --json` prints; None in all processes but the first.

    Raises:
        DataError: for bad input, or a run that is there already.
        Interrupted: on Ctrl-C, after a checkpoint.
    """
    directory = hub.locate(model)

    def work(run: Run | None, _: distributed.World) -> dict[str, Any]:
        start = starting.begin(settings, model, device=device, now=starting.time_of(out))
        job = _Job(settings, start, out, RewardModel(start.model, seed=settings.seed))
        reward_files.check_savable(job.model)
        return job.train(
            run,
            sources,
            held_out,
            checkpoint_seconds=checkpoint_seconds,
            tensorboard=tensorboard,
            quiet=quiet,
        )

    return run_job(
        settings,
        out,
        kind=KIND,
        inputs=lambda: [*expand(sources), *(expand(held_out) if held_out else []), directory],
        resume=resume,
        work=work,
    )


@dataclass(frozen=True)
class _Job:
    settings: RewardSettings
    start: starting.Start
    out: Path
    model: RewardModel

    def train(
        self, run: Run | None, sources: Sequence[Path], held_out: Sequence[Path], **how: Any
    ) -> dict[str, Any]:
        settings, start, model, layout = self.settings, self.start, self.model, self.start.layout
        found, tokens = self._tokens(sources)
        kept, held = split(tokens, 0.0 if held_out else settings.eval_fraction, settings.seed)
        data = PreferenceBatches(tokens, seed=settings.seed, layout=layout, keep=kept)
        others, evaluate = tokens, None
        if held_out:
            others = self._tokens(held_out)[1]
            held = np.arange(len(others.items))
        if len(held):
            evaluate = PreferenceBatches(others, shuffle=False, layout=layout, keep=held)
        trained = loop.fit(
            model,
            data,
            objective=RewardObjective(settings),
            settings=settings,
            out=run or self.out,
            evaluate=evaluate,
            **how,
        )
        if run is None:
            return {}
        used = np.unique(tokens.items[kept])
        rewards = rewards_of(model, tokens, layout=layout)
        model.offset.fill_(float(rewards[used].mean()))
        judged = rewards if others is tokens else rewards_of(model, others, layout=layout)
        gaps = judged[others.items[held, 0]] - judged[others.items[held, 1]]
        reward_files.save(
            model,
            run.artifact(starting.MODEL),
            tokenizer=starting.Texts(start, start.template),
            base=start.base,
            files=start.weights,
        )
        refused = dict(sorted((found.refused + tokens.refused).items()))
        return self._facts(trained, data, found, tokens, refused, rewards[used], gaps)

    def _tokens(self, sources: Sequence[Path]) -> tuple[Preferences, PreferenceTokens]:
        """What was read, and its `whole` tokens."""
        found, tokens = read_tokens(
            self.settings,
            sources,
            self.start.tokenizer,
            longest=self.start.model.config.max_length - 1,  # the end of an answer is read too
            place=self.start.directory,
            template=self.start.template,
            tails=True,
        )
        return found, whole(tokens)

    def _facts(
        self,
        trained: loop.Trained,
        data: PreferenceBatches,
        found: Preferences,
        tokens: PreferenceTokens,
        refused: dict[str, int],
        rewards: NDArray[np.float64],
        gaps: NDArray[np.float64],
    ) -> dict[str, Any]:
        """What came out."""
        last: dict[str, Any] = next((line for line in reversed(trained.history) if "loss" in line), {})
        names = ("reward_accuracy", "reward_margin")
        trainable, parameters = self.start.counts()
        head = self.model.head.numel()
        return {
            "run": str(self.out),
            "model": str(self.out / "artifacts" / starting.MODEL),
            "base": self.start.base,
            "saved": "adapter" if self.start.adapted else "model",
            "quantize": self.settings.quantize,
            "params": parameters + head,
            "params_trained": trainable + head,
            "comparisons": data.items,
            "prompts": len(tokens.prompts),
            "answers": len(tokens.answers),
            "refused": refused,
            "cut_prompts": tokens.cut,
            "contradictions": found.contradictions(),
            "steps": trained.steps,
            "seen": trained.tokens,
            "train_loss": trained.loss,
            "train": {name: last[name] for name in names if name in last},
            "eval_comparisons": len(gaps),
            "loss": trained.evaluation.get("loss"),
            "eval": calibration(gaps) if len(gaps) else None,
            "best_loss": trained.best_loss,
            "best_step": trained.best_step,
            "reward_offset": float(self.model.offset),
            "reward_std": float(rewards.std()),
            "comparisons_per_second": trained.tokens_per_second,
            "seconds": trained.seconds,
        }
