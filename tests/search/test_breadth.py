"""Breadth-first search keeps what a plain beam search over the written tree keeps."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import Rule, Written, full, teller

from posterhall.search import solve
from posterhall.search.breadth import drawn


def beam(task, problem, breadth):
    """The reference: the paper's algorithm 1, in so many words."""
    states, steps = [()], []
    for _ in range(task.depth):
        new = [(*state, child) for state in states for child in task.children.get(state, ())]
        if not new:
            break
        states = sorted(new, key=lambda path: -task.values.get(path, 0.0))[:breadth]
        steps.append(states)
    return steps


@st.composite
def written(draw):
    depth = draw(st.integers(1, 4))
    children, values, paths = {}, {}, [()]
    for _ in range(depth):
        following = []
        for path in paths[:12]:
            children[path] = draw(st.sampled_from(["", "a", "ab", "abc", "cab"]))
            following += [(*path, letter) for letter in children[path]]
        for path in following:
            values[path] = float(draw(st.integers(0, 3)))  # many ties
        paths = following
    return Written(depth, children, values)


def kept_by_depth(solution, depth):
    tree = solution.tree
    kept = [node for node in tree.nodes if node.status == "kept" and node.depth == depth]
    kept.sort(key=lambda node: (-node.value, node.number))
    return [tree.state(node).thoughts for node in kept]


@given(written(), st.integers(1, 4))
def test_the_states_of_a_plain_beam_search_are_kept(task, breadth):
    solution = solve(task, "a", Rule(teller(task)), breadth=breadth, votes=1)
    steps = beam(task, "a", breadth)
    assert [kept_by_depth(solution, at) for at in range(1, len(steps) + 1)] == steps
    if len(steps) == task.depth:
        assert solution.answers == tuple("".join(path) for path in steps[-1])
    else:
        assert solution.answer is None


def test_a_breadth_beyond_all_candidates_keeps_them_all():
    task = Written(2, full(2, "ab"))
    solution = solve(task, "a", Rule(teller(task)), breadth=1000)
    assert solution.answers == ("aa", "ab", "ba", "bb")  # all values equal: the order of the candidates
    assert solution.share_solved == 0.5


def test_values_are_added_up_over_votes_and_what_is_unread_is_counted():
    task = Written(1, {(): "ab"}, grades={"sure": 20.0, "likely": 1.0, "impossible": 0.001})
    said = {"a": ["sure", "I am not sure", "likely"], "b": ["impossible", "likely", "impossible"]}

    def say(kind, rest, seed, number):
        return "b a nonsense" if kind == "next" else said[rest[1][-1]][number]

    solution = solve(task, "a", Rule(say), votes=3)
    values = {node.thought: (node.value, node.votes) for node in solution.tree.nodes[1:]}
    assert values["a"] == (21.0, {"sure": 1, "unread": 1, "likely": 1})
    assert values["b"] == (pytest.approx(1.002), {"impossible": 2, "likely": 1})
    assert solution.unread == {"propose": 1, "value": 1}
    assert solution.answer == "a"


def test_states_that_are_the_same_are_valued_and_expanded_once():
    task = Written(3, full(3, "ab"), key=lambda state: tuple(sorted(state.thoughts)))
    lm = Rule(teller(task))
    solution = solve(task, "b", lm, breadth=100, votes=1)
    # Multisets of two letters: 2, 3 and 4 of sizes 1, 2 and 3, where orders would be 2, 4 and 8.
    assert sum('"value"' in prompt for prompt in lm.asked) == 2 + 3 + 4
    assert sum('"next"' in prompt for prompt in lm.asked) == 1 + 2 + 3
    duplicates = [node for node in solution.tree.nodes if node.status == "duplicate"]
    assert len(duplicates) == 1 + 2
    for node in duplicates:
        first = solution.tree.nodes[node.same_as]
        assert first.number < node.number
        assert task.key(solution.tree.state(first)) == task.key(solution.tree.state(node))


