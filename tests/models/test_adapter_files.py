"""Adapters in PEFT's files: what we write PEFT opens, what PEFT writes we open, and nothing else passes."""

from __future__ import annotations

import json
import warnings

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
from hf_tiny import MAKERS, gpt2, llama, logits, shake, theirs  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from posterhall import adapters  # noqa: E402
from posterhall.adapters import saving  # noqa: E402
from posterhall.adapters.placing import target_names  # noqa: E402
from posterhall.errors import DataError  # noqa: E402
from posterhall.models import causal, hub  # noqa: E402

# PEFT asks transformers by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize("kind", MAKERS)
def test_peft_computes_with_our_files_what_we_do(tmp_path, kind, stable):
    base = MAKERS[kind](tmp_path / "base")
    model = adapters.add_lora(causal.load(base), rank=4, alpha=6.0, rank_stabilized=stable)
    adapters.save(shake(model), tmp_path / "adapter", base=base)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # such as one about fan_in_fan_out
        loaded = peft.PeftModel.from_pretrained(theirs(base), tmp_path / "adapter").eval()
    torch.testing.assert_close(logits(loaded), logits(model), rtol=1e-5, atol=1e-5)
    again = causal.load(tmp_path / "adapter")
    assert torch.equal(logits(again), logits(model))
    assert not torch.allclose(logits(again), logits(causal.load(base)), atol=0.1)


@pytest.mark.parametrize("targets", ["all-linear", ["v_proj", "down_proj"], ["c_attn"]])
@pytest.mark.parametrize("kind", MAKERS)
def test_what_peft_writes_computes_the_same_here(tmp_path, kind, targets):
    if targets != "all-linear" and (targets == ["c_attn"]) != (kind == "gpt2"):
        pytest.skip("names of the other architecture")
    base = MAKERS[kind](tmp_path / "base")
    config = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False, fan_in_fan_out=kind == "gpt2",
        task_type="CAUSAL_LM",
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = peft.get_peft_model(theirs(base), config)
    model.save_pretrained(tmp_path / "adapter")
    ours = causal.load(tmp_path / "adapter", base=base)
    torch.testing.assert_close(logits(ours), logits(model.eval()), rtol=1e-5, atol=1e-5)


def test_the_files_name_layers_as_peft_does(tmp_path):
    base = llama(tmp_path / "base")
    model = shake(adapters.add_lora(causal.load(base), rank=4))
    directory = adapters.save(model, tmp_path / "adapter", base=base)
    said = json.loads((directory / saving.CONFIG).read_text())
    names = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert said["target_modules"] == names
    assert (said["r"], said["lora_alpha"], said["fan_in_fan_out"]) == (4, 16.0, False)
    keys = set(load_file(directory / saving.WEIGHTS))
    assert "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight" in keys
    assert len(keys) == 2 * 2 * 7


def test_names_are_whole_where_their_ends_would_reach_further(tmp_path):
    base = gpt2(tmp_path / "base")
    model = adapters.add_lora(causal.load(base), rank=4, targets=["attn.c_proj"])
    assert target_names(model) == ["transformer.h.0.attn.c_proj", "transformer.h.1.attn.c_proj"]
    adapters.save(shake(model), tmp_path / "adapter", base=base)
    loaded = peft.PeftModel.from_pretrained(theirs(base), tmp_path / "adapter").eval()
    torch.testing.assert_close(logits(loaded), logits(model), rtol=1e-5, atol=1e-5)


def test_an_adapter_of_a_quantised_base_comes_back_on_it(tmp_path):
    base = llama(tmp_path / "base")
    model = shake(adapters.add_lora(causal.load(base, quantize="nf4"), rank=4))
    adapters.save(model, tmp_path / "adapter", base=base)
    again = causal.load(tmp_path / "adapter")
    assert torch.equal(logits(again), logits(model))
    plain = adapters.load(causal.load(base), tmp_path / "adapter")
    assert not torch.equal(logits(plain), logits(model))


# -- what does not pass -----------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    base = llama(tmp_path / "base")
    model = shake(adapters.add_lora(causal.load(base), rank=4))
    return adapters.save(model, tmp_path / "adapter", base=base)


def edit(directory, **settings):
    file = directory / saving.CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def test_an_adapter_that_was_not_trained_is_not_saved(tmp_path):
    base = llama(tmp_path / "base")
    model = adapters.add_lora(causal.load(base), rank=4)
    with pytest.raises(DataError, match=r"q_proj and 13 more was not trained: B is zero"):
        adapters.save(model, tmp_path / "adapter", base=base)
    assert not (tmp_path / "adapter").exists()
    adapters.save(model, tmp_path / "adapter", base=base, allow_empty=True)
    assert torch.equal(logits(causal.load(tmp_path / "adapter")), logits(causal.load(base)))


