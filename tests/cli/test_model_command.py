"""`posterhall model`: what it says of a model, and the text it continues."""

from __future__ import annotations

import io
import json
import sys

import pytest
import torch

from posterhall.data.tokenizer import ByteTokenizer
from posterhall.models import Decoder, DecoderConfig, save
from posterhall.runs import Run

torch.set_num_threads(1)


def decoder(vocab_size=258, **more):
    return Decoder(DecoderConfig(vocab_size=vocab_size, dim=16, layers=2, heads=2, max_length=64, **more))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save(decoder(), tmp_path_factory.mktemp("models") / "tiny", tokenizer=ByteTokenizer())


def test_info_shows_the_parts(posterhall, model):
    found = json.loads(posterhall("model", "info", model, "--json").out)
    total = 258 * 16 + 2 * (4 * 16 * 16 + 3 * 16 * 64) + 5 * 16
    assert found["parameters"]["total"] == found["stored_parameters"] == total
    assert found["dtypes"] == ["F32"]
    assert found["bytes"] == (model / "model.safetensors").stat().st_size
    assert (found["context"], found["tied"], found["training"]) == (64, True, None)
    assert found["tokenizer"] == {"name": "byte", "vocab_size": 258, "bos_id": 256, "eos_id": 256}
    text = posterhall("model", "info", model).out
    assert f"{total:,}" in text
    assert "byte, 258 tokens" in text


def test_info_of_a_run_shows_its_training(posterhall, tmp_path):
    with Run.start(tmp_path / "run", kind="train lm", config={"dim": 16}) as run:
        save(decoder(), run.artifact("model"))
        run.finish(loss=2.5)
    found = json.loads(posterhall("model", "info", tmp_path / "run", "--json").out)
    assert found["training"]["kind"] == "train lm"
    assert found["training"]["facts"] == {"loss": 2.5}
    assert found["tokenizer"] is None
    assert "loss = 2.5" in posterhall("model", "info", tmp_path / "run").out


def generated(posterhall, model, *options):
    command = ("model", "generate", model, "--threads", 1, "--max-new-tokens", 12, "--json", *options)
    return json.loads(posterhall(*command).out)


def test_a_sample_is_the_same_however_many_are_drawn(posterhall, model):
    one = generated(posterhall, model, "--prompt", "Once", "--seed", 4)
    three = generated(posterhall, model, "--prompt", "Once", "--seed", 4, "--samples", 3)
    assert one["prompt_tokens"] == 5  # begin of text, four bytes
    assert three["samples"][0]["text"] == one["samples"][0]["text"]
    assert three["samples"][0]["logprob"] == pytest.approx(one["samples"][0]["logprob"], abs=1e-4)
    assert len({each["text"] for each in three["samples"]}) == 3
    other = generated(posterhall, model, "--prompt", "Once", "--seed", 5)
    assert other["samples"] != one["samples"]


def test_greedy_text_does_not_depend_on_the_seed(posterhall, model):
    texts = {
        generated(posterhall, model, "--prompt", "x", "--temperature", 0, "--seed", seed)["samples"][0][
            "text"
        ]
        for seed in (1, 2)
    }
    assert len(texts) == 1
    assert generated(posterhall, model, "--prompt", "x", "--top-k", 1)["samples"][0]["text"] in texts


def test_prompts_come_from_files_and_standard_input(posterhall, model, tmp_path, monkeypatch):
    expected = generated(posterhall, model, "--prompt", "ä b\n")["samples"]
    (tmp_path / "prompt.txt").write_text("ä b\n", encoding="utf-8")
    assert generated(posterhall, model, "--prompt-file", tmp_path / "prompt.txt")["samples"] == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("ä b\n".encode())))
    assert generated(posterhall, model, "--prompt-file", "-")["samples"] == expected


def test_a_stop_string_ends_the_text_and_is_not_in_it(posterhall, model):
    [free] = generated(posterhall, model, "--prompt", "q", "--temperature", 0)["samples"]
    assert len(free["text"]) > 4
    stop = free["text"][3:5]
    [cut] = generated(posterhall, model, "--prompt", "q", "--temperature", 0, "--stop", stop)["samples"]
    assert cut["text"] == free["text"][: free["text"].index(stop)]
    assert cut["stopped"]
    assert cut["tokens"] < free["tokens"]


