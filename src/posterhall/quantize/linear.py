"""A linear layer whose weight stays quantised: y = x dq(W)^T + b, with gradients to x (and b) alone.

QLoRA's frozen base (Dettmers et al. 2023, Eq. 5). On a CPU the weight is restored, panel by panel, into one
buffer that all layers share, and multiplied there: filling memory that is warm already costs a fraction of
fresh memory, and of the product. The backward pass restores it once more instead of keeping it. On another
device the codes are moved there once, and restored by torch's operations.
"""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any, cast

from posterhall.errors import DataError
from posterhall.extras import nn, torch
from posterhall.objectives import products
from posterhall.quantize import state
from posterhall.quantize.blockwise import Quantized, quantize
from posterhall.quantize.double import DoubleScales

PANEL = 1 << 23
"""Entries restored at a time (32 MiB of float32): a matrix up to that is one product."""

_shared = threading.local()


def weight_of(layer: nn.Module) -> torch.Tensor:
    """The weight of a linear layer as (outputs, inputs), a view.

    GPT-2's layers (`transformers`' Conv1D) hold it the other way round.
    """
    weight = cast("torch.Tensor", layer.weight)
    return weight.t() if is_transposed(layer) else weight


def is_transposed(layer: nn.Module) -> bool:
    """Whether it holds its weight as (inputs, outputs)."""
    return type(layer).__name__ == "Conv1D" and hasattr(layer, "nf")


