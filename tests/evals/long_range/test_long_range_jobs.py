"""Long range as a run: models of one size, chosen on validation rows, tested once, kept and resumed."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from posterhall.data.labelled import Divided, Sequences
from posterhall.errors import DataError, UsageError
from posterhall.evals.long_range import jobs, summary, tasks, training
from posterhall.evals.long_range.settings import LongRangeSettings, cells
from posterhall.runs import read_manifest, read_metrics

torch = pytest.importorskip("torch")

from posterhall.models.classifier import Classifier, load  # noqa: E402

TINY = LongRangeSettings(
    mixers=("s4d", "lstm"), task="list-ops", lengths=(16,), width=8, layers=1, heads=2, lr=(1e-3, 1e-2),
    seeds=2, steps=4, eval_every=2, batch=4, train_rows=20, validation_rows=8, test_rows=10,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def planted(n, seed):
    """The class is the token at the first of eight places."""
    ids = np.random.default_rng(seed).integers(1, 5, (n, 8))
    return Sequences(ids, ids[:, 0] - 1, np.full(n, 8))


def test_a_rate_is_chosen_on_validation_rows_and_what_is_planted_is_learned():
    data = Divided(planted(400, 0), planted(100, 1), planted(200, 2), classes=4, vocab=5)
    config = replace(TINY, width=16).shape("gru", data, 8)
    settings = training._training(replace(TINY, steps=80, eval_every=40, batch=32), 0)
    tuned = training.tune(lambda: Classifier(config, seed=1), data, [1e-6, 1e-2], settings, seed=0, told=None)
    assert tuned.lr == 1e-2
    assert tuned.steps == 80
    assert training.score(tuned.model, data.test)["accuracy"] > 0.95
    assert [(line["lr"], line["step"]) for line in tuned.curve] == [
        (1e-6, 40), (1e-6, 80), (1e-2, 40), (1e-2, 80),
    ]  # fmt: skip
    best = max(line["accuracy"] for line in tuned.curve)
    assert tuned.validation <= best


def test_the_choice_is_by_accuracy_then_by_loss(monkeypatch):
    data = Divided(planted(20, 0), planted(8, 1), planted(8, 2), classes=4, vocab=5)
    config = TINY.shape("lstm", data, 8)
    given = {1e-4: (0.5, 2.0), 1e-3: (0.75, 3.0), 1e-2: (0.75, 1.0), 3e-2: (0.6, 0.1)}
    rates = iter(np.repeat(list(given), 2))  # once within the training, and once after it

    def scored(model, rows):
        accuracy, loss = given[next(rates)]
        return {"accuracy": accuracy, "loss": loss}

    monkeypatch.setattr(training, "score", scored)
    settings = training._training(replace(TINY, steps=1, eval_every=1), 0)
    tuned = training.tune(lambda: Classifier(config, seed=1), data, list(given), settings, seed=0)
    assert (tuned.lr, tuned.validation) == (1e-2, 0.75)


def test_test_rows_are_looked_at_once_for_each_model(monkeypatch):
    seen = []
    score = training.score
    monkeypatch.setattr(
        training, "score", lambda model, rows: seen.append(len(rows.labels)) or score(model, rows)
    )
    result = jobs.evaluate(TINY)
    assert seen.count(TINY.test_rows) == len(result["models"]) == 4
    assert seen.count(TINY.validation_rows) == 4 * 2 * 3  # at each rate: twice within it, once at its end


def test_every_arm_has_about_the_size_of_the_first():
    grid = replace(
        TINY, mixers=("s4d", "transformer", "lstm", "gru", "attention", "mamba", "s4d+attention"), width=64
    )
    data = tasks.load(grid, 16, 0)
    shapes = training.shapes(grid, data, 16)
    sizes = {arm: sum(p.numel() for p in Classifier(each).parameters()) for arm, each in shapes.items()}
    assert shapes["s4d"].dim == 64
    assert max(sizes.values()) < 1.2 * min(sizes.values()), sizes
    assert shapes["s4d+attention"].mixers == ("s4d",)  # a single layer
    deep = replace(grid, layers=3)
    assert deep.shape("s4d+attention", data, 16).mixers == ("s4d", "attention", "s4d")
    transformer = shapes["transformer"]
    assert (transformer.positions, transformer.both_ways) == ("learned", True)


def test_a_killed_grid_goes_on_with_what_is_missing(tmp_path, monkeypatch):
    whole = jobs.evaluate(TINY)
    trained = []
    train = training.train

    def killed(cell, *rest, **more):
        if len(trained) == 3:
            more["told"](0.5, {"step": 2, "loss": 9.0, "accuracy": 0.0})
            raise KeyboardInterrupt
        trained.append(cell.name)
        return train(cell, *rest, **more)

    monkeypatch.setattr(training, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        jobs.evaluate(TINY, out=tmp_path / "run")
    monkeypatch.setattr(training, "train", lambda *a, **k: trained.append(a[0].name) or train(*a, **k))
    result = jobs.evaluate(TINY, out=tmp_path / "run", resume=True)
    assert trained == [cell.name for cell in cells(TINY)]
    for ours, theirs in zip(result["models"], whole["models"], strict=True):
        same = ("mixer", "seed", "length", "accuracy", "validation", "lr", "steps", "parameters", "chance")
        assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}
    assert len(read_metrics(tmp_path / "run")) == 4 * 2 * 2  # models, rates, evaluations
    scores = json.loads((tmp_path / "run" / "artifacts" / "scores.json").read_text())
    assert scores == json.loads(json.dumps(result))
    assert read_manifest(tmp_path / "run")["status"] == "done"
    assert jobs.evaluate(TINY, out=tmp_path / "run", resume=True) == scores
    assert len(trained) == 4


def test_a_training_that_diverges_is_a_result():
    one = replace(TINY, mixers=("lstm",), seeds=1)
    mixed = jobs.evaluate(replace(one, lr=(1e30, 1e-3)))["models"][0]
    assert mixed["lr"] == 1e-3
    assert "not finite" in mixed["errors"]["1e+30"]
    result = jobs.evaluate(replace(one, lr=(1e30,), evaluate_at=(32,)))
    assert result["models"][0]["accuracy"] is None
    row = result["table"][0]
    assert (row["accuracy"], row["accuracies"], row["at"]) == (0.0, [None], [])


def test_trained_models_are_tested_at_other_lengths_unless_bound():
    grid = replace(TINY, mixers=("s4d", "transformer"), evaluate_at=(16, 32, 8), seeds=1)
    s4d, transformer = jobs.evaluate(grid)["table"]
    assert [each["length"] for each in s4d["at"]] == [32, 8]  # 16 is the training's
    assert all(0 <= each["accuracy"] <= 1 and each["refused"] is None for each in s4d["at"])
    longer, shorter = transformer["at"]
    assert longer["accuracy"] is None
    assert "bound to rows of up to 16 positions" in longer["refused"]
    assert shorter["refused"] is None


def test_another_sampling_rate_scales_the_steps_of_models_that_have_some(monkeypatch):
    pytest.importorskip("sklearn")
    grid = replace(
        TINY, task="digits", mixers=("s4d:rate=0.5", "gru"), lengths=(64,), rates=(1.0, 2.0), seeds=1, steps=2
    )
    rates = []
    score = training.score
    monkeypatch.setattr(
        training,
        "score",
        lambda model, rows: rates.append((tasks.positions(rows), model.rate)) or score(model, rows),
    )
    s4d, gru = jobs.evaluate(grid)["table"]
    assert (128, 0.25) in rates  # half of the half that it was trained with
    assert (64, 0.5) in rates
    assert (s4d["continuous"], gru["continuous"]) == (True, False)
    assert [each["rate"] for each in s4d["rates"]] == [2.0]
    assert gru["rates"][0]["accuracy"] is not None


def test_kept_models_score_what_the_table_says(tmp_path):
    grid = replace(TINY, mixers=("s4d", "s4d:state=8"), seeds=1)
    result = jobs.evaluate(grid, out=tmp_path / "run", keep=True)
    folder = tmp_path / "run" / "artifacts" / "models"
    assert sorted(path.name for path in folder.iterdir()) == [
        "1-s4d-length-16-seed-0", "2-s4d-state-8-length-16-seed-0",
    ]  # fmt: skip
    model = load(folder / "1-s4d-length-16-seed-0")
    found = training.score(model, tasks.load(grid, 16, 0).test)["accuracy"]
    assert found == result["models"][0]["accuracy"]
    with pytest.raises(UsageError, match="kept in a run"):
        jobs.evaluate(grid, keep=True)


def test_a_budget_of_seconds_ends_a_training_at_an_evaluation():
    model = jobs.evaluate(replace(TINY, steps=1000, seconds=1e-9, seeds=1))["models"][0]
    assert model["steps"] == 2


def test_batches_are_no_longer_than_their_longest_row():
    rows = Sequences(np.zeros((3, 9), np.int64), np.arange(3), np.array([4, 9, 2]))
    assert training.batch(rows.take(np.array([0, 2])))["inputs"].shape == (2, 4)
    pairs = Sequences(np.zeros((2, 2, 9), np.int64), np.arange(2), np.array([[1, 3], [5, 2]]))
    assert training.batch(pairs)["inputs"].shape == (2, 2, 5)
    shuffled = training.Shuffled(rows, 0)
    two = np.concatenate([shuffled.take(first, 3)["labels"] for first in (0, 3)])
    assert sorted(two[:3]) == sorted(two[3:]) == [0, 1, 2]


def test_the_table_has_means_intervals_and_what_was_refused():
    def model(mixer, seed, accuracy, refused=None):
        at = {"length": 32, "accuracy": None if refused else (accuracy or 0) / 2, "refused": refused}
        return {
            "mixer": mixer, "seed": seed, "length": 16, "width": 8, "parameters": 100, "looks_ahead": False,
            "continuous": True, "accuracy": accuracy, "lr": 0.1, "chance": 0.1, "steps": 3 + seed,
            "seconds": 1.0 + seed, "at": [at] if accuracy is not None else [], "rates": [],
        }  # fmt: skip

    done = [model("a", s, x) for s, x in enumerate((0.5, 0.7, 0.9))]
    done += [model("b", 0, 0.4, "bound"), model("b", 1, None)]
    a, b = summary.summarise(("a", "b"), done)
    half = stats.t.ppf(0.975, 2) * 0.2 / np.sqrt(3)
    assert a["accuracy"] == pytest.approx(0.7)
    assert a["sd"] == pytest.approx(0.2)
    assert a["interval"] == pytest.approx([0.7 - half, 0.7 + half])
    assert (a["steps"], a["seconds"]) == (4, 2.0)
    assert a["at"] == [{"length": 32, "accuracy": pytest.approx(0.35), "refused": None}]
    assert b["accuracy"] == pytest.approx(0.2)
    assert b["accuracies"] == [0.4, None]
    assert b["at"] == [{"length": 32, "accuracy": None, "refused": "bound"}]
    alone = summary.summarise(("a",), done[:1])[0]
    assert (alone["sd"], alone["interval"]) == (None, None)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mixers": ("s4d", "mamab")}, "Did you mean: mamba"),
        ({"mixers": ("s4d", "lstm:state=2")}, "a model by itself"),
        ({"mixers": ("s4d:stat=2",)}, "unknown setting 'stat'"),
        ({"mixers": ("attention",), "width": 9}, "multiple of 4"),
        ({"task": "pathfinder", "lengths": (65,)}, "64 or 81 would do"),
        ({"task": "pathfinder", "lengths": (49,)}, "side is 7"),
        ({"task": "digits", "lengths": (100,)}, "64, 256, 576"),
        ({"evaluate_at": (2,), "max_args": 1}, "max_args is 1"),
        ({"task": "audio:/nowhere"}, "one of \\*.wav for each class"),
        ({"task": "dna:/nowhere.fasta"}, "nowhere.fasta"),
        ({"task": "lra:/nowhere"}, "no such folder"),
    ],
)
def test_mistakes_show_before_anything_is_trained(given, said, monkeypatch):
    if given.get("task") == "digits":
        pytest.importorskip("sklearn")
    monkeypatch.setattr(training, "train", None)
    with pytest.raises(DataError, match=said):
        jobs.evaluate(replace(TINY, **given))
