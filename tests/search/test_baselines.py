"""Whole answers without a tree: the vote, the checker, refinement."""

from __future__ import annotations

import json

import pytest
from toys import Rule, Written

from posterhall.errors import UsageError
from posterhall.search import solve

REPLIES = ["so x", "so b", "", "so a", "so b", "so a", "so c"]


def answering(replies=REPLIES):
    return Rule(lambda kind, rest, seed, number: replies[number])


def task(**more):
    return Written(1, {(): "ab"}, **more)


def test_one_answer_is_asked_for_at_once():
    lm = answering()
    solution = solve(task(), "x", lm, method="io")
    assert json.loads(lm.asked[0])[0] == "direct"
    assert (solution.answer, solution.solved, solution.usage.calls) == ("x", True, 1)


def test_of_several_chains_the_first_counts_and_the_rest_are_told():
    lm = answering()
    solution = solve(task(), "a", lm, method="cot", samples=7)
    assert [request.n for request in lm.requests] == [7]
    assert solution.answers == ("x", "b", None, "a", "b", "a", "c")
    assert (solution.solved, solution.any_solved, solution.share_solved) == (False, True, 2 / 7)
    assert solution.checked_answer == "a"
    assert solution.unread == {"answer": 1}


def test_the_most_frequent_answer_wins_and_the_earliest_among_equals():
    solution = solve(task(), "b", answering(), method="cot-sc", samples=7)
    assert solution.answers == ("b", "a", "x", "c")
    assert [node.value for node in map(solution.tree.nodes.__getitem__, (2, 4, 1, 7))] == [2, 2, 1, 1]
    assert solve(task(), "b", answering(["", " ", ""]), method="cot-sc", samples=3).answer is None


def test_best_of_takes_the_first_that_passes():
    solution = solve(task(), "a", answering(), method="best-of", samples=7)
    assert (solution.answer, solution.tree.chosen) == ("a", 4)
    none = solve(task(), "q", answering(), method="best-of", samples=7)
    assert (none.answer, none.solved) == ("x", False)


def test_refinement_is_told_what_was_wrong_and_stops_when_right():
    asked = []

    def say(kind, rest, seed, number):
        asked.append((kind, rest))
        return f"so {len(asked) * 'n' if len(asked) < 3 else 'y'}"

    solution = solve(task(), "y", Rule(say), method="refine", rounds=10)
    assert (solution.answer, solution.solved, solution.usage.calls) == ("y", True, 3)
    assert asked[2] == (
        "refine",
        ["y", [["so n", "it does not end in y"], ["so nn", "it does not end in y"]]],
    )
    assert [node.depth for node in solution.tree.nodes] == [0, 1, 2, 3]


def test_refinement_gives_up_after_its_rounds():
    lm = Rule(lambda kind, rest, seed, number: "so wrong")
    solution = solve(task(), "y", lm, method="refine", rounds=4)
    assert (solution.solved, solution.usage.calls) == (False, 4)


@pytest.mark.parametrize("options", [{"method": "best-of"}, {"method": "refine"}, {"use_check": True}])
def test_a_checker_that_needs_the_known_answer_is_no_help(options):
    with pytest.raises(UsageError, match="no free checker"):
        solve(task(checkable=False), "a", answering(), **options)
