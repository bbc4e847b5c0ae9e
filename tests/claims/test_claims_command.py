"""`posterhall claims` and `posterhall tour` as a user meets them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from posterhall.claims import PAPERS, Paper


@pytest.fixture(autouse=True)
def only_toys(monkeypatch, tmp_path):
    """The registry holds the toys and nothing else; the working directory is empty."""
    for name in list(PAPERS):
        monkeypatch.delitem(PAPERS, name)
    title = "On the tossing of coins"
    monkeypatch.setitem(PAPERS, "coins", Paper(title, "A. Bernoulli", "Basel 1713", "toy_claims"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("posterhall.devices.cores", lambda: 1)  # one process costs less to start


def test_list_is_aligned_and_complete(posterhall):
    lines = posterhall("claims", "list").out.splitlines()
    assert lines[0].split() == ["claim", "paper", "scales", "and", "seeds", "statement"]
    assert len(lines) == 10
    at = lines[0].index("statement")
    assert lines[1][at:] == "A loaded coin shows heads more often than a fair one."
    assert "smoke 5, laptop 5, full 10" in lines[1]


def test_list_as_json(posterhall):
    data = json.loads(posterhall("claims", "list", "coins", "--json").out)
    assert [item["id"] for item in data["claims"]] == ["loaded-coin", "fair-coin-is-loaded"]
    assert data["claims"][0]["scales"]["full"] == {"seeds": 10, "tosses": 40000}
    assert data["claims"][0]["params"] == {"bias": 0.8, "wait": 0.0, "note": None}


def test_run_prints_verdicts_and_the_reports_path(posterhall):
    result = posterhall("claims", "run", "coins", "-o", "out", "--set", "bias=0.9")
    lines = result.out.splitlines()
    assert lines[1].startswith("supported")
    assert lines[2].startswith("refuted")  # a refutation is a result, not a failure
    assert lines[-1] == "out/report.html"
    page = Path("out/report.html").read_text()
    assert "On the tossing of coins (A. Bernoulli, Basel 1713)" in page
    assert "bias: 0.9" in page


def test_run_as_json_keeps_its_keys(posterhall):
    data = json.loads(posterhall("claims", "run", "loaded-coin", "-o", "out", "--json", "--seeds", 6).out)
    assert {"scale", "run", "claims"} <= data.keys()
    (claim,) = data["claims"]
    assert claim["verdict"] == "supported"
    assert claim["interval"][0] < claim["effect"] < claim["interval"][1]
    assert claim["negative_control"]["verdict"] in ("refuted", "inconclusive")
    assert claim["seeds"] == 6
    assert claim["wall_seconds"] >= 0
    assert "figure" not in claim


def test_a_run_without_a_place_goes_under_runs(posterhall):
    posterhall("claims", "run", "loaded-coin")
    (run,) = Path("runs").iterdir()
    assert run.name.startswith("claims-")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["no-such-claim"], 2, "neither a claim nor a paper"),
        (["coins", "--seeds", "3"], 2, "5 or more"),
        (["coins", "--scale", "hge"], 2, "smoke, laptop, full"),
        (["coins", "--set", "bias"], 2, "KEY=VALUE"),
        (["coins", "--set", "bias=high"], 4, "give a number"),
    ],
)
def test_mistakes_get_one_line(posterhall, arguments, code, message):
    result = posterhall("claims", "run", *arguments, "-o", "out", code=code)
    assert message in result.err
    assert result.err.startswith("error: ")
    assert len(result.err.splitlines()) == 1
    assert not Path("out").exists()


def test_a_failed_claim_is_exit_code_one_and_a_verdict_for_the_rest(posterhall):
    result = posterhall("claims", "run", "loaded-coin", "raises", "-o", "out", code=1)
    assert "supported" in result.out
    assert "raises: seed 2: line 7 holds no number" in result.out


def test_report_over_several_runs(posterhall):
    posterhall("claims", "run", "loaded-coin", "-o", "smoke")
    posterhall("claims", "run", "loaded-coin", "-o", "laptop", "--scale", "laptop")
    assert posterhall("claims", "report", "smoke", "laptop", "-o", "both.html").out == "both.html\n"
    page = Path("both.html").read_text()
    assert "smoke scale, 5 seeds" in page
    assert "laptop scale, 5 seeds" in page
    assert posterhall("claims", "report", "smoke").out == "smoke/report.html\n"


def test_a_tour_can_be_taken_again(posterhall):
    first = posterhall("tour")
    assert first.out.splitlines()[-1] == "runs/tour/report.html"
    assert "loaded-coin" in first.out
    assert "control-shows-it-too" in first.out
    assert "fair-coin-is-loaded" not in first.out  # no headline
    again = posterhall("tour", "--set", "bias=0.95")
    assert "bias: 0.95" in Path("runs/tour/report.html").read_text()
    assert again.out != first.out
    data = json.loads(posterhall("tour", "--out", "elsewhere", "--json").out)
    assert [claim["id"] for claim in data["claims"]] == ["loaded-coin", "control-shows-it-too"]


def test_a_tour_leaves_other_things_alone(posterhall):
    posterhall("claims", "run", "loaded-coin", "-o", "mine")
    result = posterhall("tour", "--out", "mine", code=4)
    assert "holds a run already" in result.err
    Path("full").mkdir()
    Path("full/thesis.txt").write_text("years")
    posterhall("tour", "--out", "full", code=4)
    assert Path("full/thesis.txt").read_text() == "years"


COMMAND = """
import sys
sys.path.insert(0, {tests!r})
from posterhall.claims import PAPERS, Paper
PAPERS.clear()
PAPERS["coins"] = Paper("t", "a", "v", "toy_claims")
from posterhall.cli.main import main
main(["claims", "run", "coins", "-o", "out", "--set", "wait=0.2", "--resume"])
"""


def test_ctrl_c_keeps_finished_seeds_and_resumes(posterhall):
    code = COMMAND.format(tests=str(Path(__file__).parent))
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    rows = Path("out/artifacts/rows")
    while len(list(rows.glob("*/*.json"))) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "--resume" in err
    assert len(err.splitlines()) == 1
    manifest = json.loads(Path("out/manifest.json").read_text())
    assert manifest["status"] == "interrupted"
    result = posterhall("claims", "run", "coins", "-o", "out", "--set", "wait=0.2", "--resume")
    assert result.out.splitlines()[1].startswith("supported")