def test_the_original_keeps_a_candidate_seen_before_at_value_zero():
    task = Written(1, {(): "ab"}, {("a",): 3.0, ("b",): 0.0})
    replies = ["a", "a", "b"]
    lm = Rule(lambda kind, rest, seed, i: replies[i] if kind == "one" else teller(task)(kind, rest, seed, i))
    options = {"generator": "sample", "proposals": 3, "votes": 1, "deduplicate": "text", "breadth": 2}
    dropped = solve(task, "a", lm, **options)
    zero = solve(task, "a", lm, duplicates="zero", **options)
    assert dropped.answers == ("a", "b")
    assert zero.answers == ("a", "a")  # 3, then 0 and 0: the earlier candidate is the duplicate
    assert [node.value for node in zero.tree.nodes[1:]] == [3.0, 0.0, 0.0]


def test_over_the_tree_a_state_of_an_earlier_step_is_a_duplicate():
    step = {"a": 1, "b": -1}  # a walk on a line, back and forth
    task = Written(2, full(2, "ab"), key=lambda state: sum(step[each] for each in state.thoughts))
    whole = solve(task, "a", Rule(teller(task)), deduplicate="tree", breadth=10)
    assert whole.answers == ("aa", "bb")  # ab and ba are back at the beginning
    assert {node.same_as for node in whole.tree.nodes if node.status == "duplicate"} == {0}
    steps = solve(task, "a", Rule(teller(task)), deduplicate="step", breadth=10)
    assert steps.answers == ("aa", "ab", "bb")


def test_a_finished_state_waits_for_the_others():
    class Early(Written):
        def finished(self, state):
            return state.thoughts[-1:] == ("x",) or len(state.thoughts) == 3

    task = Early(
        3, {(): "xa", ("a",): "b", ("a", "b"): "c"}, {("x",): 2.0, ("a",): 1.0, ("a", "b", "c"): 9.0}
    )
    assert solve(task, "x", Rule(teller(task)), breadth=2, votes=1).answers == ("abc", "x")
    assert solve(task, "x", Rule(teller(task)), breadth=1, votes=1).answers == ("x",)


def test_with_the_checker_a_state_that_passes_is_the_answer_and_ends_the_search():
    values = {("a",): 1.0, ("b",): 5.0}
    task = Written(1, {(): "ab"}, values)
    assert solve(task, "a", Rule(teller(task)), votes=1).answer == "b"
    checked = solve(task, "a", Rule(teller(task)), votes=1, use_check=True)
    assert (checked.answer, checked.solved) == ("a", True)


# -- drawing ------------------------------------------------------------------------------------------


def test_states_are_drawn_in_proportion_to_their_values_without_replacement():
    weights = np.array([1.0, 2.0, 5.0])
    rng = np.random.default_rng(3)
    orders = [tuple(drawn(weights, rng)) for _ in range(20_000)]
    for order in itertools.permutations(range(3)):
        left = weights[list(order)]
        expected = left[0] / 8 * left[1] / (8 - left[0])  # successive draws from what is left
        share = orders.count(order) / len(orders)
        assert share == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / len(orders)))


@pytest.mark.parametrize("value", [0.0, 1e-300, 7.0, 1e300])
def test_equal_values_are_drawn_alike(value):
    rng = np.random.default_rng(0)
    firsts = [drawn([value] * 4, rng)[0] for _ in range(8000)]
    np.testing.assert_allclose(np.bincount(firsts, minlength=4) / 8000, 0.25, atol=0.02)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20), st.integers(0, 99))
def test_whatever_is_drawn_is_an_order_with_nothing_worthless_before_what_has_worth(values, seed):
    order = drawn(values, np.random.default_rng(seed))
    assert sorted(order) == list(range(len(values)))
    worth = [values[place] > 0 for place in order]
    assert worth == sorted(worth, reverse=True)


def test_sampled_selection_follows_the_seed():
    task = Written(2, full(2, "abcdef"), dict.fromkeys(itertools.product("abcdef", repeat=1), 1.0))
    found = [
        solve(task, "a", Rule(teller(task)), selection="sample", breadth=2, votes=1, seed=seed).answers
        for seed in (0, 0, 1, 2, 3)
    ]
    assert found[0] == found[1]
    assert len(set(found)) > 2
