"""A search over many problems as a run: killed, resumed, told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_solving import noisy
from toys import Rule

from posterhall.errors import DataError
from posterhall.lm.metered import Budget, Meter, Metered
from posterhall.runs import read_manifest
from posterhall.search import solve_all
from posterhall.search.jobs import read_solutions

HERE = Path(__file__).parent


def start(run, log, pause):
    return subprocess.Popen([sys.executable, str(HERE / "killed_run.py"), str(run), str(log), str(pause)])


def told(run):
    """What a run has found, without the times."""
    return [solution.to_dict() | {"seconds": 0} for solution in read_solutions(run)]


def replies(run):
    path = run / "artifacts" / "replies.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_killed_and_resumed_no_reply_is_asked_for_twice_and_none_is_changed(tmp_path):
    run, log = tmp_path / "run", tmp_path / "asked"
    kept = []
    for enough in (5, 40):
        process = start(run, log, 0.05)
        while replies(run) < enough and process.poll() is None:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kept.append((run / "artifacts" / "replies.jsonl").read_bytes())
    assert 5 <= kept[0].count(b"\n") < kept[1].count(b"\n")
    with open(run / "artifacts" / "replies.jsonl", "ab") as file:
        file.write(b'{"key": "torn')  # as if killed while writing
    asked_before = len(log.read_text().splitlines())
    assert start(run, log, 0).wait() == 0
    final = (run / "artifacts" / "replies.jsonl").read_bytes()
    assert final.startswith(kept[1][: kept[1].rfind(b"\n") + 1])
    assert final.count(b"\n") > kept[1].count(b"\n")
    # What was not in the file is asked, and nothing else.
    asked_then = len(log.read_text().splitlines()) - asked_before
    assert asked_then == final.count(b"\n") - kept[1].count(b"\n")
    keys = [json.loads(line)["key"] for line in final.splitlines()]
    assert len(set(keys)) == len(keys)
    # The model never says the same twice, so this run can only be repeated from its replies: with them and a
    # fresh record of solutions, an uninterrupted search finds the same.
    whole = told(run)
    manifest = read_manifest(run)
    assert (manifest["status"], manifest["resumes"], len(whole)) == ("done", 2, 12)
    assert manifest["facts"]["paid"]["calls"] == len(keys)
    fresh = tmp_path / "fresh"
    (fresh / "artifacts").mkdir(parents=True)
    for name in ("manifest.json", "config.yaml", "metrics.jsonl", "artifacts/replies.jsonl"):
        (fresh / name).write_bytes((run / name).read_bytes())
    (tmp_path / "none").touch()
    assert start(fresh, tmp_path / "none", 0).wait() == 0
    assert told(fresh) == whole
    assert (tmp_path / "none").read_text() == ""


def test_a_finished_run_is_told_again_without_asking(tmp_path):
    task, say = noisy()
    first = solve_all(task, ["ab", "c"], Rule(say), out=tmp_path / "run")
    lm = Rule(say)
    again = solve_all(task, ["ab", "c"], lm, out=tmp_path / "run", resume=True)
    assert lm.asked == []
    assert [each.to_dict() for each in again.solutions] == [
        json.loads(json.dumps(each.to_dict())) for each in first.solutions
    ]
    assert again.paid.calls == first.paid.calls
    with pytest.raises(DataError, match="holds a run already"):
        solve_all(task, ["ab", "c"], lm, out=tmp_path / "run")
    with pytest.raises(DataError, match=r"breadth 5 .now 3"):
        solve_all(task, ["ab", "c"], lm, out=tmp_path / "run", resume=True, breadth=3)
    with pytest.raises(DataError, match="problems"):
        solve_all(task, ["ab", "d"], lm, out=tmp_path / "run", resume=True)


def test_a_run_whose_budget_ended_goes_on_with_more(tmp_path):
    task, say = noisy()
    problems = ["ab", "ca", "b", "c"]
    whole = solve_all(task, problems, Rule(say))

    def some(limit):
        lm = Rule(say)
        meter = Meter(Budget(calls=limit))
        report = solve_all(task, problems, Metered(lm, meter), out=tmp_path / "run", resume=True, parallel=2)
        return lm, report

    lm, part = some(30)
    assert len(lm.asked) == 30
    assert part.unfinished > 0
    lm, same = some(30)  # what was spent before counts
    assert lm.asked == []
    assert same.unfinished == part.unfinished
    lm, rest = some(10_000)
    assert rest.unfinished == 0
    assert rest.paid.calls == 30 + len(lm.asked)
    assert [each.to_dict() | {"seconds": 0} for each in rest.solutions] == [
        each.to_dict() | {"seconds": 0} for each in whole.solutions
    ]


def test_equal_questions_of_different_problems_are_paid_once(tmp_path):
    task, say = noisy()
    lm = Rule(say, waits=lambda count: 5)
    report = solve_all(task, ["ab"] * 6, lm, out=tmp_path / "run", parallel=6)
    assert len(lm.asked) == len(set(lm.asked)) == report.paid.calls
    assert report.usage.calls == 6 * report.paid.calls  # what each would cost alone
    assert len({json.dumps(each.to_dict() | {"seconds": 0}) for each in report.solutions}) == 1


def test_probabilities_are_kept_as_well(tmp_path):
    task, say = noisy()

    def scoring(kind, rest, seed, number):
        return ("-0.5", "-inf")[number] if kind == "score" else say(kind, rest, seed, number)

    options = {"evaluator": "logprob", "out": tmp_path / "run"}
    first = solve_all(task, ["ab"], Rule(scoring), **options)
    (tmp_path / "run" / "artifacts" / "solutions.jsonl").unlink()
    silent = Rule(lambda *_: pytest.fail("asked again"))
    again = solve_all(task, ["ab"], silent, resume=True, **options)
    assert again.solutions[0].to_dict() | {"seconds": 0} == first.solutions[0].to_dict() | {"seconds": 0}


def test_totals_tell_each_kind_of_success_apart(tmp_path):
    task, say = noisy()
    told = []
    report = solve_all(
        task, ["ab", "c", "a"], Rule(say), out=tmp_path / "run", done=lambda n, s: told.append((n, s.answer))
    )
    totals = report.to_dict()
    assert totals["problems"] == 3
    assert totals["solved"] == sum(each.solved for each in report.solutions)
    assert totals["any_solved"] == sum(each.any_solved for each in report.solutions) >= totals["solved"]
    assert sorted(told) == [(n, each.answer) for n, each in enumerate(report.solutions)]
    facts = read_manifest(tmp_path / "run")["facts"]
    assert facts["asked"]["calls"] == report.usage.calls


@pytest.mark.parametrize(
    "line", ["nonsense", '{"key": "00", "reply": []}', '{"key": "zz", "reply": [], "paid": {}}']
)
def test_a_changed_record_of_replies_is_refused(tmp_path, line):
    task, say = noisy()
    solve_all(task, ["ab"], Rule(say), out=tmp_path / "run")
    path = tmp_path / "run" / "artifacts" / "replies.jsonl"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=r"replies.jsonl:\d+: not a line"):
        solve_all(task, ["ab"], Rule(say), out=tmp_path / "run", resume=True)
