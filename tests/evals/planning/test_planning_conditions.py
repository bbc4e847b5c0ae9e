"""Every condition on every graph: what it promises, and its key against brute force over the edited edges."""

from __future__ import annotations

import itertools

import pytest

from posterhall.errors import DataError
from posterhall.evals.planning import paths
from posterhall.evals.planning.conditions import CONDITIONS, hub, make
from posterhall.evals.planning.graphs import PUBLISHED, Graph, load

REPEATS = 6
GRAPHS = [*PUBLISHED, "clusters", "bottleneck", "tree", "lines"]


def drawn(condition, repeats=REPEATS, names=GRAPHS, **more):
    for name in names:
        for repetition in range(repeats):
            graph = load(name, repetition=repetition)
            item = make(condition, graph, repetition=repetition, **more)
            if item is not None:
                yield item


def after_edits(item):
    """Steps and rewards once the changes told are made, from the item's first graph alone."""
    graph = item.graph
    steps = {(a, b) for a, b in graph.edges} | {(b, a) for a, b in graph.edges if not graph.directed}
    steps |= set(graph.one_way)
    rewards = dict(graph.rewards)
    old = dict(graph.rewards)
    for edit in item.edits:
        if edit.kind == "block":
            steps -= {(edit.a, edit.b), (edit.b, edit.a)}
        elif edit.kind == "open":
            steps |= {(edit.a, edit.b), (edit.b, edit.a)}
        elif edit.kind == "teleport":
            steps |= {(edit.a, edit.b)}
        elif edit.kind == "reward":
            rewards[edit.a] = edit.amount
        else:
            rewards[edit.b] = (1 - edit.amount) * old[edit.b] + edit.amount * old[edit.other]
    return steps, rewards


def shortest(steps, start, goal, longest=25):
    """All shortest paths by trying every path of 0, 1, 2, ... steps."""
    ring = [(start,)]
    for _ in range(longest):
        found = [path for path in ring if path[-1] == goal]
        if found:
            return sorted(found)
        seen = {path[-1] for path in ring}
        ring = [(*path, b) for path in ring for a, b in steps if a == path[-1] and b not in path]
        if not ring or not seen:
            break
    return []


@pytest.mark.parametrize("condition", [name for name in CONDITIONS if name != "nClusters"])
def test_keys_are_all_the_best_paths_after_what_changed(condition):
    count = 0
    for item in drawn(condition):
        question = item.question
        steps, rewards = after_edits(item)
        if question.kind == "path":
            expected = shortest(steps, question.start, question.goals[0])
        else:
            ways = {goal: shortest(steps, question.start, goal) for goal in rewards}
            top = max(rewards[goal] for goal, found in ways.items() if found)
            expected = sorted(
                path for goal, found in ways.items() if abs(rewards[goal] - top) < 1e-9 for path in found
            )
        assert question.key() == expected
        assert question.distance == len(expected[0]) - 1 >= 1
        count += 1
    assert count >= 3 * REPEATS


@pytest.mark.parametrize(
    ("condition", "least", "most"),
    [("1stepPath", 1, 1), ("2stepPath", 2, 2), ("3stepPath", 3, 3), ("nstepPath", 4, 99)],
)
def test_traversals_have_as_many_steps_as_they_say(condition, least, most):
    assert all(least <= item.question.distance <= most for item in drawn(condition))


def test_clusters_are_counted_as_planted():
    counts = {item.graph.name: item.question.number for item in drawn("nClusters")}
    assert counts == {"D": 3, "E": 4, "F": 3, "clusters": 3, "bottleneck": 2}


@pytest.mark.parametrize("condition", ["rewardReval", "policyReval", "transReval", "transRevalStochastic"])
def test_revaluation_leaves_no_old_answer_right(condition):
    for item in drawn(condition):
        assert item.first is not None
        assert not set(item.first.key()) & set(item.question.key())


def test_only_policy_revaluation_changes_what_is_best_on_the_way():
    graph = PUBLISHED["B"]
    changed = {
        condition: {graph.nodes[item.edits[0].a] for item in drawn(condition, 20, ["B"])}
        for condition in ("rewardReval", "policyReval")
    }
    # 4 is best at first. Room 7 is already the better one behind 3; room 6 is not.
    assert changed == {"rewardReval": {"7"}, "policyReval": {"6"}}
    assert not [*drawn("policyReval", 3, ["A", "C"])]  # no room on a track leaves a choice


def test_transition_revaluation_keeps_the_number_of_edges_of_each_node():
    for item in drawn("transReval"):
        before, after = item.graph.adjacency, item.question.graph.adjacency
        assert (before.sum(axis=0) == after.sum(axis=0)).all()
        assert (before != after).any()


