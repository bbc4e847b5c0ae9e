"""Log-probabilities of answers: under the model that is trained, and once for all under its reference.

The reference never changes, so each answer goes through it once, before training, and the result is kept
under a key of everything it follows from: weights, tokens (which hold what tokeniser and text made of each
other) and precision. A training on the same needs no second model in memory and no second pass.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.data.preference_tokens import Layout, PreferenceTokens, pack
from posterhall.errors import DataError
from posterhall.extras import nn, require, torch
from posterhall.progress import Progress
from posterhall.runs import atomic_file
from posterhall.train.language import labelled_loss
from posterhall.train.loop import autocast
from posterhall.train.settings import Precision

TOKENS = 4096
"""Tokens of a pass through the reference, about; a longer tree is a pass of its own."""
_VALUES, _KEY = "logp", "key"


def answer_logprobs(model: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """log p of every answer of a batch given its prompt, with gradients.

    Args:
        model: a `Decoder`, a `posterhall.models.foreign.Foreign`, or what has their `hidden` and
            `head_weight`.
        batch: tensors of `posterhall.data.preference_tokens.pack`.

    Returns:
        (answers,) nats, float64: sums of float32 tokens, so that their order does not show.
    """
    tokens, _ = labelled_loss(model, batch, reduction="none")
    whole = torch.zeros(len(batch["lengths"]), dtype=torch.float64, device=tokens.device)
    return whole.index_add(0, batch["answer_of"], -tokens.double())


def reference_logprobs(
    model: nn.Module,
    tokens: PreferenceTokens,
    *,
    layout: Layout = "trees",
    dtype: Precision = "auto",
    cache: Path | None = None,
    quiet: bool = True,
) -> NDArray[np.float64]:
    """log p of all answers under a model as it is now.

    Args:
        model: the reference.
        tokens: prompts and answers.
        layout: see `PreferenceBatches`.
        dtype: of products, as in the training: the two must round alike.
        cache: a directory to keep them in, and to take them from if they are there; None: neither.
        quiet: show no progress.

    Returns:
        (answers,) nats.

    Raises:
        DataError: if one is not finite, or the cache is damaged.
    """
    file = None
    if cache is not None:
        key = _key(model, tokens, dtype)
        file = cache / f"references-{key[:32]}.safetensors"
        if file.exists():
            return _read(file, key, len(tokens.answers))
    values = _computed(model, tokens, layout, dtype, quiet)
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values))[0])
        raise DataError(
            f"the reference gives answer {bad + 1:,} a log-probability of {values[bad]}; the model's weights "
            "are damaged, or its precision does not do"
        )
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        writer = require("safetensors.numpy", "train", "keeping reference log-probabilities")
        with atomic_file(file) as beside:
            writer.save_file({_VALUES: values}, beside.name, {_KEY: key})
    return values


def _computed(
    model: nn.Module, tokens: PreferenceTokens, layout: Layout, dtype: Precision, quiet: bool
) -> NDArray[np.float64]:
    device = next(model.parameters()).device
    values = np.empty(len(tokens.answers), np.float64)
    was = model.training
    model.eval()
    done = 0
    try:
        with (
            torch.no_grad(),
            Progress(len(values), label="reference", unit="answers", quiet=quiet) as progress,
        ):
            for some in passes(tokens):
                batch = {
                    name: torch.as_tensor(array).to(device)
                    for name, array in pack(tokens, some, layout=layout).items()
                }
                with autocast(dtype, device):
                    values[some] = answer_logprobs(model, batch).cpu().numpy()
                done += len(some)
                progress.update(done)
    finally:
        model.train(was)
    return values


def passes(tokens: PreferenceTokens) -> Iterator[NDArray[np.int64]]:
    """All answers, by prompt, in passes of about `TOKENS` tokens."""
    some: list[int] = []
    held, prompt = 0, -1
    for answer in np.argsort(tokens.prompt_of, kind="stable").tolist():
        place = int(tokens.prompt_of[answer])
        more = len(tokens.answers[answer]) + (len(tokens.prompts[place]) if place != prompt else 0)
        if some and held + more > TOKENS:
            yield np.array(some)
            some, held = [], 0
            more = len(tokens.answers[answer]) + len(tokens.prompts[place])
        some.append(answer)
        held, prompt = held + more, place
    if some:
        yield np.array(some)


def _key(model: nn.Module, tokens: PreferenceTokens, dtype: Precision) -> str:
    facts = [2, weights_digest(model), tokens.digest, dtype]  # the first: of what the file means
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def weights_digest(model: nn.Module) -> str:
    """SHA-256 (hex) of a model's weights, quantised ones too, with their names, shapes and types."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().contiguous().cpu()
        found.update(json.dumps([name, list(flat.shape), str(flat.dtype)]).encode())
        found.update(flat.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _read(file: Path, key: str, count: int) -> NDArray[np.float64]:
    safetensors = require("safetensors", "train", "reading reference log-probabilities")
    try:
        with safetensors.safe_open(file, "numpy") as opened:
            said = (opened.metadata() or {}).get(_KEY)
            values: NDArray[np.float64] = opened.get_tensor(_VALUES)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise DataError(f"{file}: damaged ({error}); delete it, and it is computed again") from None
    if said != key or values.shape != (count,) or values.dtype != np.float64 or not np.isfinite(values).all():
        raise DataError(f"{file}: not what its name says; delete it, and it is computed again")
    return values
