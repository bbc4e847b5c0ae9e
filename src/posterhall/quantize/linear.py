"""A linear layer whose weight stays quantised: y = x dq(W)^T + b, with gradients to x (and b) alone.

QLoRA's frozen base (Dettmers et al. 2023, Eq. 5). On a CPU the weight is restored, panel by panel, into one
buffer that all layers share, and multiplied there: filling memory that is warm already costs a fraction of
fresh memory, and of the product. The backward pass restores it once more instead of keeping it. On another
device the codes are moved there once, and restored by torch's operations.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
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


class QuantizedLinear(nn.Module):
    """A linear layer over a quantised weight.

    Buffers carry bitsandbytes' names, so that a `state_dict` is what `transformers` writes.

    Args:
        quantized: the weight, of shape (outputs, inputs).
        bias: (outputs,), or None.
    """

    def __init__(self, quantized: Quantized, bias: torch.Tensor | None = None) -> None:
        super().__init__()
        if len(quantized.shape) != 2:
            raise DataError(
                f"a linear layer's weight has two dimensions; this one has shape {quantized.shape}"
            )
        self.out_features, self.in_features = quantized.shape
        if bias is not None and tuple(bias.shape) != (self.out_features,):
            raise DataError(f"the bias has shape {tuple(bias.shape)}; it must be ({self.out_features},)")
        self.quantized = quantized
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        self._scales = quantized.plain_scales()
        self._moved: DeviceWeight | None = None

    @classmethod
    def of(cls, layer: nn.Linear, code: Any = "nf4", **settings: Any) -> QuantizedLinear:
        """Quantise a layer of torch; settings as of `quantize`."""
        return cls(quantize(layer.weight, code, **settings), layer.bias)

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

    def dequantized(self, dtype: Any = None) -> torch.Tensor:
        """The weight as a new tensor, of its original type or another."""
        return self.quantized.tensor(dtype)

    def extra_repr(self) -> str:
        """What `print` shows between the brackets."""
        q, double = self.quantized, isinstance(self.quantized.scales, DoubleScales)
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, code={q.code.name}, block={q.block}, double={double}"
        )

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, array in state.write(self.quantized, f"{prefix}weight").items():
            destination[name] = torch.from_numpy(_owned(array))

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
        name = f"{prefix}weight"
        own = [key for key in state_dict if key == name or key.startswith(f"{name}.")]
        if own:
            try:
                found = state.read({key: state_dict[key] for key in own}, name)
                if found.shape != self.quantized.shape:
                    raise DataError(f"{name} has shape {found.shape}; this layer has {self.quantized.shape}")
                self.quantized, self._scales, self._moved = found, found.plain_scales(), None
            except DataError as error:
                errors.append(str(error))
        elif strict:
            missing.append(name)
        rest = {key: value for key, value in state_dict.items() if key not in own}
        super()._load_from_state_dict(rest, prefix, metadata, strict, missing, unexpected, errors)

    def _panels(self, like: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """(first row, restored rows) of the weight, in a buffer that the next panel overwrites."""
        columns, block = self.in_features, self.quantized.block
        # A panel begins where a block does, so that its codes can be read by themselves.
        step = block // math.gcd(columns, block)
        rows = max(step, PANEL // columns // step * step)
        for first in range(0, self.out_features, rows):
            last = min(first + rows, self.out_features)
            if like.device.type == "cpu":
                panel = _buffer((last - first) * columns, like.dtype).view(last - first, columns)
                self.quantized.decode_rows(first, last, panel, scales=self._scales)
            else:
                panel = self._there(like.device).rows(first, last, like.dtype)
            yield first, panel

    def _there(self, device: torch.device) -> DeviceWeight:
        """The codes on another device; moved once."""
        if self._moved is None or self._moved.device != device:
            self._moved = DeviceWeight(self.quantized, device)
        return self._moved


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
            torch.from_numpy(_owned(each)).to(device)
            for each in (codes, quantized.plain_scales(), quantized.code.table)
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


def _owned(array: Any) -> Any:
    """An array that torch takes without a warning; those of a file may be read-only."""
    return array if array.flags.writeable else array.copy()


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
        rows = x.reshape(-1, layer.in_features)
        pieces = [(first, products.linear(rows, panel)) for first, panel in layer._panels(x)]
        y = pieces[0][1] if len(pieces) == 1 else torch.cat([piece for _, piece in pieces], dim=1)
        return y.view(*x.shape[:-1], layer.out_features)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, None]:
        if not ctx.needs_input_grad[0]:
            return None, None
        layer = ctx.layer
        grad = grads[0].reshape(-1, layer.out_features)
        total: torch.Tensor | None = None
        for first, panel in layer._panels(grad):
            part = products.product(grad[:, first : first + len(panel)], panel)
            total = part if total is None else total.add_(part)
        assert total is not None  # noqa: S101 - a weight has rows
        return total.view(*grads[0].shape[:-1], layer.in_features), None
