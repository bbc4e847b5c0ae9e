"""A reward model: a language model whose last state of a text becomes a number instead of a token.

model = RewardModel(load("model"))
model.rewards(ids, mask)               # (B,)

Files: `posterhall.models.reward_files`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from posterhall import seeds
from posterhall.data import preference
from posterhall.data.chat_template import ChatTemplate, TemplateError
from posterhall.data.prompts import Asked, as_messages
from posterhall.data.special_tokens import SpecialTokens
from posterhall.errors import DataError
from posterhall.extras import nn, torch

if TYPE_CHECKING:
    from posterhall.data.tokenizer import Tokenizer
    from posterhall.models.mixers import Tree

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


class Reader:
    """How a reward model reads prompts with answers: as wholes that begin and end as in training.

    Args:
        tokenizer: of the model.
        template: by which it reads conversations; None: as the dialogues of HH.

    Attributes:
        closing: see `SpecialTokens.closing`; empty without a template.
    """

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None = None) -> None:
        self.tokenizer, self._template = tokenizer, template
        self._special = None if template is None else SpecialTokens(tokenizer)
        self.closing: list[int] = []
        if template is not None and self._special is not None:
            self.closing = self._special.closing(template)

    def prompt(self, asked: Asked) -> list[int] | None:
        """The tokens of a conversation up to where an answer begins; None if the template does not take it,
        or there is none."""
        return None if isinstance(asked, str) else self._rendered(as_messages(asked), begins=True)

    def rows(self, prompts: Sequence[Asked], answers: Sequence[str]) -> list[list[int] | None]:
        """The tokens of answers to prompts, each a whole; None where there is no way to write it."""
        texts: list[str | None] = []
        rows: list[list[int] | None] = []
        for asked, answer in zip(prompts, answers, strict=True):
            talk = [] if isinstance(asked, str) else as_messages(asked)
            if self._template is None or isinstance(asked, str):
                texts.append(f"{asked}{answer}" if isinstance(asked, str) else _dialogue(talk, answer))
                rows.append(None)
            else:
                texts.append(None)
                rows.append(self._rendered([*talk, {"role": "assistant", "content": answer}]))
        first = self.tokenizer.eos_id if self.tokenizer.bos_id is None else self.tokenizer.bos_id
        begin, end = ([] if each is None else [each] for each in (first, self.tokenizer.eos_id))
        plain = iter(self.tokenizer.encode_batch([text for text in texts if text is not None]))
        for i, text in enumerate(texts):
            if text is not None:
                rows[i] = [*begin, *next(plain).tolist(), *end]
        return rows

    def score(
        self, model: RewardModel, prompts: Sequence[Asked], answers: Sequence[str]
    ) -> NDArray[np.float64]:
        """Rewards of answers to prompts, (n,); NaN for what is too long, or cannot be written.

        Raises:
            DataError: if all are too long.
        """
        longest = model.config.max_length
        rows = self.rows(prompts, answers)
        found = np.full(len(rows), np.nan)
        kept, wholes = [], []
        for i, row in enumerate(rows):
            if row is not None and 1 <= len(row) <= longest:
                kept.append(i)
                wholes.append(row)
        shortest = min((len(row) for row in rows if row is not None), default=0)
        if shortest > longest:
            raise DataError(
                f"prompts with answers have {shortest:,} tokens or more; the reward model reads at most "
                f"{longest:,}. Ask for shorter answers"
            )
        for some in _alike(wholes):
            width = max(len(wholes[i]) for i in some)
            padded = torch.tensor([wholes[i] + [0] * (width - len(wholes[i])) for i in some])
            mask = torch.arange(width) < torch.tensor([len(wholes[i]) for i in some])[:, None]
            rewards = model.rewards(padded.to(model.device), mask.to(model.device))
            found[[kept[i] for i in some]] = rewards.cpu().double().numpy()
        return found

    def _rendered(self, messages: Sequence[Mapping[str, str]], *, begins: bool = False) -> list[int] | None:
        """A conversation by the template, its end included unless an answer begins behind it."""
        if self._template is None or self._special is None:
            return None
        try:
            text = self._template.render(
                messages, add_generation_prompt=begins, special=self._special.pattern
            )
        except TemplateError:
            return None
        ((ids, _),) = self._special.encode([text])
        ended = begins or self._special.ends(text) or self.tokenizer.eos_id is None
        return [*ids.tolist(), *([] if ended else [self.tokenizer.eos_id])]


def score_texts(
    model: RewardModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Asked],
    answers: Sequence[str],
    *,
    template: ChatTemplate | None = None,
) -> NDArray[np.float64]:
    """Rewards of answers to prompts, (n,); see `Reader`."""
    return Reader(tokenizer, template).score(model, prompts, answers)


def _dialogue(messages: Sequence[Mapping[str, str]], answer: str) -> str | None:
    """What `preference.read` makes of a conversation for a model without a template."""
    try:
        return preference.render([*messages, {"role": "assistant", "content": answer}], "the prompt")
    except DataError:  # another's turn within a message
        return None


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
