"""Running claims: processes, deaths, resuming, parameters, and what ends up on disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from posterhall import claims
from posterhall.claims.results import Outcome, adjust
from posterhall.errors import DataError, UsageError

TOYS = ["toy_claims"]
KEYS = {
    "id",
    "paper",
    "statement",
    "verdict",
    "effect",
    "interval",
    "seeds",
    "paper_value",
    "negative_control",
    "wall_seconds",
}


def run(names, out, **options):
    return claims.run(names, out=out, modules=TOYS, quiet=True, **{"workers": 1, **options})


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """All toys in one run, the broken ones too: 55 seeds in a few seconds."""
    return run([], tmp_path_factory.mktemp("claims") / "run", workers=2)


def comparable(outcome: Outcome) -> dict:
    return {k: v for k, v in outcome.to_json().items() if not k.endswith("_seconds")}


def test_verdicts_of_the_toys(everything):
    assert {o.id: o.verdict for o in everything} == {
        "loaded-coin": "supported",
        "fair-coin-is-loaded": "refuted",
        "control-shows-it-too": "inconclusive",
        "diverges": "inconclusive",
        "alone": "supported",
        "raises": "failed",
        "killed": "failed",
        "exits": "failed",
        "forgets-an-arm": "failed",
    }
    assert everything.failed == ("raises", "killed", "exits", "forgets-an-arm")


def test_a_supported_control_undoes_its_claim(everything):
    outcome = everything["control-shows-it-too"]
    assert outcome.effect == 6.0
    assert outcome.negative_control.verdict == "supported"
    assert "negative control came out supported" in outcome.reason


def test_a_diverged_arm_is_kept_and_named(everything):
    outcome = everything["diverges"]
    assert outcome.diverged == {"infinite": 1}
    assert "diverged" in outcome.reason
    rows = claims.stored_rows(everything.run, "diverges", "smoke")
    assert [r["pips"] for r in rows if r.arm == "infinite"] == [6.0, 6.0, float("inf"), 6.0, 6.0]


@pytest.mark.parametrize(
    ("id", "reason"),
    [
        ("raises", "seed 2: line 7 holds no number"),
        ("killed", "SIGKILL"),
        ("exits", "code 3"),
        ("forgets-an-arm", "no row of arm 'b'"),
    ],
)
def test_a_claim_that_breaks_says_how_and_hurts_no_other(everything, id, reason):
    assert reason in everything[id].reason
    assert everything[id].effect is None


def test_an_exclusive_claim_keeps_its_threads(everything):
    rows = claims.stored_rows(everything.run, "alone", "smoke")
    assert {r["limited"] for r in rows} == {0.0}


def test_json_has_the_promised_keys(everything):
    data = json.loads(json.dumps(everything.to_json(), allow_nan=False))
    assert (data["scale"], data["run"]) == ("smoke", str(everything.run))
    for item in data["claims"]:
        assert item.keys() >= KEYS
        assert "verdict" in item["negative_control"]
        assert item["verdict"] in ("supported", "refuted", "inconclusive", "failed")
    coin = data["claims"][0]
    low, high = coin["interval"]
    assert low < coin["effect"] < high
    assert coin["seeds"] == 5


def test_a_stored_run_reads_back_the_same(everything):
    back = claims.read(everything.run)
    assert [o.to_json() for o in back] == [o.to_json() for o in everything]
    assert back.scale == "smoke"


def test_the_run_directory_is_a_run_like_any_other(everything):
    manifest = json.loads((everything.run / "manifest.json").read_text())
    assert manifest["kind"] == "claims"
    assert manifest["status"] == "failed"
    assert manifest["seeds"] == [0, 1, 2, 3, 4]
    assert manifest["config"]["loaded-coin"]["budget"] == {"seeds": 5, "tosses": 400}


def test_what_a_claim_prints_goes_to_the_log(everything):
    logs = "".join(p.read_text() for p in (everything.run / "artifacts" / "logs").iterdir())
    assert "a claim may print" in logs
    assert "DataError: line 7 holds no number" in logs


def test_holm_marks_what_stands_only_alone(everything):
    coin = everything["loaded-coin"]
    assert coin.holm.family == 5  # the diverged claim was tested too; the four that failed were not
    assert coin.holm.survives
    # Two claims without any spread have p = 0, so this one is third of five.
    assert coin.holm.adjusted == pytest.approx(3 * coin.holm.p)
    weak = Outcome.from_json({**coin.to_json(), "id": "weak", "p_supported": 0.04})
    others = [
        Outcome.from_json({**coin.to_json(), "id": f"o{i}", "p_supported": 0.9, "verdict": "inconclusive"})
        for i in range(3)
    ]
    assert adjust([weak])[0].holm.survives
    lost = adjust([weak, *others])[0]
    assert not lost.holm.survives
    assert lost.holm.adjusted == pytest.approx(0.16)
    assert lost.verdict == "supported"  # the verdict stays that of its own interval


def test_the_table_is_aligned(everything):
    lines = str(everything).splitlines()
    assert lines[0].split()[:2] == ["verdict", "claim"]
    at = lines[0].index("claim")
    assert [line[at:].split()[0] for line in lines[1:3]] == ["loaded-coin", "fair-coin-is-loaded"]


def test_workers_do_not_change_results(everything, tmp_path):
    again = run(["coins"], tmp_path / "one")
    for outcome in again:
        expected = {**comparable(everything[outcome.id]), "holm": None}
        assert {**comparable(outcome), "holm": None} == expected


def test_parameters_reach_the_claim_with_their_type(tmp_path):
    results = run("loaded-coin", tmp_path / "run", params={"bias": "0.5"})
    assert results["loaded-coin"].params["bias"] == 0.5
    assert results["loaded-coin"].verdict != "supported"


def test_a_parameter_that_names_a_file_is_an_input(tmp_path):
    (tmp_path / "note.txt").write_text("words")
    results = run("loaded-coin", tmp_path / "run", params={"note": str(tmp_path / "note.txt")})
    manifest = json.loads((results.run / "manifest.json").read_text())
    assert manifest["inputs"][0]["bytes"] == 5


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ("nonsense", {}, "neither a claim nor a paper"),
        ("coins", {"scale": "huge"}, "no scale 'huge'"),
        ("coins", {"params": {"bais": 1}}, "Did you mean: bias"),
        ("coins", {"seeds": 4}, "5 or more"),
        ("coins", {"first_seed": -1}, "negative"),
        (["diverges"], {"headline": True}, "headline"),
    ],
)
def test_requests_that_cannot_work_change_nothing(names, options, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        run(names, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_headline_claims_alone(tmp_path):
    results = run([], tmp_path / "run", headline=True, seeds=6, first_seed=10)
    assert [o.id for o in results] == ["loaded-coin", "control-shows-it-too"]
    rows = claims.stored_rows(results.run, "loaded-coin", "smoke")
    assert sorted({r.seed for r in rows}) == list(range(10, 16))
    assert results["loaded-coin"].units == 6


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from posterhall import claims
claims.run(["coins"], out={out!r}, modules=["toy_claims"], workers=2, quiet=True, resume=True,
           params={{"wait": 0.1}})
"""


