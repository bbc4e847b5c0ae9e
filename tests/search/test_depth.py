"""Depth-first search visits what a plain recursion over the written tree visits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_breadth import written
from toys import Rule, Written, full, teller

from posterhall.search import solve


def visits(task, threshold, limit, *, children=None):
    """The reference: the paper's algorithm 2, in so many words."""
    seen = []

    def visit(path):
        if len(seen) >= limit:
            return
        if path:
            seen.append(path)
        if len(path) == task.depth:
            return
        below = [(*path, child) for child in task.children.get(path, ())]
        below = sorted(below, key=lambda each: -task.values[each])
        for each in [each for each in below if task.values[each] > threshold][:children]:
            visit(each)

    visit(())
    return seen


def order(solution):
    """The states visited; nodes are made before they are visited, so the order is that of the rule."""
    tree = solution.tree
    return {tree.state(node).thoughts for node in tree.nodes[1:] if node.status == "kept"}


@given(written(), st.integers(-1, 2), st.integers(1, 30), st.sampled_from([None, 1, 2]))
def test_the_states_of_a_plain_recursion_are_visited(task, threshold, limit, children):
    solution = solve(
        task,
        "a",
        Rule(teller(task)),
        method="dfs",
        votes=1,
        threshold=threshold,
        states=limit,
        children=children,
    )
    expected = visits(task, threshold, limit, children=children)
    assert order(solution) == set(expected)
    ended = [path for path in expected if len(path) == task.depth]
    ended.sort(key=lambda path: -task.values[path])
    assert [answer for answer in solution.answers if answer is not None] == ["".join(path) for path in ended]


def test_states_that_all_votes_call_hopeless_are_pruned_by_default():
    grades = {"sure": 20.0, "impossible": 0.001}
    task = Written(2, full(2, "ab"), grades=grades)

    def say(kind, rest, seed, number):
        hopeless = kind == "value" and (rest[1] == ["a"] or (rest[1] == ["b"] and number == 0))
        return "impossible" if hopeless else "sure" if kind == "value" else "a b"

    solution = solve(task, "b", Rule(say), method="dfs", votes=3)
    assert [node.thought for node in solution.tree.nodes if node.status == "pruned"] == ["a"]
    assert solution.answer == "ba"
    whole = solve(task, "b", Rule(say), method="dfs", votes=3, prune=False)
    assert len([answer for answer in whole.answers if answer]) == 4


def test_without_backtracking_the_first_child_is_followed_to_the_end():
    values = {("a",): 2.0, ("b",): 1.0, ("a", "c"): -1.0}
    task = Written(2, {(): "ab", ("a",): "c", ("b",): "d"}, values | {("b", "d"): 5.0})
    options = {"method": "dfs", "votes": 1, "threshold": 0.0}
    assert solve(task, "d", Rule(teller(task)), **options).answer == "bd"
    stuck = solve(task, "d", Rule(teller(task)), backtrack=False, **options)
    assert stuck.answer is None
    assert order(stuck) == {("a",)}


def test_where_the_generator_is_sure_that_is_the_order_and_the_limit_comes_before_values():
    scores = {("a",): 0.2, ("b",): 1.0, ("c",): 0.5}
    task = Written(1, {(): "abc"}, {("b",): -1.0, ("c",): 1.0, ("a",): 1.0}, scores=scores)
    lm = Rule(teller(task))
    solution = solve(
        task, "a", lm, method="dfs", votes=1, proposals=2, children=2, threshold=0.0, deduplicate="off"
    )
    by = {node.thought: node for node in solution.tree.nodes[1:]}
    assert {thought: node.status for thought, node in by.items()} == {
        "a": "dropped",
        "b": "pruned",
        "c": "kept",
    }
    assert by["b"].score == pytest.approx(2.0)  # added up over two replies
    assert by["a"].value is None  # nobody paid for it


def test_unpruned_and_sure_no_state_is_valued():
    task = Written(1, {(): "ab"}, scores={("a",): 0.1, ("b",): 0.3})
    lm = Rule(teller(task))
    assert solve(task, "a", lm, method="dfs", prune=False).answers == ("b", "a")
    assert not any("value" in prompt for prompt in lm.asked)


def test_the_deepest_state_is_the_answer_where_tasks_answer_early():
    class Partial(Written):
        def answer(self, state):
            return "".join(state.thoughts) or None

    task = Partial(
        9,
        {(): "xa", ("a",): "b", ("a", "b"): "c"},
        scores=dict.fromkeys([("x",), ("a",)], 1.0) | {("a", "b"): 1.0, ("a", "b", "c"): 1.0},
    )
    solution = solve(task, "c", Rule(teller(task)), method="dfs", prune=False)
    assert solution.answer == "abc"
    assert set(solution.answers) == {"abc", "ab", "a", "x"}
    assert solution.answers.index("x") < solution.answers.index("a")  # the first visited among equals


def test_with_the_checker_the_search_ends_at_the_first_that_passes():
    task = Written(2, full(2, "abc"), dict.fromkeys(full(3, "abc"), 1.0))
    lm = Rule(teller(task))
    solution = solve(task, "b", lm, method="dfs", votes=1, use_check=True)
    assert solution.answer == "ab"
    assert order(solution) == {("a",), ("a", "a"), ("a", "b")}
