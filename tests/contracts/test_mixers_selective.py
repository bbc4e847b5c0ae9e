"""Mamba and Mamba-2 against the contract of mixers."""

from __future__ import annotations

import pytest
import torch
from mixer import check_mixer

from posterhall.models import DecoderConfig
from posterhall.models.mixers import factory


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mamba", {}),
        ("mamba", {"state": 3, "conv": 1, "rank": 5, "conv_bias": False}),
        ("mamba2", {"head_dim": 8, "state": 6, "groups": 2, "chunk": 4}),
        ("mamba2", {"head_dim": 48, "state": 4, "step_high": 0.05}),
    ],
)
def test_mambas_keep_it(name, settings):
    config = DecoderConfig(vocab_size=2, dim=24, heads=3, mixers=(name,), mixer_settings={name: settings})
    mixer = factory(name)(config, 0)
    mixer.initialise(torch.Generator().manual_seed(0))
    check_mixer(mixer, 24)
