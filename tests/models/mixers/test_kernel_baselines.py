"""Performer and Linformer: what they estimate, and what they refuse."""

from __future__ import annotations

import pytest

from posterhall.errors import DataError
from posterhall.models import Decoder, DecoderConfig

torch = pytest.importorskip("torch")
from posterhall.models.mixers import Placement, linformer, performer  # noqa: E402


def config(name, length=32, **given):
    torch.set_num_threads(1)
    return DecoderConfig(
        vocab_size=5,
        dim=16,
        heads=2,
        init_std=0.3,
        max_length=length,
        mixers=(name,),
        mixer_settings={name: given},
    )


def made(room, name, **given):
    mixer = room.make(config(name, **given), 0).double()
    mixer.initialise(torch.Generator().manual_seed(0))
    return mixer


def normal(*shape, scale=1.0):
    drawn = torch.empty(shape, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(2))
    return drawn * scale


def attention(mixer, x, *, causal):
    """Exact softmax attention with the same weights."""
    queries, keys, values = (
        each.view(*x.shape[:2], mixer.heads, -1).transpose(1, 2) for each in mixer.qkv(x).chunk(3, dim=-1)
    )
    scores = queries @ keys.mT / queries.shape[-1] ** 0.5
    if causal:
        scores = scores.masked_fill(~torch.ones(x.shape[1], x.shape[1]).tril().bool(), -torch.inf)
    return mixer.out((scores.softmax(-1) @ values).transpose(1, 2).flatten(2))


def place(x, **more):
    return Placement(batch=len(x), tokens=x.shape[1], device=x.device, **more)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_many_features_come_near_softmax_attention(bidirectional):
    x = normal(1, 12, 16, scale=0.4)
    errors = []
    for features in (16, 4096):
        mixer = made(performer, "performer", features=features, bidirectional=bidirectional)
        with torch.no_grad():
            exact = attention(mixer, x, causal=not bidirectional)
            errors.append(float((mixer(x, place(x)) - exact).norm() / exact.norm()))
    assert errors[1] < 0.02
    assert errors[1] < errors[0] / 4, "the error falls as one over the root of the features"


def test_the_directions_are_orthogonal_in_blocks_and_as_long_as_gaussian_vectors():
    feature = performer.Favor(8, 4000)
    feature.draw(torch.Generator().manual_seed(0))
    block = feature.directions[:8].double()
    products = block @ block.T
    assert (products - torch.diag(products.diagonal())).abs().max() < 1e-5
    squares = feature.directions.double().square().sum(1)
    assert squares.mean() == pytest.approx(8, abs=0.25)  # chi-squared with 8 degrees: mean 8, variance 16
    assert squares.var() == pytest.approx(16, rel=0.15)


def test_long_queries_and_keys_neither_overflow_nor_vanish():
    mixer = performer.make(config("performer"), 0)
    mixer.initialise(torch.Generator().manual_seed(0))
    for scale in (1e-3, 1.0, 30.0):
        x = normal(2, 10, 16, scale=scale).float().requires_grad_()
        found = mixer(x, place(x))
        found.sum().backward()
        assert torch.isfinite(found).all()
        assert torch.isfinite(x.grad).all()


def test_wide_heads_do_not_fade_into_nothing():
    feature = performer.Favor(256, 512)
    feature.draw(torch.Generator().manual_seed(0))
    x = normal(50, 256).float()
    weights = feature.kernel(x, x)
    assert torch.isfinite(weights).all()
    assert weights.sum(1).min() > 1e-20


def test_padding_does_not_show_to_those_that_look_ahead():
    x = normal(2, 9, 16)
    for mixer in (made(performer, "performer", bidirectional=True), made(linformer, "linformer", rank=4)):
        with torch.no_grad():
            alone = mixer(x[:1, :5], place(x[:1, :5]))
            padded = mixer(x, place(x, valid=(5, 9)))
        assert torch.allclose(padded[:1, :5], alone, rtol=1e-11, atol=1e-12)


def test_a_linformer_that_mixes_nothing_is_attention():
    mixer = made(linformer, "linformer", rank=12)
    x = normal(2, 12, 16)
    with torch.no_grad():
        mixer.mixtures.zero_()
        mixer.mixtures[..., :12] = torch.eye(12)
        assert torch.allclose(mixer(x, place(x)), attention(mixer, x, causal=False), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("sharing", "shape"), [("none", (2, 2, 4, 32)), ("heads", (2, 1, 4, 32)), ("values", (1, 1, 4, 32))]
)
def test_mixtures_are_shared_as_asked(sharing, shape):
    assert made(linformer, "linformer", rank=4, sharing=sharing).mixtures.shape == shape


def test_a_linformer_refuses_what_is_longer_and_to_stream():
    mixer = made(linformer, "linformer", rank=4)
    with pytest.raises(DataError, match=r"33 tokens.*32"):
        mixer(normal(1, 33, 16), place(normal(1, 33, 16)))
    with pytest.raises(DataError, match="sees all tokens at once"):
        Decoder(config("linformer")).new_cache(1, 8)
    with pytest.raises(DataError, match="bidirectional Performer"):
        Decoder(config("performer", bidirectional=True)).new_cache(1, 8)


@pytest.mark.parametrize(
    ("room", "given"),
    [
        (performer.PerformerSettings, {"features": 0}),
        (performer.PerformerSettings, {"chunk": 0}),
        (linformer.LinformerSettings, {"rank": 0}),
        (linformer.LinformerSettings, {"sharing": "all"}),
    ],
)
def test_settings_out_of_range_are_refused(room, given):
    with pytest.raises(DataError, match="must be"):
        room(**given)
