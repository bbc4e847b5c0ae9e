"""Supervised fine-tuning on conversations, as an objective for the training loop and as a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.data import chat, chat_template
from posterhall.data.chat_batches import ChatBatches
from posterhall.data.chat_template import ChatTemplate
from posterhall.data.chat_tokens import ChatTokens, encode
from posterhall.data.documents import expand
from posterhall.errors import DataError
from posterhall.extras import torch
from posterhall.models import hub
from posterhall.runs import Run
from posterhall.seeds import generator
from posterhall.train import distributed, loop, starting
from posterhall.train.jobs import run_job
from posterhall.train.language import labelled_loss
from posterhall.train.sft_settings import KIND, SftSettings


def answers(model: Any, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, Any]]:
    """The objective of `fit` for batches of `ChatBatches`: mean negative log-likelihood of what is learnt."""
    return labelled_loss(model, batch)


def train_sft(
    settings: SftSettings,
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
    """Fine-tune a model on conversations, with checkpoints, and save it, or its adapter, with its tokeniser.

    Args:
        settings: how.
        model: what is trained: a directory of a model or an adapter, a run, or an id of the hub.
        sources: files of conversations; see `posterhall.data.chat.read`.
        out: the run directory; what was trained goes to artifacts/model in it.
        held_out: conversations to evaluate on; without them a share of them (`eval_fraction`).
        device: as torch names it; None takes an accelerator if there is one.
        checkpoint_seconds: time between checkpoints.
        tensorboard: also write event files.
        resume: go on with the run that is there; a finished one is left as it is.
        quiet: show no progress.

    Returns:
        What `posterhall train sft --json` prints; None in all processes but the first.

    Raises:
        DataError: for bad input, or a run that is there already.
        PosterhallError: if training diverges, runs out of memory, or leaves an adapter that does nothing.
        Interrupted: on Ctrl-C, after a checkpoint.
    """
    directory = hub.locate(model)

    def work(run: Run | None, where: distributed.World) -> dict[str, Any]:
        start = starting.begin(settings, model, device=device, now=starting.time_of(out))
        job = _Job(settings, start, start.template or chat_template.built_in(start.tokenizer))
        found, tokens, data, evaluate = job.data(sources, held_out)
        trained = loop.fit(
            start.model,
            data,
            objective=answers,
            settings=settings,
            out=run or out,
            evaluate=evaluate,
            checkpoint_seconds=checkpoint_seconds,
            tensorboard=tensorboard,
            quiet=quiet,
        )
        if run is None:
            return {}
        starting.save(start, run.artifact(starting.MODEL), template=job.template, ends=tokens.ends())
        refused = dict(sorted((found.refused + tokens.refused).items()))
        return {"run": str(out), **_facts(job, out, trained, data, evaluate), "refused": refused}

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
    settings: SftSettings
    start: starting.Start
    template: ChatTemplate

    def data(
        self, sources: Sequence[Path], held_out: Sequence[Path]
    ) -> tuple[chat.Chats, ChatTokens, ChatBatches, ChatBatches | None]:
        """What was read, its tokens, what is trained on, and what is held out."""
        settings, layout = self.settings, self.start.layout
        found, tokens = self._tokens(sources)
        kept, held = held_out_split(tokens, 0.0 if held_out else settings.eval_fraction, settings.seed)
        group = settings.batch if settings.group_by_length and layout == "rows" else 0
        data = ChatBatches(tokens, seed=settings.seed, layout=layout, group=group, keep=kept)
        if held_out:
            _, others = self._tokens(held_out)
            return found, tokens, data, ChatBatches(others, shuffle=False, layout=layout)
        if len(held):
            return found, tokens, data, ChatBatches(tokens, shuffle=False, layout=layout, keep=held)
        return found, tokens, data, None

    def _tokens(self, sources: Sequence[Path]) -> tuple[chat.Chats, ChatTokens]:
        settings, start = self.settings, self.start
        longest = start.model.config.max_length
        if settings.max_length is not None and settings.max_length > longest:
            raise DataError(
                f"max_length is {settings.max_length}; the model in {start.directory} takes at most {longest}"
            )
        found = chat.read(sources, form=settings.form)
        tokens = encode(
            found.rows,
            start.tokenizer,
            self.template,
            max_length=settings.max_length or longest,
            learn_from=settings.learn_from,
            too_long=settings.too_long,
            boundary=settings.boundary,
            begin=settings.begin,
        )
        return found, tokens


def held_out_split(
    tokens: ChatTokens, share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of conversations to train on, and of a share (rounded down) to evaluate on."""
    order = generator(seed, "held-out conversations").permutation(len(tokens.ids))
    held = int(share * len(order))
    return np.sort(order[held:]), np.sort(order[:held])


def _facts(
    job: _Job, out: Path, trained: loop.Trained, data: ChatBatches, evaluate: ChatBatches | None
) -> dict[str, Any]:
    """What came out."""
    start = job.start
    trainable, parameters = start.counts()
    return {
        "model": str(out / "artifacts" / starting.MODEL),
        "base": start.base,
        "saved": "adapter" if start.adapted else "model",
        "quantize": job.settings.quantize,
        "params": parameters,
        "params_trained": trainable,
        "template": "built-in" if start.template is None else "the model's",
        "conversations": data.items,
        "tokens": data.tokens.tokens,
        "answer_tokens": data.tokens.answer_tokens,
        "cut": data.tokens.cut,
        "steps": trained.steps,
        "seen": trained.tokens,
        "train_loss": trained.loss,
        "eval_conversations": evaluate.items if evaluate is not None else 0,
        "loss": trained.evaluation.get("loss"),
        "best_loss": trained.best_loss,
        "best_step": trained.best_step,
        "tokens_per_second": trained.tokens_per_second,
        "seconds": trained.seconds,
    }
