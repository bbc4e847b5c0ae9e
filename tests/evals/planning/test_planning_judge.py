"""A second judge: scores as judges write them, and agreement against closed forms."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planning_solver import Solver

from posterhall.evals.planning.jobs import PlanningSettings, evaluate
from posterhall.evals.planning.judge import agreement, compare, kappa, read_score
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


def test_kappa_has_its_closed_form():
    # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: p_o 0.7, p_e 0.5
    a = [True] * 25 + [False] * 25
    b = [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15
    assert kappa(a, b) == pytest.approx(0.4)
    assert kappa([True, False], [True, False]) == 1.0
    assert kappa([True, False], [False, True]) == -1.0
    assert kappa([True, True], [True, True]) is None


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_kappa_is_symmetric_and_at_most_one(pairs):
    a, b = zip(*pairs, strict=True)
    found = kappa(a, b)
    assert found == kappa(b, a)
    assert found is None or found <= 1 + 1e-12
    if found is not None and np.array_equal(a, b):
        assert found == pytest.approx(1)


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
