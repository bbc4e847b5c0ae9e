"""`posterhall runs sweep` and `runs export`: grids, going on, and the table that scaling laws read."""

from __future__ import annotations

import csv
import json
import sys
import time
from types import SimpleNamespace

import pytest

from posterhall.errors import DataError
from posterhall.runs import Run
from posterhall.train import sweep as sweeps
from posterhall.train.table import collect

pytest.importorskip("torch")
pytest.importorskip("safetensors")

FIXED = "fixed: {layers: 1, heads: 2, context: 16, batch: 8, lr: 3e-3}\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("the king of france lives in paris. " * 60)
    (tmp_path / "b.txt").write_text("the queen of italy lives in rome. " * 5)
    return tmp_path


def plan(folder, text):
    (folder / "s.yaml").write_text("text: [a.txt]\neval: [b.txt]\n" + FIXED + text)
    return sweeps.read(folder / "s.yaml")


def test_cases_are_crossed_with_the_grid(folder):
    found = plan(
        folder,
        "cases:\n- {dim: 16, tokens: 1e3}\n- {dim: 32, tokens: 4e3}\ngrid: {seed: [0, 1], clip: [1, 2]}\n",
    )
    assert [run.name for run in found.runs][:3] == [
        "dim=16,tokens=1e3,seed=0,clip=1",
        "dim=16,tokens=1e3,seed=0,clip=2",
        "dim=16,tokens=1e3,seed=1,clip=1",
    ]
    assert len(found.runs) == 8
    assert {(run.settings.dim, run.settings.tokens) for run in found.runs} == {(16, 1000), (32, 4000)}
    assert all(run.settings.layers == 1 for run in found.runs)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("grid: {dims: [16]}\n", "unknown setting 'dims'. Did you mean: dim"),
        ("grid: {dim: 16}\n", "grid: dim is 16; give a list"),
        ("grid: {dim: [16, 16]}\n", "two runs are dim=16"),
        ("grid: {lr: [1]}\n", "stands in two of fixed, cases and grid"),
        ("grid: {dim: [15]}\n", "dim=15: .*multiple of 4"),
        ("grids: {dim: [16]}\n", "unknown key 'grids'"),
        ("cases: {dim: 16}\n", "cases is a list"),
        ("grid: {dim: [16\n", "not valid YAML"),
        ("grid: {seed: [" + "1," * 101 + "1], dim: [" + "1," * 100 + "1]}\n", "that makes 10,302 runs"),
    ],
)
def test_what_is_no_sweep_is_refused(folder, text, said):
    with pytest.raises(DataError, match=said):
        plan(folder, text)


@pytest.mark.slow
def test_a_sweep_runs_goes_on_and_becomes_a_table(folder, posterhall):
    plan(folder, "cases:\n- {dim: 16, tokens: 1e3}\n- {dim: 32, tokens: 2e3}\n")
    arguments = ("runs", "sweep", "-c", "s.yaml", "-o", "out", "--quiet", "--json")
    result = json.loads(posterhall(*arguments).out)
    assert [run["status"] for run in result["runs"]] == ["done", "done"]
    manifests = sorted((folder / "out").glob("*/manifest.json"))
    before = [path.stat().st_mtime_ns for path in manifests]
    assert json.loads(posterhall(*arguments).out) == result  # nothing is done twice
    assert [path.stat().st_mtime_ns for path in manifests] == before

    posterhall("runs", "export", "out", "-o", "runs.csv")
    rows = list(csv.DictReader((folder / "runs.csv").open()))
    assert [row["dim"] for row in rows] == ["16", "32"]
    for row, run in zip(rows, result["runs"], strict=True):
        facts = run["facts"]
        assert row["run"] == run["run"]
        assert int(row["params"]) == facts["params"]
        assert float(row["loss"]) == facts["loss"]
        assert float(row["flops"]) == 6 * int(row["params"]) * int(row["tokens"])
        assert int(row["unique_tokens"]) <= int(row["tokens"])
    table = json.loads(posterhall("runs", "export", "out", "--json").out)
    assert table["columns"] == list(rows[0])

    (folder / "s.yaml").write_text((folder / "s.yaml").read_text().replace("lr: 3e-3", "lr: 1e-3"))
    assert "made with lr 0.003 (now 0.001)" in posterhall(*arguments, code=4).err


