"""The verifier: each way of being wrong, against a plain reading of the rules, in one call and in many."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.errors import DataError
from posterhall.evals.planning import scoring
from posterhall.evals.planning.families import draw
from posterhall.evals.planning.graphs import PUBLISHED, Graph

A = PUBLISHED["A"]


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ((0, 1, 3, 5), "correct"),
        ((1, 3, 5), "correct"),  # the start is not named
        ((3, 5), "wrong ends"),  # that cannot be the start left out: no step leads there from 0
        ((0, 3, 5), "invented edge"),
        ((0, 5), "invented edge"),
        ((0, 1, 0, 1, 3, 5), "loop"),
        ((0, 0, 1, 3, 5), "loop"),
        ((0, 1, 3), "wrong ends"),
        ((5, 3, 1, 0), "wrong ends"),
        ((0, 2, 6), "invented edge"),  # before the wrong end
        ((0, 1, scoring.UNKNOWN, 5), "invented edge"),
        ((), "no path"),
        ((5,), "no path"),
        ((0,), "no path"),
        (None, "unread"),
    ],
)
def test_every_way_to_be_wrong_has_its_name(answer, outcome):
    assert scoring.outcome(A, answer, start=0, goals=[5]) == outcome


def test_a_way_that_is_not_the_shortest_is_longer():
    graph = PUBLISHED["D"]
    one, four, seven, ten = (graph.nodes.index(name) for name in ("1", "4", "7", "10"))
    assert scoring.outcome(graph, (one, seven, four), start=one, goals=[four]) == "correct"
    assert scoring.outcome(graph, (one, ten, seven, four), start=one, goals=[four]) == "longer"


def test_a_start_left_out_is_recorded_and_can_be_forbidden():
    found = scoring.verify(A, [(1, 3, 5), (0, 1, 3, 5)], [0, 0], [5, 5])
    assert found.start_omitted.tolist() == [True, False]
    assert scoring.outcome(A, (1, 3, 5), start=0, goals=[5], may_omit_start=False) == "wrong ends"


def test_each_of_several_ends_has_its_own_shortest_way():
    assert scoring.outcome(A, (0, 1), start=0, goals=[1, 6]) == "correct"
    assert scoring.outcome(A, (0, 2, 4, 6), start=0, goals=[1, 6]) == "correct"


def test_one_way_steps_lead_one_way():
    graph = A.edited(with_one_way=((5, 6),))
    assert scoring.outcome(graph, (5, 6), start=5, goals=[6]) == "correct"
    assert scoring.outcome(graph, (6, 5), start=6, goals=[5]) == "invented edge"


def test_a_goal_out_of_reach_has_no_distance():
    apart = Graph("apart", ("a", "b", "c"), ((0, 1),))
    found = scoring.verify(apart, [(0, 1, 2), ()], [0, 0], [2, 2])
    assert found.outcomes() == ["invented edge", "no path"]
    assert found.distance.tolist() == [-1, -1]


def by_the_rules(graph, answer, start, goal):
    """The taxonomy read off the docstring, one answer at a time."""
    if answer is None:
        return "unread"
    path = list(answer)
    if path and start not in path and path[0] >= 0 and graph.adjacency[start, path[0]]:
        path = [start, *path]
    if not path or (len(path) == 1 and not path[0] == start == goal):
        return "no path"
    steps = [(a, b) for a, b in pairwise(path) if a != b]
    if -1 in path or not all(graph.adjacency[a, b] for a, b in steps):
        return "invented edge"
    if path[0] != start or path[-1] != goal:
        return "wrong ends"
    if len(set(path)) < len(path):
        return "loop"
    ring, fewest = {start}, 0
    while goal not in ring:
        ring |= {b for a in ring for b in graph.neighbours[a]}
        fewest += 1
    return "correct" if len(path) - 1 == fewest else "longer"


@given(st.integers(0, 50), st.data())
def test_many_answers_on_many_graphs_are_judged_as_each_by_itself(seed, data):
    worlds = [draw("density:nodes=6:percent=40", repetition=seed), PUBLISHED["A"], PUBLISHED["E"]]
    cases = data.draw(
        st.lists(
            st.tuples(
                st.integers(0, 2),
                st.none() | st.lists(st.integers(-1, 5), max_size=6),
                st.integers(0, 5),
                st.integers(0, 5),
            ),
            min_size=1,
            max_size=30,
        )
    )
    which, answers, starts, goals = zip(*cases, strict=True)
    found = scoring.verify(scoring.Worlds.of(worlds), answers, starts, goals, world=which)
    assert found.outcomes() == [
        by_the_rules(worlds[w], answer, start, goal)
        for w, answer, start, goal in zip(which, answers, starts, goals, strict=True)
    ]


def test_steps_may_be_packed_in_any_order():
    graphs = [PUBLISHED["A"], PUBLISHED["D"]]
    straight = scoring.Worlds.of(graphs)
    rows = [(w, a, b) for w, graph in enumerate(graphs) for a, b in np.argwhere(graph.adjacency)]
    mixed = np.array(rows)[np.random.default_rng(0).permutation(len(rows))]
    again = scoring.Worlds.of_edges([7, 15], *mixed.T)
    answers, starts, goals = [(0, 1, 3), (0, 10)], [0, 0], [3, 10]
    for worlds in (straight, again):
        assert scoring.verify(worlds, answers, starts, goals, world=[0, 1]).correct.all()


@pytest.mark.parametrize(
    ("answers", "starts", "goals", "said"),
    [
        ([(0, 7)], [0], [5], "answer 7"),
        ([(0,)], [7], [5], "start 7"),
        ([(0,)], [0], [-1], "goal -1"),
        ([()], [0], [], "0 goals"),
    ],
)
def test_nodes_that_are_not_there_are_refused(answers, starts, goals, said):
    with pytest.raises(DataError, match=said):
        scoring.verify(A, answers, starts, goals)
