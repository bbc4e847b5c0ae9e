"""`posterhall eval tasks`: what it prints, keeps and refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

ITEM = {"question": "Sky?", "choices": ["blue", "green"], "answer": 0}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Two tasks and a script that answers them, in the working directory."""
    monkeypatch.chdir(tmp_path)
    questions = [{**ITEM, "question": f"Sky {i}?"} for i in range(6)]
    (tmp_path / "sky.jsonl").write_text("".join(json.dumps(each) + "\n" for each in questions))
    prompts = [{"prompt": f"{i}+1=", "target": str(i + 1)} for i in range(4)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(each) + "\n" for each in prompts))
    p = {" blue": math.log(0.6), " green": math.log(0.2)}
    script = [
        {"contains": "Sky", "scores": p},
        {"contains": "+1=", "reply": "2", "scores": {f" {i}": -1.0 for i in range(1, 5)}},
    ]
    (tmp_path / "script.jsonl").write_text("".join(json.dumps(each) + "\n" for each in script))
    return tmp_path


@pytest.mark.usefixtures("files")
def test_a_table_of_tasks_and_metrics(posterhall):
    out = posterhall(
        "eval",
        "tasks",
        "scripted:script.jsonl",
        "--task",
        "sky.jsonl",
        "--task",
        "sums.jsonl",
        "--shots",
        "0,2",
        "--set",
        "resamples=200",
        "--quiet",
    ).out
    header, *lines = out.splitlines()
    assert header.split() == [
        "task",
        "metric",
        "items",
        "score",
        "95",
        "%",
        "chance",
        "above",
        "0-shot",
        "2-shot",
    ]
    [accuracy] = [line.split() for line in lines if line.startswith("sky") and " accuracy " in line]
    # Wilson's interval of 4 right among 4 begins at 4 / (4 + 1.96²).
    assert accuracy == ["sky", "accuracy", "4", "1", "0.5101", "to", "1", "0.5", "1", "1", "1"]
    [p] = [line.split() for line in lines if " p_choices " in line]
    assert p[3] == "0.75"
    assert "mean above chance of 2 tasks" in out


@pytest.mark.usefixtures("files")
def test_json_and_the_run_say_the_same(posterhall):
    command = ["eval", "tasks", "scripted:script.jsonl", "--task", "sums.jsonl", "--shots", "0", "-o", "run"]
    said = posterhall(*command, "--json", "--family", "f", "--scale", "1e6", "--seed", "3")
    result = json.loads(said.out)
    assert set(result) == {"model", "family", "scale", "seed", "limit", "tasks", "mean", "harness", "run"}
    assert (result["model"], result["family"], result["scale"]) == ("scripted:script.jsonl", "f", 1e6)
    [task] = result["tasks"]
    assert task["scores"]["exact_match"]["score"] == 0.25
    assert json.loads(Path("run/artifacts/scores.json").read_text()) == result
    again = json.loads(posterhall(*command, "--resume", "--json").out)
    assert again == result
    assert "holds a run already" in posterhall(*command, code=4).err
    config = posterhall(
        "eval", "tasks", "scripted:script.jsonl", "--task", "sums.jsonl", "-c", "run/config.yaml", "--json"
    )
    assert json.loads(config.out)["tasks"] == result["tasks"]


@pytest.mark.usefixtures("files")
def test_settings_of_tasks_and_of_the_evaluation_go_through_set(posterhall):
    result = json.loads(
        posterhall(
            "eval",
            "tasks",
            "echo",
            "--task",
            "sums.jsonl",
            "--shots",
            "0",
            "--json",
            "--set",
            "chance=0.1",
            "--set",
            "batch=1",
            "--set",
            "answer-prefix=",
        ).out
    )
    scores = result["tasks"][0]["scores"]
    assert scores["exact_match"]["chance"] == 0.1
    assert scores["nll"]["score"] == pytest.approx(math.log(256))  # one byte, without the space


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["echo"], 2, "no task: give --task"),
        (["nosuch", "--task", "sky.jsonl"], 4, "allowed are a directory of a model"),
        (["echo", "--task", "none.jsonl"], 4, "none.jsonl"),
        (["echo", "--task", "sky.jsonl", "--shots", "five"], 2, "a range, as 0-5"),
        (["echo", "--task", "sky.jsonl", "--shots", "5-0"], 2, "a range, as 0-5"),
        (["echo", "--task", "sky.jsonl", "--shots", "1,1"], 4, "each number once"),
        (["echo", "--task", "sky.jsonl", "--shots", "9"], 4, "9 examples are wanted and 6 can be had"),
        (["echo", "--task", "sky.jsonl", "--limit", "0"], 4, "limit is 0"),
        (["echo", "--task", "sky.jsonl", "--set", "stlye=letter"], 4, "Did you mean: style"),
        (["echo", "--task", "sky.jsonl", "--resume"], 2, "name its directory with -o"),
        (
            ["scripted:script.jsonl", "--task", "sums.jsonl", "--shots", "0", "--set", "answer_prefix=>"],
            4,
            "no score for",
        ),
    ],
)
@pytest.mark.usefixtures("files")
def test_mistakes_end_with_what_to_do(posterhall, arguments, code, message):
    assert message in posterhall("eval", "tasks", *arguments, code=code).err


def test_a_local_model_is_asked_by_its_directory(posterhall, files):
    pytest.importorskip("torch")
    from posterhall.data.tokenizer import ByteTokenizer
    from posterhall.models import Decoder, DecoderConfig, save

    tokenizer = ByteTokenizer()
    model = Decoder(DecoderConfig(vocab_size=tokenizer.vocab_size, dim=16, layers=1, heads=2, max_length=256))
    save(model, files / "tiny", tokenizer=tokenizer)
    result = json.loads(
        posterhall(
            "eval",
            "tasks",
            "tiny",
            "--task",
            "sky.jsonl",
            "--task",
            "sums.jsonl",
            "--shots",
            "0-1",
            "--json",
            "--set",
            "max_tokens=4",
            "--threads",
            "1",
        ).out
    )
    assert result["model"] == "tiny"
    assert result["scale"] == sum(each.numel() for each in model.parameters())
    assert 0 < result["tasks"][0]["scores"]["p_choices"]["score"] < 1
    long = posterhall(
        "eval",
        "tasks",
        "tiny",
        "--task",
        "sky.jsonl",
        "--shots",
        "5",
        "--set",
        "separator=" + "x" * 60,
        code=4,
    )
    assert "fewer examples" in long.err