class QuantizedLinear(nn.Module):
    """A linear layer over a quantised weight.

    Buffers carry bitsandbytes' names, so that a `state_dict` is what `transformers` writes.

    Args:
        quantized: the weight, of shape (outputs, inputs); or several of as many inputs, whose rows follow
            each other: projections that are one product here and several tensors of a file.
        bias: (outputs,), or None.

    Attributes:
        parts: the weights.
    """

    def __init__(self, quantized: Quantized | Sequence[Quantized], bias: torch.Tensor | None = None) -> None:
        super().__init__()
        parts = (quantized,) if isinstance(quantized, Quantized) else tuple(quantized)
        shapes = [each.shape for each in parts]
        if not parts or any(len(shape) != 2 for shape in shapes):
            raise DataError(
                f"a linear layer's weight has two dimensions; this one has shape "
                f"{' and '.join(map(str, shapes)) or 'of nothing'}"
            )
        if len({columns for _, columns in shapes}) > 1:
            raise DataError(
                f"weights of the shapes {', '.join(map(str, shapes))} do not take the same input; the second "
                "numbers must be equal"
            )
        self.out_features, self.in_features = sum(rows for rows, _ in shapes), shapes[0][1]
        if bias is not None and tuple(bias.shape) != (self.out_features,):
            raise DataError(f"the bias has shape {tuple(bias.shape)}; it must be ({self.out_features},)")
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        self._shell: tuple[nn.Module, ...] = ()
        self._take(parts)

    def _take(self, parts: tuple[Quantized, ...]) -> None:
        self.parts = parts
        self._scales = [each.plain_scales() for each in parts]
        self._moved: list[DeviceWeight] | None = None
        self._plan = _plan(parts)

    @classmethod
    def of(
        cls, layer: nn.Module, code: Any = "nf4", *, rows: Sequence[int] | None = None, **settings: Any
    ) -> QuantizedLinear:
        """Quantise a linear layer.

        Args:
            layer: torch's, GPT-2's Conv1D, or another with a `weight` (outputs, inputs).
            code: see `quantize`.
            rows: of each of the projections that its weight holds, quantised each by itself, as they are in
                files; None: it is one.
            settings: as of `quantize`.
        """
        weight = weight_of(layer).detach()
        pieces = torch.split(weight, list(rows)) if rows is not None else (weight,)
        bias = getattr(layer, "bias", None)
        return cls.like(layer, [quantize(piece, code, **settings) for piece in pieces], bias)

    @classmethod
    def like(
        cls, layer: nn.Module, quantized: Quantized | Sequence[Quantized], bias: torch.Tensor | None = None
    ) -> QuantizedLinear:
        """A layer over quantised weights that `restored` makes the like of `layer` again."""
        made = cls(quantized, bias)
        shell = copy.copy(layer)
        shell._parameters = {**layer._parameters, "weight": None, "bias": None}
        made._shell = (shell,)  # in a tuple, so that it is no submodule
        return made

    @property
    def was_transposed(self) -> bool:
        """Whether the layer whose place it took holds its weight as (inputs, outputs)."""
        return bool(self._shell) and is_transposed(self._shell[0])

    @property
    def quantized(self) -> Quantized:
        """The weight, where it is one.

        Raises:
            DataError: if it is several.
        """
        if len(self.parts) > 1:
            raise DataError(f"this layer's weight is quantised as {len(self.parts)} parts; take `parts`")
        return self.parts[0]

    def restored(self, dtype: Any = None) -> nn.Module:
        """A layer as it was before, over the restored weight of its original type or another."""
        weight = self.dequantized(dtype)
        bias = None if self.bias is None else self.bias.detach().to(weight.dtype)
        if not self._shell:
            plain = nn.Linear(self.in_features, self.out_features, bias=bias is not None, device="meta")
        else:
            plain = copy.copy(self._shell[0])  # type: ignore[assignment]
            plain._parameters = dict(plain._parameters)
        if is_transposed(plain):
            weight = weight.t().contiguous()
        plain.register_parameter("weight", nn.Parameter(weight, requires_grad=False))
        if "bias" in plain._parameters:
            kept = None if bias is None else nn.Parameter(bias, requires_grad=False)
            plain.register_parameter("bias", kept)
        return plain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer.

        Args:
            x: (..., inputs).

        Returns:
            (..., outputs), of x's type.
        """
        if x.shape[-1] != self.in_features:
            raise DataError(f"the input has {x.shape[-1]} features; this layer takes {self.in_features}")
        y = cast("torch.Tensor", _Product.apply(x, self))  # type: ignore[no-untyped-call]
        return y if self.bias is None else y + self.bias.to(y)

    def multiply(self, rows: torch.Tensor) -> torch.Tensor:
        """x W^T of (M, inputs), a new tensor (M, outputs): without bias, without gradients."""
        pieces = [(first, products.linear(rows, panel)) for first, panel in self._panels(rows)]
        return pieces[0][1] if len(pieces) == 1 else torch.cat([piece for _, piece in pieces], dim=1)

    def multiply_back(self, grad: torch.Tensor) -> torch.Tensor:
        """dy W of (M, outputs), a new tensor (M, inputs): the gradient to the input."""
        total: torch.Tensor | None = None
        for first, panel in self._panels(grad):
            part = products.product(grad[:, first : first + len(panel)], panel)
            total = part if total is None else total.add_(part)
        assert total is not None  # noqa: S101 - a weight has rows
        return total

    def dequantized(self, dtype: Any = None) -> torch.Tensor:
        """The weight (outputs, inputs) as a new tensor, of its original type or another."""
        if len(self.parts) == 1:
            return self.parts[0].tensor(dtype)
        kind = getattr(torch, self.parts[0].dtype) if dtype is None else dtype
        whole = torch.empty(self.out_features, self.in_features, dtype=kind)
        for piece, part in zip(
            torch.split(whole, [each.shape[0] for each in self.parts]), self.parts, strict=True
        ):
            part.dequantize(piece)
        return whole

    def scheme(self) -> dict[str, Any]:
        """How the weight is quantised: `code` by name, `block`, and whether scales are quantised (`double`),
        or were to be and did not bear it."""
        double = any(
            isinstance(each.scales, DoubleScales) or each.double_error is not None for each in self.parts
        )
        return {"code": self.parts[0].code.name, "block": self.parts[0].block, "double": double}

    def extra_repr(self) -> str:
        """What `print` shows between the brackets."""
        q = self.parts[0]
        double = all(isinstance(each.scales, DoubleScales) for each in self.parts)
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, code={q.code.name}, block={q.block}, double={double}"
        )

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for part, name in zip(self.parts, self._names(prefix), strict=True):
            for key, array in state.write(part, name).items():
                destination[key] = as_tensor(array)

    def _names(self, prefix: str) -> list[str]:
        """What the weights are called in a state: weight, or 0.weight, 1.weight, … if there are several."""
        if len(self.parts) == 1:
            return [f"{prefix}weight"]
        return [f"{prefix}{i}.weight" for i in range(len(self.parts))]

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        metadata: Any,
        strict: bool,
        missing: Any,
        unexpected: Any,
        errors: Any,
    ) -> None:
        names = self._names(prefix)
        own = [
            key for key in state_dict if key.startswith(tuple(f"{name}." for name in names)) or key in names
        ]
        if own:
            try:
                tensors = {key: state_dict[key] for key in own}
                found = tuple(state.read(tensors, name) for name in names)
                for name, part, old in zip(names, found, self.parts, strict=True):
                    if part.shape != old.shape:
                        raise DataError(f"{name} has shape {part.shape}; this layer has {old.shape}")
                self._take(found)
            except DataError as error:
                errors.append(str(error))
        elif strict:
            missing.extend(names)
        rest = {key: value for key, value in state_dict.items() if key not in own}
        super()._load_from_state_dict(rest, prefix, metadata, strict, missing, unexpected, errors)

    def _panels(self, like: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """(first row, restored rows) of the weight, in a buffer that the next panel overwrites."""
        columns, begin = self.in_features, 0
        for pieces in self._plan:
            size = sum(last - first for _, first, last in pieces)
            if like.device.type == "cpu":
                panel = _buffer(size * columns, like.dtype).view(size, columns)
                done = 0
                for part, first, last in pieces:
                    rows = panel[done : done + last - first]
                    self.parts[part].decode_rows(first, last, rows, scales=self._scales[part])
                    done += last - first
            else:
                there = self._there(like.device)
                restored = [there[part].rows(first, last, like.dtype) for part, first, last in pieces]
                panel = restored[0] if len(restored) == 1 else torch.cat(restored)
            yield begin, panel
            begin += size

    def _there(self, device: torch.device) -> list[DeviceWeight]:
        """The codes on another device; moved once."""
        if self._moved is None or self._moved[0].device != device:
            self._moved = [DeviceWeight(part, device) for part in self.parts]
        return self._moved


def _plan(parts: Sequence[Quantized]) -> list[list[tuple[int, int, int]]]:
    """Panels of about PANEL entries: of each the parts, and of each of these the first row and the last."""
    panels: list[list[tuple[int, int, int]]] = []
    room = 0
    for number, part in enumerate(parts):
        outputs, columns = part.shape
        # A piece begins where a block does, so that its codes can be read by themselves.
        step = part.block // math.gcd(columns, part.block)
        most = max(step, PANEL // columns // step * step)
        for first in range(0, outputs, most):
            last = min(first + most, outputs)
            if not panels or last - first > room:
                panels.append([])
                room = most
            panels[-1].append((number, first, last))
            room -= last - first
    return panels


class DeviceWeight:
    """Codes and scales on a device, restored by torch's own operations.

    Args:
        quantized: the weight, of shape (outputs, inputs).
        device: where to.
    """

    def __init__(self, quantized: Quantized, device: torch.device) -> None:
        self.device, self.block, self.columns = device, quantized.block, quantized.shape[1]
        self.four = quantized.code.bits == 4
        # Codes of other widths take a byte each: shifting them apart would cost more than their product.
        codes = quantized.packed if self.four else quantized.codes().reshape(-1)
        self.codes, self.scales, self.table = (
            as_tensor(each).to(device) for each in (codes, quantized.plain_scales(), quantized.code.table)
        )

    def rows(self, first: int, last: int, dtype: torch.dtype) -> torch.Tensor:
        """Rows of the weight, a new tensor; the first entry must be the first of a block."""
        begin, end = first * self.columns, last * self.columns
        if self.four:
            pairs = self.codes[begin // 2 : -(-end // 2)]
            codes = torch.stack((pairs >> 4, pairs & 15), dim=1).view(-1)[: end - begin]
        else:
            codes = self.codes[begin:end]
        values = self.table[codes.int()]
        scales = self.scales[begin // self.block : -(-end // self.block)]
        full = len(values) // self.block * self.block
        values[:full].view(-1, self.block).mul_(scales[: full // self.block, None])
        if full < len(values):
            values[full:].mul_(scales[-1])
        return values.view(last - first, self.columns).to(dtype)


def as_tensor(array: Any) -> torch.Tensor:
    """An array as a tensor; one that cannot be written to (a file's) is copied, or torch would warn."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _buffer(entries: int, dtype: torch.dtype) -> torch.Tensor:
    """Memory of this thread for a restored panel; it only grows, to PANEL or one block's rows."""
    held: dict[torch.dtype, torch.Tensor] = _shared.__dict__.setdefault("buffers", {})
    if dtype not in held or held[dtype].numel() < entries:
        held[dtype] = torch.empty(entries, dtype=dtype)
    return held[dtype][:entries]


class _Product(torch.autograd.Function):
    """x W^T and its gradient to x; nothing of the restored weight is kept."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: QuantizedLinear) -> torch.Tensor:
        ctx.layer = layer
        y = layer.multiply(x.reshape(-1, layer.in_features))
        return y.view(*x.shape[:-1], layer.out_features)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, None]:
        if not ctx.needs_input_grad[0]:
            return None, None
        layer = ctx.layer
        grad_x = layer.multiply_back(grads[0].reshape(-1, layer.out_features))
        return grad_x.view(*grads[0].shape[:-1], layer.in_features), None
