"""The language-model loss: the negative log-likelihood of the next token, without ever holding all logits.

Logits of N tokens over a vocabulary of V are the largest tensor of a training step by far. Here the head's
product and the loss are taken together, in chunks of tokens, only where there is a label; and the gradients
are computed in the same pass, while a chunk's probabilities are at hand. Memory: a chunk of logits and one
gradient of the head, instead of several N x V.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, cast

from posterhall.errors import DataError
from posterhall.extras import torch
from posterhall.objectives import products

IGNORED = -100
"""The label of a position that counts for nothing (the usual value: torch, transformers)."""

_CPU_LOGITS, _DEVICE_LOGITS = 3 << 21, 1 << 26
"""Logits in a chunk: 25 MB on a CPU, elsewhere enough to fill the device. glibc hands memory from 32 MB on
back to the system each time, and fresh pages cost more than a larger chunk gains."""
_FEWEST = 64
"""Tokens in a chunk, at least: each costs one pass over the head's gradient."""

Reduction = Literal["mean", "sum", "none"]


def lm_loss(
    hidden: torch.Tensor,
    head_weight: torch.Tensor,
    labels: torch.Tensor,
    *,
    chunk: int | None = None,
    z_loss: float = 0.0,
    reduction: Reduction = "mean",
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Negative log-likelihood of the labels, in nats.

    Args:
        hidden: (B, T, D) states after the last norm; any leading shape.
        head_weight: (V, D), whose products with them are the logits.
        labels: (B, T) integers: the token that follows each position (shifted by the caller), or -100 for
            none.
        chunk: tokens at a time; None chooses. It changes nothing but the order of sums.
        z_loss: weight of (log of the softmax's denominator)^2, which keeps logits near 0 (Chowdhery et
            al. 2022, §5: 1e-4).
        reduction: "mean" over labels, "sum", or "none": (B, T), 0 where there is no label. No labels at
            all give 0.

    Returns:
        The loss (float32, or float64 for such states) and `{"tokens": labels counted (int), "nll_sum":
        their negative log-likelihood without z_loss (0-d, no gradient)}`.

    Raises:
        DataError: for shapes that do not fit, or a label outside the vocabulary.
    """
    rows, wanted, where = _labelled(hidden, head_weight, labels)
    count = wanted.numel()
    weight = head_weight
    if torch.is_autocast_enabled(rows.device.type):
        narrow = torch.get_autocast_dtype(rows.device.type)
        rows, weight = rows.to(narrow), weight.to(narrow)
    vocabulary = weight.shape[0]
    if chunk is None:
        fit = (_CPU_LOGITS if rows.device.type == "cpu" else _DEVICE_LOGITS) // vocabulary
        chunk = max(_FEWEST, fit)
    elif chunk < 1:
        raise DataError(f"chunk is {chunk}; it must be at least 1 token")
    if reduction == "none":
        losses = cast("torch.Tensor", _PerToken.apply(rows, weight, wanted, chunk, z_loss))  # type: ignore[no-untyped-call]
        with torch.no_grad():
            nll = losses.detach().sum() if z_loss == 0.0 else _nll_sum(rows, weight, wanted, chunk)
        if where is not None:
            losses = losses.new_zeros(labels.numel()).index_copy(0, where, losses)
        return losses.view(labels.shape), {"tokens": count, "nll_sum": nll}
    if reduction not in ("mean", "sum"):
        raise DataError(f"reduction is '{reduction}'; it must be mean, sum or none")
    scale = 1.0 / max(count, 1) if reduction == "mean" else 1.0
    # Whether gradients are wanted is only known out here: inside a Function their recording is off.
    wants = (
        torch.is_grad_enabled() and rows.requires_grad,
        torch.is_grad_enabled() and weight.requires_grad,
    )
    loss, nll = _Total.apply(rows, weight, wanted, chunk, z_loss, scale, wants)  # type: ignore[no-untyped-call]
    return loss, {"tokens": count, "nll_sum": nll}


def token_logprobs(
    hidden: torch.Tensor, head_weight: torch.Tensor, labels: torch.Tensor, *, chunk: int | None = None
) -> torch.Tensor:
    """log p of every label, (B, T), 0 where it is -100; differentiable. Arguments as of `lm_loss`."""
    losses, _ = lm_loss(hidden, head_weight, labels, chunk=chunk, reduction="none")
    return -losses


def _labelled(
    hidden: torch.Tensor, head_weight: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """States and labels where there is a label, and where that is (None: everywhere)."""
    if (
        hidden.shape[:-1] != labels.shape
        or head_weight.dim() != 2
        or hidden.shape[-1] != head_weight.shape[1]
    ):
        raise DataError(
            f"states {tuple(hidden.shape)}, labels {tuple(labels.shape)} and head {tuple(head_weight.shape)} "
            "do not fit; they must be (B, T, D), (B, T) and (V, D)"
        )
    rows, flat = hidden.reshape(-1, hidden.shape[-1]), labels.reshape(-1).long()
    counted = flat != IGNORED
    where = None
    if not bool(counted.all()):
        where = counted.nonzero().squeeze(1)
        rows, flat = rows.index_select(0, where), flat[where]
    if flat.numel() and not (int(flat.min()) >= 0 and int(flat.max()) < head_weight.shape[0]):
        raise DataError(
            f"labels from {int(flat.min())} to {int(flat.max())} for a vocabulary of {head_weight.shape[0]}; "
            f"a label is 0 to {head_weight.shape[0] - 1}, or {IGNORED} for none"
        )
    return rows, flat, where


class _Total(torch.autograd.Function):
    """The sum of all losses times a scale, with its gradients computed on the way."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.Tensor,
        chunk: int,
        z_loss: float,
        scale: float,
        wants: tuple[bool, bool],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        grad_rows = torch.empty_like(rows) if wants[0] else None
        grad_weight: torch.Tensor | None = None
        total = nll_sum = torch.zeros((), dtype=_wide(rows.dtype), device=rows.device)
        for part in _parts(len(rows), chunk):
            nll, extra, slope = _chunk(rows[part], weight, labels[part], z_loss, slope=any(wants))
            nll_sum = nll_sum + nll.sum()
            total = total + (nll.sum() if extra is None else (nll + extra).sum())
            if slope is None:
                continue
            if grad_rows is not None:
                torch.mul(products.product(slope, weight), scale, out=grad_rows[part])
            if wants[1]:
                grad_weight = products.add_outer(grad_weight, slope, rows[part] * scale)
        if wants[1] and grad_weight is None:
            grad_weight = torch.zeros_like(weight)
        if grad_weight is not None:
            grad_weight = grad_weight.to(weight.dtype)
        ctx.save_for_backward(grad_rows, grad_weight)
        ctx.mark_non_differentiable(nll_sum)
        return total * scale, nll_sum

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad = grads[0]
        # One pass over (V, D) less in the plain case, loss.backward().
        once = grad.device.type == "cpu" and grad.item() == 1.0
        scaled = [
            each if each is None or once else (each * grad).to(each.dtype) for each in ctx.saved_tensors
        ]
        return (*scaled, None, None, None, None, None)


class _PerToken(torch.autograd.Function):
    """One loss a token. Their gradients need the weights from above, so the backward pass does it again."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.Tensor,
        chunk: int,
        z_loss: float,
    ) -> torch.Tensor:
        ctx.save_for_backward(rows, weight, labels)
        ctx.chunk, ctx.z_loss = chunk, z_loss
        losses = torch.empty(len(rows), dtype=_wide(rows.dtype), device=rows.device)
        for part in _parts(len(rows), chunk):
            nll, extra, _ = _chunk(rows[part], weight, labels[part], z_loss, slope=False)
            losses[part] = nll if extra is None else nll + extra
        return losses

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad,) = grads
        rows, weight, labels = ctx.saved_tensors
        needs_rows, needs_weight = ctx.needs_input_grad[:2]
        grad_rows = torch.empty_like(rows) if needs_rows else None
        grad_weight: torch.Tensor | None = None
        for part in _parts(len(rows), ctx.chunk):
            _, _, slope = _chunk(rows[part], weight, labels[part], ctx.z_loss, slope=True)
            slope = cast("torch.Tensor", slope).mul_(grad[part, None])
            if grad_rows is not None:
                grad_rows[part] = products.product(slope, weight)
            if needs_weight:
                grad_weight = products.add_outer(grad_weight, slope, rows[part])
        if needs_weight:
            grad_weight = torch.zeros_like(weight) if grad_weight is None else grad_weight.to(weight.dtype)
        return grad_rows, grad_weight, None, None, None


def _chunk(
    rows: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, z_loss: float, *, slope: bool
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Losses of a few tokens (n,), what z_loss adds to them, and d loss / d logits (n, V)."""
    logits = products.linear(rows, weight)
    logits = logits.to(_wide(logits.dtype))
    highest = logits.amax(dim=-1, keepdim=True)
    picked = logits.gather(-1, labels[:, None])
    chances = torch.softmax(logits, dim=-1, out=logits)
    # The highest probability is at least 1/V, so its logarithm is exact where a label's underflows; and
    # two maxima cost a quarter of one that also says where it is.
    logsum = highest - chances.amax(dim=-1, keepdim=True).log()
    nll = (logsum - picked).squeeze(-1)
    extra = z_loss * logsum.squeeze(-1).square() if z_loss else None
    if not slope:
        return nll, extra, None
    if z_loss:
        chances.mul_(1.0 + 2.0 * z_loss * logsum)
    chances.scatter_add_(-1, labels[:, None], torch.full_like(picked, -1.0))
    return nll, extra, chances.to(rows.dtype)


def _nll_sum(rows: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, chunk: int) -> torch.Tensor:
    total = torch.zeros((), dtype=_wide(rows.dtype), device=rows.device)
    for part in _parts(len(rows), chunk):
        total = total + _chunk(rows[part], weight, labels[part], 0.0, slope=False)[0].sum()
    return total


def _parts(count: int, chunk: int) -> Iterator[slice]:
    """Even slices of at most `chunk`."""
    pieces = -(-count // chunk)
    for i in range(pieces):
        yield slice(count * i // pieces, count * (i + 1) // pieces)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
