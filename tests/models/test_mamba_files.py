"""Mamba's checkpoints in transformers' form, and decoders of mixed layers in ours."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from posterhall.errors import DataError
from posterhall.models import Decoder, DecoderConfig, causal, hub

transformers = pytest.importorskip("transformers")
torch.set_num_threads(1)
HERS = {
    "mamba": {
        "vocab_size": 53, "hidden_size": 32, "state_size": 5, "num_hidden_layers": 3, "conv_kernel": 3,
        "time_step_rank": 7, "layer_norm_epsilon": 1e-4,
    },
    "mamba2": {
        "vocab_size": 41, "hidden_size": 32, "state_size": 8, "num_hidden_layers": 2, "num_heads": 8,
        "head_dim": 8, "n_groups": 2, "chunk_size": 16, "tie_word_embeddings": False,
    },
}  # fmt: skip
OURS = {
    "mamba": {"mamba": {"state": 4, "rank": 3}},
    "mamba2": {"mamba2": {"state": 6, "head_dim": 8, "groups": 4, "chunk": 5}},
}


def shaken(model, seed=1):
    """Weights as they are not at the beginning: each gets its own noise, poles and norms too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.empty_like(parameter).normal_(0, 0.1, generator=generator))
    return model.eval()


def theirs(kind):
    config = transformers.AutoConfig.for_model(kind, **HERS[kind])
    torch.manual_seed(0)
    return shaken(transformers.AutoModelForCausalLM.from_config(config))


def ids(count, vocabulary, length=37):
    return torch.randint(0, vocabulary, (count, length), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("kind", HERS)
def test_transformers_models_say_the_same_here(kind, tmp_path):
    model = theirs(kind)
    model.save_pretrained(tmp_path)
    own = hub.load(tmp_path)
    given = ids(2, HERS[kind]["vocab_size"])
    with torch.no_grad():
        torch.testing.assert_close(own(given), model(given).logits, rtol=1e-5, atol=1e-5)
    assert isinstance(causal.load(tmp_path), Decoder)


@pytest.mark.parametrize("kind", OURS)
def test_transformers_reads_what_is_saved(kind, tmp_path):
    config = DecoderConfig(
        vocab_size=29, dim=32, layers=2, ffn_dim=0, mixers=(kind,), mixer_settings=OURS[kind]
    )
    own = shaken(Decoder(config, seed=3))
    hub.save(own, tmp_path / "model")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    given = ids(2, 29)
    with torch.no_grad():
        torch.testing.assert_close(model(given).logits, own(given), rtol=1e-5, atol=1e-5)
        again = hub.load(tmp_path / "model")
        assert torch.equal(again(given), own(given))
    assert again.config.max_length > 100_000  # no state grows, so nothing bounds it


@pytest.mark.parametrize("kind", HERS)
def test_several_tokens_into_a_state_go_on_from_it(kind, tmp_path):
    model = theirs(kind)  # whose whole sequence is the oracle: its own continuation of several is not right
    model.save_pretrained(tmp_path)
    own = hub.load(tmp_path)
    given = ids(2, HERS[kind]["vocab_size"], 23)
    with torch.no_grad():
        cache = own.new_cache(2, 23)
        parts = [own(given[:, a:b], cache=cache) for a, b in ((0, 9), (9, 13), (13, 14), (14, 23))]
        torch.testing.assert_close(torch.cat(parts, 1), model(given).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "shape",
    [
        {"mixers": ("mamba", "attention", "mamba2"), "mixer_settings": {"mamba2": {"head_dim": 8}}},
        {"mixers": ("mamba", "s4d", "mamba"), "ffn_dim": 0, "positions": "none"},
        {"mixers": ("attention",), "positions": "learned"},
        {"mixers": ("performer",), "tie_embeddings": False},
    ],
)
def test_other_decoders_come_back_the_same(shape, tmp_path):
    own = shaken(Decoder(DecoderConfig(vocab_size=29, dim=32, layers=3, max_length=40, **shape), seed=3))
    hub.save(own, tmp_path)
    again = hub.load(tmp_path)
    given = ids(2, 29)
    with torch.no_grad():
        assert torch.equal(again(given), own(given))
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["model_type"] == "posterhall_decoder"
    if "mamba" in shape["mixers"]:  # in full, whatever the defaults are one day
        assert written["mixer_settings"]["mamba"]["state"] == 16
    for field in dataclasses.fields(DecoderConfig):
        if field.name != "mixer_settings":
            assert getattr(again.config, field.name) == getattr(own.config, field.name)


def test_half_precision_keeps_poles_and_steps_in_full(tmp_path):
    model = theirs("mamba")
    model.save_pretrained(tmp_path)
    own = hub.load(tmp_path, dtype="bfloat16")
    assert own.blocks[0].mixer.into.weight.dtype == torch.bfloat16
    assert {each.dtype for each in own.blocks[0].mixer.rates.parameters()} == {torch.float32}
    with torch.no_grad():
        given = ids(1, 53)
        near = own(given)
        assert (near - model(given).logits).abs().max() < 0.05 * near.abs().max()
    hub.save(own, tmp_path / "half")
    assert hub.load(tmp_path / "half").embedding.dtype == torch.bfloat16


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -200.0])
def test_poles_that_would_not_be_stable_are_refused(bad, tmp_path):
    theirs("mamba").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["backbone.layers.1.mixer.A_log"][2, 3] = bad
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="a_log is not finite, or has poles of 0"):
        hub.load(tmp_path)


def test_what_is_not_supported_is_named(tmp_path):
    theirs("mamba").save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    for name, value in (("use_bias", True), ("hidden_act", "gelu"), ("state_size", "16"), ("expand", -1)):
        file.write_text(json.dumps({**config, name: value}))
        with pytest.raises(DataError, match=name if name != "expand" else "tensor|expand|mixer_settings"):
            hub.load(tmp_path)


def test_a_setting_of_a_saved_decoder_that_is_not_known_is_refused(tmp_path):
    hub.save(Decoder(DecoderConfig(vocab_size=5, dim=8, layers=1, heads=1, mixers=("s4d",))), tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "layer": 3}))
    with pytest.raises(DataError, match=r"unknown setting 'layer'.*layers"):
        hub.load(tmp_path)
    file.write_text(json.dumps({**config, "mixers": 3}))
    with pytest.raises(DataError, match="does not describe a decoder"):
        hub.load(tmp_path)