@pytest.mark.slow
def test_an_interrupted_sweep_keeps_checkpoints_and_goes_on(folder, posterhall, monkeypatch):
    plan(folder, "grid: {steps: [100000]}\n")
    log = folder / "out" / "steps=100000" / "metrics.jsonl"
    until = time.monotonic() + 120

    def interrupts(seconds):
        """Ctrl-C, once the run is under way."""
        if log.exists() and log.stat().st_size:
            raise KeyboardInterrupt
        assert time.monotonic() < until
        time.sleep(seconds)

    monkeypatch.setattr(sweeps, "time", SimpleNamespace(sleep=interrupts))
    done = posterhall("runs", "sweep", "-c", "s.yaml", "-o", "out", "--quiet", code=130)
    assert "goes on" in done.err
    assert (log.parent / "checkpoints" / "state.safetensors").exists()
    assert json.loads((log.parent / "manifest.json").read_text())["status"] == "interrupted"


def test_a_run_that_fails_is_named_and_stops_no_other(folder, posterhall, monkeypatch):
    plan(folder, "grid: {steps: [2, 3]}\n")
    dies = [sys.executable, "-c", "print('this is why'); raise SystemExit(4)"]
    monkeypatch.setattr(sweeps, "_command", lambda *_: dies)
    done = posterhall("runs", "sweep", "-c", "s.yaml", "-o", "out", "--quiet", code=1)
    assert done.out.count("failed") == 2
    assert "2 of 2 runs failed; the first says why in out/logs/steps=2.txt" in done.err
    assert "this is why" in (folder / "out" / "logs" / "steps=2.txt").read_text()


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """`finished(name, **config)`: a run of `train lm` as if it had been done."""
    monkeypatch.chdir(tmp_path)

    def make(name, *, status="done", **config):
        facts = {"params": 10, "params_non_embedding": 4, "tokens": 100, "unique_tokens": 50}
        facts |= {"epochs": 2.0, "flops": 6000.0, "loss": 1.5, "best_loss": 1.25}
        with Run.start(name, kind="train lm", config={"seed": 0, "lr": 1e-3, **config}) as run:
            run.finish(status, **facts)

    return make


def test_the_table_has_the_columns_of_a_scaling_fit_and_what_varies(finished, tmp_path):
    finished("x/one", dim=16)
    finished("x/two", dim=32, seed=1)
    finished("x/three", dim=64, status="failed")
    with Run.start("x/other", kind="embed train", config={}):
        pass
    table = collect([tmp_path / "x"])
    assert table.columns == (
        "run", "params", "params_non_embedding", "tokens", "unique_tokens", "epochs", "flops", "loss",
        "best_loss", "seed", "dim",
    )  # fmt: skip
    assert [(row["seed"], row["dim"]) for row in table.rows] == [(0, 16), (1, 32)]
    assert [path.name for path in table.unfinished] == ["three"]


def test_text_that_a_spreadsheet_would_run_is_disarmed(finished, posterhall):
    finished("one", tokenizer="=HYPERLINK(0)")
    finished("two", tokenizer="@SUM(1)")
    rows = list(csv.DictReader(posterhall("runs", "export", ".").out.splitlines()))
    assert [row["tokenizer"] for row in rows] == ["'=HYPERLINK(0)", "'@SUM(1)"]


def test_unfinished_runs_are_left_out_and_said(finished, posterhall):
    finished("one")
    finished("two", status="failed")
    done = posterhall("runs", "export", ".", "--json")
    assert len(json.loads(done.out)["rows"]) == 1
    assert "left out, not finished: 1 (two)" in done.err


def test_a_folder_without_finished_runs_is_refused(finished, posterhall):
    finished("one", status="failed")
    assert (
        "no finished run of 'train lm' in . (1 unfinished)" in posterhall("runs", "export", ".", code=4).err
    )
