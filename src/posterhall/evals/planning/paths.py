"""What is true of a graph: distances, all shortest paths, betweenness, bridges. Pure functions.

All take a boolean adjacency matrix, shape (n, n), where [a, b] says whether a step leads from a to b. The
graphs are those that a person, or a model, can be told of in words: up to some hundred nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from posterhall.errors import DataError
from posterhall.evals.planning.graphs import Bools, Edge

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]

MOST_PATHS = 100_000
"""Shortest paths of one pair that are listed: beyond, a question has no useful key."""


def distances(adjacency: Bools) -> Ints:
    """Steps from each node to each, shape (n, n); -1 where no way leads, 0 on the diagonal."""
    return _levels(adjacency)[0]


def counts(adjacency: Bools) -> Floats:
    """How many shortest paths lead from each node to each, shape (n, n); 1 on the diagonal."""
    return _levels(adjacency)[1]


def _levels(adjacency: Bools) -> tuple[Ints, Floats]:
    """Breadth-first from all nodes at once: one matrix product a level."""
    n = len(adjacency)
    steps = adjacency.astype(np.float64)
    far = np.where(np.eye(n, dtype=np.bool_), 0, -1)
    ways = np.eye(n)
    frontier, level = np.eye(n), 0
    while True:
        level += 1
        frontier = frontier @ steps  # paths one step longer than those that ended on the frontier
        frontier[far >= 0] = 0.0
        new = frontier > 0
        if not new.any():
            return far.astype(np.int64), ways
        far[new] = level
        ways[new] = frontier[new]


def shortest_paths(adjacency: Bools, start: int, goal: int) -> list[tuple[int, ...]]:
    """All shortest paths, both ends included, in lexical order; none if no way leads there.

    Raises:
        DataError: if there are more than `MOST_PATHS`.
    """
    far, ways = _levels(adjacency)
    if far[start, goal] < 0:
        return []
    if ways[start, goal] > MOST_PATHS:
        raise DataError(
            f"{ways[start, goal]:,.0f} shortest paths lead from node {start} to node {goal}; a question has "
            f"at most {MOST_PATHS:,} right answers"
        )
    return list(_walk(adjacency, far, start, goal))


def _walk(adjacency: Bools, far: Ints, start: int, goal: int) -> Iterator[tuple[int, ...]]:
    """Go only where the distance to the goal falls by one, so that no walk ends in vain."""
    stack: list[tuple[int, ...]] = [(start,)]
    while stack:
        path = stack.pop()
        here = path[-1]
        if here == goal:
            yield path
            continue
        onwards = np.flatnonzero(adjacency[here] & (far[:, goal] == far[here, goal] - 1))
        stack += [(*path, int(each)) for each in onwards[::-1]]


def betweenness(adjacency: Bools) -> Floats:
    """Share of shortest paths that pass through each node, summed over ordered pairs of others, shape (n,).

    Freeman 1977: sum over s != v != t of sigma_st(v) / sigma_st. For an undirected graph this is twice the
    usual number, which takes each pair once.
    """
    far, ways = _levels(adjacency)
    n = len(far)
    reached = (far > 0).astype(np.float64)
    share = np.divide(reached, ways, out=np.zeros_like(ways), where=ways > 0)  # 1 / sigma_st
    result = np.zeros(n)
    for v in range(n):
        detour = far[:, v, None] + far[None, v, :]
        through = (detour == far) & (far[:, v, None] > 0) & (far[None, v, :] > 0)
        result[v] = (through * ways[:, v, None] * ways[None, v, :] * share).sum()
    return result


def bridges(adjacency: Bools) -> list[Edge]:
    """Edges without which some pair loses its way, for a graph whose edges lead both ways; ascending.

    (What the paper calls a bridge, an edge between two clusters, is `Graph.crossings`: in D there are three,
    and none of them is a bridge in this sense.)

    Raises:
        DataError: for a graph with steps that lead one way.
    """
    if not np.array_equal(adjacency, adjacency.T):
        raise DataError("bridges are told of graphs whose edges lead both ways; this one has one-way steps")
    n = len(adjacency)
    neighbours = [list(map(int, np.flatnonzero(row))) for row in adjacency]
    seen, low = [-1] * n, [-1] * n
    found: list[Edge] = []
    clock = 0
    for root in range(n):
        if seen[root] >= 0:
            continue
        seen[root] = low[root] = clock
        clock += 1
        stack = [(root, -1, iter(neighbours[root]))]
        while stack:  # depth first (Tarjan 1974), without recursion
            node, parent, onwards = stack[-1]
            child = next(onwards, None)
            if child is None:
                stack.pop()
                if parent >= 0:
                    low[parent] = min(low[parent], low[node])
                    if low[node] > seen[parent]:
                        found.append((min(node, parent), max(node, parent)))
            elif child != parent:
                if seen[child] >= 0:
                    low[node] = min(low[node], seen[child])
                else:
                    seen[child] = low[child] = clock
                    clock += 1
                    stack.append((child, node, iter(neighbours[child])))
    return sorted(found)


def best_ends(
    adjacency: Bools, start: int, rewards: dict[int, float], *, step_cost: float = 0.0
) -> tuple[list[int], float]:
    """Where a journey from `start` had best end: at the reward that is largest less what the steps cost.

    Args:
        adjacency: the graph.
        start: the first node; a reward there is had without a step.
        rewards: node -> amount; one of them is taken, that at the end.
        step_cost: what each step costs, in the rewards' unit, >= 0.

    Returns:
        The ends that are equally good, ascending, and what they are worth; none if no reward is in reach.
    """
    far = _levels(adjacency)[0][start]
    worth = {node: amount - step_cost * far[node] for node, amount in rewards.items() if far[node] >= 0}
    if not worth:
        return [], 0.0
    top = max(worth.values())
    near = 1e-9 * max(1.0, abs(top))  # 56 - 0.1 * 2 and 55.9 - 0.1 are the same amount
    return sorted(node for node, value in worth.items() if value >= top - near), float(top)
