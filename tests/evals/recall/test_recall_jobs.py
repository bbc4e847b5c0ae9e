"""Recall as a run: a grid is trained once, told by its best rate, and taken up where it stood."""

from __future__ import annotations

import json

import pytest

from posterhall.errors import DataError
from posterhall.evals.recall import jobs, settings, summary, training
from posterhall.evals.recall.settings import RecallSettings
from posterhall.runs import read_manifest, read_metrics

torch = pytest.importorskip("torch")

TINY = {
    "mixers": ("attention",), "lengths": (12,), "pairs": (2,), "widths": (8,), "vocab": 16, "steps": 6,
    "eval_every": 3, "batch": 4, "validation_rows": 16, "test_rows": 16, "warmup": 2,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def test_based_learns_what_a_long_filter_alone_does_not():
    grid = RecallSettings(
        mixers=("based", "s4d"), task="associative", lengths=(12,), vocab=16, widths=(32,), steps=300,
        eval_every=50, validation_rows=256, test_rows=512,
    )  # fmt: skip
    based, s4d = jobs.evaluate(grid)["table"]
    assert based["accuracy"] > 0.98
    assert based["solved"] == 1
    assert based["steps"] < 300, "it stops when it is good enough"
    assert s4d["accuracy"] < 0.9
    assert based["plateau"] == s4d["plateau"] == 1 / 7


def test_the_table_tells_of_each_kind_at_its_best_rate():
    grid = RecallSettings(**{**TINY, "mixers": ("attention", "rwkv"), "lr": (1e-3, 1e-5), "seeds": 2})
    result = jobs.evaluate(grid)
    assert [row["mixer"] for row in result["table"]] == ["attention", "rwkv"]
    for row in result["table"]:
        models = [each for each in result["models"] if each["mixer"] == row["mixer"]]
        assert [each["seed"] for each in models] == [0, 1, 0, 1]
        by_rate = {lr: [each for each in models if each["lr"] == lr] for lr in (1e-3, 1e-5)}
        best = max(by_rate, key=lambda lr: sum(each["validation"] for each in by_rate[lr]))
        assert row["lr"] == best
        assert row["accuracies"] == [each["accuracy"] for each in by_rate[best]]
        assert row["accuracy"] == pytest.approx(sum(row["accuracies"]) / 2)
        assert row["parameters"] == models[0]["parameters"]
    assert all(each["overlap"] == 0 for each in result["models"])


def test_a_killed_grid_goes_on_with_what_is_missing(tmp_path, monkeypatch):
    grid = RecallSettings(**{**TINY, "seeds": 3})
    whole = jobs.evaluate(grid)
    trained = []
    train = training.train

    def killed(cell, *rest, **more):
        if len(trained) == 2:
            more["told"](3, {"loss": 9.0, "accuracy": 0.0})
            raise KeyboardInterrupt
        trained.append(cell.seed)
        return train(cell, *rest, **more)

    monkeypatch.setattr(training, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        jobs.evaluate(grid, out=tmp_path / "run")
    monkeypatch.setattr(training, "train", lambda *a, **k: trained.append(a[0].seed) or train(*a, **k))
    result = jobs.evaluate(grid, out=tmp_path / "run", resume=True)
    assert trained == [0, 1, 2]
    for ours, theirs in zip(result["models"], whole["models"], strict=True):
        same = ("seed", "accuracy", "rows", "validation", "steps", "parameters", "state_bytes")
        assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}
    lines = read_metrics(tmp_path / "run")
    assert [(line["model"][-1], line["step"]) for line in lines] == [
        (seed, step) for seed in "012" for step in (3, 6)
    ]
    scores = json.loads((tmp_path / "run" / "artifacts" / jobs.SCORES).read_text())
    assert scores == json.loads(json.dumps(result))
    assert read_manifest(tmp_path / "run")["status"] == "done"
    assert jobs.evaluate(grid, out=tmp_path / "run", resume=True) == scores
    assert trained == [0, 1, 2]


def test_a_training_that_diverges_is_a_result(monkeypatch):
    grid = RecallSettings(**{**TINY, "lr": (1e30, 1e-3)})
    result = jobs.evaluate(grid)
    broken, sound = result["models"]
    assert broken["accuracy"] is None
    assert "not finite" in broken["error"]
    assert sound["error"] is None
    assert result["table"][0]["lr"] == 1e-3


def test_a_budget_of_seconds_ends_a_training_at_an_evaluation():
    grid = RecallSettings(**{**TINY, "steps": 3000, "seconds": 1e-9})
    assert jobs.evaluate(grid)["models"][0]["steps"] == 3


def test_score_counts_queries_and_whole_rows():
    class Echo(torch.nn.Module):
        """Predicts token 1 everywhere."""

        def hidden(self, ids):
            return torch.zeros(*ids.shape, 4)

        def logits(self, hidden):
            return torch.nn.functional.one_hot(torch.ones(len(hidden), dtype=torch.int64), 4) * 50.0

    class Fixed:
        items = 3

        def take(self, first, count):
            import numpy as np

            ids = np.zeros((3, 3), np.int64)
            labels = np.array([[-100, 1, 1], [1, 2, -100], [-100, -100, 3]])
            return {"ids": ids[first : first + count], "labels": labels[first : first + count]}

    found = training.score(Echo(), Fixed())
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["rows"] == pytest.approx(1 / 3)
    assert found["loss"] == pytest.approx(2 * 50 / 5)


@pytest.mark.parametrize(
    ("arm", "tokens", "size"),
    [
        ("attention", 40, 2 * 2 * 40 * 16 * 4),  # layers, keys and values, tokens, width, bytes
        ("sliding_window:window=8", 40, 2 * 2 * 8 * 16 * 4),
        (
            "based:feature_dim=4",
            40,
            (2 * 16 + 15 * 17) * 4,
        ),  # a convolution's two tokens; features, values and 1
        ("based:feature_dim=4:compressed=false", 40, (2 * 16 + 21 * 17) * 4),
        ("rwkv", 400, 2 * 4 * 16 * 4),
        ("linformer", 40, None),
    ],
)
def test_bytes_of_a_state_are_counted(arm, tokens, size):
    grid = RecallSettings(mixers=(arm,), widths=(16,), lengths=(tokens,), pairs=(2,), vocab=1000)
    cell = settings.cells(grid)[0]
    model = training.build(cell, grid, grid.made(tokens, 2))
    assert training.state_bytes(model, tokens) == size


def test_a_convolution_is_given_to_all_or_none():
    plain, given = (RecallSettings(**{**TINY, "conv": conv}) for conv in (0, 3))
    shapes = [
        sum(p.numel() for p in training.build(settings.cells(each)[0], each, each.made(12, 2)).parameters())
        for each in (plain, given)
    ]
    assert shapes[1] - shapes[0] == 2 * 3 * 8  # layers, taps, width


def test_mixers_take_turns_over_the_layers():
    grid = RecallSettings(**{**TINY, "mixers": ("s4d+attention:  ".rstrip(": "),), "layers": 3})
    shape = grid.shape(grid.mixers[0], 8, 12)
    assert shape.mixers == ("s4d", "attention", "s4d")


def test_the_frontier_is_what_no_other_beats_with_as_few_bytes():
    rows = [
        {"mixer": m, "length": 8, "pairs": 1, "width": 4, "accuracy": a, "state_bytes": s}
        for m, a, s in [("a", 0.5, 100), ("b", 0.4, 50), ("c", 0.45, 80), ("d", 0.3, 90), ("e", 1.0, None)]
    ]
    assert [(each["mixer"], each["state_bytes"]) for each in summary.frontier(rows)] == [
        ("b", 50), ("c", 80), ("a", 100),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"pairs": (2, 3)}, "pairs has 2 numbers for 1 lengths"),
        ({"pairs": (4,)}, "= 16 > 12"),
        ({"lengths": (12, 12)}, "each once"),
        ({"lr": (0.0,)}, "lr is 0.0"),
        ({"seeds": 0}, "seeds is 0"),
        ({"seconds": 0.0}, "seconds is 0.0"),
        ({"enough": 1.5}, "enough is 1.5"),
        ({"task": "recall"}, "mqar, associative, induction, copying"),
        ({"conv": -1}, "conv is -1"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(given, said):
    with pytest.raises(DataError, match=said):
        RecallSettings(**{**TINY, **given})


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ("bassed", "Did you mean: based"),
        ("based:feature", "write a name, name:setting=value"),
        ("based+", "write a name"),
        ("based:feature=8", "unknown setting 'feature'"),
        ("s4d:state=2+s4d:state=4", "twice"),
    ],
)
def test_an_arm_that_cannot_be_is_refused_before_anything_is_trained(arm, said):
    with pytest.raises(DataError, match=said):
        jobs.evaluate(RecallSettings(**{**TINY, "mixers": ("attention", arm)}))
