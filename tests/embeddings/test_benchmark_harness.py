"""The benchmarks' common ground: runs in turn, medians, and the JSON that other programs read."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def harness():
    spec = importlib.util.spec_from_file_location("benchmark_harness", ROOT / "benchmarks" / "_harness.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_sides_run_in_turn_and_take_turns_to_begin(harness):
    order = []
    times = harness.interleaved(
        {"ours": lambda: order.append("a") or 1, "peer": lambda: order.append("b") or 2}, repeats=3
    )
    assert "".join(order) == "abbaab"
    assert (times["ours"].value, times["peer"].value) == (1, 2)
    assert len(times["ours"].wall) == len(times["peer"].cpu) == 3


def test_the_ratio_is_of_cpu_medians_and_above_one_where_ours_is_faster(harness):
    ours = harness.Timing((9.0, 1.0, 2.0, 3.0, 2.5), (0.5, 0.4, 9.0, 0.5, 0.5), None)
    peer = harness.Timing((5.0,) * 5, (1.5,) * 5, None)
    found = harness.faster("case", ours, peer, "peer 1", quality={"same": True})
    assert (found.ours, found.peer, found.ratio, found.unit) == (0.5, 1.5, 3.0, "CPU s")
    assert found.quality["wall_ratio"] == 2.0
    assert found.quality["same"] is True


def test_the_json_has_the_documented_keys(harness, capsys):
    result = harness.Result("case", 1.0, 2.0, "peer 1", "CPU s", 2.0)
    harness.emit("name", 2, [result], as_json=True)
    whole = json.loads(capsys.readouterr().out)
    assert set(whole) == {"name", "machine", "threads", "results"}
    assert set(whole["results"][0]) == {"case", "ours", "peer", "peer_name", "unit", "ratio", "quality"}
    harness.emit("name", 2, [result], as_json=False)
    assert capsys.readouterr().out.startswith("case   2.00x  ours 1 CPU s, peer 1 2")


def test_few_runs_are_no_measurement(harness, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", "--repeats", "3"])
    with pytest.raises(SystemExit):
        harness.arguments("about")
    assert "median of fewer runs" in capsys.readouterr().err