def test_text_cannot_steer_the_terminal(posterhall, model):
    out = posterhall("model", "generate", model, "-p", "a", "-n", 40, "--samples", 2, "--threads", 1).out
    assert out.startswith("--- 1\n")
    assert "--- 2\n" in out
    assert all(each.isprintable() or each == "\n" for each in out)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ([], 2, "either --prompt"),
        (["--prompt", "a", "--prompt-file", "b"], 2, "either --prompt"),
        (["--prompt", "a", "--stop", ""], 2, "--stop is empty"),
        (["--prompt-file", "missing.txt"], 4, "missing.txt: No such file"),
        (["--prompt", "a", "--top-p", "1.5"], 4, "top_p is 1.5"),
        (["--prompt", "a", "--dtype", "int8"], 4, "one of float32"),
        (["--prompt", "a", "--device", "abacus"], 4, "--device abacus"),
        (["--prompt", "a" * 64], 4, "65 tokens; it must have 1 to 64"),
    ],
)
def test_what_cannot_be_is_refused(posterhall, model, options, code, said):
    assert said in posterhall("model", "generate", model, "--threads", 1, *options, code=code).err


def test_a_prompt_that_is_not_text_is_refused(posterhall, model, tmp_path):
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    err = posterhall("model", "generate", model, "--prompt-file", tmp_path / "latin", code=4).err
    assert "not UTF-8 at byte 3" in err


def test_models_without_a_fitting_tokenizer_are_refused(posterhall, tmp_path):
    command = ("model", "generate", tmp_path / "m", "--prompt", "a", "--threads", 1)
    assert "no model at" in posterhall(*command, code=4).err
    save(decoder(), tmp_path / "m")
    assert "no tokenizer.json" in posterhall(*command, code=4).err
    save(decoder(vocab_size=100), tmp_path / "m", tokenizer=ByteTokenizer())
    assert "they do not belong together" in posterhall(*command, code=4).err


def test_the_best_of_several_draws_is_the_one_with_the_highest_reward(posterhall, tmp_path):
    from posterhall.data.tokenizer import ByteTokenizer
    from posterhall.models import Decoder, DecoderConfig, hub

    config = DecoderConfig(vocab_size=258, dim=16, layers=1, heads=2, max_length=48)
    hub.save(Decoder(config, seed=0), tmp_path / "model", tokenizer=ByteTokenizer())
    (tmp_path / "words.txt").write_text("".join(f"{letter} {i + 1}\n" for i, letter in enumerate("abcdefgh")))
    ask = ("model", "generate", tmp_path / "model", "-p", "x", "-n", 12, "--threads", 1)
    best = (*ask, "--best-of", 8, "--reward", f"lexicon:{tmp_path / 'words.txt'}")
    drawn = json.loads(posterhall(*ask, "--samples", 8, "--json").out)
    assert drawn["best_of"] is None
    found = json.loads(posterhall(*best, "--json").out)
    assert [each["text"] for each in found["samples"]] == [each["text"] for each in drawn["samples"]]
    told = found["best_of"]
    assert told["rewards"][told["best"]] == max(told["rewards"]) == pytest.approx(told["expected_best"][-1])
    assert sum(told["rewards"]) / 8 == pytest.approx(told["expected_best"][0])
    shown = posterhall(*best, "--scores")
    assert "best of n" in shown.err
    assert "---" not in shown.out
    posterhall(*ask, "--best-of", 8, code=2)
    posterhall(*best, "--temperature", 0, code=2)


def test_answers_that_a_judge_gives_no_score_are_not_the_best(posterhall, tmp_path):
    from posterhall.data.tokenizer import ByteTokenizer
    from posterhall.models import Decoder, DecoderConfig, hub

    config = DecoderConfig(vocab_size=258, dim=16, layers=1, heads=2, max_length=48)
    hub.save(Decoder(config, seed=0), tmp_path / "model", tokenizer=ByteTokenizer())
    ask = ("model", "generate", tmp_path / "model", "-p", "x", "-n", 12, "--threads", 1, "--best-of", 6)
    (tmp_path / "mute.jsonl").write_text(json.dumps({"reply": "hm"}) + "\n")
    failed = posterhall(*ask, "--reward", f"judge:scripted:{tmp_path / 'mute.jsonl'}", code=4)
    assert "gives none of 6 answers a score" in failed.err
    replies = ["Answer: 3", "hm", "Answer: 9", "no", "Answer: 4", "Answer: 1"]

    def judge():
        (tmp_path / "judge.jsonl").write_text(json.dumps({"contains": "e", "reply": replies}) + "\n")
        return "--reward", f"judge:scripted:{tmp_path / 'judge.jsonl'}"

    told = json.loads(posterhall(*ask, *judge(), "--json").out)["best_of"]
    scored = [each for each in told["rewards"] if each is not None]
    assert sorted(scored) == [1, 3, 4, 9]
    assert told["rewards"][told["best"]] == 9
    assert len(told["expected_best"]) == 4
    shown = posterhall(*ask, *judge(), "--scores").err.splitlines()
    assert sorted(line.split()[1] for line in shown[1:]) == ["-", "-", "1", "3", "4", "9"]
