"""Best-first search and A*: what is expanded when, and shortest ways."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.csgraph import dijkstra
from toys import Rule, Written, full, teller

from posterhall.search import solve


def test_the_greatest_value_anywhere_is_expanded_next():
    values = {("a",): 5.0, ("b",): 4.0, ("a", "a"): 1.0, ("a", "b"): 2.0, ("b", "a"): 3.0, ("b", "b"): 0.0}
    task = Written(3, full(3, "ab"), values | {("b", "a", "a"): 9.0})
    lm = Rule(teller(task))
    solution = solve(task, "a", lm, method="best-first", votes=1, breadth=1)
    expanded = [prompt for prompt in lm.asked if "next" in prompt]
    assert expanded == [f'["next", "a", {path}]' for path in ("[]", '["a"]', '["b"]', '["b", "a"]')]
    assert solution.answer == "baa"


def test_expansions_are_a_limit():
    task = Written(9, full(4, "ab"))
    lm = Rule(teller(task))
    solution = solve(task, "a", lm, method="best-first", votes=1, breadth=3, expansions=5)
    assert sum("next" in prompt for prompt in lm.asked) == 5
    assert solution.answer is None


class Streets(Written):
    """Ways through a weighted directed graph from node 0 to the last one; a thought is the next node."""

    def __init__(self, weights, bound):
        self.weights = weights
        self.bound = bound
        super().__init__(len(weights) + 2, {}, key=lambda state: self.at(state))

    def at(self, state):
        return int(state.thoughts[-1]) if state.thoughts else 0

    def propose(self, state):
        following = np.flatnonzero(self.weights[self.at(state)])
        self.children = {**self.children, state.thoughts: [str(each) for each in following]}
        return super().propose(state)

    def finished(self, state):
        return self.at(state) == len(self.weights) - 1

    def answer(self, state):
        return " ".join(state.thoughts) if self.finished(state) else None

    def cost(self, state, thought):
        return float(self.weights[self.at(state), int(thought)])

    def remaining(self, state):
        return float(self.bound[self.at(state)])


@given(
    seed=st.integers(0, 10_000),
    nodes=st.integers(2, 9),
    dense=st.floats(0.1, 0.9),
    share=st.sampled_from([0.0, 0.5, 1.0]),
    breadth=st.integers(1, 4),
)
def test_a_star_finds_a_shortest_way(seed, nodes, dense, share, breadth):
    rng = np.random.default_rng(seed)
    weights = rng.integers(1, 9, (nodes, nodes)) * (rng.random((nodes, nodes)) < dense)
    np.fill_diagonal(weights, 0)
    there = dijkstra(weights.T, indices=nodes - 1)  # to the goal, from each node
    bound = np.where(np.isfinite(there), there, 0.0) * share  # admissible, and consistent or nearly
    task = Streets(weights, bound)
    solution = solve(
        task,
        "goal",
        Rule(teller(task)),
        method="astar",
        evaluator="free",
        doubt=0.0,
        breadth=breadth,
        deduplicate="tree",
        expansions=10_000,
    )
    if np.isinf(there[0]):
        assert solution.answer is None
        return
    way = [0, *map(int, solution.answer.split())]
    assert sum(weights[a, b] for a, b in itertools.pairwise(way)) == there[0]


def test_doubt_makes_a_star_mind_values():
    values = {("a",): 0.0, ("b",): 10.0, ("b", "a"): 10.0}
    task = Written(2, full(2, "ab"), values)
    options = {"method": "astar", "votes": 1, "breadth": 1}
    blind = solve(task, "a", Rule(teller(task)), doubt=0.0, **options)
    assert blind.answer == "aa"  # all of equal cost: the first
    assert solve(task, "a", Rule(teller(task)), doubt=1.0, **options).answer == "ba"


def test_with_the_checker_wrong_ends_are_put_aside():
    task = Written(1, {(): "abc"}, {("a",): 3.0, ("b",): 2.0, ("c",): 1.0})
    lm = Rule(teller(task))
    for method in ("best-first", "astar"):
        solution = solve(task, "c", lm, method=method, votes=1, use_check=True)
        assert solution.answer == "c"
        assert set(solution.answers) == {"a", "b", "c"}


@pytest.mark.parametrize("method", ["best-first", "astar"])
def test_states_at_the_greatest_depth_are_no_answers(method):
    task = Written(5, full(5, "ab"))
    solution = solve(task, "a", Rule(teller(task)), method=method, steps=2, votes=1)
    assert solution.answer is None
