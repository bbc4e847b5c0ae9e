"""Evaluations as runs: what they leave, and that a killed one goes on to the same end."""

from __future__ import annotations

import json
import math

import pytest

from posterhall.errors import DataError, Interrupted, MissingExtra, UsageError
from posterhall.evals import tasks
from posterhall.evals.jobs import EvalSettings, evaluate
from posterhall.lm import EchoLM
from posterhall.runs import read_manifest

SETTINGS = EvalSettings(shots=(0, 2), batch=3, resamples=200, family="echoes", scale=7.0)


@pytest.fixture
def files(tmp_path):
    lines = [
        {"question": f"Which is {i}?", "choices": [f"{i}", f"not {i}", f"never {i} at all"], "answer": i % 3}
        for i in range(11)
    ]
    (tmp_path / "which.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    lines = [{"prompt": f"{i} and one is", "target": f"{i + 1}"} for i in range(8)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    return [tmp_path / "which.jsonl", tmp_path / "sums.jsonl"]


class Mortal(EchoLM):
    """Dies at its n-th scoring call."""

    def __init__(self, lives, error=RuntimeError):
        super().__init__()
        self.lives, self.error = lives, error
        self.asked = 0

    async def ascore(self, items):
        self.asked += 1
        if self.asked > self.lives:
            raise self.error("no more")
        return await super().ascore(items)


def artifacts(run):
    kept = {name: (run / "artifacts" / name).read_text() for name in ("items.jsonl", "outputs.jsonl")}
    scores = json.loads((run / "artifacts" / "scores.json").read_text())
    assert scores.pop("run") == str(run)
    return kept, scores


def test_scores_of_a_model_whose_probabilities_are_known(files):
    which, sums = evaluate(EchoLM(), tasks.load(files), SETTINGS)["tasks"]
    assert (which["task"], which["items"], which["shots"]) == ("which", 9, [0, 2])
    accuracy = which["scores"]["accuracy"]
    # Every byte is equally probable, so the shortest choice is taken, which is the first.
    right = [i % 3 == 0 for i in range(11)]
    assert which["scores"]["accuracy_norm"]["score"] == pytest.approx(1 / 3)
    assert accuracy["chance"] == pytest.approx(1 / 3)
    assert 1 / 9 <= accuracy["score"] <= sum(right) / 9
    assert accuracy["by_shots"]["0"] == accuracy["by_shots"]["2"]  # echo does not look at the prompt
    nll = sums["scores"]["nll"]["score"]
    assert nll == pytest.approx(2 * math.log(256), rel=0.1)  # " 7": two bytes
    assert sums["scores"]["exact_match"]["score"] == 0.0


def test_a_run_holds_items_outputs_and_scores(files, tmp_path):
    out = tmp_path / "run"
    result = evaluate(EchoLM(), tasks.load(files), SETTINGS, out=out, inputs=files)
    kept, scores = artifacts(out)
    assert scores == {key: value for key, value in result.items() if key != "run"}
    rows = [json.loads(line) for line in kept["items.jsonl"].splitlines()]
    assert {(each["family"], each["scale"], each["model"]) for each in rows} == {("echoes", 7.0, "echo")}
    assert sum(each["metric"] == "accuracy" for each in rows) == 9 * 2
    mean = sum(each["score"] for each in rows if each["metric"] == "accuracy") / 18
    assert mean == pytest.approx(result["tasks"][0]["scores"]["accuracy"]["score"])
    said = [json.loads(line) for line in kept["outputs.jsonl"].splitlines()]
    assert len(said) == 9 * 2 + 6 * 2
    manifest = read_manifest(out)
    assert (manifest["kind"], manifest["status"], len(manifest["inputs"])) == ("eval tasks", "done", 2)
    assert list((out / "checkpoints").iterdir()) == []
    with pytest.raises(DataError, match="holds a run already"):
        evaluate(EchoLM(), tasks.load(files), SETTINGS, out=out, inputs=files)
    again = Mortal(0)
    assert evaluate(again, tasks.load(files), SETTINGS, out=out, inputs=files, resume=True) == json.loads(
        (out / "artifacts" / "scores.json").read_text()
    )
    assert again.asked == 0


@pytest.mark.parametrize("lives", [0, 1, 4, 9])
def test_killed_and_resumed_equals_uninterrupted(files, tmp_path, lives):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    counted = Mortal(10**6)
    evaluate(counted, tasks.load(files), SETTINGS, out=whole, inputs=files)
    with pytest.raises(RuntimeError, match="no more"):
        evaluate(Mortal(lives), tasks.load(files), SETTINGS, out=broken, inputs=files)
    with open(broken / "checkpoints" / "batches.jsonl", "a") as file:
        file.write('{"batch": "torn by a ki')
    resumed = Mortal(10**6)
    evaluate(resumed, tasks.load(files), SETTINGS, out=broken, inputs=files, resume=True)
    assert resumed.asked == counted.asked - lives
    assert artifacts(broken) == artifacts(whole)


def test_a_run_does_not_go_on_with_other_settings_or_files(files, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        evaluate(Mortal(2, Interrupted), tasks.load(files), SETTINGS, out=out, inputs=files)
    assert read_manifest(out)["status"] == "interrupted"
    with pytest.raises(DataError, match=r"seed 0 \(now 1\)"):
        evaluate(
            EchoLM(),
            tasks.load(files),
            EvalSettings(**{**vars(SETTINGS), "seed": 1}),
            out=out,
            inputs=files,
            resume=True,
        )
    with open(files[0], "a") as file:
        file.write(json.dumps({"question": "new", "choices": ["a", "b"], "answer": 0}) + "\n")
    with pytest.raises(DataError, match=r"which\.jsonl"):
        evaluate(EchoLM(), tasks.load(files), SETTINGS, out=out, inputs=files, resume=True)


def test_the_longest_prompts_are_asked_first(files):
    class Watching(EchoLM):
        longest = 0
        grew = 0

        async def ascore(self, items):
            size = max(prompt.count("Which") + prompt.count("and one") for prompt, _ in items)
            self.grew += size > self.longest > 0
            self.longest = max(size, self.longest)
            return await super().ascore(items)

    lm = Watching()
    evaluate(lm, tasks.load(files), SETTINGS)
    assert (lm.longest, lm.grew) == (3, 0)


def test_the_user_is_told_of_contaminated_examples(files):
    shots = files[0].with_name("which.shots.jsonl")
    shots.write_text(
        "".join(files[0].read_text().splitlines(keepends=True)[:2])
        + json.dumps({"question": "Other?", "choices": ["a", "b"], "answer": 0})
        + "\n"
    )
    said = []
    [found] = evaluate(
        EchoLM(),
        tasks.load(files[:1], sets=["shot_order=first"]),
        EvalSettings(shots=(1,), resamples=200),
        warn=said.append,
    )["tasks"]
    assert found["contaminated"] == 2
    assert found["items"] == 11
    assert said == ["which: passed over 2 examples that equal an item asked"]


def test_without_a_task_there_is_nothing_to_do():
    with pytest.raises(UsageError, match="no task"):
        evaluate(EchoLM(), [])


def test_the_harness_is_named_where_it_is_missing(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(MissingExtra, match=r"posterhall\[harness\]"):
        evaluate(EchoLM(), [], EvalSettings(harness=("hellaswag",)), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes",
    [{"shots": ()}, {"shots": (-1,)}, {"shots": (1, 1)}, {"limit": 0}, {"batch": 0}, {"resamples": 10}],
)
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(DataError):
        EvalSettings(**changes)
