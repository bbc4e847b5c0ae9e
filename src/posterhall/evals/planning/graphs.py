"""Graphs to plan on: what one is, and the six of the paper."""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from posterhall.errors import DataError

Edge: TypeAlias = tuple[int, int]
Bools: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Graph:
    """Nodes 0..n-1 and the steps between them.

    Raises:
        DataError: for what is no graph: an unknown node, an edge from a node to itself, one given twice.
    """

    name: str
    """As in tables: A to F, a file's name, a family with its numbers."""
    nodes: tuple[str, ...]
    """What its author calls each node."""
    edges: tuple[Edge, ...]
    """Pairs of nodes, each edge once; one way only if `directed`."""
    directed: bool = False
    """Whether an edge (a, b) leads from a to b only."""
    one_way: tuple[Edge, ...] = ()
    """Steps that lead one way whatever the graph is: teleports."""
    rewards: Mapping[int, float] = field(default_factory=dict)
    """What is found at a node, if it is chosen as the end; node -> amount."""
    clusters: tuple[int, ...] | None = None
    """The cluster of each node, numbered from 0; None where there are none."""
    start: int | None = None
    """Where journeys begin (the lobby, the root); None: anywhere."""
    layout: tuple[tuple[float, float], ...] = ()
    """Where each node is drawn, both coordinates in [0, 1], y downwards; empty: on a circle."""

    def __post_init__(self) -> None:
        size = len(self.nodes)
        if size < 2:
            raise DataError(f"graph {self.name} has {size} nodes; planning takes at least 2")
        twice = [name for name, count in Counter(self.nodes).items() if count > 1]
        if twice:
            raise DataError(f"graph {self.name}: two nodes are called {twice[0]!r}; names must differ")
        seen: set[Edge] = set()
        for a, b in (*self.edges, *self.one_way):
            if not (0 <= a < size and 0 <= b < size):
                raise DataError(f"graph {self.name}: edge {a}-{b} names no node; nodes are 0 to {size - 1}")
            if a == b:
                raise DataError(
                    f"graph {self.name}: an edge from {self.nodes[a]!r} to itself; a step leads elsewhere"
                )
        for a, b in self.edges:
            key = (a, b) if self.directed else (min(a, b), max(a, b))
            if key in seen:
                raise DataError(
                    f"graph {self.name}: the edge {self.nodes[a]!r} to {self.nodes[b]!r} is there twice; "
                    'give it once (an edge that leads both ways is one edge; else set "directed": true)'
                )
            seen.add(key)
        for node, amount in self.rewards.items():
            if not 0 <= node < size or not math.isfinite(amount):
                raise DataError(f"graph {self.name}: a reward of {amount} at node {node}")
        for what, of_each in (("clusters", self.clusters or ()), ("layout", self.layout)):
            if of_each and len(of_each) != size:
                raise DataError(f"graph {self.name}: {what} has {len(of_each)} entries for {size} nodes")
        if self.start is not None and not 0 <= self.start < size:
            raise DataError(f"graph {self.name}: start {self.start} is no node")

    def __len__(self) -> int:
        return len(self.nodes)

    def __hash__(self) -> int:
        return hash((self.name, self.nodes, self.edges, self.one_way))

    @functools.cached_property
    def adjacency(self) -> Bools:
        """Whether one step leads from a to b, shape (n, n), read-only."""
        matrix = np.zeros((len(self), len(self)), dtype=np.bool_)
        for a, b in self.edges:
            matrix[a, b] = True
            matrix[b, a] |= not self.directed
        for a, b in self.one_way:
            matrix[a, b] = True
        matrix.setflags(write=False)
        return matrix

    @functools.cached_property
    def neighbours(self) -> tuple[tuple[int, ...], ...]:
        """Where one step leads from each node, ascending."""
        return tuple(tuple(map(int, np.flatnonzero(row))) for row in self.adjacency)

    @property
    def crossings(self) -> tuple[Edge, ...]:
        """The edges that lead from one cluster to another; none where there are no clusters."""
        if self.clusters is None:
            return ()
        return tuple((a, b) for a, b in self.edges if self.clusters[a] != self.clusters[b])

    @property
    def positions(self) -> tuple[tuple[float, float], ...]:
        """`layout`, or a circle."""
        return self.layout or _ring([list(range(len(self)))])

    def edited(
        self,
        *,
        without: Iterable[Edge] = (),
        with_edges: Iterable[Edge] = (),
        with_one_way: Iterable[Edge] = (),
        rewards: Mapping[int, float] | None = None,
    ) -> Graph:
        """The graph after a change; `rewards` are those that change.

        Raises:
            DataError: if an edge to be taken away is not there.
        """
        edges = list(self.edges)
        for a, b in without:
            found = (a, b) if (a, b) in edges else (b, a)
            if found not in edges or (self.directed and found != (a, b)):
                raise DataError(f"graph {self.name} has no edge {self.nodes[a]!r} to {self.nodes[b]!r}")
            edges.remove(found)
        return replace(
            self,
            edges=(*edges, *with_edges),
            one_way=(*self.one_way, *with_one_way),
            rewards={**self.rewards, **(rewards or {})},
        )


