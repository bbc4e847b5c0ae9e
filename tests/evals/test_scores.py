"""Over items: means, chance, numbers of examples, and intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from posterhall.evals.items import Row
from posterhall.evals.scores import as_line, long_rows, overall, summarise
from posterhall.evals.shots import plan
from posterhall.evals.tasks import Task, TaskSettings, parse


def made(count, *, clusters=None, choices=4, settings=None):
    values = [
        {
            "question": f"Q{i}",
            "choices": [str(k) for k in range(choices)],
            "answer": 0,
            **({"cluster": clusters[i]} if clusters else {}),
        }
        for i in range(count)
    ]
    items = tuple(parse(each, f"f:{i}", default_id=str(i)) for i, each in enumerate(values))
    return plan(Task("t", items, settings=settings or TaskSettings()), shots=[0], seed=0)


def rows(*tables, name="accuracy"):
    return {
        k: [Row(str(i), {name: value}, {}) for i, value in enumerate(table)] for k, table in enumerate(tables)
    }


def test_scores_are_averaged_over_examples_and_rescaled_by_chance():
    found = summarise(made(4), rows([1, 1, 0, 1], [0, 1, 0, 0]), seed=0, resamples=500)
    accuracy = found["scores"]["accuracy"]
    assert accuracy["score"] == 0.5
    assert accuracy["by_shots"] == {"0": 0.75, "1": 0.25}
    assert accuracy["chance"] == 0.25
    assert accuracy["rescaled"]["score"] == pytest.approx((0.5 - 0.25) / 0.75)
    assert accuracy["rescaled"]["low"] == pytest.approx((accuracy["low"] - 0.25) / 0.75)
    assert (found["items"], found["clusters"], found["shots"]) == (4, 4, [0, 1])


def test_an_interval_over_many_items_is_about_the_normal_one():
    rng = np.random.default_rng(1)
    values = rng.random(2000) < 0.3
    found = summarise(made(2000), rows(values.astype(float)), seed=0, resamples=1000)["scores"]["accuracy"]
    half = 1.96 * math.sqrt(0.3 * 0.7 / 2000)
    assert found["high"] - found["low"] == pytest.approx(2 * half, rel=0.1)


@pytest.mark.parametrize(("right", "low", "high"), [(0.0, 0.0, 0.2775), (1.0, 0.7225, 1.0)])
def test_none_right_or_all_right_of_a_few_items_is_not_certain(right, low, high):
    # Wilson's interval of 0 (or 10) of 10: z² / (10 + z²) is .2775 with z = 1.96.
    found = summarise(made(10), rows([right] * 10), seed=0, resamples=500)["scores"]["accuracy"]
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=1e-4)
    clusters = [f"c{i // 2}" for i in range(20)]
    both = summarise(made(20, clusters=clusters), rows([right] * 20), seed=0, resamples=500)
    assert both["scores"]["accuracy"]["high"] == pytest.approx(high, abs=1e-4)


def test_items_of_a_cluster_do_not_count_as_independent():
    # Ten clusters of twenty equal items: as good as ten items.
    labels = [f"c{i // 20}" for i in range(200)]
    values = [float(i // 20 % 2) for i in range(200)]
    together = summarise(made(200, clusters=labels), rows(values), seed=0, resamples=1000)
    apart = summarise(made(200), rows(values), seed=0, resamples=1000)
    assert together["clusters"] == 10
    wide, narrow = (
        each["scores"]["accuracy"]["high"] - each["scores"]["accuracy"]["low"] for each in (together, apart)
    )
    assert wide > 3 * narrow


def test_items_without_a_score_are_left_out_and_counted():
    table = [[1.0, None, 3.0], [2.0, 4.0, None]]
    found = summarise(made(3), rows(*table, name="numeric_error"), seed=0, resamples=200)
    error = found["scores"]["numeric_error"]
    assert error["items"] == 1
    assert error["score"] == 1.5
    assert error["by_shots"] == {"0": 2.0, "1": 3.0}
    assert error["low"] is None
    nothing = summarise(made(2), rows([None, None], name="numeric_error"), seed=0, resamples=200)
    assert nothing["scores"]["numeric_error"]["score"] is None


def test_an_infinite_score_has_no_interval():
    found = summarise(made(3), rows([1.0, math.inf, 2.0], name="nll"), seed=0, resamples=200)["scores"]["nll"]
    assert found["score"] == math.inf
    assert found["low"] is None
    assert found["rescaled"] is None


def test_a_task_without_its_primary_metric_is_left_out_of_the_mean():
    without = summarise(made(2), rows([1.0, 2.0], name="nll"), seed=0, resamples=200)
    whole = summarise(made(2), rows([1.0, 1.0]), seed=0, resamples=200)
    found = overall([without, whole], seed=0, resamples=200)
    assert (found["tasks"], found["score"]) == (1, 1.0)
    assert overall([without], seed=0, resamples=200) is None


def test_the_overall_mean_gives_every_task_the_same_weight():
    tasks = [
        {"primary": "accuracy", "scores": {"accuracy": {"rescaled": {"score": score}}}}
        for score in (0.1, 0.2, 0.6)
    ]
    found = overall(tasks, seed=0, resamples=500)
    assert found["score"] == pytest.approx(0.3)
    assert found["low"] <= 0.3 <= found["high"]
    assert overall([], seed=0, resamples=500) is None
    assert overall(tasks[:1], seed=0, resamples=500)["low"] is None


def test_rows_of_items_say_what_emergence_needs():
    lines = list(long_rows(made(2), rows([1.0, 0.0], [0.0, math.inf]), model="m", family="f", scale=1e6))
    assert len(lines) == 4
    assert lines[0] == {
        "family": "f",
        "scale": 1e6,
        "model": "m",
        "task": "t",
        "shots": 0,
        "item": "0",
        "cluster": None,
        "metric": "accuracy",
        "score": 1.0,
        "chance": 0.25,
        "higher_is_better": True,
    }
    assert '"score": null' in as_line(lines[-1])
