"""The state-space duality: a recurrence with one decay a head, as products of matrices."""

from __future__ import annotations

from collections.abc import Sequence

from posterhall.extras import functional, torch


def state_space_dual(
    x: torch.Tensor,
    step: torch.Tensor,
    a: torch.Tensor,
    inputs: torch.Tensor,
    outputs: torch.Tensor,
    *,
    chunk: int,
    state: torch.Tensor | None = None,
    fresh: torch.Tensor | None = None,
    valid: Sequence[int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """y_t = C_t h_t, h_t = exp(d_t a) h_{t-1} + d_t B_t x_t for each head (Dao and Gu 2024, §6).

    Within a chunk (C B^T o L) X; between chunks a recurrence over their states. Memory grows with T times
    the chunk, not with T times the state.

    Args:
        x: (R, T, H, P), float32 or float64.
        step: (R, T, H), d >= 0.
        a: (H,), negative.
        inputs, outputs: (R, T, G, N), B and C; heads share them in groups of H / G.
        chunk: tokens of a chunk, >= 1.
        state: (R, H, N, P), h before. None: zeros.
        fresh: (R, T) bool, true where a document begins.
        valid: real tokens of each row; those behind change no state.

    Returns:
        y (R, T, H, P), and h after the last token (R, H, N, P). Gradients flow through both, and into the
        state before.
    """
    rows, tokens, heads, entries = x.shape
    groups, size = inputs.shape[2:]
    shared = heads // groups
    if valid is not None:
        real = torch.arange(tokens, device=x.device) < torch.tensor(valid, device=x.device)[:, None]
        step = step * real[..., None]
    chunk = min(chunk, tokens)
    count = -(-tokens // chunk)
    spare = count * chunk - tokens

    def cut(each: torch.Tensor) -> torch.Tensor:
        """(R, T, ...) to (R, chunks, chunk, ...); steps of 0 fill the last one."""
        padded = functional.pad(each, (0, 0) * (each.dim() - 2) + (0, spare)) if spare else each
        return padded.reshape(rows, count, chunk, *each.shape[2:])

    def grouped(each: torch.Tensor) -> torch.Tensor:
        """(R, chunks, H, ...) to (R, chunks, G, H / G, ...)."""
        return each.reshape(rows, count, groups, shared, *each.shape[3:])

    # (R, chunks, G, 1 or H / G, chunk, ...)
    b = cut(inputs).permute(0, 1, 3, 2, 4)[:, :, :, None]
    c = cut(outputs).permute(0, 1, 3, 2, 4)[:, :, :, None]
    pushed = grouped(cut(x * step[..., None]).permute(0, 1, 3, 2, 4))
    logs = grouped(cut(step * a).permute(0, 1, 3, 2))
    along = logs.cumsum(-1)  # from the chunk's beginning: sums of one sign, which lose nothing
    spans = _spans(logs)
    whole, onwards = along[..., -1], spans[..., -1, :]
    if fresh is not None:
        number = cut(fresh.long()[..., None])[..., 0].cumsum(-1)[:, :, None, None]  # (R, chunks, 1, 1, chunk)
        apart = number[..., :, None] != number[..., None, :]
        spans = spans.masked_fill(apart, -torch.inf)
        onwards = onwards.masked_fill(number[..., -1:] != number, -torch.inf)
        along = along.masked_fill(number > 0, -torch.inf)
        whole = whole.masked_fill(number[..., -1] > 0, -torch.inf)
    within = ((c @ b.transpose(-1, -2)) * spans.exp()) @ pushed
    gained = b.transpose(-1, -2) @ (pushed * onwards.exp()[..., None])  # (R, chunks, G, H / G, N, P)
    h = x.new_zeros((rows, heads, size, entries)) if state is None else state.to(x.dtype)
    h = h.reshape(rows, groups, shared, size, entries)
    before = []
    for at, kept in enumerate(whole.exp().unbind(1)):
        before.append(h)
        h = h * kept[..., None, None] + gained[:, at]
    carried = (c @ torch.stack(before, dim=1)) * along.exp()[..., None]
    y = (within + carried).flatten(2, 3).permute(0, 1, 3, 2, 4).flatten(1, 2)
    return y[:, :tokens], h.flatten(1, 2)


def _spans(logs: torch.Tensor) -> torch.Tensor:
    """(..., T, T): the sum of logs from behind j to i at (i, j), -inf where i < j.

    Sums of what lies between, not differences of sums from the beginning, which cancel.
    """
    tokens = logs.shape[-1]
    ones = torch.ones((tokens, tokens), dtype=torch.bool, device=logs.device)
    between = logs[..., None].expand(*logs.shape, tokens).masked_fill(~ones.tril(-1), 0.0)
    return between.cumsum(-2).masked_fill(~ones.tril(), -torch.inf)
