"""The planner of memory: published counts and sums, transformers' own models, and measured bytes."""

from __future__ import annotations

import json

import pytest

from posterhall.adapters import add_lora, lora_parameters
from posterhall.claims.qlora import _bytes
from posterhall.claims.rows import Budget
from posterhall.errors import DataError
from posterhall.models import Decoder, DecoderConfig, save
from posterhall.models.architectures import KNOWN, find, of_config
from posterhall.models.plan import PlanSettings, cheaper, memory_of, plan

PUBLISHED = {
    "LLaMA-7B": 6_738_415_616,
    "LLaMA-13B": 13_015_864_320,
    "LLaMA-33B": 32_528_943_616,
    "LLaMA-65B": 65_285_660_672,
    "Llama-2-70B": 68_976_648_192,
    "Llama-3-8B": 8_030_261_248,
    "Mistral-7B": 7_241_732_096,
    "GPT-2": 124_439_808,
    "GPT-2-XL": 1_557_611_200,
    "Pythia-70M": 70_426_624,
    "Pythia-1.4B": 1_414_647_808,
    "Pythia-12B": 11_846_072_320,
    "OPT-125M": 125_239_296,
    "OPT-6.7B": 6_658_473_984,
}
"""Parameters of released checkpoints."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_released_models_have_as_many_parameters(name):
    assert find(name).parameters == PUBLISHED[name]


@pytest.mark.parametrize(
    ("name", "linear", "quantised", "with_others", "adapters"),
    [
        ("LLaMA-7B", 6.476e9, 3.34, 3.87, 159_907_840),
        ("LLaMA-13B", 12.688e9, 6.55, 7.20, 250_347_520),
        ("LLaMA-33B", 32.102e9, 16.56, 17.41, 487_587_840),
        ("LLaMA-65B", 64.760e9, 33.41, 34.46, 799_539_200),
    ],
)
def test_qlora_s_table_comes_out(name, linear, quantised, with_others, adapters):
    planned = plan(find(name))
    assert find(name).linear_parameters == pytest.approx(linear, rel=1e-4)
    assert (planned.weights + planned.scales) / 1e9 == pytest.approx(quantised, abs=0.006)
    assert (planned.weights + planned.scales + planned.others) / 1e9 == pytest.approx(with_others, abs=0.006)
    assert planned.trained == adapters
    assert 8 * (planned.weights + planned.scales) / find(name).linear_parameters == 4.126953125


def test_bits_a_parameter_are_weights_gradients_and_states():
    full = plan(find("Llama-2-70B"), PlanSettings(method="full"))
    assert full.bits_per_parameter == 96.0
    sixteen = PlanSettings(method="lora", adapter_dtype="bfloat16")
    a = find("LLaMA-65B")
    share = a.adapter_parameters(64) / a.parameters
    assert plan(a, sixteen).bits_per_parameter == pytest.approx(16 + share * 96)


@pytest.mark.parametrize("name", ["LLaMA-7B", "GPT-2", "Pythia-160M", "OPT-125M", "Llama-3-8B"])
def test_transformers_makes_models_of_the_same_size(name):
    transformers = pytest.importorskip("transformers")
    import torch

    a = KNOWN[name]
    common = {"vocab_size": a.vocab_size}
    long = {
        "hidden_size": a.dim,
        "num_hidden_layers": a.layers,
        "num_attention_heads": a.heads,
        "intermediate_size": a.ffn_dim,
    }
    config = {
        "llama": lambda: transformers.LlamaConfig(
            **common, **long, num_key_value_heads=a.key_value_heads, tie_word_embeddings=a.tied
        ),
        "gpt2": lambda: transformers.GPT2Config(**common, n_embd=a.dim, n_layer=a.layers, n_head=a.heads),
        "gpt_neox": lambda: transformers.GPTNeoXConfig(**common, **long),
        "opt": lambda: transformers.OPTConfig(
            **common,
            hidden_size=a.dim,
            num_hidden_layers=a.layers,
            num_attention_heads=a.heads,
            ffn_dim=a.ffn_dim,
            word_embed_proj_dim=a.dim,
        ),
    }[a.family]()
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    assert sum(each.numel() for each in model.parameters()) == a.parameters
    assert of_config(config.to_dict(), "config.json").parameters == a.parameters


def test_a_checkpoint_is_planned_from_its_files(tmp_path):
    config = DecoderConfig(vocab_size=50, dim=32, layers=2, heads=4, kv_heads=2, max_length=16)
    model = Decoder(config, seed=0)
    for place in (save(model, tmp_path / "model"), tmp_path / "model" / "config.json"):
        found = find(place)
        assert found.parameters == sum(each.numel() for each in model.parameters())
        assert found.name == "model"
    adapted = add_lora(model, rank=3)
    assert found.adapter_parameters(3) == sum(each.numel() for each in lora_parameters(adapted))


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_measured_bytes_are_within_a_sixth_of_the_plan(method):
    budget = Budget(least=64, most=128, steps=2)
    quotients = [
        measured / planned for measured, planned in (_bytes.drawn(budget, seed, method) for seed in range(4))
    ]
    assert all(5 / 6 < each < 7 / 6 for each in quotients), quotients


def test_less_is_planned_for_what_saves_memory():
    a = find("LLaMA-7B")
    whole = plan(a, PlanSettings(method="full", batch=4, sequence=1024))
    assert plan(a, PlanSettings(method="full", batch=4, sequence=1024, paged=True)).total < whole.total
    least = whole
    for _, then in cheaper(whole):
        assert then.total < least.total
        least = then
    assert least.total < 6e9
    assert least.host == pytest.approx(8 * least.trained)
    assert whole.total < sum(whole.parts.values())


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [
        ("48 GB", 48 * 10**9),
        ("24GiB", 24 << 30),
        ("1.5 TB", 1_500_000_000_000),
        ("rtx-4090", 24 << 30),
        ("NVIDIA H100", 80 << 30),
    ],
)
def test_devices_are_amounts_or_names(text, bytes_):
    assert memory_of(text) == bytes_


def test_this_machine_has_memory():
    assert memory_of("this") > 1 << 28


@pytest.mark.parametrize("text", ["48", "RTX 4091", "", "-3 GB"])
def test_a_device_that_is_none_is_named(text):
    with pytest.raises(DataError, match="no device"):
        memory_of(text)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model_type": "mamba"}, "model_type is 'mamba'"),
        ({"model_type": "llama", "vocab_size": 3, "hidden_size": "x"}, "whole number"),
        (
            {
                "model_type": "llama", "vocab_size": 3, "hidden_size": 8, "num_hidden_layers": 1,
                "num_attention_heads": 4, "num_key_value_heads": 3, "intermediate_size": 8,
            },
            "must divide",
        ),
        ([1], "holds an object"),
    ],
)  # fmt: skip
def test_a_config_that_does_not_fit_is_refused(tmp_path, given, message):
    (tmp_path / "config.json").write_text(json.dumps(given))
    with pytest.raises(DataError, match=message):
        find(tmp_path)


@pytest.mark.parametrize("change", [{"rank": 0}, {"block": 12}, {"code": "nf5"}, {"batch": 0}])
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(DataError):
        PlanSettings(**change)


def test_the_command_says_what_fits_and_what_would(posterhall):
    args = ("model", "plan", "LLaMA-65B", "--gradient-checkpointing", "--set", "adapter_dtype=bfloat16")
    said = json.loads(posterhall(*args, "--device", "48 GB", "--json").out)
    assert said["device"]["fits"]
    assert said["trained_parameters"] == 799_539_200
    assert said["total_bytes"] < sum(said["bytes"].values())
    said = json.loads(
        posterhall("model", "plan", "llama 65b", "--method", "full", "--device", "48 GB", "--json").out
    )
    assert not said["device"]["fits"]
    assert said["device"]["fits_then"]
    assert said["bits_per_parameter"] == 96.0
    shown = posterhall("model", "plan", "LLaMA-65B", "--method", "lora", "--device", "H100").out
    assert "too little" in shown
    assert ": fits" in shown
    assert "no architecture" in posterhall("model", "plan", "llama-8b", code=4).err
