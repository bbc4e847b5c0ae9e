"""Reward models of any architecture and as adapters: transformers and PEFT read them with the same logits."""

from __future__ import annotations

import json

import chat_checkpoints
import numpy as np
import pytest

from posterhall.data import chat_template
from posterhall.data.tokenizer import ByteTokenizer
from posterhall.errors import DataError
from posterhall.train.reward_settings import RewardSettings

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("safetensors")
transformers.utils.logging.disable_progress_bar()

TALK = [
    [{"role": "user", "content": "say <|im_end|>"}, {"role": "assistant", "content": "good 3"}],
    [{"role": "user", "content": "say 1"}, {"role": "assistant", "content": "bad"}],
]
QUICK = {"lr": 3e-3, "batch": 4, "accumulate": 1, "steps": 4, "eval_fraction": 0.0}


@pytest.fixture
def checkpoint(tmp_path):
    """`checkpoint(kind)`: a language model as transformers saves it, with a chat template."""
    return lambda kind: chat_checkpoints.write(tmp_path / kind, kind)


@pytest.fixture
def pairs(tmp_path):
    asked = [[{"role": "user", "content": f"say {i}"}] for i in range(12)]
    rows = [{"prompt": a, "chosen": f"good {i}", "rejected": f"bad {i}"} for i, a in enumerate(asked)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def trained(model, pairs, out, **more):
    from posterhall.train.reward import train_reward

    return train_reward(RewardSettings(**{**QUICK, **more}), model, [pairs], out, device="cpu")


def scores(run, talk=TALK):
    """What our own scorer makes of conversations."""
    from posterhall.train.scorers import scorer

    asked = [tuple((m["role"], m["content"]) for m in each[:-1]) for each in talk]
    with scorer(str(run)) as scored:
        return scored.score(asked, [each[-1]["content"] for each in talk])


def logits(classifier, directory, talk=TALK):
    """What transformers makes of them, one by one, by its own way from messages to tokens."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory, split_special_tokens=True)
    found = []
    for each in talk:
        text = tokenizer.apply_chat_template(each, tokenize=False)
        # Its special tokens by name, what people wrote as letters.
        cut = text.replace("say <|im_end|>", "\0")
        ids = []
        for piece in cut.split("\0"):
            ids += ids and tokenizer("say <|im_end|>").input_ids
            ids += tokenizer(piece, split_special_tokens=False).input_ids
        with torch.no_grad():
            found.append(classifier.eval()(torch.tensor([ids])).logits.item())
    return np.array(found)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox", "opt"])
def test_transformers_reads_whole_models_with_the_same_logits(checkpoint, pairs, tmp_path, kind):
    done = trained(checkpoint(kind), pairs, tmp_path / "run")
    assert done["saved"] == "model"
    assert done["params"] == done["params_trained"]
    directory = tmp_path / "run" / "artifacts" / "model"
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(directory)
    assert theirs.config.num_labels == 1
    assert chat_template.load(directory).source == chat_checkpoints.TEMPLATE
    found = scores(tmp_path / "run")
    np.testing.assert_allclose(logits(theirs, directory), found + done["reward_offset"], atol=1e-4)
    assert found[0] != pytest.approx(found[1], abs=1e-3)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT asks transformers
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")  # which PEFT sets itself
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_peft_reads_adapters_with_the_same_logits(checkpoint, pairs, tmp_path, kind):
    peft = pytest.importorskip("peft")
    base = checkpoint(kind)
    done = trained(base, pairs, tmp_path / "run", lora_rank=4)
    assert done["saved"] == "adapter"
    assert done["params_trained"] < done["params"] / 4
    directory = tmp_path / "run" / "artifacts" / "model"
    below = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    theirs = peft.PeftModel.from_pretrained(below, directory)
    assert theirs.peft_type == "LORA"
    np.testing.assert_allclose(
        logits(theirs, directory), scores(tmp_path / "run") + done["reward_offset"], atol=1e-4
    )
    # and what PEFT saves of it is read here (without the offset, which it does not know)
    theirs.save_pretrained(tmp_path / "theirs")
    transformers.AutoTokenizer.from_pretrained(directory).save_pretrained(tmp_path / "theirs")
    np.testing.assert_allclose(
        scores(tmp_path / "theirs"), scores(tmp_path / "run") + done["reward_offset"], atol=1e-5
    )


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_an_adapter_over_four_bits_goes_on_and_comes_back_as_it_was(checkpoint, pairs, tmp_path, kind):
    from posterhall.models import reward_files
    from posterhall.models.quantized import describe
    from posterhall.train.sft import train_sft
    from posterhall.train.sft_settings import SftSettings

    chats = tmp_path / "chats.jsonl"
    chats.write_text("".join(json.dumps({"messages": each}) + "\n" for each in TALK))
    settings = SftSettings(quantize="nf4", lora_rank=4, steps=2, lr=3e-3, eval_fraction=0.0)
    train_sft(settings, checkpoint(kind), [chats], tmp_path / "sft", device="cpu")
    done = trained(tmp_path / "sft", pairs, tmp_path / "run", steps=30)
    assert done["train"]["reward_accuracy"] > 0.9
    model, _ = reward_files.load(tmp_path / "run")
    assert describe(model).code == "nf4"
    assert float(model.offset) == pytest.approx(done["reward_offset"])
    good, bad = ([[{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": f"{word} {i}"}]
                  for i in range(12)] for word in ("good", "bad"))  # fmt: skip
    found = scores(tmp_path / "run", good + bad)
    assert (found[:12] > found[12:]).all()
    assert found.mean() == pytest.approx(0, abs=1e-4)  # over the very answers it was trained on
    assert found.std() == pytest.approx(done["reward_std"], rel=1e-4)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_an_adapter_can_be_merged_into_the_classifier(posterhall, checkpoint, pairs, tmp_path, kind):
    done = trained(checkpoint(kind), pairs, tmp_path / "run", quantize="nf4", lora_rank=4)
    merged = tmp_path / "merged"
    posterhall("model", "merge", tmp_path / "run", "-o", merged, "--dtype", "float32", "--quiet")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(merged)
    found = scores(tmp_path / "run")
    np.testing.assert_allclose(logits(theirs, merged), found + done["reward_offset"], atol=1e-4)
    np.testing.assert_allclose(scores(merged), found, atol=1e-4)
    assert theirs.config.pad_token_id == 257


def test_any_classifier_of_last_states_with_one_label_is_a_reward_model(checkpoint, tmp_path):
    base = checkpoint("llama")
    config = transformers.AutoConfig.from_pretrained(base, num_labels=1)
    theirs = transformers.LlamaForSequenceClassification(config)
    torch.nn.init.normal_(theirs.score.weight)
    theirs.save_pretrained(tmp_path / "theirs")  # without a head that gives logits
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "theirs")
    np.testing.assert_allclose(scores(tmp_path / "theirs"), logits(theirs, tmp_path / "theirs"), atol=1e-4)


@pytest.mark.parametrize("mixer", ["mamba", "hyena"])
def test_other_mixers_judge_too(tmp_path, mixer):
    from posterhall.models import Decoder, DecoderConfig, reward_files
    from posterhall.models.reward import RewardModel

    own = {"ffn_dim": 0} if mixer == "mamba" else {}
    config = DecoderConfig(
        vocab_size=258, dim=16, layers=2, heads=1, max_length=32, mixers=(mixer,), positions="none", **own
    )
    model = RewardModel(Decoder(config, seed=0))
    model.offset.fill_(0.25)
    reward_files.save(model, tmp_path / "reward", tokenizer=ByteTokenizer())
    back, _ = reward_files.load(tmp_path / "reward")
    ids = torch.randint(0, 256, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids, dtype=torch.bool)
    assert torch.equal(back.rewards(ids, mask), model.rewards(ids, mask))


def test_what_is_no_reward_model_or_no_language_model_is_refused_by_name(checkpoint, pairs, tmp_path):
    from posterhall.adapters import add_lora, lora_parameters
    from posterhall.adapters import save as save_adapter
    from posterhall.models import causal, reward_files
    from posterhall.models.quantized import Quantization
    from posterhall.models.quantizing import quantize_checkpoint

    base = checkpoint("llama")
    adapted = add_lora(causal.load(base), rank=2)
    with torch.no_grad():
        for parameter in lora_parameters(adapted):
            parameter.fill_(0.1)
    save_adapter(adapted, tmp_path / "adapter", base=base)
    with pytest.raises(DataError, match=r"no reward model: it has no tensor score\.weight"):
        reward_files.load(tmp_path / "adapter")
    trained(base, pairs, tmp_path / "run", lora_rank=2)
    with pytest.raises(DataError, match=r"adapter of a reward model .* give it as a reward"):
        causal.load(tmp_path / "run")
    four = tmp_path / "four"
    quantize_checkpoint(base, four, Quantization("nf4"))
    with pytest.raises(DataError, match="train an adapter on them: --lora-rank"):
        trained(four, pairs, tmp_path / "other")
    assert trained(four, pairs, tmp_path / "third", lora_rank=2)["saved"] == "adapter"


def test_what_transformers_has_no_classifier_of_is_refused_before_training(tmp_path, pairs):
    torch.manual_seed(0)
    config = transformers.CodeGenConfig(
        vocab_size=258, n_embd=32, n_layer=1, n_head=4, n_positions=64, rotary_dim=4, bos_token_id=256,
        eos_token_id=256,
    )  # fmt: skip
    transformers.CodeGenForCausalLM(config).save_pretrained(tmp_path / "model")
    ByteTokenizer().save(tmp_path / "model")
    with pytest.raises(DataError, match="no classifier of CodeGenForCausalLM's states"):
        trained(tmp_path / "model", pairs, tmp_path / "run")
    done = trained(tmp_path / "model", pairs, tmp_path / "second", lora_rank=2)
    assert np.isfinite(scores(tmp_path / "second")).all()
    assert done["saved"] == "adapter"
