"""Checkpoints in and out: transformers reads ours, we read its, and what is bad is named."""

from __future__ import annotations

import json
import pathlib

import pytest
import torch
from tiny import SHAPES, decoder, tokens

from posterhall.errors import DataError, MissingExtra
from posterhall.models import hub, load, save
from posterhall.runs import Run

transformers = pytest.importorskip("transformers")
from hf_tiny import IDS, MAKERS, logits  # noqa: E402


def theirs(directory):
    return transformers.AutoModelForCausalLM.from_pretrained(directory).eval()


def same(a, b, tolerance=1e-5):
    """Whether logits are equal but for rounding, which is relative to the largest of them."""
    return (a - b).abs().max().item() <= tolerance * max(1.0, b.abs().max().item())


@pytest.mark.parametrize("kind", MAKERS)
def test_every_architecture_is_loaded_by_the_room(tmp_path, kind):
    directory = MAKERS[kind](tmp_path / kind)
    with torch.no_grad():
        assert same(logits(load(directory), IDS), theirs(directory)(IDS).logits)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("shard_bytes", [5e9, 5000])
def test_transformers_reads_what_is_saved(tmp_path, name, shard_bytes):
    model = decoder(name)
    save(model, tmp_path / "m", shard_bytes=shard_bytes)
    assert (tmp_path / "m" / hub.INDEX).exists() == (shard_bytes == 5000 and name != "odd")
    ids = tokens(model)
    other = theirs(tmp_path / "m")
    assert type(other).__name__ == "LlamaForCausalLM"
    assert same(other(ids).logits, model(ids))
    assert same(hub.load(tmp_path / "m")(ids), model(ids), 0)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shards", ["1GB", "20KB"])
def test_what_transformers_saves_is_read(tmp_path, tied, shards):
    config = transformers.LlamaConfig(
        vocab_size=91, hidden_size=32, intermediate_size=50, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=40, rope_theta=777.0, rms_norm_eps=1e-4,
        tie_word_embeddings=tied, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(3)
    other = transformers.LlamaForCausalLM(config).eval()
    other.save_pretrained(tmp_path, max_shard_size=shards)
    model = hub.load(tmp_path)
    assert not model.training
    ids = tokens(model)
    assert same(model(ids), other(ids).logits)
    assert model.config.rope_theta == other.config.rope_parameters["rope_theta"]


def test_gradients_are_those_of_transformers(tmp_path):
    model = decoder("grouped").double()
    other = theirs(save(model, tmp_path / "m"))
    ids = tokens(model)
    model(ids).square().mean().backward()
    other(ids).logits.square().mean().backward()
    q, k, v = model.blocks[1].mixer.qkv.weight.grad.split([32, 16, 16])
    attention, mlp = other.model.layers[1].self_attn, other.model.layers[1].mlp
    gate, up = model.blocks[1].feed_forward.gate_up.weight.grad.chunk(2)
    for mine, true in (
        (q, attention.q_proj), (k, attention.k_proj), (v, attention.v_proj), (gate, mlp.gate_proj),
        (up, mlp.up_proj), (model.blocks[0].mixer_norm.weight.grad, other.model.layers[0].input_layernorm),
        (model.embedding.grad, other.model.embed_tokens),
    ):  # fmt: skip
        # transformers computes its norms in float32 whatever the type.
        torch.testing.assert_close(mine, true.weight.grad, rtol=1e-4, atol=1e-6)


def test_the_type_is_kept_or_chosen(tmp_path):
    save(decoder().to(torch.bfloat16), tmp_path / "m")
    assert hub.load(tmp_path / "m").embedding.dtype == torch.bfloat16
    assert hub.load(tmp_path / "m", dtype="float32").embedding.dtype == torch.float32
    assert theirs(tmp_path / "m").dtype == torch.bfloat16
    with pytest.raises(DataError, match="one of float32"):
        hub.load(tmp_path / "m", dtype="int8")


class Words:
    bos_id, eos_id = 1, 2

    def save(self, directory):
        (directory / "tokenizer.json").write_text("{}")


def test_saving_over_a_model_replaces_it_and_nothing_else(tmp_path):
    save(decoder("plain"), tmp_path / "m", shard_bytes=2000, tokenizer=Words())
    (tmp_path / "m" / "README.md").write_text("mine")
    other = decoder("grouped")
    save(other, tmp_path / "m")
    names = {each.name for each in (tmp_path / "m").iterdir()}
    assert names == {"README.md", "tokenizer.json", hub.WEIGHTS, hub.CONFIG, hub.GENERATION}
    assert same(hub.load(tmp_path / "m")(tokens(other)), other(tokens(other)), 0)
    assert [each.name for each in tmp_path.iterdir()] == ["m"]  # nothing temporary is left


def test_the_tokenizers_ids_are_in_the_settings(tmp_path):
    save(decoder(), tmp_path / "m", tokenizer=Words())
    for file in (hub.CONFIG, hub.GENERATION):
        found = json.loads((tmp_path / "m" / file).read_text())
        assert (found["bos_token_id"], found["eos_token_id"]) == (1, 2)


def test_a_failed_saving_leaves_the_old_model(tmp_path):
    class Broken(Words):
        def save(self, directory):
            raise RuntimeError("no tokenizer")

    model = decoder()
    save(model, tmp_path / "m")
    with pytest.raises(RuntimeError):
        save(decoder(seed=1), tmp_path / "m", tokenizer=Broken())
    assert same(hub.load(tmp_path / "m")(tokens(model)), model(tokens(model)), 0)
    assert [each.name for each in tmp_path.iterdir()] == ["m"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="it is a file"):
        save(model, tmp_path / "file")
    with pytest.raises(DataError, match="cannot write"):
        save(model, tmp_path / "file" / "below")


def test_a_run_is_a_place_for_a_model(tmp_path):
    with Run.start(tmp_path / "run", kind="train lm", config={}) as run:
        with pytest.raises(DataError, match="has the training ended"):
            hub.load(tmp_path / "run")
        save(decoder(), run.artifact("model"))
        run.finish()
    assert hub.load(tmp_path / "run").config.dim == 24


def edited(tmp_path, **changes):
    save(decoder(), tmp_path / "m")
    file = tmp_path / "m" / hub.CONFIG
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return tmp_path / "m"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, "'gpt2'.*supported is 'llama'"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        (
            {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}},
            "scales the rotary positions \\('llama3'",
        ),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear"}}, "rope_scaling scales"),
        ({"rope_theta": "x", "rope_parameters": None}, "rope_theta is 'x'"),
        ({"head_dim": 5}, "head_dim 5 x 3 heads"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"num_hidden_layers": 2.5}, "num_hidden_layers is 2.5"),
        ({"num_attention_heads": 0}, "head_dim"),
        ({"num_key_value_heads": 2}, "config.json: kv_heads is 2"),
        ({"vocab_size": 60}, "embed_tokens.weight is \\(61, 24\\)"),
        ({"num_hidden_layers": 3}, "9 tensors of 29 are missing"),
        ({"num_hidden_layers": 1}, "tensor model.layers.1.* is none of"),
        ({"tie_word_embeddings": False}, "missing, first lm_head.weight"),
    ],
)
def test_other_architectures_and_settings_are_refused(tmp_path, changes, said):
    with pytest.raises(DataError, match=said):
        hub.load(edited(tmp_path, **changes))


