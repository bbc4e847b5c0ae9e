"""State-space models and long convolutions against the contract of mixers, and to float64's last digits."""

from __future__ import annotations

import itertools

import pytest
import torch
from mixer import check_mixer

from posterhall.errors import DataError
from posterhall.models import DecoderConfig
from posterhall.models.mixers import Placement, check, factory

CASES = [
    ("s4d", {}),
    ("s4d", {"init": "inv", "copies": 1}),
    ("s4d", {"init": "inv2", "rate": 0.5}),
    ("s4d", {"init": "quad", "bandlimit": 0.5}),
    ("s4d", {"init": "legs", "discretisation": "bilinear"}),
    ("s4d", {"init": "real"}),
    ("s4d", {"init": "random", "state": 2}),
    ("s4d", {"init": "real", "state": 3, "discretisation": "euler"}),
    ("s4", {}),
    ("s4", {"measure": "legt", "state": 8}),
    ("s4", {"measure": "fout", "state": 8, "copies": 4}),
    ("s5", {}),
    ("s5", {"blocks": 2, "discretisation": "bilinear"}),
    ("h3", {"state": 6}),
    ("h3", {"state": 4, "head_dim": 4}),
    (
        "long_conv",
        {"threshold": 0.0},
    ),  # gradients are held to differences, which a threshold's corner has not
    ("hyena", {}),
    ("hyena", {"order": 3, "taps": 4, "embedding": 5}),
    ("base_conv", {"taps": 4}),
    ("base_conv", {"taps": -1}),
]
LOOKING_AHEAD = [(name, {"bidirectional": True}) for name in ("s4", "s4d", "s5")]
LOOKING_AHEAD.append(("long_conv", {"bidirectional": True, "threshold": 0.0}))


def made(name, given, dim=8):
    torch.set_num_threads(1)
    given = {
        key: (value,) if key == "taps" and name == "base_conv" else value for key, value in given.items()
    }
    config = DecoderConfig(
        vocab_size=2, dim=dim, heads=2, max_length=64, mixers=(name,), mixer_settings={name: given}
    )
    mixer = factory(name)(config, 0)
    mixer.initialise(torch.Generator().manual_seed(0))
    return mixer


@pytest.mark.parametrize(("name", "given"), [*CASES, *LOOKING_AHEAD], ids=str)
@pytest.mark.parametrize("length", [6, 37])
def test_they_keep_it(name, given, length):
    check_mixer(made(name, given), 8, length=length)


@pytest.mark.parametrize(("name", "given"), CASES, ids=str)
def test_every_way_to_cut_a_sequence_agrees_in_float64(name, given):
    mixer = made(name, given).double().eval()
    x = torch.empty(2, 7, 8, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = mixer(x, Placement(batch=2, tokens=7, device=x.device))
        for count in range(7):
            for inner in itertools.combinations(range(1, 7), count):
                state = mixer.new_state(2, 7, dtype=x.dtype, device=x.device)
                parts = [
                    mixer(x[:, a:b], Placement(batch=2, tokens=b - a, device=x.device, past=(a, a)), state)
                    for a, b in itertools.pairwise((0, *inner, 7))
                ]
                torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize(("name", "given"), CASES, ids=str)
def test_weights_go_through_a_checkpoint(name, given, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    one, other = made(name, given), made(name, given)
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.add_(0.01)
    safetensors.save_file(one.state_dict(), tmp_path / "mixer.safetensors")
    other.load_state_dict(safetensors.load_file(tmp_path / "mixer.safetensors"))
    x = torch.empty(1, 9, 8).normal_(generator=torch.Generator().manual_seed(1))
    place = Placement(batch=1, tokens=9, device=x.device)
    with torch.no_grad():
        assert torch.equal(one.eval()(x, place), other.eval()(x, place))


@pytest.mark.parametrize(("name", "given"), LOOKING_AHEAD, ids=str)
def test_no_language_model_looks_ahead(name, given):
    shape = {"vocab_size": 2, "dim": 8, "heads": 2, "mixers": (name,)}
    check(DecoderConfig(**shape))
    with pytest.raises(DataError, match="looks ahead"):
        check(DecoderConfig(**shape, mixer_settings={name: given}))