def group_of(pid: int) -> list[int]:
    """Processes whose parent is `pid`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found.append(int(entry.name))
    return found


def alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds children in /proc")
def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    out = tmp_path / "run"
    script = SCRIPT.format(tests=str(Path(__file__).parent), out=str(out))
    rows = out / "artifacts" / "rows"
    process = subprocess.Popen([sys.executable, "-c", script])
    while len(list(rows.glob("*/*.json"))) < 2:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    workers = group_of(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {p: p.stat().st_mtime_ns for p in rows.glob("*/*.json")}
    assert 2 <= len(before) < 10
    with pytest.raises(DataError, match="resume"):
        claims.read(out)
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in workers):  # nobody is left behind
        assert time.monotonic() < deadline
        time.sleep(0.01)

    with pytest.raises(DataError):  # an unfinished run is not overwritten
        run(["coins"], out, params={"wait": 0.1})
    resumed = run(["coins"], out, params={"wait": 0.1}, resume=True)
    assert all(p.stat().st_mtime_ns == t for p, t in before.items())
    whole = run(["coins"], tmp_path / "whole", params={"wait": 0.1})
    assert [comparable(o) for o in resumed] == [comparable(o) for o in whole]


def test_replacing_an_earlier_run_removes_that_and_nothing_else(tmp_path):
    out = tmp_path / "run"
    run("loaded-coin", out, kind="tour")
    (out / "report.html").write_text("old")
    again = run(["diverges"], out, kind="tour", replace=True)
    assert [o.id for o in claims.read(out)] == [o.id for o in again] == ["diverges"]
    assert not (out / "artifacts" / "rows" / "loaded-coin").exists()
    assert not (out / "report.html").exists()
    with pytest.raises(DataError):  # of another kind
        run(["diverges"], out, replace=True)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(DataError):
        run(["diverges"], out, kind="tour", replace=True)
    assert (out / "notes.txt").read_text() == "mine"
    assert claims.read(out)["diverges"]


def test_the_command_repeats_a_claim(tmp_path):
    results = run(
        "loaded-coin", tmp_path / "run", seeds=6, first_seed=2, params={"bias": 0.5, "note": "two words"}
    )
    assert results["loaded-coin"].command == (
        "posterhall claims run loaded-coin --scale smoke --seeds 6 --seed 2 --set bias=0.5 "
        "--set 'note=two words'"
    )


def test_a_run_is_not_resumed_as_another(tmp_path):
    run("loaded-coin", tmp_path / "run")
    for change in ({"seeds": 6}, {"scale": "laptop"}, {"params": {"bias": 0.6}}):
        with pytest.raises(DataError):
            run("loaded-coin", tmp_path / "run", resume=True, **change)


def test_resuming_tries_a_failed_claim_again(tmp_path):
    marker = tmp_path / "mended"
    options = {"params": {"marker": str(marker)}}
    first = run(["killed"], tmp_path / "run", **options)
    assert first.failed == ("killed",)
    os.mkfifo(marker)  # exists, but is no file that could be an input
    second = run(["killed"], tmp_path / "run", resume=True, **options)
    assert second["killed"].verdict == "supported"


def test_damaged_rows_are_named(tmp_path):
    results = run("loaded-coin", tmp_path / "run")
    file = results.run / "artifacts" / "rows" / "loaded-coin" / "smoke-3.json"
    file.write_text("{")
    with pytest.raises(DataError, match=r"smoke-3\.json"):
        run("loaded-coin", tmp_path / "run", resume=True)


def test_reading_what_is_no_run_of_claims(tmp_path):
    with pytest.raises(DataError, match="no run of claims"):
        claims.read(tmp_path)
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "claims.json").write_text('{"schema": 99}')
    with pytest.raises(DataError, match="schema 99"):
        claims.read(tmp_path)
    (tmp_path / "artifacts" / "claims.json").write_text('{"schema": 1, "scale": "smoke", "claims": [{}]}')
    with pytest.raises(DataError, match="outcome"):
        claims.read(tmp_path)
