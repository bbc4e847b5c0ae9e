"""One tiny byte-level decoder: trained on text, judged by its loss on prose and by a choice of endings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from posterhall.claims.rows import Budget
from posterhall.errors import DataError
from posterhall.seeds import derive, generator

if TYPE_CHECKING:
    from posterhall.data.packing import Packed
    from posterhall.data.tokens import Tokens
    from posterhall.evals.tasks import Task

_OPTIONS = 4
_AT_ONCE = 1 << 14
"""Rows of a mixture copied at a time."""
_PROMPT, _ENDING = 57, 6
"""Characters; with the token that begins a text they fit into the shortest context used, 64."""


@dataclass(frozen=True)
class Judged:
    """A trained model and how it did."""

    model: Any
    loss: float
    """Nats a byte on held-out text."""
    params: int
    tokens: int
    """Trained on."""
    unique: int
    """Distinct ones among them."""


class Mixture:
    """Rows of several streams as one epoch; made by `mixture`."""

    def __init__(self, parts: Sequence[Packed], seed: int) -> None:
        self.context = parts[0].context
        self.items = sum(part.items for part in parts)
        self.unique_tokens = self.items * self.context
        self._seed = seed
        self._rows = np.empty((self.items, self.context + 1), np.uint16)
        self._order = lru_cache(maxsize=1)(self._shuffled)
        at = 0
        for part in parts:
            for first in range(0, part.items, _AT_ONCE):
                taken = part.take(first, min(_AT_ONCE, part.items - first))
                rows = self._rows[at : at + len(taken["ids"])]
                rows[:, :-1], rows[:, -1] = taken["ids"], taken["labels"][:, -1]
                at += len(rows)

    def take(self, first: int, count: int) -> dict[str, NDArray[np.int64]]:
        """See `posterhall.train.loop.Items`."""
        places = np.arange(first, first + count)
        drawn = [self._order(int(place // self.items))[place % self.items] for place in places]
        rows = self._rows[drawn].astype(np.int64)
        return {"ids": rows[:, :-1].copy(), "labels": rows[:, 1:].copy()}

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        return generator(self._seed, "datablations", "mixture", epoch).permutation(self.items)


def mixture(sources: Sequence[tuple[Tokens, float]], budget: Budget, seed: int) -> Mixture:
    """`budget.tokens` of several streams by their shares, each from a row here and there.

    Rows of a source are the first of one permutation of it, so that a smaller share is contained in a
    larger one.
    """
    from posterhall.data.packing import Packed

    rows = budget.tokens // budget.context
    parts = [
        Packed(
            tokens,
            context=budget.context,
            seed=derive(seed, "datablations", "source", number),
            unique_tokens=round(share * rows) * budget.context,
        )
        for number, (tokens, share) in enumerate(sources)
        if round(share * rows)
    ]
    return Mixture(parts, seed)


def train(
    tokens: Tokens | Mixture,
    held_out: Tokens,
    budget: Budget,
    seed: int,
    *,
    total: int,
    unique: int | None = None,
    dim: int | None = None,
) -> Judged:
    """Train a decoder from the seed's initial weights, and take its loss on held-out text.

    AdamW, 1 % warm-up, cosine to a tenth (Muennighoff et al. 2023, app. S); no early stopping. Rows are
    shuffled anew each epoch, and a smaller `unique` is contained in a larger one. On a CUDA device if
    there is one.

    Args:
        tokens: the text, or a mixture of texts.
        held_out: of other files; the seed draws `budget.held_out` tokens of it, a row here and there.
        budget: gives dim, layers, context, batch, lr and held_out.
        seed: of weights, of order and of what is kept.
        total: tokens to train on.
        unique: tokens kept of the text; all of it if None.
        dim: width, instead of the budget's.
    """
    from posterhall.data.packing import Packed
    from posterhall.data.tokenizer import ByteTokenizer
    from posterhall.extras import torch
    from posterhall.models import Decoder, DecoderConfig, parameters_count
    from posterhall.train import TrainSettings, fit, next_token

    width = dim or budget.dim
    config = DecoderConfig(
        vocab_size=ByteTokenizer.vocab_size,
        dim=width,
        layers=budget.layers,
        heads=max(1, width // 32),
        ffn_dim=3 * width,
        max_length=max(budget.context, _PROMPT + _ENDING + 1),
        init_std=width**-0.5,
    )
    model = Decoder(config, seed=derive(seed, "datablations", "weights", width))
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    order = derive(seed, "datablations", "order")
    data = (
        tokens
        if isinstance(tokens, Mixture)
        else Packed(tokens, context=budget.context, seed=order, unique_tokens=unique)
    )
    fitted = fit(
        model,
        data,
        objective=next_token,
        settings=TrainSettings(
            lr=budget.lr, tokens=total, batch=budget.batch, keep="last", log_every=1 << 20, seed=seed
        ),
        evaluate=Packed(
            held_out, context=budget.context, seed=seed, unique_tokens=budget.held_out, shuffle=False
        ),
    )
    return Judged(
        model.eval(),
        fitted.evaluation["loss"],
        parameters_count(config).total,
        fitted.tokens,
        min(data.unique_tokens, fitted.tokens),
    )


def endings(texts: Sequence[str], items: int, seed: int) -> Task:
    """Multiple choice: how a passage goes on, among passages of other documents. Chance is 1/4.

    A passage is cut at random, within words too. All options have the same number of characters, so
    that length decides nothing, and come from the same texts, so that style does not either.

    Args:
        texts: held-out documents.
        items: questions.
        seed: of the draws.
    """
    from posterhall.evals.tasks import Item, Task, TaskSettings

    rng = generator(seed, "datablations", "endings")
    whole = _PROMPT + _ENDING
    usable = [text for text in texts if whole <= len(text) > 0.95 * len(text.encode())]
    if len(usable) < _OPTIONS:
        raise DataError(
            f"{len(usable)} held-out documents have {whole} characters, nearly all ASCII; a question needs "
            f"{_OPTIONS}. Give more text with --set corpus=PATH"
        )

    def passage(text: str) -> tuple[str, str]:
        while True:
            at = int(rng.integers(0, len(text) - whole + 1))
            if text[at : at + whole].isascii():  # a character is a byte
                return text[at : at + _PROMPT], text[at + _PROMPT : at + whole]

    found: list[Item] = []
    while len(found) < items:
        number = len(found)
        chosen = rng.choice(len(usable), size=_OPTIONS, replace=False).tolist()
        prompt, right = passage(usable[chosen[0]])
        options = [right, *(passage(usable[i])[1] for i in chosen[1:])]
        if len(set(options)) < _OPTIONS:
            continue  # boilerplate that documents share has no right answer
        order = rng.permutation(_OPTIONS)
        found.append(
            Item(
                id=str(number),
                where=f"question {number}",
                fields={"question": prompt},
                choices=tuple(options[i] for i in order.tolist()),
                correct=(int((order == 0).argmax()),),
                cluster=str(chosen[0]),
            )
        )
    settings = TaskSettings(template="{question}", answer_prefix="")
    return Task("endings", tuple(found), settings, shots=())


def downstream(model: Any, task: Task) -> float:
    """Accuracy above chance, (x - chance) / (1 - chance): 0 for guessing, 1 for all right."""
    from posterhall.data.tokenizer import ByteTokenizer
    from posterhall.evals.items import ask
    from posterhall.evals.shots import plan
    from posterhall.lm.local import LocalLM
    from posterhall.lm.protocol import wait

    asked = plan(task, shots=(0,), seed=0)
    rows = wait(ask(LocalLM(model, ByteTokenizer()), asked, 0, asked.items))
    right = sum(row.scores["accuracy"] or 0.0 for row in rows) / len(rows)
    return (right - task.chance) / (1 - task.chance)
