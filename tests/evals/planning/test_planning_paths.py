"""Distances, shortest paths, betweenness and bridges against scipy and brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csgraph

from posterhall.errors import DataError
from posterhall.evals.planning import paths
from posterhall.evals.planning.graphs import PUBLISHED


@st.composite
def adjacencies(draw, most=7, symmetric=None):
    n = draw(st.integers(2, most))
    bits = draw(st.lists(st.booleans(), min_size=n * n, max_size=n * n))
    matrix = np.array(bits).reshape(n, n) & ~np.eye(n, dtype=bool)
    if symmetric or (symmetric is None and draw(st.booleans())):
        matrix |= matrix.T
    return matrix


def simple_paths(adjacency, start, goal):
    """Every path without a repeated node, by brute force."""
    found, stack = [], [(start,)]
    while stack:
        path = stack.pop()
        if path[-1] == goal:
            found.append(path)
            continue
        stack += [(*path, b) for b in range(len(adjacency)) if adjacency[path[-1]][b] and b not in path]
    return found


def all_shortest(adjacency, start, goal):
    every = simple_paths(adjacency, start, goal)
    fewest = min(map(len, every), default=0)
    return sorted(path for path in every if len(path) == fewest)


@given(adjacencies())
def test_distances_are_scipys(adjacency):
    theirs = csgraph.shortest_path(adjacency, unweighted=True)
    assert (paths.distances(adjacency) == np.where(np.isinf(theirs), -1, theirs)).all()


@given(adjacencies(most=6))
def test_shortest_paths_are_all_of_them(adjacency):
    ways = paths.counts(adjacency)
    for start, goal in itertools.product(range(len(adjacency)), repeat=2):
        found = paths.shortest_paths(adjacency, start, goal)
        assert found == all_shortest(adjacency, start, goal)
        assert len(found) == ways[start, goal]


@given(adjacencies(most=6))
def test_betweenness_is_the_share_of_shortest_paths(adjacency):
    n = len(adjacency)
    expected = np.zeros(n)
    for start, goal in itertools.permutations(range(n), 2):
        ways = all_shortest(adjacency, start, goal)
        for path in ways:
            for node in path[1:-1]:
                expected[node] += 1 / len(ways)
    np.testing.assert_allclose(paths.betweenness(adjacency), expected, atol=1e-9)


@given(adjacencies(symmetric=True))
def test_a_bridge_is_an_edge_whose_loss_parts_the_graph(adjacency):
    parts = csgraph.connected_components(adjacency)[0]
    expected = []
    for a, b in np.argwhere(np.triu(adjacency)):
        without = adjacency.copy()
        without[a, b] = without[b, a] = False
        if csgraph.connected_components(without)[0] > parts:
            expected.append((int(a), int(b)))
    assert paths.bridges(adjacency) == expected


def test_bridges_of_one_way_graphs_are_not_told():
    with pytest.raises(DataError, match="both ways"):
        paths.bridges(np.array([[False, True], [False, False]]))


def test_the_ends_of_bridges_lie_between_the_others():
    graph = PUBLISHED["D"]
    between = paths.betweenness(graph.adjacency)
    ends = {node for edge in graph.crossings for node in edge}
    assert min(between[list(ends)]) > max(between[node] for node in range(15) if node not in ends)


def test_too_many_shortest_paths_are_refused_before_they_are_listed():
    layers, width = 12, 4  # 4**10 ways through
    n = layers * width
    adjacency = np.zeros((n, n), dtype=bool)
    for layer in range(layers - 1):
        adjacency[layer * width : (layer + 1) * width, (layer + 1) * width : (layer + 2) * width] = True
    with pytest.raises(DataError, match="1,048,576 shortest paths"):
        paths.shortest_paths(adjacency, 0, n - 1)


def test_the_best_end_is_the_reward_less_what_its_steps_cost():
    a = PUBLISHED["A"].adjacency
    rewards = {5: 10.0, 6: 50.0}
    assert paths.best_ends(a, 0, rewards) == ([6], 50.0)
    assert paths.best_ends(a, 5, rewards, step_cost=10) == ([5], 10.0)  # staying: 10; going: 50 - 60
    assert paths.best_ends(a, 0, {5: 50.0, 6: 50.0})[0] == [5, 6]
    apart = np.zeros((2, 2), dtype=bool)
    assert paths.best_ends(apart, 0, {1: 5.0}) == ([], 0.0)
