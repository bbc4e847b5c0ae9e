"""Attention over texts, packed documents and trees against the formula in float64, with its gradients."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posterhall.models import _ops, _team
from posterhall.models.mixers import Placement, Tree, branching
from posterhall.models.mixers.attention import rotary_table, turns

torch.set_num_threads(1)


def expected(qkv, cos, sin, heads, seen):
    """The formula: rotation as complex numbers, a row of weights for each query, over what `seen` allows."""
    size = qkv.shape[-1]
    turned = torch.complex(qkv[..., : size // 2], qkv[..., size // 2 :]) * torch.complex(cos, sin)
    turned = torch.cat((turned.real, turned.imag), -1)
    kv_heads = (qkv.shape[2] - heads) // 2
    queries, keys, values = (
        turned[:, :, :heads],
        turned[:, :, heads : heads + kv_heads],
        qkv[:, :, -kv_heads:],
    )
    keys, values = (each.repeat_interleave(heads // kv_heads, dim=2) for each in (keys, values))
    scores = torch.einsum("bqhs,bkhs->bhqk", queries, keys) / math.sqrt(size)
    weights = scores.masked_fill(~seen, -math.inf).softmax(-1)
    return torch.einsum("bhqk,bkhs->bqhs", weights, values)


def compare(placement, heads, kv_heads, size, *, scale=1.0, seed=0):
    """Values and gradients of both, for random entries."""
    generator = torch.Generator().manual_seed(seed)
    shape = (placement.batch, placement.tokens, heads + 2 * kv_heads, size)
    exact = (torch.empty(shape, dtype=torch.float64).normal_(generator=generator) * scale).requires_grad_()
    single = exact.detach().float().requires_grad_()
    upstream = torch.empty((*shape[:2], heads, size), dtype=torch.float64).normal_(generator=generator)
    table = rotary_table(size, 4096, 10000.0, torch.float32, placement.device)
    cos, sin = turns(table, placement)
    mask = placement.mask()
    if mask is None:
        mask = torch.ones(placement.tokens, placement.tokens, dtype=torch.bool).tril()
    right = expected(exact, cos.double(), sin.double(), heads, mask)
    found = _ops.attend_texts(single, cos, sin, heads, branching.texts(placement))
    (right_slope,) = torch.autograd.grad(right, exact, upstream)
    (found_slope,) = torch.autograd.grad(found, single, upstream.float())
    # A weight is as exact as its product is large: products grow with the square of the scale.
    error = 2e-5 * scale**2
    tolerance = {"rtol": error, "atol": error * scale}
    torch.testing.assert_close(found.double(), right, **tolerance)
    torch.testing.assert_close(found_slope.double(), right_slope, **tolerance)
    return found.detach(), found_slope


CPU = torch.device("cpu")


@pytest.mark.parametrize("tokens", [1, 2, 7, 8, 9, 31, 32, 33, 63, 64, 65, 127, 130, 200])
def test_rows_of_any_length(tokens):
    compare(Placement(2, tokens, CPU), 2, 2, 32)


@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(1, 1, 64), (4, 2, 32), (6, 1, 32), (2, 2, 96)])
def test_heads_that_share_keys(heads, kv_heads, size):
    compare(Placement(2, 70, CPU), heads, kv_heads, size)


def test_packed_documents_do_not_see_each_other():
    segments = torch.tensor([[0] * 40 + [1] * 1 + [2] * 59, [5] * 64 + [6] * 36])
    compare(Placement(2, 100, CPU, segments=segments), 2, 1, 32)


@settings(max_examples=25, deadline=None)
@given(
    trees=st.lists(
        st.builds(Tree, st.integers(1, 90), st.lists(st.integers(0, 75), max_size=3).map(tuple)),
        min_size=1,
        max_size=3,
    ).map(tuple)
)
def test_trees_of_any_shape(trees):
    placement = Placement(1, sum(tree.tokens for tree in trees), CPU, trees=trees)
    compare(placement, 2, 1, 32)


def test_products_far_apart_neither_overflow_nor_lose_the_others():
    found, slope = compare(Placement(1, 100, CPU), 1, 1, 32, scale=12.0)  # products up to some thousand
    assert found.isfinite().all()
    assert slope.isfinite().all()


def test_what_comes_later_leaves_no_trace():
    qkv = torch.randn((1, 80, 3, 32), generator=torch.Generator().manual_seed(0))
    placement = Placement(1, 80, CPU)
    angles = turns(rotary_table(32, 80, 10000.0, torch.float32, CPU), placement)
    before = _ops.attend_texts(qkv, *angles, 1, branching.texts(placement))
    qkv[:, 50:] = 1e6
    after = _ops.attend_texts(qkv, *angles, 1, branching.texts(placement))
    torch.testing.assert_close(after[:, :50], before[:, :50], rtol=0, atol=0)
    assert not torch.equal(after[:, 50:], before[:, 50:])


@pytest.mark.skipif(not _team.is_there(), reason="this torch brings no OpenMP library to share")
def test_threads_do_not_change_a_bit():
    trees = (Tree(40, (30, 31)), Tree(3, (70,)))
    placement = Placement(1, sum(tree.tokens for tree in trees), CPU, trees=trees)
    one = compare(placement, 4, 2, 32)
    torch.set_num_threads(3)
    try:
        for a, b in zip(one, compare(placement, 4, 2, 32), strict=True):
            assert torch.equal(a, b)
    finally:
        torch.set_num_threads(1)
