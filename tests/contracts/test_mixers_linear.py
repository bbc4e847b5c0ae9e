"""Linear attention, windows and their kin against the contract of mixers."""

from __future__ import annotations

import pytest
import torch
from mixer import check_mixer

from posterhall.models import DecoderConfig
from posterhall.models.mixers import factory
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
