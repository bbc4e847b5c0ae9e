"""Attention over trees: texts that stand there once for all their continuations.

Masking a whole row would compute every product between continuations, and between trees, to throw it away.
Here each stretch of queries meets the keys it sees and no others: a trunk with its first branch is one
causal text, and every further branch meets trunk and itself.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np

from posterhall.extras import functional, torch
from posterhall.models._ops import Texts
from posterhall.models.mixers import Placement, Tree


def texts(placement: Placement) -> Texts:
    """What the tokens of a pass without states are: rows, documents packed into rows, or trees."""
    if placement.trees is not None:
        return _of_trees(placement.trees)
    starts = np.flatnonzero(placement.positions().numpy() == 0)
    edges = np.append(starts, placement.batch * placement.tokens)
    numbers = np.arange(len(edges) - 1)
    return Texts(
        np.stack((numbers, numbers + 1, np.diff(edges)), axis=1), np.stack((edges[:-1], edges[1:]), axis=1)
    )


@functools.lru_cache(maxsize=16)
def _of_trees(trees: tuple[Tree, ...]) -> Texts:
    """All layers of a pass ask for the same ones."""
    found: list[tuple[int, int, int]] = []
    stretches: list[tuple[int, int]] = []
    at = 0
    for tree in trees:
        first = len(stretches)
        lengths = (tree.trunk + sum(tree.branches[:1]), *tree.branches[1:])
        stretches += [each for each in pairwise(accumulate(lengths, initial=at)) if each[0] < each[1]]
        found.append((first, len(stretches), tree.trunk))
        at += tree.tokens
    return Texts(np.array(found, np.int64), np.array(stretches, np.int64))


def attend(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, trees: Sequence[Tree]
) -> torch.Tensor:
    """softmax(Q K^T / sqrt(H)) V within each tree.

    Args:
        queries: (1, T, heads, H), rotated.
        keys, values: (1, T, kv_heads, H).
        trees: of T tokens together.

    Returns:
        (1, T, heads, H).
    """
    # Split, not sliced: the gradient of a slice is a whole tensor of zeros around it.
    lengths = [
        length for tree in trees for length in (tree.trunk + sum(tree.branches[:1]), *tree.branches[1:])
    ]
    parts = zip(
        *(torch.split(each.transpose(1, 2), lengths, dim=2) for each in (queries, keys, values)),
        strict=True,
    )
    shared = queries.shape[2] != keys.shape[2]
    mixed = []
    for tree in trees:
        query, stem_keys, stem_values = next(parts)
        mixed.append(
            functional.scaled_dot_product_attention(
                query, stem_keys, stem_values, is_causal=True, enable_gqa=shared
            )
        )
        trunk_keys, trunk_values = stem_keys[:, :, : tree.trunk], stem_values[:, :, : tree.trunk]
        for length in tree.branches[1:]:
            query, own_keys, own_values = next(parts)
            if not length:
                mixed.append(query)
                continue
            mixed.append(
                functional.scaled_dot_product_attention(
                    query,
                    torch.cat((trunk_keys, own_keys), dim=2),
                    torch.cat((trunk_values, own_values), dim=2),
                    attn_mask=_after(length, tree.trunk, query.device),
                    enable_gqa=shared,
                )
            )
    return torch.cat(mixed, dim=2).transpose(1, 2)


def _after(length: int, trunk: int, device: torch.device) -> torch.Tensor:
    """(length, trunk + length) bool: the trunk, and what is not later in the branch."""
    return torch.ones((length, trunk + length), dtype=torch.bool, device=device).tril(trunk)
