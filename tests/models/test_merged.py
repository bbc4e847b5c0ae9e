"""Merging against PEFT's, against the dense formula, and on the whole way from a checkpoint to plain text."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from hf_tiny import IDS, MAKERS, dense, llama, logits, shake, theirs  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from posterhall import adapters  # noqa: E402
from posterhall.errors import DataError  # noqa: E402
from posterhall.models import causal, hub  # noqa: E402
from posterhall.models.generate import generate  # noqa: E402
from posterhall.models.merged import merge_checkpoint  # noqa: E402
from posterhall.models.quantized import Quantization  # noqa: E402
from posterhall.models.quantizing import quantize_checkpoint  # noqa: E402
from posterhall.quantize import quantize  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


def trained(model, steps=8, ids=IDS):
    """A few steps of training of the adapters, on the tokens themselves."""
    optimiser = torch.optim.AdamW(adapters.lora_parameters(model), lr=0.02)
    for _ in range(steps):
        scores = model.logits(model.hidden(ids[:, :-1]))
        loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), ids[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval(), float(loss.detach())


def greedy(model, ids=IDS, count=12):
    found = generate(model, [row.tolist() for row in ids], max_new_tokens=count, temperature=0.0)
    return [each.ids for each in found]


def their_greedy(model, ids=IDS, count=12):
    with torch.no_grad():
        made = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False,
            pad_token_id=0,
        )  # fmt: skip
    return made[:, ids.shape[1] :].tolist()


@pytest.mark.parametrize("kind", MAKERS)
def test_from_a_checkpoint_by_way_of_four_bits_and_an_adapter_to_plain_text(tmp_path, kind):
    peft = pytest.importorskip("peft")
    plain, small, adapter, out = (tmp_path / name for name in ("plain", "small", "adapter", "merged"))
    quantize_checkpoint(MAKERS[kind](plain), small, Quantization())
    before = causal.load(small)
    model, loss = trained(adapters.add_lora(causal.load(small), rank=4, dropout=0.1, seed=1).train())
    assert loss < 0.8 * float(
        torch.nn.functional.cross_entropy(logits(before)[:, :-1].flatten(0, 1), IDS[:, 1:].flatten())
    )
    adapters.save(model, adapter, base=small)
    assert greedy(causal.load(adapter)) == greedy(model) != greedy(before)

    found = merge_checkpoint(adapter, out, dtype="float32")
    assert (found.quantization.code, found.dtype, found.layers) == (
        "nf4",
        "float32",
        14 if kind == "llama" else 8,
    )
    merged = theirs(out)
    torch.testing.assert_close(logits(merged), logits(model), rtol=1e-4, atol=1e-4)
    assert their_greedy(merged) == greedy(model) == greedy(causal.load(out))

    # PEFT, on the base as it was restored.
    other = peft.PeftModel.from_pretrained(dense(plain, Quantization()), adapter).eval()
    torch.testing.assert_close(logits(other), logits(model), rtol=1e-4, atol=1e-4)
    assert their_greedy(other) == greedy(model)


@pytest.mark.parametrize("code", [None, "nf4"])
@pytest.mark.parametrize("kind", MAKERS)
def test_merging_in_memory_and_in_files_agree(tmp_path, kind, code):
    base = MAKERS[kind](tmp_path / "base")
    model = shake(adapters.add_lora(causal.load(base, quantize=code), rank=4, alpha=6.0))
    expected = logits(model)
    adapters.save(model, tmp_path / "adapter", base=base)
    merge_checkpoint(tmp_path / "adapter", tmp_path / "merged", dtype="float32")
    adapters.merge(model)
    assert not any("lora" in name or "base" in name for name, _ in model.named_parameters())
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4)
    assert torch.allclose(logits(causal.load(tmp_path / "merged")), logits(model), rtol=1e-5, atol=1e-5)
    if kind == "llama":
        hub.save(model, tmp_path / "saved")
        one, two = (load_file(tmp_path / name / hub.WEIGHTS) for name in ("saved", "merged"))
        assert one.keys() == two.keys()
        assert all(torch.allclose(one[name], two[name], rtol=1e-6, atol=1e-7) for name in one)
    with pytest.raises(DataError, match="have they been merged already"):
        adapters.merge(model)


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
def test_a_merged_model_has_16_bits_if_nothing_else_is_said(tmp_path, stored):
    base = llama(tmp_path / "base", dtype=stored)
    model = shake(adapters.add_lora(causal.load(base, dtype="float32"), rank=4))
    adapters.save(model, tmp_path / "adapter", base=base)
    merge_checkpoint(tmp_path / "adapter", tmp_path / "merged")
    wanted = torch.bfloat16 if stored == torch.float32 else stored
    tensors = load_file(tmp_path / "merged" / hub.WEIGHTS)
    assert {each.dtype for each in tensors.values()} == {wanted}
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged").dtype == wanted
    # Rounded once: the sum in float32, then to the type.
    name = "model.layers.1.mlp.down_proj"
    layer = model.blocks[1].feed_forward.down
    weight = load_file(base / hub.WEIGHTS)[f"{name}.weight"].float()
    assert torch.equal(tensors[f"{name}.weight"], (weight + layer.delta()).to(wanted))


def test_what_is_merged_is_not_merged_again(tmp_path):
    base = llama(tmp_path / "base")
    adapters.save(shake(adapters.add_lora(causal.load(base), rank=4)), tmp_path / "adapter", base=base)
    merge_checkpoint(tmp_path / "adapter", tmp_path / "merged")
    with pytest.raises(DataError, match=r"has this adapter .* merged into it already"):
        merge_checkpoint(tmp_path / "adapter", tmp_path / "twice", base=tmp_path / "merged")
    with pytest.raises(DataError, match="no adapter to merge"):
        merge_checkpoint(tmp_path / "merged", tmp_path / "twice")
    with pytest.raises(DataError, match="trained on other weights"):
        merge_checkpoint(tmp_path / "adapter", tmp_path / "twice", base=llama(tmp_path / "other", seed=1))
    with pytest.raises(DataError, match="is there already"):
        merge_checkpoint(tmp_path / "adapter", tmp_path / "merged")
    adapters.save(
        adapters.add_lora(causal.load(base), rank=4), tmp_path / "empty", base=base, allow_empty=True
    )
    with pytest.raises(DataError, match="changes nothing"):
        merge_checkpoint(tmp_path / "empty", tmp_path / "twice")
    assert not (tmp_path / "twice").exists()


# -- what quantising again leaves -------------------------------------------------------------------


def change(model):
    """Weights, changes and the two after quantising, of every projection, concatenated; float64."""
    sums = [0.0, 0.0, 0.0]
    for layer in model.modules():
        if isinstance(layer, adapters.LoraLinear):
            weight = layer.base.dequantized() if hasattr(layer.base, "parts") else layer.base.weight.detach()
            for part, a, b in layer.pairs():
                own = weight[part.first : part.last]
                delta = layer.settings.scaling * (b @ a).detach()
                arrived = quantize(own + delta, "nf4").tensor() - quantize(own, "nf4").tensor()
                sums[0] += float((arrived - delta).double().square().sum())
                sums[1] += float((arrived.double() * delta.double()).sum())
                sums[2] += float(delta.double().square().sum())
    return (sums[0] / sums[2]) ** 0.5, sums[1] / sums[2]


@pytest.mark.parametrize("code", [None, "nf4"])
def test_the_erased_share_is_what_its_formula_says(tmp_path, code):
    model = causal.load(llama(tmp_path / "base"), quantize=code)
    model = shake(adapters.add_lora(model, rank=4), std=0.1)
    found = adapters.erased(model, "nf4", 64)
    share, kept = change(model)
    assert found.share == pytest.approx(share, rel=1e-4)
    assert found.kept == pytest.approx(kept, rel=1e-4)
    assert 0 < found.unchanged < 1


def test_a_small_change_of_quantised_weights_is_erased_and_of_plain_ones_drowned(tmp_path):
    base = llama(tmp_path / "base")
    small, plain, large = (
        shake(adapters.add_lora(causal.load(base, quantize=code), rank=4), std=std)
        for code, std in (("nf4", 0.01), (None, 0.01), ("nf4", 3.0))
    )
    of_small, of_plain, of_large = (adapters.erased(each, "nf4", 64) for each in (small, plain, large))
    assert of_small.kept < 0.1
    assert of_small.share == pytest.approx(1.0, abs=0.2)
    assert of_small.unchanged > 0.99
    assert of_plain.share > 1  # rounding adds more than the change is
    assert of_large.kept > 0.9
    assert of_large.share < 0.5


# -- the commands -----------------------------------------------------------------------------------


def test_the_commands_take_adapters(tmp_path, posterhall):
    tokenizers = pytest.importorskip("tokenizers")
    base = llama(tmp_path / "base")
    words = {chr(ord("0") + i): i for i in range(64)}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(words, [], unk_token="0"))
    made.save(str(base / "tokenizer.json"))
    model = shake(adapters.add_lora(causal.load(base, quantize="nf4"), rank=4))
    adapter = adapters.save(model, tmp_path / "adapter", base=base)

    info = json.loads(posterhall("model", "info", adapter, "--json").out)
    assert info["adapter"]["rank"] == 4
    assert info["adapter"]["base"] == str(base)
    assert info["quantization"]["code"] == "nf4"
    shown = posterhall("model", "info", adapter).out
    assert "rank 4, alpha 16" in shown
    assert "linear layers in nf4" in shown

    def text(of, *more):
        asked = ("model", "generate", of, "-p", "ABC", "-n", "8", "--temperature", "0", "--json", *more)
        return json.loads(posterhall(*asked).out)["samples"][0]["text"]

    said = json.loads(
        posterhall(
            "model", "merge", adapter, "-o", tmp_path / "merged", "--dtype", "float32", "--json", "-q"
        ).out
    )
    assert (said["base_code"], said["dtype"], said["layers"]) == ("nf4", "float32", 14)
    assert set(said["requantized"]) == {"code", "block", "double", "share", "kept", "unchanged"}
    assert text(adapter) == text(tmp_path / "merged") != text(base)
    assert (
        "merged into it already"
        in posterhall(
            "model", "merge", adapter, "-o", tmp_path / "x", "--base", tmp_path / "merged", "-q", code=4
        ).err
    )
    shown = posterhall("model", "merge", adapter, "-o", tmp_path / "again", "-q").out
    assert "restored from nf4" in shown
    assert "of the change would be kept" in shown


def test_a_local_model_of_an_adapter_is_another_than_its_base(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    from posterhall.lm.local import LocalLM

    base = llama(tmp_path / "base")
    words = {chr(ord("0") + i): i for i in range(64)}
    tokenizers.Tokenizer(tokenizers.models.BPE(words, [], unk_token="0")).save(str(base / "tokenizer.json"))
    quantize_checkpoint(base, tmp_path / "small", Quantization())
    model = shake(adapters.add_lora(causal.load(tmp_path / "small"), rank=4))
    adapter = adapters.save(model, tmp_path / "adapter", base=tmp_path / "small")
    lms = [LocalLM.load(each) for each in (base, tmp_path / "small", adapter)]
    assert len({lm.fingerprint() for lm in lms}) == 3
    assert lms[0].parameters == lms[1].parameters < lms[2].parameters
    assert len({str(lm.score("ABC", ["DE"])) for lm in lms}) == 3