def test_an_adapter_that_diverged_is_not_saved(tmp_path):
    model = shake(adapters.add_lora(causal.load(llama(tmp_path / "base")), rank=4))
    with torch.no_grad():
        model.blocks[1].feed_forward.down.lora_B[3, 2] = float("nan")
    with pytest.raises(DataError, match="down_proj is not finite"):
        adapters.save(model, tmp_path / "adapter", base=tmp_path / "base")


def test_an_adapter_for_other_weights_of_the_same_shape_is_refused(saved, tmp_path):
    llama(tmp_path / "other", seed=1)
    with pytest.raises(DataError, match=r"trained on other weights .*base, fingerprint"):
        causal.load(saved, base=tmp_path / "other")


def test_an_adapter_for_another_architecture_is_refused(saved, tmp_path):
    gpt2(tmp_path / "other")
    with pytest.raises(DataError, match="trained on other weights"):
        causal.load(saved, base=tmp_path / "other")
    with pytest.raises(DataError, match="which the model has not"):
        adapters.load(causal.load(tmp_path / "other"), saved)


def test_an_adapter_of_other_shapes_is_refused(saved, tmp_path):
    tensors = load_file(saved / saving.WEIGHTS)
    key = "base_model.model.model.layers.0.self_attn.k_proj.lora_B.weight"
    tensors[key] = torch.zeros(32, 4)
    save_file(tensors, saved / saving.WEIGHTS)
    with pytest.raises(DataError, match=r"k_proj is adapted from 32 inputs to 32 outputs; .* has 32 and 16"):
        causal.load(saved)


def test_a_pickled_adapter_is_refused(saved):
    (saved / saving.WEIGHTS).rename(saved / "adapter_model.bin")
    with pytest.raises(DataError, match="is a pickle, which can run any code"):
        causal.load(saved)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "IA3"}, "only LORA"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "trained biases"),
        ({"modules_to_save": ["lm_head"]}, "trained whole"),
        ({"rank_pattern": {"q_proj": 2}}, "ranks of their own"),
        ({"r": 0}, "rank is 0"),
        ({"r": "4"}, "r is '4'; it must be a whole number"),
        ({"r": 8}, r"with the rank 8 of adapter_config.json they must be \(8, inputs\)"),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"base_model_name_or_path": None}, "does not say what it was trained on"),
        (
            {"base_model_name_or_path": "/nowhere"},
            "the base of the adapter cannot be read: no model at /nowhere",
        ),
    ],
)
def test_what_an_adapter_cannot_say_is_refused(saved, change, said):
    edit(saved, **change)
    with pytest.raises(DataError, match=said):
        causal.load(saved)


@pytest.mark.parametrize("change", ["cut", "half", "strange", "nan", "empty"])
def test_damaged_weights_are_refused(saved, change):
    file = saved / saving.WEIGHTS
    tensors = load_file(file)
    key = "base_model.model.model.layers.0.self_attn.k_proj.lora_B.weight"
    if change == "cut":
        file.write_bytes(file.read_bytes()[:-40])
    else:
        if change == "half":
            del tensors[key]
        elif change == "strange":
            tensors["base_model.model.lm_head.weight"] = torch.zeros(2, 2)
        elif change == "nan":
            tensors[key][0, 0] = float("nan")
        else:
            tensors = {}
        save_file(tensors, file)
    with pytest.raises(
        DataError, match=r"whole safetensors|one of A and B|none of plain LoRA|not finite|no adapter"
    ):
        causal.load(saved)


def test_an_adapter_is_no_whole_model_and_no_base(saved, tmp_path):
    with pytest.raises(DataError, match="is an adapter too"):
        causal.load(saved, base=saved)
    with pytest.raises(DataError, match="whole model and no adapter"):
        causal.load(tmp_path / "base", base=tmp_path / "base")
    with pytest.raises(DataError, match=r"has an adapter .* save the adapter"):
        hub.save(causal.load(saved), tmp_path / "out")


def test_an_adapter_finds_its_base_beside_itself(saved, tmp_path, monkeypatch):
    edit(saved, base_model_name_or_path="../base")
    expected = logits(causal.load(saved, base=tmp_path / "base"))
    monkeypatch.chdir(tmp_path.parent)
    assert torch.equal(logits(causal.load(saved)), expected)
