"""Low-rank adapters: y = x W^T + s (drop(x) A^T) B^T with W frozen (Hu et al. 2021, eq. 3).

One differentiable operation computes the frozen layer's product and the adapter's: x is kept once for both,
the adapter's part is added where the other already stands, and in the backward pass likewise. Where a frozen
matrix holds several projections of a checkpoint (queries, keys and values), each has A and B of its own, as
in files; all A are one matrix, so that x goes through them in one product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from posterhall import seeds
from posterhall.adapters import dropout
from posterhall.errors import DataError
from posterhall.extras import nn, torch
from posterhall.objectives import products
from posterhall.quantize.linear import QuantizedLinear, weight_of


@dataclass(frozen=True)
class LoraSettings:
    """Of adapters. Defaults are QLoRA's (Dettmers et al. 2023, App. B.2), dropout apart."""

    rank: int = 64
    """Rank r of the product B A, >= 1."""
    alpha: float = 16.0
    """The product is scaled by alpha / rank, > 0."""
    dropout: float = 0.0
    """Share of the adapter's inputs that is dropped in training, in [0, 1). QLoRA: 0.1 for 7B and 13B, 0.05
    for larger ones."""
    rank_stabilized: bool = False
    """Scale by alpha / sqrt(rank) instead (Kalajdzievski 2023, rsLoRA)."""
    seed: int = 0
    """Of the initial A, and of what is dropped where the model does not say which pass it is."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise DataError(f"rank is {self.rank}; it must be at least 1 (QLoRA: 64)")
        if not (self.alpha > 0 and math.isfinite(self.alpha)):
            raise DataError(f"alpha is {self.alpha}; it must be above 0 (QLoRA: 16)")
        if not 0 <= self.dropout < 1:
            raise DataError(f"dropout is {self.dropout}; it must be at least 0 and below 1")

    @property
    def scaling(self) -> float:
        """The factor s of B A."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)


@dataclass(frozen=True)
class Part:
    """A projection that a linear layer's matrix holds."""

    name: str
    """Its path in a checkpoint, without ".weight"."""
    first: int
    """Its first row."""
    last: int
    """The row after its last."""