def load(name: str, *, seed: int = 0, repetition: int = 0) -> Graph:
    """The graph that a name on the command line stands for.

    Args:
        name: A to F; a file (see `files.read`); or a random family, as ``clusters:groups=3:size=5``, of
            which every repetition gets another graph (see `families`).
        seed, repetition: what a family's graph is drawn with.

    Raises:
        DataError: if there is no such graph.
    """
    if name in PUBLISHED:
        return PUBLISHED[name]
    from posterhall.evals.planning import families, files

    if name.partition(":")[0] in families.FAMILIES:
        return families.draw(name, seed=seed, repetition=repetition)
    return files.read(name)


# -- the six of the paper ---------------------------------------------------------------------------


def _cliques(groups: Sequence[Sequence[int]], missing: Iterable[Edge] = ()) -> list[Edge]:
    left_out = set(missing)
    return [(a, b) for group in groups for a in group for b in group if a < b and (a, b) not in left_out]


def _ring(groups: Sequence[Sequence[int]]) -> tuple[tuple[float, float], ...]:
    """Groups around a circle, the members of each around its own."""
    places: dict[int, tuple[float, float]] = {}
    for number, group in enumerate(groups):
        turn = 2 * math.pi * number / len(groups) - math.pi / 2
        far = 0.0 if len(groups) == 1 else 0.3
        near = 0.45 if len(groups) == 1 else 0.17
        for at, node in enumerate(sorted(group)):
            angle = turn + 2 * math.pi * at / len(group)
            places[node] = (
                round(0.5 + far * math.cos(turn) + near * math.cos(angle), 4),
                round(0.5 + far * math.sin(turn) + near * math.sin(angle), 4),
            )
    return tuple(places[node] for node in sorted(places))


def _numbered(
    name: str,
    edges: Sequence[Edge],
    *,
    first: int,
    rewards: Mapping[int, float],
    groups: Sequence[Sequence[int]],
) -> Graph:
    """A graph written with the numbers that the published files use, the lowest of them `first`."""
    size = 1 + max(max(edge) for edge in edges) - first
    cluster = {node - first: number for number, group in enumerate(groups) for node in group}
    return Graph(
        name,
        tuple(str(node + first) for node in range(size)),
        tuple((a - first, b - first) for a, b in edges),
        rewards={node - first: amount for node, amount in rewards.items()},
        clusters=tuple(cluster[node] for node in range(size)) if groups else None,
        start=None if groups else 0,
        layout=_ring([[node - first for node in group] for group in groups]) if groups else (),
    )


def _tracks(name: str, length: int, rewards: tuple[float, float]) -> Graph:
    """Two tracks of `length` rooms from a lobby 0: odd numbers on one, even ones on the other."""
    odd, even = [0, *range(1, 2 * length, 2)], [0, *range(2, 2 * length + 1, 2)]
    edges = [*itertools.pairwise(odd), *itertools.pairwise(even)]
    places = {0: (0.5, 0.05)}
    for side, track in ((0.25, odd), (0.75, even)):
        for step, node in enumerate(track[1:], 1):
            places[node] = (side, round(0.05 + 0.9 * step / length, 4))
    graph = _numbered(name, edges, first=0, rewards={odd[-1]: rewards[0], even[-1]: rewards[1]}, groups=())
    return replace(graph, layout=tuple(places[node] for node in sorted(places)))


def _tree() -> Graph:
    edges = [(1, 2), (1, 3), (2, 4), (2, 5), (3, 6), (3, 7)]
    graph = _numbered("B", edges, first=1, rewards={4: 56, 5: 22, 6: 10, 7: 50}, groups=())
    places = ((0.5, 0.1), (0.3, 0.5), (0.7, 0.5), (0.15, 0.9), (0.4, 0.9), (0.6, 0.9), (0.85, 0.9))
    return replace(graph, layout=places)


_D = ([1, 4, 7, 10, 13], [2, 5, 8, 11, 14], [3, 6, 9, 12, 15])
_E = ([1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16])
_F = ([*range(1, 8)], [*range(8, 15)], [*range(15, 22)])
_E_BRIDGES = [(1, 7), (3, 5), (2, 16), (4, 14), (6, 12), (8, 10), (9, 15), (11, 13)]

PUBLISHED: dict[str, Graph] = {
    "A": _tracks("A", 3, (10, 50)),
    "B": _tree(),
    "C": _tracks("C", 6, (10, 50)),
    "D": _numbered(
        "D",
        [*_cliques(_D, [(1, 4), (8, 11), (3, 15)]), (1, 11), (3, 8), (4, 15)],
        first=1,
        rewards={},
        groups=_D,
    ),
    "E": _numbered("E", [*_cliques(_E), *_E_BRIDGES], first=1, rewards={}, groups=_E),
    "F": _numbered(
        "F",
        [*_cliques(_F, [(4, 5), (13, 14), (16, 17)]), (4, 14), (5, 16), (13, 17)],
        first=1,
        rewards={},
        groups=_F,
    ),
}
"""The six graphs of Momennejad et al. 2023 by the letters of the talk: n7line, n7tree, n13line, n15star
(after Schapiro et al. 2013), n16cluster and n21star of its task files. Nodes keep the files' numbers.

The published story of A and C walks the tracks outwards; here their edges lead both ways, as in the others,
so that they also have pairs three steps apart. A file of the original (n7line/ordRooms.md) lists the
edges of B for A; its text, and this, have the two tracks.
"""
