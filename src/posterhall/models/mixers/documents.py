"""Packed documents for mixers whose sums run over whole rows: each gets a row of its own."""

from __future__ import annotations

from collections.abc import Callable

from posterhall.extras import torch
from posterhall.models.mixers import Placement


def apart(
    mix: Callable[[torch.Tensor, Placement], torch.Tensor], x: torch.Tensor, segments: torch.Tensor
) -> torch.Tensor:
    """Mix every document by itself, as `Placement.segments` demands.

    Documents of similar length go together (up to twice the shortest's), so that at most half of what is
    computed is padding.

    Args:
        mix: a mixer, called with a placement that has `valid` and no segments.
        x: (B, T, D).
        segments: (B, T), numbers of the documents.

    Returns:
        (B, T, D).
    """
    batch, tokens, _ = x.shape
    fresh = torch.ones_like(segments, dtype=torch.bool)
    fresh[:, 1:] = segments[:, 1:] != segments[:, :-1]
    starts = fresh.flatten().nonzero()[:, 0]  # in the flattened rows
    ends = torch.cat((starts[1:], starts.new_tensor([batch * tokens])))
    lengths = ends - starts
    flat = x.flatten(0, 1)
    places, parts = [], []
    sizes = torch.ceil(torch.log2(lengths.double())).long()
    for size in sorted(set(sizes.tolist())):
        chosen = (sizes == size).nonzero()[:, 0]
        longest = int(lengths[chosen].max())
        along = torch.arange(longest, device=x.device)
        real = along < lengths[chosen, None]
        at = (starts[chosen, None] + along).clamp(max=batch * tokens - 1)
        rows = flat[at].masked_fill(~real[..., None], 0.0)
        placement = Placement(
            batch=len(chosen), tokens=longest, device=x.device, valid=tuple(lengths[chosen].tolist())
        )
        places.append(at[real])
        parts.append(mix(rows, placement)[real])
    order = torch.cat(places).argsort()
    return torch.cat(parts)[order].view(batch, tokens, -1)