class LoraLinear(nn.Module):
    """A frozen linear layer with an adapter.

    A begins uniform in ±1/sqrt(inputs) (torch's kaiming-uniform with a = sqrt 5, as in PEFT) and B zero, so
    that at first the layer is what it was. Both are kept in float32 at least, and computed with in the
    input's type.

    Args:
        base: torch's linear layer, GPT-2's Conv1D, a `QuantizedLinear`, or another with `in_features`,
            `out_features` and a `weight` (outputs, inputs). It is frozen.
        settings: of the adapter.
        parts: the projections that get one, none overlapping; None: the whole layer is one.

    Attributes:
        base: the frozen layer.
        parts: what has an adapter.
        lora_A: (parts x rank, inputs): A of each part, one below the other.
        lora_B: (rows of all parts, rank): B of each part, one below the other.
        on: whether the adapter takes part.
    """

    def __init__(self, base: nn.Module, settings: LoraSettings, parts: Sequence[Part] | None = None) -> None:
        super().__init__()
        inputs, outputs = features(base)
        self.base = base.requires_grad_(False)
        self.settings = settings
        self.parts = tuple(parts) if parts is not None else (Part("", 0, outputs),)
        self.in_features, self.out_features = inputs, outputs
        self.on = True
        self._passes = 0
        own = next(base.parameters(), None)
        device = own.device if own is not None else torch.device("cpu")
        dtype = torch.float64 if own is not None and own.dtype == torch.float64 else torch.float32
        rank, rows = settings.rank, sum(part.last - part.first for part in self.parts)
        first = torch.cat([_uniform(rank, inputs, settings.seed, part.name) for part in self.parts])
        self.lora_A = nn.Parameter(first.to(device, dtype))
        self.lora_B = nn.Parameter(torch.zeros(rows, rank, device=device, dtype=dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., inputs) to (..., outputs), of x's type, or of autocast's."""
        if not self.on:
            return cast("torch.Tensor", self.base(x))
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))
        key = self._key() if self.training and self.settings.dropout else None
        y = _Adapted.apply(x, self.lora_A, self.lora_B, self, key)  # type: ignore[no-untyped-call]
        return cast("torch.Tensor", y)

    def pairs(self) -> list[tuple[Part, torch.Tensor, torch.Tensor]]:
        """Each part with its A (rank, inputs) and B (rows, rank), views."""
        sizes = [part.last - part.first for part in self.parts]
        a, b = torch.split(self.lora_A, self.settings.rank), torch.split(self.lora_B, sizes)
        return list(zip(self.parts, a, b, strict=True))

    def delta(self, dtype: Any = None) -> torch.Tensor:
        """s B A of all rows (outputs, inputs), zero where no part is; computed in float32 at least."""
        kind = self.lora_A.dtype if dtype is None else dtype
        whole = torch.zeros(self.out_features, self.in_features, dtype=kind, device=self.lora_A.device)
        with torch.no_grad():
            for part, a, b in self.pairs():
                whole[part.first : part.last] = (b @ a).mul_(self.settings.scaling)
        return whole

    def extra_repr(self) -> str:
        """What `print` shows between the brackets."""
        named = [part.name.rpartition(".")[2] for part in self.parts if part.name]
        shown = f", parts={'+'.join(named)}" if len(named) > 1 else ""
        return f"rank={self.settings.rank}, alpha={self.settings.alpha:g}{shown}"

    def _key(self) -> int:
        """Of what this pass drops."""
        number = dropout.current()
        if number is None:  # a model that does not say which pass it is: count its calls
            self._passes += 1
            number = self._passes
        return seeds.derive(self.settings.seed, "adapter", number, self.parts[0].name)


def features(layer: nn.Module) -> tuple[int, int]:
    """Inputs and outputs of a linear layer."""
    if isinstance(layer, QuantizedLinear):
        return layer.in_features, layer.out_features
    outputs, inputs = weight_of(layer).shape
    return int(inputs), int(outputs)


def _uniform(rank: int, inputs: int, seed: int, name: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seeds.derive(seed, "lora", name))
    bound = 1.0 / math.sqrt(inputs)
    return torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator)


def _multiply(base: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """A frozen layer's output for (M, inputs), a new tensor (M, outputs)."""
    if isinstance(base, QuantizedLinear):
        y = base.multiply(x)
    else:
        y = products.linear(x, weight_of(base).to(x.dtype))
    bias = getattr(base, "bias", None)
    return y if bias is None else y.add_(bias)


def _multiply_back(base: nn.Module, grad: torch.Tensor) -> torch.Tensor:
    """The gradient (M, inputs) to its input, a new tensor, of (M, outputs)."""
    if isinstance(base, QuantizedLinear):
        return base.multiply_back(grad)
    return products.product(grad, weight_of(base).to(grad.dtype))


class _Adapted(torch.autograd.Function):
    """The layer's product and the adapter's, with gradients to x, A and B."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, layer: LoraLinear, key: int | None
    ) -> torch.Tensor:
        rank, rows = layer.settings.rank, x.reshape(-1, layer.in_features)
        y = _multiply(layer.base, rows)
        dropped = rows if key is None else dropout.drop(rows, layer.settings.dropout, key)
        # s is applied here, where numbers are fewest.
        z = products.linear(dropped, a.to(x.dtype)).mul_(layer.settings.scaling)
        own, at = b.to(x.dtype), 0
        for i, part in enumerate(layer.parts):
            size = part.last - part.first
            y[:, part.first : part.last].addmm_(z[:, i * rank : (i + 1) * rank], own[at : at + size].t())
            at += size
        ctx.save_for_backward(x, z, a, b)
        ctx.layer, ctx.key = layer, key
        return y.view(*x.shape[:-1], layer.out_features)

    @staticmethod
    def backward(
        ctx: Any, *grads: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None, None, None]:
        x, z, a, b = ctx.saved_tensors
        layer, key = ctx.layer, ctx.key
        rank, share = layer.settings.rank, layer.settings.dropout
        grad, rows = grads[0].reshape(-1, layer.out_features), x.reshape(-1, layer.in_features)
        own, at = b.to(x.dtype), 0
        grad_z, grad_b = torch.empty_like(z), torch.empty_like(own)
        for i, part in enumerate(layer.parts):
            size, columns = part.last - part.first, slice(i * rank, (i + 1) * rank)
            out = grad[:, part.first : part.last]
            grad_z[:, columns] = products.product(out, own[at : at + size])
            grad_b[at : at + size] = products.outer(out, z[:, columns])
            at += size
        grad_z.mul_(layer.settings.scaling)
        dropped = rows if key is None else dropout.drop(rows, share, key)
        grad_a = products.outer(grad_z, dropped)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = _multiply_back(layer.base, grad)
            if key is None:
                grad_x.addmm_(grad_z, a.to(x.dtype))
            else:
                through = products.product(grad_z, a.to(x.dtype))
                grad_x.add_(dropout.drop(through, share, key, in_place=True))
            grad_x = grad_x.view_as(x)
        return grad_x, grad_a.to(a.dtype), grad_b.to(b.dtype), None, None
