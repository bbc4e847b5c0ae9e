"""Training a language model as a job: text in, a run with a model that transformers loads out."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posterhall.data import tokenizer as tokenizers
from posterhall.data import tokens as streams
from posterhall.data.documents import Document, documents, expand
from posterhall.data.packing import Packed
from posterhall.data.tokenizer import ByteTokenizer, Tokenizer
from posterhall.data.tokens import Tokens
from posterhall.errors import DataError
from posterhall.extras import torch
from posterhall.models import Decoder, hub, mixers
from posterhall.progress import Progress
from posterhall.runs import Run, read_manifest
from posterhall.train import checkpoint, distributed, loop
from posterhall.train.jobs import run_job
from posterhall.train.language import next_token
from posterhall.train.lm_settings import KIND, LmSettings, bpe_size

MODEL = "model"
"""Folder in artifacts/."""
BPE_CHARACTERS = 1_000_000_000
"""Text beyond this does not change a BPE tokeniser that is learnt; counting it would take memory."""


def train_lm(
    settings: LmSettings,
    sources: Sequence[Path],
    out: Path,
    *,
    held_out: Sequence[Path] = (),
    init: Path | None = None,
    device: str | None = None,
    cache: Path | None = None,
    checkpoint_seconds: float = 300.0,
    tensorboard: bool = False,
    shard: bool = False,
    resume: bool = False,
    quiet: bool = True,
) -> dict[str, Any] | None:
    """Train a decoder on text, with checkpoints, and save it with its tokeniser.

    Args:
        settings: what to learn.
        sources: files, directories and patterns; see `posterhall.data.documents.expand`.
        out: the run directory; the model goes to artifacts/model in it.
        held_out: text to evaluate on; without it a share of the text (`eval_fraction`) is held out.
        init: a model (directory) to go on from: its shape and tokeniser are taken, not those of `settings`.
        device: as torch names it; None takes an accelerator if there is one.
        cache: where tokenised text is kept, for several runs on the same; None keeps it in the run until
            its end.
        checkpoint_seconds: time between checkpoints.
        tensorboard: also write event files.
        shard: with several processes (torchrun): divide weights and optimiser among them.
        resume: go on with the run that is there; a finished one is left as it is.
        quiet: show no progress.

    Returns:
        What `posterhall train lm --json` prints; None in all processes but the first.

    Raises:
        DataError: for bad input, or a run that is there already.
        Interrupted: on Ctrl-C, after a checkpoint.
    """
    if init is None:
        mixers.check(settings.shape(ByteTokenizer.vocab_size))

    def inputs() -> list[Path]:
        texts, tests = expand(sources), expand(held_out) if held_out else []
        return [*texts, *tests, *([init] if init else [])]

    def work(run: Run | None, where: distributed.World) -> dict[str, Any]:
        job = _Job(settings, out, run, where, cache, quiet or run is None)
        facts = _train(job, sources, held_out, init, device, checkpoint_seconds, tensorboard, shard)
        if run is not None:
            shutil.rmtree(out / "checkpoints" / "tokens", ignore_errors=True)
        return facts

    return run_job(settings, out, kind=KIND, inputs=inputs, resume=resume, work=work)


@dataclass(frozen=True)
class _Job:
    """What all stages of a training need to know."""

    settings: LmSettings
    out: Path
    run: Run | None
    where: distributed.World
    cache: Path | None
    quiet: bool

    def stored(self, what: str, key: object, make: Any) -> Path:
        """A directory of the cache, made by the first process if it is not there."""
        cache = self.cache or self.out / "checkpoints" / "tokens"
        name = f"{what}-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}"
        if self.where.first:
            streams.cached(cache, name, make)
        self.where.wait()
        return cache / name


def _train(
    job: _Job,
    sources: Sequence[Path],
    held_out: Sequence[Path],
    init: Path | None,
    device: str | None,
    checkpoint_seconds: float,
    tensorboard: bool,
    shard: bool,
) -> dict[str, Any]:
    settings, where = job.settings, job.where
    texts, tests = expand(sources), expand(held_out) if held_out else []
    sums = [each["sha256"] for each in read_manifest(job.out)["inputs"]]
    tokenizer = _tokenizer(job, texts, sums[: len(texts)], init)
    tokens = _stream(job, texts, sums[: len(texts)], tokenizer)
    held: Tokens | None = None
    if tests:
        held = _stream(job, tests, sums[len(texts) : len(texts) + len(tests)], tokenizer)
    elif settings.eval_fraction:
        key = [sums[: len(texts)], _reading(settings, tokenizer), settings.eval_fraction, settings.seed]
        place = job.stored("split", key, lambda directory: directory.mkdir(parents=True))
        if not where.first:
            where.wait()
        parts = streams.hold_out(tokens, settings.eval_fraction, tokenizer, place, seed=settings.seed)
        if where.first:
            where.wait()  # the others find the parts
        tokens, held = parts
    if held is not None and len(held) - 1 > settings.eval_tokens:
        held = streams.cut(held, settings.eval_tokens + 1, tokenizer)[0]
    where_to = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model = _model(settings, tokenizer, init).to(where_to)
    shape = model.config
    data = Packed(
        tokens,
        context=settings.context,
        seed=settings.seed,
        unique_tokens=settings.unique_tokens,
        packing=settings.packing,
    )
    evaluate = None
    if held is not None:
        evaluate = Packed(held, context=settings.context, shuffle=False, whole=True, packing=settings.packing)
    trained = loop.fit(
        model,
        data,
        objective=next_token,
        settings=settings,
        out=job.run or job.out,
        evaluate=evaluate,
        checkpoint_seconds=checkpoint_seconds,
        tensorboard=tensorboard,
        shard=shard,
        quiet=job.quiet,
    )
    weights = checkpoint.weights(model)
    if not where.first or job.run is None:
        return {}
    if shard and where.size > 1:
        model = Decoder(shape, seed=None)
        checkpoint.set_weights(model, weights)
    directory = job.run.artifact(MODEL)
    hub.save(model, directory, tokenizer=tokenizer)
    return _facts(job, model, tokenizer, data, held, trained)


def _facts(
    job: _Job, model: Decoder, tokenizer: Tokenizer, data: Packed, held: Tokens | None, trained: loop.Trained
) -> dict[str, Any]:
    """What came out."""
    embeddings = {id(model.embedding), id(model.head_weight())}
    sizes = [(parameter.numel(), id(parameter) in embeddings) for parameter in model.parameters()]
    params = sum(size for size, _ in sizes)
    loss = trained.evaluation.get("loss")
    unique = min(data.unique_tokens, trained.tokens)
    return {
        "run": str(job.out),
        "model": str(job.out / "artifacts" / MODEL),
        "params": params,
        "params_non_embedding": sum(size for size, embedding in sizes if not embedding),
        "vocab_size": tokenizer.vocab_size,
        "tokenizer": tokenizer.name,
        "steps": trained.steps,
        "tokens": trained.tokens,
        "text_tokens": data.unique_tokens,
        "unique_tokens": unique,
        "epochs": trained.tokens / unique,
        "flops": 6.0 * params * trained.tokens,
        "train_loss": trained.loss,
        "loss": loss,
        "bits_per_byte": None if loss is None or held is None else _bits_per_byte(loss, held),
        "best_loss": trained.best_loss,
        "best_step": trained.best_step,
        "eval_tokens": len(held) - 1 if held is not None else 0,
        "tokens_per_second": trained.tokens_per_second,
        "seconds": trained.seconds,
    }


def _bits_per_byte(loss: float, held: Tokens) -> float | None:
    """Code length of the held-out text, ends of documents included, in bits a byte of it."""
    return loss * (len(held) - 1) / math.log(2) / held.text_bytes if held.text_bytes else None


def _model(settings: LmSettings, tokenizer: Tokenizer, init: Path | None) -> Decoder:
    if init is None:
        return Decoder(settings.shape(tokenizer.vocab_size), seed=settings.seed)
    model = hub.load(init)
    if model.config.vocab_size < tokenizer.vocab_size:
        raise DataError(
            f"{init}: the tokeniser has {tokenizer.vocab_size:,} tokens, the model only "
            f"{model.config.vocab_size:,}"
        )
    if settings.context > model.config.max_length:
        raise DataError(
            f"context is {settings.context}; the model in {init} takes at most {model.config.max_length}"
        )
    return model


def _tokenizer(job: _Job, texts: Sequence[Path], sums: list[str], init: Path | None) -> Tokenizer:
    if init is not None:
        return tokenizers.load(init)
    settings = job.settings
    size = bpe_size(settings.tokenizer)
    if size is None:
        return tokenizers.load(settings.tokenizer)

    def learn(directory: Path) -> None:
        tokenizers.train_bpe(_some(_documents(job, texts, "learn tokens")), size).save(directory)

    return tokenizers.load(job.stored("tokenizer", [sums, size, _reading(settings, None)], learn))


def _stream(job: _Job, texts: Sequence[Path], sums: list[str], tokenizer: Tokenizer) -> Tokens:
    def build(directory: Path) -> None:
        streams.build(_documents(job, texts, "tokenise"), tokenizer, directory)

    return streams.load(job.stored("stream", [sums, _reading(job.settings, tokenizer)], build))


def _reading(settings: LmSettings, tokenizer: Tokenizer | None) -> list[str | None]:
    """What of the settings determines the tokens of a text."""
    digest = tokenizer.digest if tokenizer is not None else None
    return [digest, settings.text_field, settings.split, settings.encoding_errors]


def _documents(job: _Job, texts: Sequence[Path], label: str) -> Iterator[Document]:
    settings = job.settings
    found = documents(
        texts,
        text_field=settings.text_field,
        split=settings.split,
        encoding_errors=settings.encoding_errors,
        max_document_bytes=settings.max_document_bytes,
    )
    characters = 0
    with Progress(None, label=label, unit="characters", quiet=job.quiet) as progress:
        for document in found:
            yield document
            characters += len(document.text)
            progress.update(characters)


def _some(found: Iterable[Document]) -> Iterator[str]:
    left = BPE_CHARACTERS
    for document in found:
        yield document.text[:left]
        left -= len(document.text)
        if left <= 0:
            return
