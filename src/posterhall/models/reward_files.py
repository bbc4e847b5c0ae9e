"""Reward models as files: the sequence classifiers with one label that transformers has.

save(model, "reward", tokenizer=...);  model, tokenizer = load("reward")

A whole model is written as its architecture's ...ForSequenceClassification; an adapter as PEFT writes those
of classifiers (task_type SEQ_CLS), with the head beside it. Their logit is the reward plus an offset, which
they have no place for and which no comparison sees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posterhall import adapters
from posterhall.adapters import placing, saving
from posterhall.errors import DataError
from posterhall.extras import torch
from posterhall.models import _layouts, _llama, causal, foreign_files, hub
from posterhall.models.foreign import Foreign, Headless
from posterhall.models.reward import RewardModel

if TYPE_CHECKING:
    from posterhall.data.tokenizer import Tokenizer

HEAD = "score.weight"
"""In a checkpoint, (1, D): the name that transformers' classifiers of last states have for it."""
OFFSET = "reward_offset"
"""In config.json, or the note beside an adapter's tensors: what is taken off, so that rewards have mean 0
over the data of training."""
ARCHITECTURE = "LlamaForSequenceClassification"
_LABELS: dict[str, Any] = {"id2label": {"0": "reward"}, "label2id": {"reward": 0}}


def check_savable(model: RewardModel) -> None:
    """Refuse, before it is trained, a model that could not be saved.

    Raises:
        DataError: for a whole model of an architecture of which transformers has no classifier.
    """
    backbone = model.backbone
    if isinstance(backbone, Foreign) and not _is_adapted(backbone):
        foreign_files.classifier(backbone.model)


def save(
    model: RewardModel,
    directory: Path | str,
    *,
    tokenizer: hub.Savable,
    base: Path | str = "",
    files: Path | None = None,
) -> Path:
    """Write a reward model.

    Args:
        model: whole, or with an adapter.
        directory: where; see `posterhall.models.hub.save` and `posterhall.adapters.save`.
        tokenizer: of its texts; what else is saved with it (a chat template) goes along.
        base, files: of an adapter; see `posterhall.adapters.save`.

    Raises:
        DataError: if nothing can be written there, the adapter was not trained, or transformers has no
            classifier of the architecture.
    """
    directory, backbone = Path(directory), model.backbone
    head, offset = model.head.detach()[None], float(model.offset)
    if _is_adapted(backbone):
        adapters.save(backbone, directory, base=base, files=files, heads={HEAD: head}, note={OFFSET: offset})
        tokenizer.save(directory)
        return directory
    if not isinstance(backbone, Foreign | Headless):
        own = {"architectures": [ARCHITECTURE]} if _layouts.is_llama(backbone.config) else {}
        return hub.save(
            backbone,
            directory,
            tokenizer=tokenizer,
            more_tensors={HEAD: head.to(next(backbone.parameters()).dtype)},
            more_config={**own, **_LABELS, OFFSET: offset},
        )
    whole = (
        backbone.classifier if isinstance(backbone, Headless) else foreign_files.classifier(backbone.model)
    )
    with torch.no_grad():
        weight = next(backbone.parameters())
        whole.score.weight = torch.nn.Parameter(head.to(weight.device, weight.dtype))
    config = whole.config
    config.id2label, config.label2id = {0: "reward"}, {"reward": 0}
    if config.pad_token_id is None:
        config.pad_token_id = getattr(tokenizer, "pad_id", None)
    setattr(config, OFFSET, offset)
    foreign_files.write(whole, directory)
    tokenizer.save(directory)
    return directory


