"""Runs: what they record, that they survive a kill, and that nothing is overwritten or mixed."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from posterhall import runs
from posterhall.config import digest
from posterhall.errors import DataError, Interrupted, UsageError
from posterhall.runs import Run
from posterhall.runs.provenance import redacted

CONFIG = {"dim": 100, "alpha": 0.025, "corpus": Path("a.txt"), "hidden": (1, 2)}


def start(path, *, kind="test", config=CONFIG, **more):
    return Run.start(path, kind=kind, config=config, **more)


PRELUDE = """
import os, sys, time
from pathlib import Path
from posterhall.runs import Run
path = Path(sys.argv[1])
"""


def process(code, *arguments):
    """A Python process in which `Run` and `path` (the first argument) are at hand; it says "ready"."""
    child = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def kill(child):
    child.kill()
    child.wait()
    child.stdout.close()


HOLD = """
run = Run.start(path, kind="test", config={"dim": 1}, resume="--resume" in sys.argv)
run.log(step=1)
run.log(step=2)
print("ready", flush=True)
time.sleep(60)
"""


# -- what is recorded -------------------------------------------------------------------------------


def test_a_run_records_what_was_done_with_what_on_what(tmp_path):
    text = tmp_path / "in.txt"
    text.write_text("abc")
    with start(tmp_path / "run", inputs=[text], seeds=[1, np.int64(2)]) as run:
        run.log(loss=1.5)
        run.artifact("vectors/a.bin").write_bytes(b"x")
        run.checkpoint("latest").write_bytes(b"y")
        run.finish(words=np.int64(7))
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert manifest == run.manifest
    assert manifest["schema_version"] == 1
    assert (manifest["kind"], manifest["status"], manifest["resumes"]) == ("test", "done", 0)
    assert manifest["config"] == {"dim": 100, "alpha": 0.025, "corpus": "a.txt", "hidden": [1, 2]}
    assert manifest["config_digest"] == digest(CONFIG)
    assert manifest["seeds"] == [1, 2]
    assert [each["bytes"] for each in manifest["inputs"]] == [3]
    assert manifest["packages"]["numpy"] == np.__version__
    assert manifest["machine"]["cores"] >= 1
    assert manifest["start"] <= manifest["end"]
    assert manifest["peak_bytes"] > 1 << 20
    assert manifest["facts"] == {"words": 7}
    assert manifest["argv"][1:] == redacted(sys.argv)[1:]
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text()) == manifest["config"]
    assert (tmp_path / "run/artifacts/vectors/a.bin").exists()
    assert (tmp_path / "run/checkpoints/latest").exists()


def git(directory, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    command = ["git", *identity, "-C", str(directory), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_code_is_that_of_the_working_directory(tmp_path, monkeypatch):
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    monkeypatch.chdir(checkout)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert "git" not in start(tmp_path / "0").manifest  # no checkout
    git(checkout, "init", "-q")
    assert "git" not in start(tmp_path / "1").manifest  # no commit yet
    (checkout / "file").write_text("a")
    git(checkout, "add", "file")
    git(checkout, "commit", "-q", "-m", "m")
    commit = git(checkout, "rev-parse", "HEAD")
    (checkout / "untracked").write_text("a")
    assert start(tmp_path / "2").manifest["git"] == {"commit": commit, "dirty": False}
    (checkout / "file").write_text("b")
    assert start(tmp_path / "3").manifest["git"] == {"commit": commit, "dirty": True}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "git" not in start(tmp_path / "4").manifest  # no git


def test_secrets_on_the_command_line_are_not_recorded():
    argv = ["x", "--api-key", "s3", "--token=s3", "--hub-token", "s3", "--unique-tokens", "5", "--password"]
    expected = [
        "x",
        "--api-key",
        "***",
        "--token=***",
        "--hub-token",
        "***",
        "--unique-tokens",
        "5",
        "--password",
    ]
    assert redacted(argv) == expected


# -- how it ends ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("bad"), "failed"),
        (KeyboardInterrupt(), "interrupted"),
        (Interrupted("after step 3"), "interrupted"),
        (SystemExit(130), "interrupted"),
        (SystemExit(1), "failed"),
        (SystemExit(0), "done"),
        (None, "done"),
    ],
)
def test_leaving_the_block_records_how(tmp_path, error, status):
    def leave():
        with start(tmp_path / "run"):
            if error is not None:
                raise error

    if error is None:
        leave()
    else:
        with pytest.raises(type(error)):
            leave()
    manifest = runs.read_manifest(tmp_path / "run")
    assert manifest["status"] == status
    assert manifest["end"] is not None
    assert ("error" in manifest) == (status != "done")


def test_an_error_after_the_finish_is_not_hidden(tmp_path):
    def finish_and_fail():
        with start(tmp_path / "run") as run:
            run.finish()
            raise ValueError("late")

    with pytest.raises(ValueError, match="late"):
        finish_and_fail()
    assert runs.read_manifest(tmp_path / "run")["status"] == "failed"
    assert runs.read_manifest(tmp_path / "run")["error"] == "ValueError: late"


def test_a_manifest_that_cannot_be_written_does_not_hide_the_error(tmp_path):
    def lose_the_directory():
        with start(tmp_path / "run"):
            shutil.rmtree(tmp_path / "run")
            raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        lose_the_directory()


def test_ctrl_c_is_recorded_and_the_run_can_go_on(tmp_path):
    code = """
    with Run.start(path, kind="test", config={}) as run:
        print("ready", flush=True)
        time.sleep(60)
    """
    child = process(code, tmp_path / "run")
    child.send_signal(signal.SIGINT)
    assert child.wait() != 0
    child.stdout.close()
    assert runs.read_manifest(tmp_path / "run")["status"] == "interrupted"
    with start(tmp_path / "run", config={}, resume=True) as run:
        assert run.resumed
    assert "error" not in runs.read_manifest(tmp_path / "run")


def test_a_finished_run_cannot_be_finished_again(tmp_path):
    run = start(tmp_path / "run")
    run.finish()
    with pytest.raises(UsageError, match="is finished"):
        run.finish()


# -- resuming ---------------------------------------------------------------------------------------


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    path = tmp_path / "run"
    child = process(HOLD, path)
    assert runs.read_manifest(path)["status"] == "running"
    kill(child)
    assert runs.read_manifest(path)["status"] == "killed"
    assert json.loads((path / "manifest.json").read_text())["status"] == "running"
    with start(path, config={"dim": 1}, resume=True) as run:
        assert run.resumed
        assert [line["step"] for line in run.metrics()] == [1, 2]
        run.log(step=3)
    manifest = runs.read_manifest(path)
    assert (manifest["status"], manifest["resumes"]) == ("done", 1)
    assert [each["status"] for each in manifest["history"]] == ["killed"]
    assert manifest["history"][0]["argv"][0] == "-c"
    assert [line["step"] for line in runs.read_metrics(path)] == [1, 2, 3]


def test_time_adds_up_over_resumes_and_a_killed_part_counts_to_its_last_line(tmp_path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    path = tmp_path / "run"
    run = start(path)
    clock[0] += 5
    run.log(step=1)
    clock[0] += 3
    run.close()  # as a kill does
    clock[0] += 100
    with start(path, resume=True) as run:
        clock[0] += 2
        run.log(step=2)
    assert runs.read_manifest(path)["wall_seconds"] == 7
    assert [line["elapsed"] for line in runs.read_metrics(path)] == [5, 7]


def test_resuming_where_nothing_is_starts_afresh(tmp_path):
    with start(tmp_path / "a/b/run", resume=True) as run:
        assert not run.resumed
    assert run.manifest["resumes"] == 0


@pytest.mark.parametrize("left", ["nothing", "a line", "a checkpoint", "an artifact"])
def test_only_a_run_that_failed_and_left_nothing_is_in_nobodys_way(tmp_path, left):
    path = tmp_path / "run"
    run = start(path)
    if left == "a line":
        run.log(step=1)
    elif left != "nothing":
        kept = run.checkpoint("x") if left == "a checkpoint" else run.artifact("x")
        kept.write_text("kept")
    run.finish("failed", error="the corpus holds no word")
    if left == "nothing":
        with start(path, config={"dim": 7}) as run:
            assert not run.resumed
        assert runs.read_manifest(path)["config"] == {"dim": 7}
        assert yaml.safe_load((path / "config.yaml").read_text()) == {"dim": 7}
        assert "facts" not in runs.read_manifest(path)
    else:
        with pytest.raises(DataError, match="holds a run already"):
            start(path, config={"dim": 7})


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_is_never_overwritten_unasked(tmp_path, finished):
    path = tmp_path / "run"
    run = start(path)
    run.log(step=1)
    run.finish() if finished else run.close()
    before = {each: each.read_bytes() for each in path.iterdir() if each.is_file()}
    with pytest.raises(DataError, match=r"holds a run already.*--resume"):
        start(path)
    assert {
        each: each.read_bytes() for each in path.iterdir() if each.is_file() and each.name != ".lock"
    } == {each: data for each, data in before.items() if each.name != ".lock"}


def test_other_settings_are_refused_with_both_values(tmp_path):
    start(tmp_path / "run").finish()
    with pytest.raises(DataError) as caught:
        start(tmp_path / "run", config={**CONFIG, "dim": 200, "alpha": math.inf, "new": "x"}, resume=True)
    said = str(caught.value)
    assert "dim 100 (now 200)" in said
    assert 'alpha 0.025 (now "inf")' in said
    assert 'new absent (now "x")' in said
    assert "hidden" not in said


def test_another_kind_is_refused(tmp_path):
    start(tmp_path / "run").finish()
    with pytest.raises(DataError, match=r"kind 'test' \(now 'other'\)"):
        start(tmp_path / "run", kind="other", resume=True)


def test_other_inputs_are_refused_and_moved_ones_are_not(tmp_path):
    a, b, c = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    a.write_text("same")
    b.write_text("same")
    c.write_text("else")
    start(tmp_path / "run", inputs=[a]).finish()
    with pytest.raises(DataError, match=rf"input {a} of 4 bytes, sha256 \w+ \(now {c}, 4 bytes"):
        start(tmp_path / "run", inputs=[c], resume=True)
    with pytest.raises(DataError, match=r"1 input files \(now 2\)"):
        start(tmp_path / "run", inputs=[a, b], resume=True)
    start(tmp_path / "run", inputs=[b], resume=True).finish()


def test_a_refused_resume_changes_nothing(tmp_path):
    start(tmp_path / "run").finish()
    before = (tmp_path / "run/manifest.json").read_bytes()
    with pytest.raises(DataError):
        start(tmp_path / "run", config={}, resume=True)
    assert (tmp_path / "run/manifest.json").read_bytes() == before
    start(tmp_path / "run", resume=True).finish()  # and leaves the lock free


# -- the directory ----------------------------------------------------------------------------------


@pytest.mark.parametrize("resume", [True, False])
def test_a_directory_with_other_things_is_refused_and_left_alone(tmp_path, resume):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="not empty and not a run"):
        start(tmp_path, resume=resume)
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_a_kill_in_the_first_instant_left_is_no_obstacle(tmp_path):
    (tmp_path / ".lock").write_text("999999\n")
    (tmp_path / ".manifest.json.0123456789ab.tmp").write_text("{")
    start(tmp_path).finish()
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        ".lock",
        "artifacts",
        "checkpoints",
        "config.yaml",
        "manifest.json",
        "metrics.jsonl",
    ]


def test_half_written_files_of_a_killed_run_are_swept_up(tmp_path):
    run = start(tmp_path / "run")
    leftover = run.checkpoint(".model.0123456789ab.tmp")
    leftover.write_text("half")
    other = run.artifact(".hidden.tmp")
    other.write_text("mine")
    run.close()
    start(tmp_path / "run", resume=True).finish()
    assert not leftover.exists()
    assert other.exists()


def test_a_file_in_the_way_is_bad_input(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot use"):
        start(tmp_path / "file")
    with pytest.raises(DataError, match="cannot use"):
        start(tmp_path / "file/run")


@pytest.mark.parametrize("name", ["../out", "/etc/x", "a/../../b", ""])
def test_artifacts_stay_inside(tmp_path, name):
    with start(tmp_path / "run") as run, pytest.raises(UsageError, match="inside artifacts/"):
        run.artifact(name)


# -- the lock ---------------------------------------------------------------------------------------


def test_of_two_processes_one_gets_the_run(tmp_path):
    path = tmp_path / "run"
    child = process(HOLD, path)
    try:
        with pytest.raises(DataError, match=f"in use by process {child.pid}"):
            start(path, config={"dim": 1}, resume=True)
    finally:
        kill(child)
    start(path, config={"dim": 1}, resume=True).finish()


def test_the_same_process_cannot_open_a_run_twice(tmp_path):
    with start(tmp_path / "run"), pytest.raises(DataError, match=f"in use by process {os.getpid()}"):
        start(tmp_path / "run", resume=True)


def test_a_run_that_was_dropped_can_be_resumed_by_the_same_process(tmp_path):
    run = start(tmp_path / "run")
    del run
    start(tmp_path / "run", resume=True).finish()


def test_a_forked_worker_does_not_keep_the_lock_of_its_killed_parent(tmp_path):
    code = """
    run = Run.start(path, kind="test", config={})
    worker = os.fork()
    if worker == 0:
        time.sleep(60)
    Path(sys.argv[2]).write_text(str(worker))
    print("ready", flush=True)
    time.sleep(60)
    """
    child = process(code, tmp_path / "run", tmp_path / "worker")
    kill(child)
    try:
        start(tmp_path / "run", config={}, resume=True).finish()
    finally:
        os.kill(int((tmp_path / "worker").read_text()), signal.SIGKILL)


def test_looking_at_a_run_does_not_keep_another_from_starting_it(tmp_path):
    path = tmp_path / "run"
    start(path).finish()
    code = """
    from posterhall import runs
    print("ready", flush=True)
    while True:
        runs.reading._is_locked(path)
    """
    child = process(code, path)
    try:
        for _ in range(20):
            start(path, resume=True).finish()
    finally:
        kill(child)


# -- reading ----------------------------------------------------------------------------------------


def test_runs_are_found_below_a_directory_but_not_inside_each_other(tmp_path):
    for name in ("b", "a/one", "a/deep/two", "a/one/artifacts/inner", "too/deep/for/us"):
        start(tmp_path / name).finish()
    (tmp_path / "loop").symlink_to(tmp_path)
    found = [str(each.relative_to(tmp_path)) for each in runs.find(tmp_path)]
    assert found == ["a/deep/two", "a/one", "b"]
    assert runs.find(tmp_path / "b") == [tmp_path / "b"]
    assert runs.find(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "schema_version is None"),
        ('{"schema_version": 2}', "written by a newer one"),
    ],
)
def test_a_manifest_that_cannot_be_understood_is_named(tmp_path, text, said):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=rf"manifest\.json: .*{said}"):
        runs.read_manifest(tmp_path)


def test_a_directory_without_a_run_is_named(tmp_path):
    with pytest.raises(DataError, match=re.escape(f"{tmp_path} holds no run")):
        runs.read_manifest(tmp_path)
