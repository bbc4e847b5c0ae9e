"""`posterhall eval long-range` as it is typed."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch")

TINY = (
    *("eval", "long-range", "--task", "list-ops", "--lengths", "16", "--width", "8", "--layers", "1"),
    *("--steps", "4", "--lr", "0.01", "--seeds", "2", "--set", "heads=2", "--set", "eval_every=2"),
    *("--set", "batch=4", "--set", "train_rows=20", "--set", "validation_rows=8", "--set", "test_rows=10"),
    "--quiet",
)


def test_it_prints_tables_and_the_run(posterhall, tmp_path):
    run, figure = tmp_path / "run", tmp_path / "range.svg"
    arms = ("--mixers", "s4d,transformer,lstm", "--evaluate-at", "32")
    result = posterhall(*TINY, *arms, "--figure", str(figure), "-o", str(run), code=0)
    lines = result.out.splitlines()
    assert lines[0].split()[:5] == ["mixer", "length", "%", "sd", "95"]
    assert lines[0].endswith("parameters  width  looks")
    assert [line.split()[0] for line in lines[1:4]] == ["s4d", "transformer", "lstm"]
    assert lines[1].endswith("back")
    assert lines[2].endswith("both ways")
    assert lines[5].split() == ["mixer", "trained", "at", "tested", "at", "%"]
    assert lines[7].split() == ["transformer", "16", "32", "bound", "to", "16"]
    assert lines[-1] == f"run: {run}"
    drawn = figure.read_text()
    assert "positions of a row" in drawn
    assert "transformer" in drawn
    again = posterhall(*TINY, *arms, "-o", str(run), "--resume", "--json", code=0)
    kept = json.loads((run / "artifacts" / "scores.json").read_text())
    assert json.loads(again.out) == kept
    assert set(kept) == {"task", "seed", "seeds", "threads", "left_out", "table", "models", "run"}
    assert set(kept["table"][0]) == {
        "mixer", "length", "width", "parameters", "looks_ahead", "continuous", "accuracy", "sd", "interval",
        "accuracies", "lr", "chance", "steps", "seconds", "at", "rates",
    }  # fmt: skip


def test_it_tells_whose_steps_were_scaled(posterhall):
    pytest.importorskip("sklearn")
    options = ("--task", "digits", "--lengths", "64", "--mixers", "s4d,gru", "--rates", "1,2", "--seeds", "1")
    lines = posterhall(*TINY, *options, code=0).out.splitlines()
    assert lines[4].split() == ["mixer", "rate", "positions", "time", "%"]
    assert lines[5].split()[:5] == ["s4d", "2", "128", "steps", "scaled"]
    assert lines[6].split()[:5] == ["gru", "2", "128", "counts", "positions"]


@pytest.mark.parametrize(
    ("options", "said", "code"),
    [
        (("--task", "digts"), "Did you mean: digits", 4),
        (("--task", "audio"), "--task audio:PATH", 4),
        (("--mixers", "s4d,atention"), "Did you mean: attention", 4),
        (("--lengths", "0"), "lengths has 0", 4),
        (("--rates", "2"), "made of tokens", 4),
        (("--figure", "x.txt"), "x.txt does not end in", 4),
        (("--device", "gpu"), "--device gpu cannot be used", 4),
        (("--resume",), "name its directory with -o", 2),
        (("--keep",), "name its directory with -o", 2),
        (("--set", "rows=3"), "unknown setting 'rows'", 4),
    ],
)
def test_mistakes_are_told_in_a_line(posterhall, options, said, code):
    result = posterhall(*TINY, *options, code=code)
    assert said in result.err
    assert len(result.err.splitlines()) == 1
