"""Quantised checkpoints against bitsandbytes' own, in both directions, and what is refused."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from hf_tiny import MAKERS, dense, gpt2, llama, logits  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from posterhall.errors import DataError  # noqa: E402
from posterhall.models import Decoder, causal, hub, quantized  # noqa: E402
from posterhall.models.foreign import Foreign  # noqa: E402
from posterhall.models.quantized import Quantization  # noqa: E402
from posterhall.models.quantizing import quantize_checkpoint  # noqa: E402
from posterhall.quantize import QuantizedLinear  # noqa: E402

Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


def exact(model):
    """bitsandbytes' layers in training mode, where they compute in float32: in evaluation they take 16 bits
    on some processors, and rows of whole blocks alone."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    for layer in model.eval().modules():
        if isinstance(layer, bitsandbytes.nn.Linear4bit):
            layer.train()
    return model


def edited(directory, change):
    """Change a checkpoint's tensors in place."""
    tensors = load_file(directory / hub.WEIGHTS)
    change(tensors)
    save_file(tensors, directory / hub.WEIGHTS, metadata={"format": "pt"})
    return directory


@pytest.mark.parametrize(
    "how", [Quantization(), Quantization("fp4", 128, False), Quantization("int5", 24)], ids=lambda q: q.code
)
@pytest.mark.parametrize("kind", MAKERS)
def test_a_quantised_checkpoint_computes_with_the_restored_weights(tmp_path, kind, how):
    plain = MAKERS[kind](tmp_path / "plain")
    found = quantize_checkpoint(plain, tmp_path / "small", how)
    model = causal.load(tmp_path / "small")
    assert isinstance(model, Decoder if kind == "llama" else Foreign)
    assert sum(isinstance(each, QuantizedLinear) for each in model.modules()) == 8
    torch.testing.assert_close(logits(model), logits(dense(plain, how)), rtol=1e-4, atol=1e-4)
    assert quantized.describe(model) == how
    # The same happens to a plain checkpoint that is quantised while it is read.
    assert torch.equal(logits(causal.load(plain, quantize=how)), logits(model))
    assert found.bytes_after < found.bytes_before
    assert {each.name.rpartition(".")[2] for each in found.layers} == (
        {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
        if kind == "llama"
        else {"c_attn", "c_proj", "c_fc"}
    )


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("kind", MAKERS)
def test_transformers_and_bitsandbytes_open_what_we_write(tmp_path, kind, double):
    pytest.importorskip("bitsandbytes")
    pytest.importorskip("accelerate")
    plain = MAKERS[kind](tmp_path / "plain", width=128)
    quantize_checkpoint(plain, tmp_path / "small", Quantization(double=double))
    other = exact(transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "small"))
    assert other.is_loaded_in_4bit
    torch.testing.assert_close(logits(other), logits(causal.load(tmp_path / "small")), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("kind", MAKERS)
def test_we_open_what_transformers_and_bitsandbytes_write(tmp_path, kind, double):
    pytest.importorskip("bitsandbytes")
    pytest.importorskip("accelerate")
    plain = MAKERS[kind](tmp_path / "plain", width=128)
    settings = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=double
    )
    other = exact(
        transformers.AutoModelForCausalLM.from_pretrained(
            plain, quantization_config=settings, dtype=torch.float32
        )
    )
    other.save_pretrained(tmp_path / "theirs")
    ours = causal.load(tmp_path / "theirs")
    torch.testing.assert_close(logits(ours), logits(other), rtol=1e-4, atol=1e-4)
    if not double:  # their library rounds scales of scales in another way
        quantize_checkpoint(plain, tmp_path / "ours", Quantization(double=False))
        one, two = (load_file(tmp_path / name / hub.WEIGHTS) for name in ("ours", "theirs"))
        names = [name for name in one if name.endswith((".weight", ".absmax", ".quant_map"))]
        assert names
        assert all(torch.equal(one[name], two[name]) for name in names)


