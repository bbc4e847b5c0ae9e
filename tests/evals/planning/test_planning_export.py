"""Tasks of lm-evaluation-harness: what is written, and that its own rules find the right answers right."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from planning_solver import Solver

from posterhall.errors import DataError, UsageError
from posterhall.evals.planning.export import GROUP, write
from posterhall.evals.planning.jobs import PlanningSettings


def settings(**more):
    return PlanningSettings(**{"graphs": ("A", "D"), "domains": ("ordRooms",), "repeats": 4, **more})


def documents_of(task):
    path = Path(task["dataset_kwargs"]["data_files"]["test"])
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def extracted(task, reply):
    """What the task's filter and metric make of a reply: both are regular expressions."""
    steps = task["filter_list"][0]["filter"]
    assert [step["function"] for step in steps] == ["regex", "take_first"]
    return bare(task, re.findall(steps[0]["regex_pattern"], reply)[steps[0]["group_select"]])


def bare(task, text):
    for pattern in task["metric_list"][0].get("regexes_to_ignore", []):
        text = re.sub(pattern, "", text)
    return text.lower() if task["metric_list"][0].get("ignore_case") else text


def test_every_graph_and_condition_is_a_task_of_one_group(tmp_path):
    found = write(settings(), tmp_path / "tasks")
    group = yaml.safe_load((tmp_path / "tasks" / f"{GROUP}.yaml").read_text())
    assert group["task"] == found["tasks"]
    assert found["documents"] == 4 * len(found["tasks"])
    assert f"{GROUP}_D_nClusters" in found["tasks"]
    assert f"{GROUP}_A_nClusters" not in found["tasks"]
    for name in found["tasks"]:
        task = yaml.safe_load((tmp_path / "tasks" / f"{name}.yaml").read_text())
        documents = documents_of(task)
        assert len(documents) == 4
        assert all(document["prompt"] and document["targets"] for document in documents)
        assert task["doc_to_text"] == "{{prompt}}"
        assert task["doc_to_target"] == "targets"  # a column: any of its texts is right


def test_the_right_answer_matches_and_others_do_not(tmp_path):
    found = write(settings(conditions=("2stepPath", "teleDetour", "valuePath")), tmp_path / "tasks")
    for name in found["tasks"]:
        task = yaml.safe_load((tmp_path / "tasks" / f"{name}.yaml").read_text())
        for document in documents_of(task):
            targets = {bare(task, target) for target in document["targets"]}
            reply = Solver().answer(document["prompt"])
            assert extracted(task, "Answer: room 1 -> room 1\n" + reply) in targets
            assert extracted(task, reply.replace(" -> ", " → ").replace("room", "Room") + ".") in targets
            assert extracted(task, reply + " -> room 1 -> room 1") not in targets


def test_text_domains_are_continued(tmp_path):
    found = write(settings(domains=("compact",), conditions=("1stepPath",)), tmp_path / "tasks")
    task = yaml.safe_load((tmp_path / "tasks" / f"{found['tasks'][0]}.yaml").read_text())
    document = documents_of(task)[0]
    assert document["prompt"].endswith(":")
    assert task["generation_kwargs"]["until"] == ["\n"]
    assert extracted(task, " " + document["targets"][0]) == document["targets"][0]
    with pytest.raises(UsageError, match="export them apart"):
        write(settings(domains=("compact", "ordRooms")), tmp_path / "other")


def test_what_cannot_be_a_task_is_refused_and_nothing_overwritten(tmp_path):
    with pytest.raises(UsageError, match="several turns"):
        write(settings(intervention="hub"), tmp_path / "tasks")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        write(settings(), tmp_path)
    with pytest.raises(UsageError, match="nothing to write"):
        write(settings(graphs=("A",), conditions=("nClusters",)), tmp_path / "tasks")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
