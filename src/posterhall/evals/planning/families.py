"""Random graphs with a structure that is known: density, bottlenecks, clusters, trees, lines.

A name is a family and its numbers, as ``clusters:groups=3:size=5:bridges=2``. What a graph is drawn with
follows from seed, name and repetition, so that every repetition meets another graph of the family.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from posterhall.errors import DataError, did_you_mean
from posterhall.evals.planning.graphs import Edge, Graph
from posterhall.seeds import generator

Draw: TypeAlias = Callable[[np.random.Generator, Mapping[str, int]], Graph]
MOST_NODES = 200


@dataclass(frozen=True)
class Family:
    """A kind of random graph."""

    summary: str
    defaults: Mapping[str, int]
    """Its numbers, with what they are if not given."""
    draw: Draw


def draw(name: str, *, seed: int = 0, repetition: int = 0) -> Graph:
    """A graph of a family.

    Raises:
        DataError: for an unknown family or number, or one out of its range.
    """
    kind, *parts = name.split(":")
    if kind not in FAMILIES:
        raise DataError(
            f"graph family {kind!r}: allowed are {', '.join(FAMILIES)}.{did_you_mean(kind, FAMILIES)}"
        )
    family = FAMILIES[kind]
    numbers = dict(family.defaults)
    for part in parts:
        key, _, value = part.partition("=")
        if key not in numbers or not value.isdecimal():
            example = ":".join([kind, *(f"{key}={value}" for key, value in family.defaults.items())])
            raise DataError(
                f"graph {name!r}: {part!r} is not one of its numbers; write, for example, {example}"
            )
        numbers[key] = int(value[:9])
    random = generator(seed, "planning", "family", name, repetition)
    return replace(family.draw(random, numbers), name=name)


def _checked(nodes: int) -> int:
    if not 2 <= nodes <= MOST_NODES:
        raise DataError(f"a random graph of {nodes:,} nodes; allowed are 2 to {MOST_NODES}")
    return nodes


def _graph(size: int, edges: list[Edge], **more: object) -> Graph:
    ordered = sorted((min(edge), max(edge)) for edge in edges)
    return Graph("", tuple(str(node) for node in range(1, size + 1)), tuple(ordered), **more)  # type: ignore[arg-type]


def _random_tree(random: np.random.Generator, nodes: list[int]) -> list[Edge]:
    """A uniformly drawn labelled tree, from its Prüfer sequence."""
    n = len(nodes)
    if n < 2:
        return []
    sequence = random.integers(0, n, size=n - 2)
    degrees = np.bincount(sequence, minlength=n) + 1
    edges = []
    for node in sequence:
        leaf = int(np.argmax(degrees == 1))
        edges.append((nodes[leaf], nodes[int(node)]))
        degrees[[leaf, node]] -= 1
    a, b = np.flatnonzero(degrees == 1)
    return [*edges, (nodes[int(a)], nodes[int(b)])]


def _filled(random: np.random.Generator, nodes: list[int], percent: int) -> list[Edge]:
    """A connected graph on `nodes` with that share of all pairs, but at least a tree."""
    edges = _random_tree(random, nodes)
    have = {frozenset(edge) for edge in edges}
    rest = [pair for pair in itertools.combinations(nodes, 2) if frozenset(pair) not in have]
    more = max(0, round(percent / 100 * (len(rest) + len(edges))) - len(edges))
    return edges + [rest[i] for i in random.permutation(len(rest))[:more]]


def _percent(numbers: Mapping[str, int]) -> int:
    if not 0 <= numbers["percent"] <= 100:
        raise DataError(f"percent is {numbers['percent']}; it is the share of all pairs, 0 to 100")
    return numbers["percent"]


def _density(random: np.random.Generator, numbers: Mapping[str, int]) -> Graph:
    size = _checked(numbers["nodes"])
    return _graph(size, _filled(random, list(range(size)), _percent(numbers)))


def _blocks(
    random: np.random.Generator, numbers: Mapping[str, int], pairs: list[Edge], percent: int
) -> Graph:
    """Groups of nodes, and between each pair of groups that touch some bridges, no two from one node."""
    groups, size, bridges = numbers["groups"], numbers["size"], numbers["bridges"]
    if groups < 2 or size < 2:
        raise DataError(f"{groups} groups of {size}; there must be at least 2 groups of at least 2")
    touching = max(sum(group in pair for pair in pairs) for group in range(groups))
    if bridges < 1 or bridges * touching > size:
        raise DataError(
            f"{bridges} bridges between groups of {size}; at least 1, and each ends at a node of its own, "
            f"so at most {size // touching}"
        )
    _checked(groups * size)
    members = random.permutation(groups * size).reshape(groups, size)
    edges = [edge for group in members for edge in _filled(random, [int(node) for node in group], percent)]
    free = [[int(node) for node in random.permutation(group)] for group in members]
    for a, b in pairs:
        edges += [(free[a].pop(), free[b].pop()) for _ in range(bridges)]
    cluster = np.empty(groups * size, dtype=np.int64)
    for number, group in enumerate(members):
        cluster[group] = number
    return _graph(groups * size, edges, clusters=tuple(map(int, cluster)))


def _clusters(random: np.random.Generator, numbers: Mapping[str, int]) -> Graph:
    groups = numbers["groups"]
    ring = [(group, (group + 1) % groups) for group in range(groups)] if groups > 2 else [(0, 1)]
    return _blocks(random, numbers, ring, 100)


def _bottleneck(random: np.random.Generator, numbers: Mapping[str, int]) -> Graph:
    row = list(itertools.pairwise(range(numbers["groups"])))
    return _blocks(random, numbers, row or [(0, 1)], _percent(numbers))


def _tree(random: np.random.Generator, numbers: Mapping[str, int]) -> Graph:
    size = _checked(numbers["nodes"])
    branches = numbers["branches"]
    if branches < 1:
        raise DataError(f"branches is {branches}; a node has at least 1")
    edges: list[Edge] = []
    free = [0]  # nodes that may have another child
    children = [0] * size
    for node in range(1, size):
        at = int(random.integers(len(free)))
        parent = free[at]
        edges.append((parent, node))
        children[parent] += 1
        if children[parent] == branches:
            free.pop(at)
        free.append(node)
    return _graph(size, edges, start=0)


def _lines(random: np.random.Generator, numbers: Mapping[str, int]) -> Graph:
    tracks, length = numbers["tracks"], numbers["length"]
    if tracks < 1 or length < 1:
        raise DataError(f"{tracks} tracks of {length}; there must be at least 1 of at least 1")
    size = _checked(1 + tracks * length)
    names = 1 + random.permutation(size - 1).reshape(tracks, length)
    edges = [(int(a), int(b)) for track in names for a, b in itertools.pairwise([0, *track])]
    amounts = 10 * (1 + random.permutation(9 + tracks)[:tracks])
    rewards = {int(track[-1]): float(amount) for track, amount in zip(names, amounts, strict=True)}
    return _graph(size, edges, start=0, rewards=rewards)


FAMILIES: dict[str, Family] = {
    "density": Family("any graph, by its share of all pairs", {"nodes": 12, "percent": 30}, _density),
    "clusters": Family("cliques in a ring, as D, E and F", {"groups": 3, "size": 5, "bridges": 1}, _clusters),
    "bottleneck": Family(
        "loose groups in a row, with few ways through",
        {"groups": 2, "size": 6, "bridges": 1, "percent": 50},
        _bottleneck,
    ),
    "tree": Family("a tree from a root", {"nodes": 13, "branches": 2}, _tree),
    "lines": Family("tracks from a lobby, a reward at the end of each", {"tracks": 2, "length": 4}, _lines),
}
"""By name."""
