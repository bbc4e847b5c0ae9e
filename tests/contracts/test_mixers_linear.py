"""Linear attention, windows and their kin against the contract of mixers."""

from __future__ import annotations

import pytest
import torch
from mixer import check_mixer

from posterhall.models import Decoder, DecoderConfig, hub
from posterhall.models.mixers import Placement, factory
from posterhall.models.mixers.preceded import preceded

CASES = [
    ("linear_attention", {}),
    ("linear_attention", {"chunk": 3}),
    ("linear_attention", {"feature": "taylor", "feature_dim": 5, "chunk": 4}),
    ("linear_attention", {"feature": "taylor", "compressed": False}),
    ("sliding_window", {"window": 1}),
    ("sliding_window", {"window": 3}),
    ("sliding_window", {"window": 64}),
    ("rwkv", {}),
    ("mega", {"shared": 4, "average": 3}),
    ("mega", {"shared": 4, "chunk": 4}),
    ("mega", {"chunk": 4, "bidirectional": True}),
    ("performer", {"chunk": 4}),
    ("performer", {"bidirectional": True}),
    ("linformer", {"rank": 3}),
    ("linformer", {"rank": 3, "sharing": "none"}),
    ("linformer", {"rank": 3, "sharing": "values"}),
]


def config(name, given, **shape):
    shape = {"dim": 32, "heads": 4, "kv_heads": 2, "max_length": 64, "init_std": 0.3, **shape}
    return DecoderConfig(vocab_size=2, mixers=(name,), mixer_settings={name: given} if given else {}, **shape)


def made(make, shape, layer=0):
    torch.set_num_threads(1)
    mixer = make(shape, layer)
    mixer.initialise(torch.Generator().manual_seed(0))
    return mixer


@pytest.mark.parametrize(("name", "given"), CASES, ids=lambda each: str(each))
def test_they_keep_it(name, given):
    check_mixer(made(factory(name), config(name, given)), 32)


@pytest.mark.parametrize("dim", [24, 48])  # no multiple of the kernel's block, and one and a half
def test_rwkv_keeps_it_at_any_width(dim):
    check_mixer(made(factory("rwkv"), config("rwkv", {}, dim=dim)), dim)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_every_layer_of_based_keeps_it(layer):
    shape = config("based", {"window": 3, "feature_dim": 4}, layers=3)
    check_mixer(made(factory("based"), shape, layer), 32)


@pytest.mark.parametrize("name", ["attention", "linear_attention", "mega", "linformer"])
def test_a_mixer_behind_a_short_convolution_keeps_it(name):
    check_mixer(made(preceded(factory(name), 3), config(name, {})), 32)


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("name", "given"), CASES, ids=lambda each: str(each))
def test_their_forms_agree_to_the_last_digits_of_float64(name, given, double):
    check_mixer(made(factory(name), config(name, given)), 32, tolerance=1e-11)


@pytest.mark.parametrize(("name", "given"), CASES, ids=lambda each: str(each))
def test_gradients_are_the_slopes_of_differences(name, given, double):
    mixer = made(factory(name), config(name, given, dim=16))
    generator = torch.Generator().manual_seed(1)
    x = torch.empty(2, 7, 16).normal_(generator=generator).requires_grad_()
    moved = [x, *mixer.parameters()]
    ways = [torch.empty(each.shape).normal_(generator=generator) for each in moved]
    place = Placement(batch=2, tokens=7, device=x.device)
    weights = torch.empty(2, 7, 16).normal_(generator=generator)

    def value(step):
        with torch.no_grad():
            for each, way in zip(moved, ways, strict=True):
                each.add_(way, alpha=step)
            found = (mixer(x, place) * weights).sum()
            for each, way in zip(moved, ways, strict=True):
                each.sub_(way, alpha=step)
        return float(found)

    (mixer(x, place) * weights).sum().backward()
    slope = sum(float((each.grad * way).sum()) for each, way in zip(moved, ways, strict=True))
    h = 1e-6
    assert slope == pytest.approx((value(h) - value(-h)) / (2 * h), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("name", "given"), [*CASES, ("based", {"window": 3})], ids=lambda each: str(each))
def test_a_checkpoint_of_theirs_gives_the_same_logits(name, given, tmp_path):
    torch.set_num_threads(1)
    model = Decoder(config(name, given, layers=3), seed=3).eval()
    hub.save(model, tmp_path / "model")
    again = hub.load(tmp_path / "model").eval()
    ids = torch.tensor([[0, 1, 1, 0, 1, 0, 0]])
    with torch.no_grad():
        assert torch.equal(again(ids), model(ids))
