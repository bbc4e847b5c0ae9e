"""Linear attention against sums written down, and its feature maps against the kernels they stand for."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.errors import DataError
from posterhall.models import DecoderConfig

torch = pytest.importorskip("torch")
from posterhall.models.mixers import Placement  # noqa: E402
from posterhall.models.mixers.linear_attention import (  # noqa: E402
    Elu,
    LinearAttention,
    LinearAttentionSettings,
    Taylor,
)


def normal(*shape, seed=0, scale=1.0):
    drawn = torch.empty(shape, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(seed))
    return drawn * scale


def layer(dtype=torch.float64, **given):
    torch.set_num_threads(1)
    config = DecoderConfig(vocab_size=2, dim=24, heads=3, init_std=0.3, mixers=("linear_attention",))
    mixer = LinearAttention(config, LinearAttentionSettings(**given))
    mixer.initialise(torch.Generator().manual_seed(0))
    return mixer.to(dtype)


def place(x):
    return Placement(batch=len(x), tokens=x.shape[1], device=x.device)


def written_down(mixer, x, similarity):
    """y_t = sum_s sim(q_t, k_s) v_s / sum_s sim(q_t, k_s), token by token."""
    out = torch.zeros(*x.shape[:2], mixer.heads, mixer.head_dim, dtype=x.dtype)
    queries, keys, values = (
        each(x).view(*x.shape[:2], mixer.heads, -1) for each in (mixer.queries, mixer.keys, mixer.values)
    )
    for b in range(len(x)):
        for t in range(x.shape[1]):
            for h in range(mixer.heads):
                weights = [similarity(queries[b, t, h], keys[b, s, h]) for s in range(t + 1)]
                total = sum(w * values[b, s, h] for s, w in enumerate(weights))
                out[b, t, h] = total / sum(weights)
    return mixer.out(out.flatten(2))


def taylor(q, k):
    s = q @ k / math.sqrt(len(q))
    return 1 + s + s**2 / 2


def elu(q, k):
    plus = lambda x: torch.where(x > 0, x + 1, torch.exp(x))  # noqa: E731
    return plus(q) @ plus(k)


@pytest.mark.parametrize("chunk", [1, 4, 64])
@pytest.mark.parametrize(("feature", "similarity"), [("taylor", taylor), ("elu", elu)])
def test_it_is_the_sum_over_the_tokens_before(feature, similarity, chunk):
    mixer = layer(feature=feature, chunk=chunk)
    x = normal(2, 9, 24, seed=1)
    with torch.no_grad():
        assert torch.allclose(mixer(x, place(x)), written_down(mixer, x, similarity), rtol=1e-11, atol=1e-12)


@given(st.integers(1, 9), st.booleans(), st.integers(0, 1000))
def test_taylor_features_multiply_to_the_series(entries, compressed, seed):
    feature = Taylor(entries, compressed=compressed)
    q, k = normal(4, entries, seed=seed, scale=3), normal(5, entries, seed=seed + 1, scale=3)
    product = feature.queries(q) @ feature.keys(k).T
    assert feature.queries(q).shape == (4, feature.size)
    assert torch.allclose(product, feature.kernel(q, k), rtol=1e-11, atol=1e-11)
    assert feature.size == 1 + entries + (entries * (entries + 1) // 2 if compressed else entries**2)


@given(st.floats(-1e3, 1e3))
def test_the_second_order_series_is_never_below_a_half(s):
    kernel = Taylor(1, compressed=True).kernel(
        torch.tensor([[s]], dtype=torch.float64), torch.ones(1, 1).double()
    )
    assert float(kernel) >= 0.5


def test_elus_features_are_positive_and_multiply_to_the_kernel():
    q, k = normal(4, 6, scale=5), normal(5, 6, seed=1, scale=5)
    feature = Elu(6)
    assert (feature.queries(q) > 0).all()
    assert torch.allclose(feature.queries(q) @ feature.keys(k).T, feature.kernel(q, k))


@pytest.mark.parametrize(("compressed", "size"), [(True, 153), (False, 273)])
def test_the_state_holds_as_many_bytes_as_it_says(compressed, size):
    mixer = layer(torch.float32, feature="taylor", feature_dim=16, compressed=compressed)
    state = mixer.new_state(2, 1000, dtype=torch.float32, device=torch.device("cpu"))
    assert state.nbytes == 2 * 3 * size * (8 + 1) * 4  # rows, heads, features, values and the denominator


def test_compressed_and_uncompressed_states_give_the_same():
    x = normal(1, 20, 24)
    found = []
    for compressed in (True, False):
        mixer = layer(feature="taylor", compressed=compressed, chunk=4)
        with torch.no_grad():
            found.append(mixer(x, place(x)))
    assert torch.allclose(*found, rtol=1e-12, atol=1e-12)


def test_half_precision_sums_in_single():
    mixer, x = layer(torch.float32, chunk=8), normal(1, 200, 24).float()
    with torch.no_grad():
        exact = mixer(x, place(x))
        half = mixer.bfloat16()(x.bfloat16(), place(x))
    assert half.dtype == torch.bfloat16
    assert (half.float() - exact).abs().max() < 0.05 * exact.abs().max()
    assert mixer.new_state(1, 8, dtype=torch.bfloat16, device=x.device).kept.dtype == torch.float32


@pytest.mark.parametrize("given", [{"feature_dim": 0}, {"chunk": 0}, {"feature": "exp"}])
def test_settings_out_of_range_are_refused(given):
    with pytest.raises(DataError, match="must be"):
        LinearAttentionSettings(**given)
