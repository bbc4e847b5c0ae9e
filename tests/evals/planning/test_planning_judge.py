"""A second judge: scores as judges write them, and agreement against closed forms."""

from __future__ import annotations

import json

import pytest
from planning_solver import Solver

from posterhall.evals.planning.jobs import PlanningSettings, evaluate
from posterhall.evals.planning.judge import agreement, compare, read_score
from posterhall.lm.scripted import ScriptedLM


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("Score: 1", 1.0),
        ("The path is right.\n**Score:** 0", 0.0),
        ("score = 0.5", 0.5),
        ("1", 1.0),
        ("Score: 3.0", None),  # seen in published scores: out of range is unread, not clipped
        ("Score: -1", None),
        ("Looks good", None),
        ("", None),
        ("Score: 0\nScore: 1", 1.0),
    ],
)
def test_scores_are_read_and_never_clipped(reply, score):
    assert read_score(reply) == score


def test_unread_scores_are_counted_apart():
    found = compare("judge", [True, False, False, True], [1.0, 1.0, None, 0.2])
    assert (found["judged"], found["unread"], found["agreement"]) == (3, 1, pytest.approx(1 / 3))
    assert (found["lenient"], found["strict"]) == (1, 1)
    none = compare("judge", [True], [None])
    assert (none["agreement"], none["kappa"]) == (None, None)


def test_a_judge_is_given_the_key_and_its_scores_are_kept(tmp_path):
    asked = PlanningSettings(
        graphs=("D",), conditions=("2stepPath",), domains=("ordRooms",), repeats=4, temperatures=(0.0,)
    )
    evaluate(Solver(), asked, out=tmp_path / "run")
    judge = ScriptedLM(
        [{"contains": "Right answers:\n- room", "reply": ["Score: 1", "Score: 1", "Score: 0", "7"]}]
    )
    found = agreement(judge, tmp_path / "run", width=1)
    assert (found["judged"], found["unread"], found["strict"]) == (3, 1, 1)
    kept = json.loads((tmp_path / "run" / "artifacts" / "judge.json").read_text())
    assert kept["scores"] == [1.0, 1.0, 0.0, None]