def load(path: Path | str, *, dtype: Any = None, device: Any = "cpu") -> tuple[RewardModel, Tokenizer]:
    """Read a reward model: one of `save`, or any classifier of transformers with one label that is read off
    the last token's state, whole or as an adapter of PEFT.

    Args:
        path: its directory, the run that trained it, or an id on the hub.
        dtype, device: see `posterhall.models.hub.load`.

    Returns:
        The model, in evaluation mode, and its tokeniser.

    Raises:
        DataError: for what is not there, damaged, or no reward model.
        MissingExtra: without transformers, for an architecture that only it reads.
    """
    from posterhall.data import tokenizer as tokenizers

    directory = hub.locate(path)
    found = (
        _adapter(directory, dtype, device) if hub.is_adapter(directory) else _whole(directory, dtype, device)
    )
    dim = found.backbone.config.dim
    if tuple(found.head.shape) != (1, dim):
        raise DataError(
            f"{directory}: {HEAD} is {tuple(found.head.shape)}; a reward model of this size has (1, {dim}), "
            "one number a text"
        )
    offset = found.offset
    if isinstance(offset, bool) or not isinstance(offset, int | float) or not math.isfinite(offset):
        raise DataError(f"{directory}: {OFFSET} is {offset!r}; it must be a finite number")
    model = RewardModel(found.backbone)
    with torch.no_grad():
        model.head.copy_(found.head[0])
        model.offset.fill_(offset)
    return model.to(device).eval(), tokenizers.load(causal.text_files(directory))


def merged(directory: Path, below: Path) -> tuple[dict[str, Any], torch.Tensor]:
    """What a reward model has that is an adapter merged into its base: entries of config.json beside those of
    the base, and the head (1, D).

    Args:
        directory: of the adapter.
        below: of its base.

    Raises:
        DataError: if transformers has no classifier of the architecture.
    """
    from posterhall.data import tokenizer as tokenizers

    config, head = saving.read_config(directory), saving.read_head(directory, HEAD)
    if head is None:
        raise _none(directory)
    try:
        own = [ARCHITECTURE] if _layouts.is_llama(hub.read_config(below)) else None
    except DataError:  # of another architecture
        own = [type(foreign_files.classifier(foreign_files.skeleton(below))).__name__]
    said = hub.read_json(below / hub.CONFIG)
    pad = said.get("pad_token_id")
    if pad is None:
        pad = tokenizers.load(causal.text_files(directory)).pad_id
    named = {} if own is None else {"architectures": own}
    return {**named, **_LABELS, "pad_token_id": pad, OFFSET: config.note.get(OFFSET, 0.0)}, head


@dataclass(frozen=True)
class _Found:
    """What files hold."""

    backbone: Any
    head: torch.Tensor
    offset: Any


def _adapter(directory: Path, dtype: Any, device: Any) -> _Found:
    config = saving.read_config(directory)
    head = saving.read_head(directory, HEAD) if config.classifies else None
    if head is None:
        raise _none(directory)
    below, how = causal.base_of(directory)
    backbone: Any = causal.load(below, dtype=dtype, device=device, quantize=how)
    adapters.load(backbone, directory, fingerprint=hub.fingerprint(below), classifies=True)
    return _Found(backbone, head, config.note.get(OFFSET, 0.0))


def _whole(directory: Path, dtype: Any, device: Any) -> _Found:
    names = hub.tensor_names(directory)
    if HEAD not in names:
        raise _none(directory)
    offset = hub.read_json(directory / hub.CONFIG).get(OFFSET, 0.0)
    try:
        ours = _has_all(directory, names)
    except DataError:  # of another architecture
        ours = False
    if not ours:
        backbone = Headless(foreign_files.read_classifier(directory, hub.dtype_of(dtype)).to(device))
        return _Found(backbone, backbone.classifier.score.weight.detach(), offset)
    head = next(tensor for _, name, tensor in hub.tensors(directory) if name == HEAD)
    return _Found(hub.load(directory, dtype=dtype, device=device, ignore=(HEAD,)), head, offset)


def _has_all(directory: Path, names: list[str]) -> bool:
    """Whether a decoder is there with the head that gives logits; classifiers of others come without it."""
    config = hub.read_config(directory)
    return not _layouts.is_llama(config) or config.tie_embeddings or _llama.HEAD in names


def _none(directory: Path) -> DataError:
    return DataError(
        f"{directory} is no reward model: it has no tensor {HEAD}. Train one with `posterhall train reward`; "
        "a classifier of another kind is named classifier:DIR"
    )


def _is_adapted(model: Any) -> bool:
    return any(True for _ in placing.adapters(model))
