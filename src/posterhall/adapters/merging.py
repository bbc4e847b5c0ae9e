"""Adapters merged into weights, and what quantising the sum again would leave of them.

A merged layer is W + s B A, where W is the weight that the adapter was trained on: of a quantised layer, the
restored one. To quantise the sum again rounds to steps that are mostly larger than the adapter's changes: a
small change of a weight that stands on a step is taken back altogether. So merging is into 16 bits, and what
a return to 4 bits would cost is measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

from posterhall.adapters import placing
from posterhall.adapters.lora import LoraLinear
from posterhall.errors import DataError
from posterhall.extras import nn, torch
from posterhall.quantize.blockwise import quantize
from posterhall.quantize.linear import QuantizedLinear, weight_of

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Erased:
    """What quantising W + D again does to an adapter's change D.

    With q(.) for quantising and restoring, what arrives is R = q(W + D) - q(W).
    """

    share: float
    """|R - D| / |D|, Frobenius norms over all layers: 0 if the change arrives whole, 1 if nothing does,
    more where rounding adds larger errors than the change is."""
    kept: float
    """<R, D> / |D|^2: how much of the change arrives in its own direction; 1 is all, 0 nothing."""
    unchanged: float
    """Share of the weights whose code stays the same."""


def merge(model: M, *, dtype: Any = None) -> M:
    """Add adapters to their layers' weights, in place: a plain model comes out, with nothing quantised.

    Args:
        model: with adapters.
        dtype: of the weights of layers that were quantised; None: of the type they had before. Weights that
            were not quantised keep theirs.

    Returns:
        The model; nothing in it is frozen.

    Raises:
        DataError: if there are no adapters (they may have been merged already).
    """
    if not any(True for _ in placing.adapters(model)):
        raise DataError("the model has no adapters to merge; have they been merged already?")
    for path, layer in list(placing.linear_layers(model)):
        owner = model.get_submodule(path)
        plain = layer.restored(dtype) if isinstance(layer, QuantizedLinear) else layer
        if isinstance(owner, LoraLinear):
            add(weight_of(plain), owner)
        if plain is not owner:
            placing.replace(model, path, plain.train(owner.training))
    return model.requires_grad_(True)


def add(weight: torch.Tensor, layer: LoraLinear) -> None:
    """W + s B A in place; added in float32 at least, and rounded once."""
    with torch.no_grad():
        for part, a, b in layer.pairs():
            rows = weight[part.first : part.last]
            delta = (b @ a).mul_(layer.settings.scaling)
            rows.copy_(delta.add_(rows.to(delta.dtype)))


def erased(model: nn.Module, code: Any = "nf4", block: int = 64, *, double: bool = False) -> Erased:
    """Measure what quantising a merged model would leave of its adapters.

    Args:
        model: with adapters.
        code, block, double: see `posterhall.quantize.quantize`.

    Raises:
        DataError: if there are no adapters, or they change nothing.
    """
    placing.lora_parameters(model)
    sums = Sums(code, block, double)
    for _, layer in placing.adapters(model):
        base = layer.base
        whole = base.dequantized(torch.float32) if isinstance(base, QuantizedLinear) else weight_of(base)
        for part, a, b in layer.pairs():
            delta = (b @ a).detach().mul_(layer.settings.scaling)
            sums.add(whole[part.first : part.last].detach().float(), delta.float())
    return sums.result()


class Sums:
    """What `erased` sums over layers."""

    def __init__(self, code: Any, block: int, double: bool) -> None:
        self._how = {"code": code, "block": block, "double": double}
        self._error = self._along = self._whole = self._same = self._count = 0.0

    def add(self, weight: torch.Tensor, delta: torch.Tensor) -> None:
        """A layer: weight and change, float32 (outputs, inputs)."""
        before, after = quantize(weight, **self._how), quantize(weight + delta, **self._how)
        arrived = after.tensor(torch.float32).sub_(before.tensor(torch.float32)).double()
        wanted = delta.double()
        self._error += float((arrived - wanted).square().sum())
        self._along += float((arrived * wanted).sum())
        self._whole += float(wanted.square().sum())
        self._same += float((before.codes() == after.codes()).sum())
        self._count += weight.numel()

    def result(self) -> Erased:
        """Of all layers.

        Raises:
            DataError: if the adapters change nothing.
        """
        if not self._whole:
            raise DataError("the adapters change nothing (B is zero); train them first")
        return Erased(
            share=math.sqrt(self._error / self._whole),
            kept=self._along / self._whole,
            unchanged=self._same / self._count,
        )
