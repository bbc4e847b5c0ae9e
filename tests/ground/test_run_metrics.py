"""Metrics of runs: whole lines or none, whatever happens while they are written."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from posterhall import runs
from posterhall.errors import DataError
from posterhall.runs import Run

CONFIG = {"dim": 100, "alpha": 0.025, "corpus": Path("a.txt"), "hidden": (1, 2)}


def start(path, *, kind="test", config=CONFIG, **more):
    return Run.start(path, kind=kind, config=config, **more)


def test_metrics_come_back_as_logged(tmp_path):
    with start(tmp_path / "run") as run:
        run.log(step=1, loss=np.float32(0.5), name="ü", values=np.arange(2), worst=math.nan, best=-math.inf)
        [line] = run.metrics()
    assert line.pop("elapsed") >= 0
    assert line == {"step": 1, "loss": 0.5, "name": "ü", "values": [0, 1], "worst": None, "best": None}
    json.loads((tmp_path / "run/metrics.jsonl").read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize("tail", ['{"step": 3, "lo', '{"step": 3}', "\0\0\0\0"])
def test_a_torn_last_line_is_dropped_and_the_next_starts_clean(tmp_path, tail):
    path = tmp_path / "run"
    run = start(path)
    run.log(step=1)
    run.log(step=2)
    run.close()
    with open(path / "metrics.jsonl", "a") as file:
        file.write(tail)
    assert [line["step"] for line in runs.read_metrics(path)] == [1, 2]
    with start(path, resume=True) as run:
        run.log(step=3)
    assert [line["step"] for line in runs.read_metrics(path)] == [1, 2, 3]


def test_a_disk_that_fills_up_leaves_no_half_line(tmp_path, monkeypatch):
    write = os.write

    def full(descriptor, data):
        if len(data) < 10:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:-5])

    with start(tmp_path / "run") as run:
        run.log(step=1)
        with monkeypatch.context() as disk:
            disk.setattr(os, "write", full)
            with pytest.raises(OSError, match="No space left"):
                run.log(step=2)
        run.log(step=3)
        assert [line["step"] for line in run.metrics()] == [1, 3]


def test_a_torn_line_longer_than_a_block_is_dropped(tmp_path):
    path = tmp_path / "run"
    run = start(path)
    run.log(step=1)
    run.close()
    with open(path / "metrics.jsonl", "a") as file:
        file.write('{"step": "' + "x" * 200_000)
    with start(path, resume=True) as run:
        run.log(step=2)
    assert [line["step"] for line in runs.read_metrics(path)] == [1, 2]


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "run"
    start(path).finish()
    (path / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:2: not a JSON object"):
        runs.read_metrics(path)


def test_rewinding_to_a_checkpoint_makes_resumed_equal_uninterrupted(tmp_path):
    def train(path, *, upto, checkpoint_every=4):
        with start(path, resume=True) as run:
            saved = run.checkpoint("step")
            first = int(saved.read_text()) if saved.exists() else 0
            run.rewind(step=first)
            for step in range(first + 1, upto + 1):
                run.log(step=step, loss=1 / step)
                if step % checkpoint_every == 0:
                    runs.write_atomic(saved, str(step))

    train(tmp_path / "once", upto=12)
    train(tmp_path / "twice", upto=6)
    train(tmp_path / "twice", upto=12)
    one, two = ([(m["step"], m["loss"]) for m in runs.read_metrics(tmp_path / p)] for p in ("once", "twice"))
    assert one == two
