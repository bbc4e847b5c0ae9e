"""A reward model: a language model whose last state of a text becomes a number instead of a token.

model = RewardModel(load("model"))
model.rewards(ids, mask)               # (B,)
save(model, "reward", tokenizer=...);  model, tokenizer = load("reward")
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from posterhall import seeds
from posterhall.errors import DataError
from posterhall.extras import nn, require, torch
from posterhall.models import hub

if TYPE_CHECKING:
    from posterhall.data.tokenizer import Tokenizer
    from posterhall.models.mixers import Tree

HEAD = "score.weight"
"""In a checkpoint, (1, D): the name that transformers' ...ForSequenceClassification has for it."""
OFFSET = "reward_offset"
"""In config.json: what is taken off, so that rewards have mean 0 over the data of training."""
ARCHITECTURE = "LlamaForSequenceClassification"
_TOKENS = 1 << 13
"""Tokens of a pass over texts, about."""


class Backed(nn.Module):
    """A module around a model, which the training loop takes for the model itself.

    Attributes:
        gradient_checkpointing, draws: of the model within; see `Decoder`.
    """

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone

    @property
    def gradient_checkpointing(self) -> bool:
        """See `Decoder`."""
        return bool(getattr(self.backbone, "gradient_checkpointing", False))

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, wanted: bool) -> None:
        if hasattr(self.backbone, "gradient_checkpointing"):
            self.backbone.gradient_checkpointing = wanted

    @property
    def draws(self) -> int:
        """See `Decoder`."""
        return int(getattr(self.backbone, "draws", 0))

    @draws.setter
    def draws(self, passed: int) -> None:
        if hasattr(self.backbone, "draws"):
            self.backbone.draws = passed


class RewardModel(Backed):
    """r(x, y) = w . h - offset, h being the state of the last token of prompt x with answer y.

    Ouyang et al. 2022, §3.5, without a bias, as the offset does for one. w begins as Stiennon et al. 2020
    have it (app. B.1): normal, of variance 1 / (D + 1).

    Args:
        backbone: a `Decoder`, or what has its `hidden` and `config`.
        seed: of w.

    Attributes:
        backbone: the model below.
        head: w, (D,).
        offset: 0-d; see `posterhall.train.reward`, which sets it.
    """

    offset: torch.Tensor

    def __init__(self, backbone: Any, *, seed: int = 0) -> None:
        super().__init__(backbone)
        dim, like = backbone.config.dim, next(backbone.parameters())
        drawn = torch.Generator().manual_seed(seeds.derive(seed, "reward head"))
        head = torch.empty(dim).normal_(0.0, 1 / math.sqrt(dim + 1), generator=drawn)
        self.head = nn.Parameter(head.to(like.device, torch.float32))
        self.register_buffer("offset", torch.zeros((), device=like.device))

    @property
    def config(self) -> Any:
        """The shape of the model below."""
        return self.backbone.config

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.head.device

    def at(
        self, ids: torch.Tensor, places: torch.Tensor, *, trees: Sequence[Tree] | None = None
    ) -> torch.Tensor:
        """Rewards of the texts that end at some places.

        Args:
            ids: (B, T) tokens.
            places: (M,) of the texts' last tokens in the flattened ids.
            trees: see `Decoder.hidden`.

        Returns:
            (M,), float32.
        """
        shape = {} if trees is None else {"trees": trees}
        states: torch.Tensor = self.backbone.hidden(ids, at=places, **shape)
        return states.float() @ self.head - self.offset

    def rewards(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Rewards of whole texts, in passes of a few.

        Args:
            ids: (B, T) tokens, padded at the end.
            mask: (B, T) bool; the last token that it marks in a row is the text's last.

        Returns:
            (B,), float32, without gradients.
        """
        last = mask.long().mul(torch.arange(1, ids.shape[1] + 1, device=ids.device)).amax(1) - 1
        if bool((last < 0).any()):
            raise DataError(f"row {int((last < 0).nonzero()[0])} of the mask marks no token; each needs one")
        was = self.training
        self.eval()
        found = torch.empty(len(ids), device=self.device)
        try:
            with torch.no_grad():
                order = last.argsort(stable=True)
                for some in torch.split(order, max(1, _TOKENS // ids.shape[1])):
                    width = int(last[some].max()) + 1
                    rows = torch.arange(len(some), device=ids.device)
                    part = ids[some, :width].to(self.device)
                    found[some] = self.at(part, (rows * width + last[some]).to(self.device))
        finally:
            self.train(was)
        return found


def score_texts(
    model: RewardModel, tokenizer: Tokenizer, prompts: Sequence[str], answers: Sequence[str]
) -> NDArray[np.float64]:
    """Rewards of answers to prompts, (n,), each read as a whole that begins and ends as in training.

    Raises:
        DataError: for a text that is too long.
    """
    first = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    rows = []
    longest = model.config.max_length
    texts = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    for number, ids in enumerate(tokenizer.encode_batch(texts)):
        whole = [*([] if first is None else [first]), *ids.tolist()]
        whole += [] if tokenizer.eos_id is None else [tokenizer.eos_id]
        if not 1 <= len(whole) <= longest:
            raise DataError(
                f"prompt and answer {number + 1:,} have {len(whole):,} tokens; the reward model reads at "
                f"most {longest:,}. Ask for shorter answers"
            )
        rows.append(whole)
    found = np.empty(len(rows))
    for some in _alike(rows):
        width = max(len(rows[i]) for i in some)
        padded = torch.tensor([rows[i] + [0] * (width - len(rows[i])) for i in some])
        mask = torch.arange(width) < torch.tensor([len(rows[i]) for i in some])[:, None]
        found[some] = model.rewards(padded.to(model.device), mask.to(model.device)).cpu().double().numpy()
    return found


def _alike(rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Numbers of rows of like length, of about `_TOKENS` together."""
    some: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: len(rows[i])):
        if some and (len(some) + 1) * len(rows[i]) > _TOKENS:
            yield some
            some = []
        some.append(i)
    if some:
        yield some


