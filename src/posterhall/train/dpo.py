"""Training on preferences, as an objective for the training loop and as a job."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.data import preference as reading
from posterhall.data.documents import expand
from posterhall.data.preference_tokens import PreferenceBatches, PreferenceTokens
from posterhall.errors import DataError, PosterhallError
from posterhall.extras import nn, torch
from posterhall.models import hub
from posterhall.objectives import preference as losses
from posterhall.runs import Run
from posterhall.train import distributed, loop, starting
from posterhall.train.dpo_settings import KIND, DpoSettings
from posterhall.train.jobs import run_job
from posterhall.train.preferences import read_tokens, split
from posterhall.train.references import answer_logprobs, reference_logprobs

_CHECKED = 8
"""Comparisons that the check before the first step looks at."""


@dataclass(frozen=True)
class PreferenceObjective:
    """The objective of `fit` for batches of `PreferenceBatches`: the loss that the settings name."""

    settings: DpoSettings

    def __call__(self, model: Any, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, Any]]:
        """Mean loss of a batch's comparisons, and metrics; "tokens" among them counts comparisons.

        Raises:
            DataError: for a loss with a reference and a batch without.
        """
        settings = self.settings
        logp, items = answer_logprobs(model, batch), batch["items"]
        reference = batch.get("reference")
        if reference is None and settings.has_reference:
            raise DataError(f"the loss {settings.loss} needs reference log-probabilities; see `references`")
        if settings.loss == "plackett_luce":
            assert reference is not None  # noqa: S101 - for the type checker
            there = items.clamp(min=0)
            loss, metrics = losses.plackett_luce(
                logp[there], reference[there], beta=settings.beta, counts=(items >= 0).sum(1)
            )
        else:
            loss, metrics = self._paired(logp, reference, batch["lengths"], items[:, 0], items[:, 1])
        return loss, {"tokens": len(items), **metrics}

    def _paired(
        self,
        logp: torch.Tensor,
        reference: torch.Tensor | None,
        lengths: torch.Tensor,
        better: torch.Tensor,
        worse: torch.Tensor,
    ) -> losses.Result:
        settings, beta = self.settings, self.settings.beta
        chosen, rejected = logp[better], logp[worse]
        both = {"chosen_lengths": lengths[better], "rejected_lengths": lengths[worse]}
        match settings.loss:
            case "preferred_ft":
                return losses.preferred_ft(chosen)
            case "unlikelihood":
                return losses.unlikelihood(chosen, rejected, alpha=settings.alpha)
            case "simpo":
                return losses.simpo(chosen, rejected, beta=beta, gamma=settings.gamma, **both)
            case "orpo":
                return losses.orpo(chosen, rejected, weight=settings.odds_weight, **both)
        assert reference is not None  # noqa: S101 - for the type checker
        four = chosen, rejected, reference[better], reference[worse]
        smoothing = settings.label_smoothing
        match settings.loss:
            case "robust":
                return losses.robust_dpo(*four, beta=beta, label_smoothing=smoothing)
            case "ipo":
                return losses.ipo(*four, beta=beta, normalisation=settings.normalisation, **both)
            case "hinge":
                return losses.hinge(*four, beta=beta)
            case "kto":
                good = torch.arange(2 * len(chosen), device=chosen.device) < len(chosen)
                return losses.kto(
                    torch.cat(four[:2]),
                    torch.cat(four[2:]),
                    good,
                    beta=beta,
                    desirable_weight=settings.desirable_weight,
                    undesirable_weight=settings.undesirable_weight,
                )
            case _:
                return losses.dpo(
                    *four, beta=beta, label_smoothing=smoothing, reference_free=settings.reference_free
                )


def check_start(model: nn.Module, data: PreferenceBatches, settings: DpoSettings) -> float:
    """DPO's loss of the first comparisons before any step, which is ln 2 if the reference is the model.

    Returns:
        The loss.

    Raises:
        PosterhallError: if it is not ln 2 to 1e-6 (or what float32 sums of such long answers can differ by;
            to 0.01 in bfloat16): the references are of other weights, or the model draws at random.
    """
    device = next(model.parameters()).device
    arrays = data.take(0, min(_CHECKED, data.items))
    batch = {name: torch.as_tensor(array).to(device) for name, array in arrays.items()}
    was = model.training
    model.train()  # as in training: dropout would show
    with torch.no_grad(), loop.autocast(settings.dtype, device):
        logp = answer_logprobs(model, batch)
        narrow = torch.is_autocast_enabled(device.type)
    model.train(was)
    ratios = logp - batch["reference"]
    h = (ratios[batch["items"][:, 0]] - ratios[batch["items"][:, 1]]) * settings.beta
    loss = float(-torch.nn.functional.logsigmoid(h).mean())
    longest = float(batch["lengths"].max())
    # Tokens' log-probabilities are off by about 1e-6 each, at random; the loss moves by half of beta h.
    allowed = 1e-2 if narrow else max(1e-6, 1e-6 * settings.beta * math.sqrt(longest))
    if not abs(loss - math.log(2)) <= allowed:
        raise PosterhallError(
            f"before the first step DPO's loss is {loss:.8f}, not ln 2 = {math.log(2):.8f}: model and "
            "reference do not agree. Has the model dropout, or are the references of other weights?"
        )
    return loss


def train_dpo(
    settings: DpoSettings,
    model: Path | str,
    sources: Sequence[Path],
    out: Path,
    *,
    held_out: Sequence[Path] = (),
    device: str | None = None,
    cache: Path | None = None,
    checkpoint_seconds: float = 300.0,
    tensorboard: bool = False,
    resume: bool = False,
    quiet: bool = True,
) -> dict[str, Any] | None:
    """Train a model on preferences, with checkpoints, and save it with its tokeniser.

    Args:
        settings: how.
        model: what is trained, and as it is now its own reference: a directory of a model or an adapter, a
            run, or an id of the hub.
        sources: files of preferences; see `posterhall.data.preference.read`.
        out: the run directory; the model goes to artifacts/model in it.
        held_out: preferences to evaluate on; without them a share of the prompts (`eval_fraction`).
        device: as torch names it; None takes an accelerator if there is one.
        cache: where reference log-probabilities are kept, for several runs; None keeps them in the run
            until its end.
        checkpoint_seconds: time between checkpoints.
        tensorboard: also write event files.
        resume: go on with the run that is there; a finished one is left as it is.
        quiet: show no progress.

    Returns:
        What `posterhall train dpo --json` prints; None in all processes but the first.

    Raises:
        DataError: for bad input, or a run that is there already.
        Interrupted: on Ctrl-C, after a checkpoint.
    """
    directory = hub.locate(model)
    kept_in = cache or out / "checkpoints" / "references"

    def work(run: Run | None, where: distributed.World) -> dict[str, Any]:
        start = starting.begin(settings, model, device=device, now=starting.time_of(out))
        job = _Job(settings, start, where, kept_in, quiet)
        found, data, evaluate = job.data(sources, held_out)
        at_start = check_start(start.model, data, settings) if settings.has_reference else None
        trained = loop.fit(
            start.model,
            data,
            objective=PreferenceObjective(settings),
            settings=settings,
            out=run or out,
            evaluate=evaluate,
            checkpoint_seconds=checkpoint_seconds,
            tensorboard=tensorboard,
            quiet=quiet,
        )
        if run is None:
            return {}
        starting.save(start, run.artifact(starting.MODEL), template=start.template)
        shutil.rmtree(out / "checkpoints" / "references", ignore_errors=True)
        refused = dict(sorted((found.refused + data.tokens.refused).items()))
        facts = _facts(job, out, trained, data, evaluate)
        return {**facts, "refused": refused, "contradictions": found.contradictions(), "start_loss": at_start}

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
    settings: DpoSettings
    start: starting.Start
    where: distributed.World
    cache: Path
    quiet: bool

    def data(
        self, sources: Sequence[Path], held_out: Sequence[Path]
    ) -> tuple[reading.Preferences, PreferenceBatches, PreferenceBatches | None]:
        """What was read, what is trained on, and what is held out."""
        settings, layout = self.settings, self.start.layout
        found, tokens = self._tokens(sources)
        kept, held = split(tokens, 0.0 if held_out else settings.eval_fraction, settings.seed)
        reference = self._reference(tokens)
        data = PreferenceBatches(tokens, seed=settings.seed, layout=layout, reference=reference, keep=kept)
        evaluate: dict[str, Any] = {"shuffle": False, "layout": layout}
        if held_out:
            _, others = self._tokens(held_out)
            return found, data, PreferenceBatches(others, reference=self._reference(others), **evaluate)
        if len(held):
            return found, data, PreferenceBatches(tokens, reference=reference, keep=held, **evaluate)
        return found, data, None

    def _tokens(self, sources: Sequence[Path]) -> tuple[reading.Preferences, PreferenceTokens]:
        start = self.start
        return read_tokens(
            self.settings,
            sources,
            start.tokenizer,
            longest=start.model.config.max_length,
            compare=self.settings.compare,
            place=start.directory,
            template=start.template,
        )

    def _reference(self, tokens: PreferenceTokens) -> NDArray[np.float64] | None:
        """Computed by the first process; the others find it in the cache."""
        if not self.settings.has_reference:
            return None
        if not self.where.first:
            self.where.wait()
        values = reference_logprobs(
            self.start.model,
            tokens,
            layout=self.start.layout,
            dtype=self.settings.dtype,
            cache=self.cache,
            quiet=self.quiet,
        )
        if self.where.first:
            self.where.wait()
        return values


def _facts(
    job: _Job, out: Path, trained: loop.Trained, data: PreferenceBatches, evaluate: PreferenceBatches | None
) -> dict[str, Any]:
    """What came out."""
    last: dict[str, Any] = next((line for line in reversed(trained.history) if "loss" in line), {})
    names = ("reward_accuracy", "reward_margin", "logp_chosen", "logp_rejected")
    start = job.start
    trainable, parameters = start.counts()
    return {
        "run": str(out),
        "model": str(out / "artifacts" / starting.MODEL),
        "saved": "adapter" if start.adapted else "model",
        "reference": str(start.directory),
        "params": parameters,
        "params_trained": trainable,
        "loss_name": job.settings.loss,
        "comparisons": data.items,
        "prompts": len(data.tokens.prompts),
        "answers": len(data.tokens.answers),
        "cut_prompts": data.tokens.cut,
        "steps": trained.steps,
        "seen": trained.tokens,
        "train_loss": trained.loss,
        "train": {name: last[name] for name in names if name in last},
        "eval_comparisons": evaluate.items if evaluate is not None else 0,
        "loss": trained.evaluation.get("loss"),
        "eval": {name: trained.evaluation[name] for name in names if name in trained.evaluation},
        "best_loss": trained.best_loss,
        "best_step": trained.best_step,
        "comparisons_per_second": trained.tokens_per_second,
        "seconds": trained.seconds,
    }