def test_a_checkpoint_in_several_files_stays_in_several(tmp_path):
    plain = llama(tmp_path / "plain", max_shard_size="20KB")
    assert len(list(plain.glob("*.safetensors"))) > 2
    quantize_checkpoint(plain, tmp_path / "small", Quantization())
    assert (tmp_path / "small" / hub.INDEX).is_file()
    assert torch.equal(logits(causal.load(tmp_path / "small")), logits(causal.load(plain, quantize="nf4")))


def test_skipped_layers_and_the_head_stay_as_they_are(tmp_path):
    plain = llama(tmp_path / "plain")
    how = Quantization(skip=("down_proj", "model.layers.0.self_attn.o_proj"))
    found = quantize_checkpoint(plain, tmp_path / "small", how)
    one, two = (load_file(each / hub.WEIGHTS) for each in (plain, tmp_path / "small"))
    same = {name for name in one if name in two and torch.equal(one[name], two[name])}
    assert {"lm_head.weight", "model.layers.0.self_attn.o_proj.weight", "model.embed_tokens.weight"} <= same
    assert {f"model.layers.{i}.mlp.down_proj.weight" for i in range(2)} <= same
    assert "model.layers.1.self_attn.o_proj.weight" not in same
    assert len(found.skipped) == 3
    said = json.loads((tmp_path / "small" / hub.CONFIG).read_text())["quantization_config"]
    assert said["llm_int8_skip_modules"] == ["lm_head", *sorted(found.skipped)]
    model = causal.load(tmp_path / "small")
    assert isinstance(model.blocks[1].mixer.out, QuantizedLinear)
    assert not isinstance(model.blocks[0].mixer.out, QuantizedLinear)


def test_matrices_of_which_a_part_is_quantised_are_read_with_transformers(tmp_path):
    plain = llama(tmp_path / "plain")
    quantize_checkpoint(plain, tmp_path / "small", Quantization(skip=("v_proj",)))
    model = causal.load(tmp_path / "small")
    assert isinstance(model, Foreign)
    assert sum(isinstance(each, QuantizedLinear) for each in model.modules()) == 12
    both = [logits(each) for each in (model, causal.load(plain))]
    assert 0 < float((both[0] - both[1]).abs().max()) < 0.5 * float(both[1].std()) * 10


def test_a_layer_whose_scales_do_not_bear_quantising_keeps_them(tmp_path):
    def spread(tensors):
        tensors[Q_PROJ] = tensors[Q_PROJ] * torch.logspace(-4, 1, 32)[:, None]

    plain = edited(llama(tmp_path / "plain"), spread)
    found = quantize_checkpoint(plain, tmp_path / "small", Quantization())
    assert [each.name for each in found.layers if each.fell_back] == [Q_PROJ.removesuffix(".weight")]
    assert torch.equal(logits(causal.load(tmp_path / "small")), logits(causal.load(plain, quantize="nf4")))


# -- what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [Q_PROJ, "model.norm.weight"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named_and_nothing_is_written(tmp_path, name, value):
    def spoil(tensors):
        tensors[name].view(-1)[7] = value

    plain = edited(llama(tmp_path / "plain"), spoil)
    with pytest.raises(DataError, match=rf"{name}.*\b7\b.*{value}"):
        quantize_checkpoint(plain, tmp_path / "small", Quantization())
    assert not (tmp_path / "small").exists()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["plain"]


