"""One small model: trained on text, quantised, and tuned on other text in several ways."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from posterhall.claims.datablations import _text
from posterhall.claims.rows import Budget, Row, Scalar
from posterhall.seeds import derive

if TYPE_CHECKING:
    from posterhall.data.tokens import Tokens

_SPREAD = 2
"""Bytes read for one that is used: rows are drawn from many files."""


@dataclass(frozen=True)
class Pretrained:
    """A trained model with the text to judge it by, and to tune it on."""

    model: Any
    held_out: Tokens
    tuning: Tokens | None


@lru_cache(maxsize=2)  # several claims ask for the same model, often in one process
def _pretrained(what: _text.What, source: Scalar, other: Scalar, budget: Budget, seed: int) -> Pretrained:
    from posterhall.claims.datablations import _train

    if "tuning" in budget:
        (texts,) = _text.draw(what, source, [_SPREAD * budget.tokens], seed)
        sizes = [_SPREAD * budget.held_out, _SPREAD * budget.tuning]
        held, tuning = map(_text.stream, _text.draw("prose", other, sizes, seed))
    else:
        texts_held, texts = _text.draw(
            what, source, [_SPREAD * budget.held_out, _SPREAD * budget.tokens], seed
        )
        held, tuning = _text.stream(texts_held), None
    judged = _train.train(_text.stream(texts), held, budget, seed, total=budget.tokens)
    return Pretrained(judged.model, held, tuning)


def pretrained(
    what: _text.What, source: Scalar, budget: Budget, seed: int, other: Scalar = None
) -> Pretrained:
    """A byte-level decoder trained on prose or code.

    Args:
        what: kind of its text.
        source: file or directory of one's own; None: the standard library's.
        budget: tokens, shape, rate; held_out bytes of prose are kept apart. With `tuning`, so many bytes of
            prose are drawn too.
        seed: of everything.
        other: like `source`, for the prose to tune on.
    """
    return _pretrained(what, source, other, budget, seed)


def loss(model: Any, text: Tokens, budget: Budget) -> float:
    """Mean loss on the first `held_out` bytes, nats a byte."""
    from posterhall.data.packing import Packed
    from posterhall.extras import torch
    from posterhall.train import next_token

    rows = Packed(text, context=budget.context, unique_tokens=budget.held_out, shuffle=False)
    total, count, size = 0.0, 0, 64
    with torch.no_grad():
        for at in range(0, rows.items, size):
            batch = rows.take(at, min(size, rows.items - at))
            _, said = next_token(model, {k: torch.from_numpy(v).to(model.device) for k, v in batch.items()})
            total, count = total + float(said["nll_sum"]), count + int(said["tokens"])
    return total / count


def quantised(model: Any, code: str, *, transposed: bool = False, **settings: Any) -> Any:
    """A copy whose linear layers (all but the head) have the values of quantised ones.

    Args:
        model: a decoder; it is left alone.
        code: see `posterhall.quantize.quantize`, as for the settings.
        transposed: blocks run down the columns of a matrix.
    """
    from posterhall.adapters.placing import linear_layers
    from posterhall.extras import torch
    from posterhall.quantize import quantize
    from posterhall.quantize.linear import weight_of

    made = copy.deepcopy(model)
    with torch.no_grad():
        for _, layer in linear_layers(made):
            weight = weight_of(layer)
            values = weight.t().contiguous() if transposed else weight
            restored = quantize(values, code, **settings).tensor()
            weight.copy_(restored.t() if transposed else restored)
    return made


@dataclass(frozen=True)
class Way:
    """How a model is tuned. Without a code its weights are not quantised; without targets all are trained."""

    lr: float
    code: str | None = None
    targets: str | tuple[str, ...] | None = None
    rank: float = 1.0
    """In units of the budget's, or 0: one."""
    start: int = 0
    """Which initial adapters."""


def gains(budget: Budget, seed: int, params: Mapping[str, Scalar], ways: Mapping[str, Way]) -> Iterator[Row]:
    """What tuning gains in each way: the loss of the model before, less that after, nats a byte."""
    base = pretrained("code", params["code"], budget, seed, params["corpus"])
    before = loss(base.model, base.held_out, budget)
    for arm, way in ways.items():
        model, count = tuned(base, way, budget, seed)
        after = loss(model, base.held_out, budget)
        yield Row(arm, seed, gain=before - after, before=before, loss=after, trained=count)


def tuned(base: Pretrained, way: Way, budget: Budget, seed: int) -> tuple[Any, int]:
    """A copy of the model after one epoch over `tuning` bytes, and how many parameters were trained."""
    from posterhall.adapters import add_lora
    from posterhall.data.packing import Packed
    from posterhall.models.quantized import Quantization, quantize_layers
    from posterhall.train import TrainSettings, fit, next_token

    assert base.tuning is not None  # noqa: S101 - for the type checker
    model = copy.deepcopy(base.model)
    if way.code is not None:
        quantize_layers(model, Quantization(way.code, double=way.code == "nf4"))
    if way.targets is not None:
        rank = max(1, round(way.rank * budget.rank))
        start = derive(seed, "qlora", "adapters", way.start)
        add_lora(model, rank=rank, alpha=float(rank), targets=way.targets, seed=start)
    data = Packed(
        base.tuning, context=budget.context, seed=derive(seed, "qlora", "tuning"), unique_tokens=budget.tuning
    )
    settings = TrainSettings(
        lr=way.lr, weight_decay=0.0, batch=budget.batch, keep="last", log_every=1 << 20, seed=seed
    )
    fit(model, data, objective=next_token, settings=settings)
    return model.eval(), sum(each.numel() for each in model.parameters() if each.requires_grad)