@pytest.mark.parametrize("condition", ["nonteleShortcut", "teleShortcut"])
def test_shortcuts_make_the_way_shorter(condition):
    assert all(item.question.distance < item.first.distance for item in drawn(condition))


@pytest.mark.parametrize("condition", ["nonteleDetour", "teleDetour"])
def test_detours_break_every_old_way_and_are_no_shorter(condition):
    for item in drawn(condition):
        there = item.question.graph.adjacency
        for path in item.first.key():
            assert not all(there[a, b] for a, b in itertools.pairwise(path))
        assert item.question.distance >= item.first.distance


def test_teleports_lead_one_way_and_are_on_every_right_path():
    for condition in ("teleShortcut", "teleDetour"):
        for item in drawn(condition):
            (edit,) = (each for each in item.edits if each.kind == "teleport")
            assert not item.question.graph.adjacency[edit.b, edit.a] or item.graph.adjacency[edit.b, edit.a]
            for path in item.question.key():
                assert (edit.a, edit.b) in set(itertools.pairwise(path))


def test_detours_in_clusters_need_no_new_edge():
    assert all(len(item.edits) == 1 for item in drawn("nonteleDetour", names=["D", "E", "F"]))


def test_step_costs_can_make_the_smaller_reward_the_better_one():
    graph = Graph("g", tuple("abcd"), ((0, 1), (1, 2), (0, 3)), rewards={2: 50, 3: 45}, start=0)
    cheap, dear = make("valuePath", graph), make("valuePath", graph, step_cost=10)
    assert (cheap.question.key(), dear.question.key()) == ([(0, 1, 2)], [(0, 3)])
    even = make("valuePath", graph, step_cost=5)
    assert even.question.key() == [(0, 1, 2), (0, 3)]  # 50 - 10 = 45 - 5


def test_equal_rewards_are_both_right():
    graph = PUBLISHED["A"].edited(rewards={5: 50})
    assert make("valuePath", graph).question.key() == [(0, 1, 3, 5), (0, 2, 4, 6)]


def test_a_reward_out_of_reach_is_not_asked_for():
    graph = Graph("g", tuple("abcd"), ((0, 1), (2, 3)), rewards={3: 50, 1: 5}, start=0)
    assert make("valuePath", graph).question.goals == (1,)
    assert make("valuePath", Graph("g", tuple("abc"), ((0, 1),), rewards={2: 50}, start=0)) is None


def test_disconnected_and_directed_graphs_are_asked_only_what_they_admit():
    apart = Graph("apart", tuple("abcdef"), ((0, 1), (1, 2), (3, 4), (4, 5)))
    round_trip = Graph("ring", tuple("abcde"), tuple((i, (i + 1) % 5) for i in range(5)), directed=True)
    for graph in (apart, round_trip):
        for condition in CONDITIONS:
            for repetition in range(5):
                item = make(condition, graph, repetition=repetition)
                if item is not None and item.question.kind != "clusters":
                    assert item.question.distance >= 1
                    assert item.question.key()


def test_items_follow_from_seed_and_repetition():
    graph = PUBLISHED["E"]
    again = [make("valuePath", graph, seed=1, repetition=r) for r in range(10)]
    assert again == [make("valuePath", graph, seed=1, repetition=r) for r in range(10)]
    assert len({item.question.start for item in again}) > 3
    assert again != [make("valuePath", graph, seed=2, repetition=r) for r in range(10)]


def test_hubs_are_where_most_shortest_paths_pass_and_ties_are_all_right():
    assert hub(PUBLISHED["A"]).key() == [(0,)]  # 3 * 3 pairs, against 2 * 4 at the next room
    assert hub(PUBLISHED["B"]).key() == [(0,), (1,), (2,)]  # 3 * 3, and 2 * 4 + 1
    ends = {node for edge in PUBLISHED["D"].crossings for node in edge}
    assert set(hub(PUBLISHED["D"]).goals) <= ends


def test_crossing_is_told_of_every_right_path():
    for item in drawn("2stepPath", names=["D", "E", "F"]):
        clusters = item.graph.clusters
        crossed = {clusters[path[0]] != clusters[path[-1]] for path in item.question.key()}
        assert crossed == {item.question.crosses}
    assert all(item.question.crosses is None for item in drawn("2stepPath", names=["A", "tree"]))


def test_an_unknown_condition_is_refused():
    with pytest.raises(DataError, match="Did you mean: nstepPath"):
        make("nsteppath", PUBLISHED["A"])


def test_a_question_of_every_pair_has_a_key():
    far = paths.distances(PUBLISHED["F"].adjacency)
    assert far.max() == 4
