"""`posterhall runs`: what it shows of runs in every state."""

from __future__ import annotations

import json

import pytest

from posterhall.runs import Run


@pytest.fixture
def three_runs(tmp_path, monkeypatch):
    """A done run, one that failed and one that was killed, under runs/ in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus.txt").write_text("a b c")
    with Run.start(
        "runs/one", kind="embed train", config={"dim": 100}, inputs=["corpus.txt"], seeds=[1]
    ) as run:
        run.log(step=1, loss=2.5)
        run.log(step=2, loss=2.25)
        run.artifact("vectors.bin").write_bytes(bytes(1500))
        run.finish(words=3)

    def fail():
        with Run.start("runs/deep/two", kind="claims run", config={}):
            raise ValueError("it broke")

    with pytest.raises(ValueError):
        fail()
    Run.start("runs/three", kind="embed train", config={}).close()
    return tmp_path


@pytest.mark.usefixtures("three_runs")
def test_list_shows_every_run_in_columns(posterhall):
    header, *lines = posterhall("runs", "list").out.splitlines()
    assert header.split() == ["run", "kind", "status", "started", "(UTC)", "time", "peak"]
    assert [line.split()[0] for line in lines] == ["runs/deep/two", "runs/one", "runs/three"]
    assert [line[header.index("status") :].split()[0] for line in lines] == ["failed", "done", "killed"]
    assert lines[0].endswith((" MB", " GB"))  # of the whole test process
    assert lines[2].split()[-2:] == ["-", "-"]  # a killed run left neither time nor peak


@pytest.mark.usefixtures("three_runs")
def test_list_as_json_is_one_object(posterhall):
    runs = json.loads(posterhall("runs", "list", "--json").out)["runs"]
    assert [run["status"] for run in runs] == ["failed", "done", "killed"]
    assert set(runs[1]) == {"path", "kind", "status", "start", "end", "wall_seconds", "peak_bytes", "resumes"}


def test_one_damaged_run_does_not_hide_the_others(posterhall, three_runs):
    (three_runs / "runs/three/manifest.json").write_text("{")
    out = posterhall("runs", "list").out
    assert "runs/one" in out
    assert "unreadable" in out
    [damaged] = [r for r in json.loads(posterhall("runs", "list", "--json").out)["runs"] if "error" in r]
    assert damaged["path"] == "runs/three"


def test_list_of_nothing_says_so(posterhall, tmp_path):
    assert posterhall("runs", "list", tmp_path).out == f"no runs in {tmp_path}\n"
    assert json.loads(posterhall("runs", "list", tmp_path, "--json").out) == {"runs": []}
    assert "no directory" in posterhall("runs", "list", tmp_path / "none", code=4).err


@pytest.mark.usefixtures("three_runs")
def test_show_tells_where_a_result_came_from(posterhall):
    out = posterhall("runs", "show", "runs/one").out
    for said in (
        "embed train",
        "done",
        "dim = 100",
        "corpus.txt  5 B  sha256 ",
        "words = 3",
        "loss = 2.25",
        "runs/one/artifacts/vectors.bin  1.50 kB",
        "posterhall 0.",
    ):
        assert said in out
    assert "it broke" in posterhall("runs", "show", "runs/deep/two").out
    assert "killed" in posterhall("runs", "show", "runs/three").out


@pytest.mark.usefixtures("three_runs")
def test_show_as_json_is_the_manifest_with_last_metrics_and_artifacts(posterhall):
    shown = json.loads(posterhall("runs", "show", "runs/one", "--json").out)
    assert shown["config"] == {"dim": 100}
    assert shown["last_metrics"]["step"] == 2
    assert shown["artifacts"] == [{"path": "runs/one/artifacts/vectors.bin", "bytes": 1500}]
    assert json.loads(posterhall("runs", "show", "runs/three", "--json").out)["last_metrics"] is None


def test_show_of_no_run_is_bad_input(posterhall, tmp_path):
    assert "holds no run" in posterhall("runs", "show", tmp_path, code=4).err
