"""What the small models are to learn: six graphs under random names, walks on them, and shortest paths.

One line of text is one lesson. ``D walk n3`` is followed by where a random walk from n3 goes;
``D path n3 n7 :`` by a shortest path from n3 to n7, both named. Names are shared by all graphs and dealt out
by the seed, so that nothing follows from a name; the letter says which graph is meant.

A third of the pairs at every distance is held out: their path is never taught, in neither direction, so that
a question of a length that was never seen is not what decides. (A held-out path may be part of a longer one
that is taught.) Walks are of all graphs in proportion to their edges and begin as if they had gone on for
ever, so that every edge of every graph is walked equally often, bridges too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from posterhall.seeds import generator

if TYPE_CHECKING:
    from posterhall.evals.planning.graphs import Graph

LETTERS = "ABCDEF"
NAMES = tuple(f"n{i}" for i in range(1, 25))
LONGEST = 4
"""Edges of the longest path that is taught."""
HELD_OUT = 1 / 3
_WALK = 8
_AT_ONCE = 256

Ints = NDArray[np.int64]
Pair = tuple[int, int]


class Question(NamedTuple):
    """The way from one node to another."""

    graph: str
    start: int
    goal: int
    distance: int
    """Edges of the shortest path."""
    crosses: bool
    """Whether the two are in different clusters; False in graphs without clusters."""
    held_out: bool
    """Whether its path was never taught."""


@dataclass(frozen=True, eq=False)
class Map:
    """A graph under the names of one seed."""

    letter: str
    graph: Graph
    names: tuple[str, ...]
    held_out: frozenset[Pair] = frozenset()
    """Pairs (a < b) whose path is not taught."""

    @cached_property
    def distances(self) -> Ints:
        """(n, n), in edges; -1 where no way leads."""
        from posterhall.evals.planning import paths

        return paths.distances(self.graph.adjacency)

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        """Every ordered pair of different nodes."""
        return tuple(
            Question(
                self.letter,
                a,
                b,
                int(self.distances[a, b]),
                self.crosses(a, b),
                (min(a, b), max(a, b)) in self.held_out,
            )
            for a, b in itertools.permutations(range(len(self.graph)), 2)
        )

    @cached_property
    def _known(self) -> dict[Pair, list[tuple[int, ...]]]:
        return {}

    def shortest(self, start: int, goal: int) -> list[tuple[int, ...]]:
        """All shortest paths, as nodes."""
        if (start, goal) not in self._known:
            from posterhall.evals.planning import paths

            self._known[start, goal] = paths.shortest_paths(self.graph.adjacency, start, goal)
        return self._known[start, goal]

    def crosses(self, start: int, goal: int) -> bool:
        """Whether two nodes lie in different clusters."""
        clusters = self.graph.clusters
        return clusters is not None and clusters[start] != clusters[goal]

    def without(self, closed: Sequence[Pair]) -> Map:
        """The graph without some edges; names and what is held out stay."""
        return replace(self, graph=self.graph.edited(without=closed))

    def text(self, nodes: Sequence[int]) -> str:
        """Nodes by name."""
        return " ".join(self.names[node] for node in nodes)

    def walk_prompt(self, start: int) -> str:
        """Before where a walk from a node goes."""
        return f"{self.letter} walk {self.names[start]}"

    def path_prompt(self, question: Question) -> str:
        """Before the path of a question."""
        return f"{self.letter} path {self.names[question.start]} {self.names[question.goal]} :"


World = Mapping[str, Map]


@lru_cache(maxsize=4)
def world(seed: int) -> World:
    """The six graphs of the paper by letter, with names and held-out pairs of this seed."""
    from posterhall.evals.planning.graphs import PUBLISHED

    maps = {}
    for letter in LETTERS:
        graph = PUBLISHED[letter]
        order = generator(seed, "cogeval", "names", letter).permutation(len(NAMES))
        plain = Map(letter, graph, tuple(NAMES[i] for i in order[: len(graph)].tolist()))
        maps[letter] = replace(plain, held_out=_held_out(plain, seed))
    return maps


def _held_out(graph: Map, seed: int) -> frozenset[Pair]:
    """A third of the pairs at each distance, of those that cross clusters and of those that do not."""
    strata: dict[tuple[int, bool], list[Pair]] = {}
    for a, b in itertools.combinations(range(len(graph.graph)), 2):
        strata.setdefault((int(graph.distances[a, b]), graph.crosses(a, b)), []).append((a, b))
    rng = generator(seed, "cogeval", "held out", graph.letter)
    chosen: set[Pair] = set()
    for pairs in strata.values():
        # Of one pair alone, whether it is held out is left to chance.
        count = int(len(pairs) * HELD_OUT + (0.5 if len(pairs) > 1 else rng.random()))
        chosen.update(pairs[i] for i in rng.permutation(len(pairs))[:count].tolist())
    return frozenset(chosen)


# -- lessons ----------------------------------------------------------------------------------------


def lessons(maps: World, count: int, seed: int, *, longest: int = LONGEST) -> Iterator[tuple[str, str]]:
    """Prompts and what follows them: as many walks as paths, in turn.

    Args:
        maps: the graphs.
        count: lessons.
        seed: of the draws.
        longest: edges of the longest path that is taught.
    """
    both = zip(_walks(maps, seed), _paths(maps, seed, longest), strict=True)
    return itertools.islice(itertools.chain.from_iterable(both), count)


def news(before: World, after: World, count: int, seed: int) -> Iterator[tuple[str, str]]:
    """Walks on graphs of which some edges are closed: every other one begins at an end of such an edge."""
    rng = generator(seed, "cogeval", "news")
    ends = [
        (letter, int(node))
        for letter in after
        for node in np.argwhere(before[letter].graph.adjacency & ~after[letter].graph.adjacency)[:, 0]
    ]

    def near() -> Iterator[tuple[str, str]]:
        while True:
            for letter, node in (ends[i] for i in rng.integers(len(ends), size=_AT_ONCE).tolist()):
                yield _lesson(after[letter], node, rng)

    both = zip(_walks(after, seed), near(), strict=True) if ends else zip(_walks(after, seed), strict=True)
    return itertools.islice(itertools.chain.from_iterable(both), count)


def _walks(maps: World, seed: int) -> Iterator[tuple[str, str]]:
    rng = generator(seed, "cogeval", "walks")
    every = [(graph, edge) for graph in maps.values() for edge in graph.graph.edges]
    while True:
        drawn = rng.integers(len(every), size=_AT_ONCE).tolist()
        for number, turn in zip(drawn, rng.random(_AT_ONCE).tolist(), strict=True):
            graph, edge = every[number]
            # An end of an edge drawn evenly is a node drawn in proportion to its degree.
            yield _lesson(graph, edge[turn < 0.5], rng)


def _lesson(graph: Map, start: int, rng: np.random.Generator) -> tuple[str, str]:
    return graph.walk_prompt(start), graph.text(walk(graph, start, _WALK, rng)[1:])


def walk(graph: Map, start: int, steps: int, rng: np.random.Generator) -> list[int]:
    """Nodes of a random walk of so many steps."""
    nodes = [start]
    for draw in rng.random(steps).tolist():
        around = graph.graph.neighbours[nodes[-1]]
        nodes.append(around[int(draw * len(around))])
    return nodes


def _paths(maps: World, seed: int, longest: int) -> Iterator[tuple[str, str]]:
    rng = generator(seed, "cogeval", "paths", longest)
    taught = [
        each
        for graph in maps.values()
        for each in graph.questions
        if not each.held_out and each.distance <= longest
    ]
    while True:
        drawn = rng.integers(len(taught), size=_AT_ONCE).tolist()
        for number, turn in zip(drawn, rng.random(_AT_ONCE).tolist(), strict=True):
            question = taught[number]
            graph = maps[question.graph]
            found = graph.shortest(question.start, question.goal)
            yield graph.path_prompt(question), graph.text(found[int(turn * len(found))])