def test_bad_files_are_refused(tmp_path):
    directory = save(decoder(), tmp_path / "m")
    weights = directory / hub.WEIGHTS
    whole = weights.read_bytes()
    for damaged in (whole[:-50], whole[:5], b"", b"\xff" * 100):
        weights.write_bytes(damaged)
        with pytest.raises(DataError, match="not a whole safetensors file"):
            hub.load(directory)
    weights.write_bytes(whole[:5])
    with pytest.raises(DataError, match="not a whole safetensors file"):
        hub.stored(directory)
    weights.rename(directory / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"pytorch_model.bin is a pickle.*save_pretrained"):
        hub.load(directory)
    (directory / "pytorch_model.bin").unlink()
    with pytest.raises(DataError, match="has no weights"):
        hub.load(directory)
    (directory / hub.CONFIG).write_text("{")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        hub.load(directory)
    (directory / hub.CONFIG).write_text("[]")
    with pytest.raises(DataError, match="must be an object"):
        hub.load(directory)
    (directory / hub.CONFIG).unlink()
    with pytest.raises(DataError, match=r"has no config.json"):
        hub.load(directory)
    with pytest.raises(DataError, match="is a file"):
        hub.load(pathlib.Path(__file__))
    with pytest.raises(DataError, match="no model at nowhere"):
        hub.load("nowhere")


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "x.bin", 3, "sub/model.safetensors"])
def test_an_index_names_only_files_beside_it(tmp_path, name):
    directory = save(decoder(), tmp_path / "m", shard_bytes=2000)
    (directory / hub.INDEX).write_text(json.dumps({"weight_map": {"model.norm.weight": name}}))
    with pytest.raises(DataError, match="no file beside it"):
        hub.load(directory)


def test_a_missing_shard_is_named(tmp_path):
    directory = save(decoder(), tmp_path / "m", shard_bytes=2000)
    first = min(directory.glob("*.safetensors"))
    first.unlink()
    with pytest.raises(DataError, match=f"{first.name} is missing"):
        hub.load(directory)
    (directory / hub.INDEX).write_text("{}")
    with pytest.raises(DataError, match="no weight_map"):
        hub.load(directory)


def test_quantised_weights_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    directory = save(decoder(), tmp_path / "m")
    tensors = load_file(directory / hub.WEIGHTS)
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.int8)
    save_file(tensors, directory / hub.WEIGHTS)
    with pytest.raises(DataError, match="only floating-point weights"):
        hub.load(directory)


def test_an_id_of_the_hub_is_fetched_without_pickles(tmp_path, monkeypatch):
    import huggingface_hub

    directory = save(decoder(), tmp_path / "m")
    asked = {}

    def fetch(name, *, allow_patterns):
        asked.update(name=name, patterns=allow_patterns)
        return str(directory)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert hub.load("someone/tiny").config.dim == 24
    assert asked == {
        "name": "someone/tiny",
        "patterns": ["*.json", "*.safetensors", "tokenizer*", "*.jinja", "merges.txt", "vocab.txt"],
    }

    def fail(name, *, allow_patterns):
        raise OSError("404 not found\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(DataError, match=r"404 not found$"):
        hub.load("someone/tiny")

    def absent(module, extra, purpose):
        if module == "huggingface_hub":
            raise MissingExtra(extra, purpose)
        return __import__(module)

    monkeypatch.setattr(hub, "require", absent)
    with pytest.raises(MissingExtra, match=r"posterhall\[hf\]"):
        hub.load("someone/tiny")


def test_only_the_architecture_can_be_saved(tmp_path):
    from posterhall.models import Decoder, DecoderConfig

    config = DecoderConfig(vocab_size=5, dim=8, layers=1, heads=1, mixers=("mine",))
    model = Decoder(config, mixers={"mine": lambda *_: torch.nn.Identity()})
    with pytest.raises(DataError, match="mixers mine"):
        save(model, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []
