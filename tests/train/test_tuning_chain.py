"""From a checkpoint of transformers through four bits, conversations and preferences back to transformers."""

from __future__ import annotations

import json

import chat_checkpoints
import pytest

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("safetensors")

QUIET = ["--threads", 1, "--quiet"]
STEPS = ["--lr", 5e-3, "--batch", 4, "--accumulate", 1, "--device", "cpu", "--set", "warmup=2", *QUIET]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_way_through_four_bits_ends_in_a_plain_model_with_our_text(posterhall, tmp_path, kind):
    from posterhall.lm.local import LocalLM
    from posterhall.lm.protocol import Message, Request

    asked = [{"role": "user", "content": f"what is {n} and {n + 1}?"} for n in range(16)]
    said = [{"role": "assistant", "content": f"it is {2 * n + 1}."} for n in range(16)]
    chats = write(tmp_path / "chats.jsonl", [{"messages": [q, a]} for q, a in zip(asked, said, strict=True)])
    pairs = write(
        tmp_path / "pairs.jsonl",
        [
            {"prompt": [q], "chosen": a["content"], "rejected": "no."}
            for q, a in zip(asked, said, strict=True)
        ],
    )
    base, four = chat_checkpoints.write(tmp_path / kind, kind), tmp_path / "four"
    posterhall("model", "quantize", base, "-o", four, *QUIET)
    posterhall("train", "sft", four, chats, "-o", tmp_path / "sft", "--lora-rank", 4, "--epochs", 20, *STEPS)
    posterhall("train", "dpo", tmp_path / "sft", pairs, "-o", tmp_path / "dpo", "--epochs", 2, *STEPS)
    posterhall("model", "merge", tmp_path / "dpo", "-o", tmp_path / "merged", "--dtype", "float32", *QUIET)

    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")
    lm = LocalLM.load(tmp_path / "dpo")
    for question in asked[:3]:
        ids = tokenizer.apply_chat_template([question], add_generation_prompt=True, return_tensors="pt")
        found = model.generate(**ids, max_new_tokens=24, do_sample=False, pad_token_id=257)
        theirs = tokenizer.decode(found[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        [[sample]] = lm.generate(
            [Request((Message("user", question["content"]),), max_tokens=24, temperature=0.0)]
        )
        assert sample.text == theirs
    assert "it is" in theirs