def test_what_cannot_be_quantised_is_refused(tmp_path):
    plain = llama(tmp_path / "plain")
    quantize_checkpoint(plain, tmp_path / "small", Quantization())
    with pytest.raises(DataError, match=r"quantised already \(nf4\)"):
        quantize_checkpoint(tmp_path / "small", tmp_path / "again", Quantization())
    with pytest.raises(DataError, match=r"quantised already \(nf4\)"):
        causal.load(tmp_path / "small", quantize="nf4")
    with pytest.raises(DataError, match="is there already"):
        quantize_checkpoint(plain, tmp_path / "small", Quantization())
    with pytest.raises(
        DataError, match="skip has 'q_pro', which no linear layer is called; there are q_proj"
    ):
        quantize_checkpoint(plain, tmp_path / "again", Quantization(skip=("q_pro",)))
    with pytest.raises(DataError, match="block is 12"):
        Quantization(block=12)
    with pytest.raises(DataError, match="nf5"):
        Quantization("nf5")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quant_method": "gptq", "bits": 4}, "quantised by gptq"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes with 8 bits"),
        ({"quant_method": "posterhall", "code": "nf4"}, "must give code, block and double"),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "int4"}, "must be nf4 or fp4"),
    ],
)
def test_other_ways_of_quantising_are_refused_by_name(change, said):
    with pytest.raises(DataError, match=said):
        quantized.read_config({"quantization_config": change}, "config.json")


@pytest.mark.parametrize("kind", MAKERS)
def test_lying_and_missing_states_are_refused(tmp_path, kind):
    quantize_checkpoint(MAKERS[kind](tmp_path / "plain"), tmp_path / "small", Quantization(double=False))
    name = Q_PROJ if kind == "llama" else "transformer.h.0.attn.c_attn.weight"
    mark = f"{name}.quant_state.bitsandbytes__nf4"

    def lie(shape):
        def change(tensors):
            said = json.loads(bytes(tensors[mark].tolist())) | {"shape": shape}
            tensors[mark] = torch.tensor(list(json.dumps(said).encode()), dtype=torch.uint8)

        return change

    kept = (tmp_path / "small" / hub.WEIGHTS).read_bytes()
    for change, said in (
        (lie([1 << 20, 1 << 20]), "at most"),
        (lie([4, 8]), "bytes of codes"),
        (lie([8 * (32 if kind == "llama" else 96), 4]), "config.json makes it"),
        (lambda tensors: tensors.pop(f"{name}.absmax"), "absmax is missing"),
        (lambda tensors: tensors.pop(name), f"{name} is missing"),
    ):
        (tmp_path / "small" / hub.WEIGHTS).write_bytes(kept)
        edited(tmp_path / "small", change)
        with pytest.raises(DataError, match=said):
            causal.load(tmp_path / "small")


def test_names_that_files_leave_out_are_put_back(tmp_path):
    plain = gpt2(tmp_path / "plain")

    def shorten(tensors):  # as the first GPT-2 checkpoints are
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)

    expected = logits(causal.load(plain, quantize="nf4"))
    quantize_checkpoint(edited(plain, shorten), tmp_path / "small", Quantization())
    assert torch.equal(logits(causal.load(tmp_path / "small")), expected)


# -- the command ------------------------------------------------------------------------------------


def test_the_command_tells_what_became_of_the_layers(tmp_path, posterhall):
    plain = llama(tmp_path / "plain")
    said = posterhall("model", "quantize", plain, "-o", tmp_path / "small", "--skip", "down_proj", "-q").out
    assert "q_proj" in said
    assert "transformers with bitsandbytes" in said
    found = json.loads(
        posterhall("model", "quantize", plain, "-o", tmp_path / "int3", "--code", "int3", "--json", "-q").out
    )
    assert (found["code"], found["read_by_transformers"]) == ("int3", False)
    assert len(found["layers"]) == 14
    assert 3.1 < found["bits_per_parameter"] < 3.3
    assert 0.1 < found["relative_rmse"] < 0.3
    info = json.loads(posterhall("model", "info", tmp_path / "int3", "--json").out)
    assert info["quantization"] == {"code": "int3", "block": 64, "double": True}
    assert "linear layers in nf4" in posterhall("model", "info", tmp_path / "small").out
    assert "nf5" in posterhall("model", "quantize", plain, "-o", tmp_path / "x", "--code", "nf5", code=4).err
