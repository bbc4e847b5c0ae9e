"""`posterhall eval planning` from outside: tables, JSON, files of one's own, exit codes."""

from __future__ import annotations

import json

import pytest

SMALL = ("--graphs", "A,D", "--conditions", "2stepPath,teleDetour", "--repeats", 2, "--temperature", 0)


def test_a_table_of_cells_ends_in_the_whole(posterhall, tmp_path):
    result = posterhall("eval", "planning", "--model", "echo", *SMALL, "-o", tmp_path / "run", "-q")
    lines = result.out.splitlines()
    assert lines[0].split()[:4] == ["graph", "condition", "n", "right"]
    assert [line.split()[:2] for line in lines[1:5]] == [
        ["A", "2stepPath"], ["A", "teleDetour"], ["D", "2stepPath"], ["D", "teleDetour"],
    ]  # fmt: skip
    assert lines[5].startswith("all")
    run = tmp_path / "run"
    assert lines[-2:] == [f"run: {run}", f"page: {run / 'report.html'}"]


def test_json_is_one_object_and_is_scored_again_to_the_same(posterhall, tmp_path):
    run = tmp_path / "run"
    out = posterhall("eval", "planning", "-m", "echo", *SMALL, "-o", run, "--json", "-q").out
    result = json.loads(out)
    assert result["conversations"] == 24
    assert result["usage"]["calls"] == 24 + 6  # two turns for the detours of A, at three domains twice
    again = json.loads(posterhall("eval", "planning", "--score", run, "--json").out)
    assert again["cells"] == result["cells"]
    resumed = posterhall("eval", "planning", "-m", "echo", *SMALL, "-o", run, "--json", "-q", "--resume").out
    assert json.loads(resumed)["cells"] == result["cells"]
    posterhall("eval", "planning", "-m", "echo", *SMALL, "-o", run, code=4)


def test_answers_from_a_script_are_right(posterhall, tmp_path):
    graph = tmp_path / "metro.json"
    graph.write_text(json.dumps({"edges": [["Zoo, old", "Mitte"], ["Mitte", "Kärnten"]]}))
    script = tmp_path / "answers.jsonl"
    rules = [
        {"contains": 'You are at "Zoo, old"', "reply": "Answer: zoo, old → mitte → Karnten"},
        {"reply": "Answer: Kärnten, Mitte, Zoo, old"},
    ]
    script.write_text("".join(json.dumps(rule) + "\n" for rule in rules))
    arguments = ("--graphs", graph, "--domains", "own", "--conditions", "2stepPath", "--repeats", 6)
    out = posterhall("eval", "planning", "-m", f"scripted:{script}", *arguments, "--json", "-q").out
    assert json.loads(out)["accuracy"] == 1.0


def test_conversations_are_shown_with_their_keys(posterhall):
    out = posterhall("eval", "planning", "--show", "--graphs", "B", "--conditions", "valuePath").out
    assert out.count("# B valuePath") == 3
    assert out.count("key: ") == 3
    shown = json.loads(
        posterhall("eval", "planning", "--show", "--graphs", "D", "--conditions", "nClusters", "--json").out
    )
    assert [each["key"] for each in shown["conversations"]] == [[["3"]]] * 3


def test_a_task_for_the_harness_is_written(posterhall, tmp_path):
    out = posterhall("eval", "planning", "--export", tmp_path / "tasks", *SMALL).out
    assert "24 documents in 4 tasks" in out
    assert (tmp_path / "tasks" / "posterhall_planning.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--graphs", "A"), 2, "--model"),
        (("-m", "echo", "--show"), 2, "one of --model"),
        (("-m", "echo", "--graphs", "Q"), 4, "no such file"),
        (("-m", "echo", "--conditions", "nsteppath"), 4, "nstepPath"),
        (("-m", "echo", "--domains", "ordRoom"), 4, "Did you mean: ordRooms"),
        (("-m", "echo", "--repeats", "0"), 4, "at least 1"),
        (("-m", "echo", "--intervention", "cot"), 4, "one of"),
        (("-m", "echo", "--graphs", "A", "--wording", "groups"), 4, "no clusters"),
        (("-m", "echo", "--graphs", "A", "--conditions", "nClusters"), 2, "admits"),
        (("-m", "echo", "--resume"), 2, "-o"),
        (("-m", "echo", "--judge", "echo"), 2, "-o"),
        (("--score", "nowhere"), 4, "no conversations"),
    ],
)
def test_what_cannot_be_done_is_told(posterhall, arguments, code, said):
    result = posterhall("eval", "planning", *arguments, code=code)
    assert said in result.err
    assert result.out == ""