def save(model: RewardModel, directory: Path | str, *, tokenizer: Tokenizer) -> Path:
    """Write a reward model, as transformers' LlamaForSequenceClassification with one label loads it.

    There its logit is the reward plus the offset, which transformers has no place for and which no comparison
    sees.

    Args:
        model: on a `Decoder` of attention layers.
        directory: where; see `posterhall.models.hub.save`.
        tokenizer: of its texts.

    Raises:
        DataError: if nothing can be written there.
    """
    return hub.save(
        model.backbone,
        directory,
        tokenizer=tokenizer,
        more_tensors={HEAD: model.head.detach()[None].to(next(model.backbone.parameters()).dtype)},
        more_config={
            "architectures": [ARCHITECTURE],
            "id2label": {"0": "reward"},
            "label2id": {"reward": 0},
            OFFSET: float(model.offset),
        },
    )


def load(path: Path | str, *, dtype: Any = None, device: Any = "cpu") -> tuple[RewardModel, Tokenizer]:
    """Read a reward model: one of `save`, or any LlamaForSequenceClassification with one label.

    Args:
        path: its directory, the run that trained it, or an id on the hub.
        dtype, device: see `posterhall.models.hub.load`.

    Returns:
        The model, in evaluation mode, and its tokeniser.

    Raises:
        DataError: for what is not there, damaged, or no reward model.
    """
    from posterhall.data import tokenizer as tokenizers

    directory = hub.locate(path)
    said = _config(directory)
    safetensors = require("safetensors", "train", "loading a reward model")
    files = hub.weight_files(directory)
    head = None
    for file in sorted(set(files.values())):
        try:
            with safetensors.safe_open(file, framework="pt") as opened:
                if HEAD in opened.keys():  # noqa: SIM118 - not a mapping
                    head = opened.get_tensor(HEAD)
        except safetensors.SafetensorError as error:
            raise DataError(f"{file}: not a whole safetensors file: {error}; fetch it again") from error
    if head is None:
        raise DataError(
            f"{directory} is no reward model: it has no tensor {HEAD}. Train one with "
            "`posterhall train reward`"
        )
    backbone = hub.load(directory, dtype=dtype, device=device, ignore=(HEAD,))
    if tuple(head.shape) != (1, backbone.config.dim):
        raise DataError(
            f"{directory}: {HEAD} is {tuple(head.shape)}; a reward model of this size has "
            f"(1, {backbone.config.dim}), one number a text"
        )
    offset = said.get(OFFSET, 0.0)
    if isinstance(offset, bool) or not isinstance(offset, int | float) or not math.isfinite(offset):
        raise DataError(f"{directory / hub.CONFIG}: {OFFSET} is {offset!r}; it must be a finite number")
    model = RewardModel(backbone)
    with torch.no_grad():
        model.head.copy_(head[0])
        model.offset.fill_(offset)
    return model.to(device).eval(), tokenizers.load(directory)


def _config(directory: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((directory / hub.CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{directory / hub.CONFIG}: cannot be read as JSON: {error}") from error
    return found
