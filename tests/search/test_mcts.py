"""Monte Carlo tree search: where visits go, and that none is lost."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_breadth import written
from toys import Rule, Written, full, teller

from posterhall.search import solve


@given(written(), st.integers(1, 40), st.sampled_from(["uct", "puct"]), st.booleans())
def test_visits_are_those_of_the_parent(task, iterations, policy, rollout):
    solution = solve(
        task,
        "a",
        Rule(teller(task)),
        method="mcts",
        votes=1,
        expansions=iterations,
        policy=policy,
        rollout=rollout,
    )
    nodes = solution.tree.nodes
    assert nodes[0].visits == iterations
    for parent, children in solution.tree.children().items():
        below = sum(child.visits for child in children)
        # A visit ends in a state or goes on below it.
        assert nodes[parent].visits - below >= 0
        assert parent or below == iterations or not task.children.get((), ())
    for answer, node in zip(solution.answers, solution.checks, strict=True):
        assert node.solved == (answer is not None and answer.endswith("a"))


@pytest.mark.parametrize("policy", ["uct", "puct"])
@pytest.mark.parametrize("rollout", [False, True])
def test_the_best_leaf_is_found_and_visited_most(policy, rollout):
    values = dict.fromkeys(full(4, "abc"), 1.0)
    values |= {("b",): 4.0, ("b", "c"): 6.0, ("b", "c", "a"): 10.0}
    task = Written(3, full(3, "abc"), values)
    solution = solve(
        task, "a", Rule(teller(task)), method="mcts", votes=1, expansions=400, policy=policy, rollout=rollout
    )
    assert solution.answer == "bca"
    ended = [node for node in solution.tree.nodes if node.depth == 3]
    assert max(ended, key=lambda node: node.visits).number == solution.tree.chosen


def test_uct_visits_as_the_bound_says():
    # Two arms of known reward: an independent bandit, played by the formula, must be visited alike.
    task = Written(1, {(): "ab"}, {("a",): 9.0, ("b",): 4.0})
    solution = solve(task, "a", Rule(teller(task)), method="mcts", votes=1, expansions=200, exploration=0.5)
    visits, means = [1, 0], [0.9, 0.4]
    for _ in range(199):
        total = sum(visits)
        bounds = [
            math.inf if not n else mean + 0.5 * math.sqrt(math.log(total) / n)
            for n, mean in zip(visits, means, strict=True)
        ]
        visits[bounds.index(max(bounds))] += 1
    assert [node.visits for node in solution.tree.nodes[1:]] == visits


def test_what_is_known_is_not_asked_again():
    task = Written(2, full(2, "ab"))
    lm = Rule(teller(task))
    solve(task, "a", lm, method="mcts", votes=1, expansions=100)
    assert len(lm.asked) == len(set(lm.asked)) == 3 + 6


def test_a_dead_end_is_worth_nothing():
    task = Written(2, {(): "ab", ("b",): "c"}, {("a",): 9.0, ("b",): 1.0, ("b", "c"): 2.0})
    solution = solve(task, "c", Rule(teller(task)), method="mcts", votes=1, expansions=60)
    assert solution.answer == "bc"


def test_with_the_checker_the_first_right_one_ends_the_search():
    task = Written(2, full(2, "ab"))
    lm = Rule(teller(task))
    solution = solve(task, "b", lm, method="mcts", votes=1, expansions=1000, use_check=True)
    assert solution.solved
    assert solution.tree.root.visits < 10
