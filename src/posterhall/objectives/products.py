"""Matrix products on a CPU through the faster of the two libraries that torch carries.

Torch computes float32 products with MKL, which holds back on processors that are not Intel's; oneDNN does
not. Its product is reached here through `torch.ops.mkldnn._linear_pointwise`, the operator that torch's own
compiler uses. It is private and may go: then, and wherever it is not the faster one, torch's ordinary
product is taken. Which is faster is measured once a machine, for each of the three products of a linear
layer, and remembered in the user's cache directory, so that a later process (a resumed training) computes
the same bits. POSTERHALL_PRODUCTS=torch or onednn decides without measuring.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from posterhall.errors import DataError
from posterhall.extras import functional, torch

FORMS = ("forward", "inputs", "weights")
"""The products of a linear layer: y = x W^T, dx = dy W, dW = dy^T x."""

_VARIABLE = "POSTERHALL_PRODUCTS"
_PROBE = (1024, 512, 256)
"""Rows, outputs and inputs of the products that are timed."""
_GAIN = 1.04
"""oneDNN is taken where it is so many times as fast; at less it is not worth its extra call."""
_ROWS, _OPERATIONS = 128, 1 << 22
"""Products of fewer rows, or of fewer multiplications, cost more to hand over than they gain."""


def linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """y = x W^T with gradients for both.

    Args:
        x: (..., K).
        weight: (N, K).

    Returns:
        (..., N).
    """
    if any(chosen()) and _is_plain(x, weight) and _is_worth(x.numel() // x.shape[-1], weight):
        return cast("torch.Tensor", _Linear.apply(x, weight))  # type: ignore[no-untyped-call]
    return functional.linear(x, weight)


def product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x W of (M, N) and (N, K), without gradients."""
    if chosen()[1] and _is_plain(x, weight) and _is_worth(len(x), weight):
        return _onednn(x, weight.t())
    return x @ weight


def outer(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x^T y of (M, N) and (M, K), without gradients; may be a transposed view."""
    if chosen()[2] and _is_plain(x, y) and _is_worth(len(x), y, outputs=x.shape[1]):
        # The first operand is copied to be contiguous: let it be the smaller one.
        return _onednn(x.t(), y.t()) if x.shape[1] <= y.shape[1] else _onednn(y.t(), x.t()).t()
    return x.t() @ y


def add_outer(total: torch.Tensor | None, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """total + x^T y in place, in at least float32; a new tensor if there is none yet."""
    if total is None:
        first = outer(x, y)
        return first.to(torch.float32) if first.dtype in (torch.bfloat16, torch.float16) else first
    if total.dtype == x.dtype and not (chosen()[2] and _is_plain(x, y)):
        return total.addmm_(x.t(), y)
    return total.add_(outer(x, y))


@functools.cache
def chosen() -> tuple[bool, bool, bool]:
    """Whether oneDNN computes y, dx and dW on this machine; decided once a process.

    Raises:
        DataError: if POSTERHALL_PRODUCTS is set to something else than torch or onednn.
    """
    wish = os.environ.get(_VARIABLE, "")
    if wish not in ("", "torch", "onednn"):
        raise DataError(f"{_VARIABLE} is '{wish}'; it must be torch or onednn, or not set")
    if wish == "torch" or not _is_there():
        return (False, False, False)
    if wish == "onednn":
        return (True, True, True)
    return _remembered()


def _is_there() -> bool:
    """Whether this torch has the operator, and it computes what it should."""
    try:
        x = torch.arange(12, dtype=torch.float32).view(3, 4)
        weight = torch.arange(8, dtype=torch.float32).view(2, 4)
        with torch.no_grad():
            return bool(torch.equal(_onednn(x, weight), x @ weight.t()))
    except (AttributeError, RuntimeError, TypeError):
        return False


def _remembered() -> tuple[bool, bool, bool]:
    """The choice that was measured on this machine, here or by an earlier process."""
    import platformdirs

    from posterhall.devices import cpu_model
    from posterhall.runs.files import write_atomic

    path = Path(platformdirs.user_cache_dir("posterhall")) / "products.json"
    key = f"{cpu_model()}, torch {torch.__version__}"
    try:
        known = json.loads(path.read_bytes())
        taken = [known[key][form] for form in FORMS]
        if all(isinstance(each, bool) for each in taken):
            return (taken[0], taken[1], taken[2])
    except (OSError, ValueError, KeyError, TypeError):
        known = {}
    measured = _measured()
    if not isinstance(known, dict):
        known = {}
    known[key] = dict(zip(FORMS, measured, strict=True))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(known, indent=2) + "\n")
    except (OSError, DataError):  # no home to write to: each process measures anew
        pass
    return measured


def _measured() -> tuple[bool, bool, bool]:
    rows, outputs, inputs = _PROBE
    generator = torch.Generator().manual_seed(0)
    x = torch.empty(rows, inputs).normal_(generator=generator)
    weight = torch.empty(outputs, inputs).normal_(generator=generator)
    grad = torch.empty(rows, outputs).normal_(generator=generator)
    with torch.no_grad():
        return (
            _is_faster(lambda: _onednn(x, weight), lambda: x @ weight.t()),
            _is_faster(lambda: _onednn(grad, weight.t()), lambda: grad @ weight),
            _is_faster(lambda: _onednn(x.t(), grad.t()), lambda: grad.t() @ x),
        )


def _is_faster(ours: Callable[[], Any], plain: Callable[[], Any], *, repeats: int = 15) -> bool:
    """Compare the fastest of several runs in turn: whatever else runs here can only slow one down."""
    best = [float("inf"), float("inf")]
    for _ in range(repeats):
        for i, compute in enumerate((ours, plain)):
            began = time.perf_counter()
            compute()
            best[i] = min(best[i], time.perf_counter() - began)
    return best[1] >= _GAIN * best[0]


def _is_plain(*tensors: torch.Tensor) -> bool:
    """Ordinary float32 matrices of this CPU, that nothing else (autocast, a compiler) has in hand."""
    return (
        all(
            type(each) in (torch.Tensor, torch.nn.Parameter)
            and each.dtype == torch.float32
            and each.device.type == "cpu"
            for each in tensors
        )
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def _is_worth(rows: int, other: torch.Tensor, *, outputs: int = 1) -> bool:
    return rows >= _ROWS and (rows * other.shape[0] * other.shape[1] >= _OPERATIONS or outputs > 1)


def _onednn(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x W^T of (..., K) and (N, K)."""
    return cast("torch.Tensor", torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], ""))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight) if chosen()[0] else functional.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        x, weight = ctx.saved_tensors
        grad = grads[0].reshape(-1, weight.shape[0])
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = product(grad, weight).view_as(x)
        if ctx.needs_input_grad[1]:
            grad_weight = outer(grad, x.reshape(-1, weight.shape[1]))
        return grad_x, grad_weight
