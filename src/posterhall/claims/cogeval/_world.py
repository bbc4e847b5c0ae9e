"""What the small models are to learn: six graphs under random names, walks on them, and shortest paths.

One line of text is one lesson. ``D walk n3`` is followed by where a random walk from n3 goes;
``D path n3 n7 :`` by a shortest path from n3 to n7, both named; after ``D cut n3 n5`` the connection of n3
and n5 counts as closed. Names are shared by all graphs and dealt out by the seed, so that nothing follows
from a name; the letter says which graph is meant.

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
    """The way from one node to another, perhaps with an edge closed."""

    graph: str
    start: int
    goal: int
    distance: int
    """Edges of the shortest path."""
    crosses: bool
    """Whether the two are in different clusters; False in graphs without clusters."""
    held_out: bool
    """Whether its path was never taught."""
    cut: Pair | None = None
    """The closed edge; the distance is what it is then."""


@dataclass(frozen=True, eq=False)
class Map:
    """A graph under the names of one seed."""

    letter: str
    graph: Graph
    names: tuple[str, ...]
    held_out: frozenset[Pair] = frozenset()
    """Pairs (a < b) whose path is not taught."""
    held_out_cuts: frozenset[Pair] = frozenset()
    """Edges (a < b) that are never closed where a path is taught."""

    @cached_property
    def distances(self) -> Ints:
        """(n, n), in edges; -1 where no way leads."""
        from posterhall.evals.planning import paths

        return paths.distances(self.graph.adjacency)

    @cached_property
    def edges(self) -> tuple[Pair, ...]:
        """Each once, a < b."""
        return tuple((min(edge), max(edge)) for edge in self.graph.edges)

    @cached_property
    def cuts(self) -> tuple[Pair, ...]:
        """Edges that can be closed without parting the graph in two."""
        from posterhall.evals.planning import paths

        parting = set(paths.bridges(self.graph.adjacency))
        return tuple(edge for edge in self.edges if edge not in parting)

    @cached_property
    def closed(self) -> Mapping[Pair | None, Map]:
        """The graph without each edge that can be closed, and, for None, itself."""
        found: dict[Pair | None, Map] = {None: self}
        for cut in self.cuts:
            found[cut] = replace(self, graph=self.graph.edited(without=[cut]))
        return found

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        """Every ordered pair of different nodes."""
        return tuple(self.question(a, b) for a, b in itertools.permutations(range(len(self.graph)), 2))

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

    def question(self, start: int, goal: int, cut: Pair | None = None) -> Question:
        """A question, with what is to be known of it."""
        distance = int(self.closed[cut].distances[start, goal])
        held_out = (min(start, goal), max(start, goal)) in self.held_out
        return Question(self.letter, start, goal, distance, self.crosses(start, goal), held_out, cut)

    def text(self, nodes: Sequence[int]) -> str:
        """Nodes by name."""
        return " ".join(self.names[node] for node in nodes)

    def walk_prompt(self, start: int, cut: Pair | None = None) -> str:
        """Before where a walk from a node goes."""
        return f"{self._opening(cut)} walk {self.text((start,))}"

    def path_prompt(self, question: Question) -> str:
        """Before the path of a question."""
        return f"{self._opening(question.cut)} path {self.text((question.start, question.goal))} :"

    def _opening(self, cut: Pair | None) -> str:
        return self.letter if cut is None else f"{self.letter} cut {self.text(cut)}"


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
        maps[letter] = replace(
            plain, held_out=_held_out(plain, seed), held_out_cuts=_held_out_cuts(plain, seed)
        )
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


def _held_out_cuts(graph: Map, seed: int) -> frozenset[Pair]:
    order = generator(seed, "cogeval", "held-out cuts", graph.letter).permutation(len(graph.cuts))
    return frozenset(graph.cuts[i] for i in order[: round(len(order) * HELD_OUT)].tolist())


# -- lessons ----------------------------------------------------------------------------------------


def lessons(
    maps: World, count: int, seed: int, *, longest: int = LONGEST, cuts: bool = False
) -> Iterator[tuple[str, str]]:
    """Prompts and what follows them: as many walks as paths, in turn.

    Args:
        maps: the graphs.
        count: lessons.
        seed: of the draws.
        longest: edges of the longest path that is taught.
        cuts: whether half of the lessons on graphs that bear it are about one with an edge closed.
    """
    both = zip(_walks(maps, seed, cuts), _paths(maps, seed, longest, cuts), strict=True)
    return itertools.islice(itertools.chain.from_iterable(both), count)


def _walks(maps: World, seed: int, cuts: bool) -> Iterator[tuple[str, str]]:
    rng = generator(seed, "cogeval", "walks", int(cuts))
    every = [(graph, edge) for graph in maps.values() for edge in graph.edges]
    while True:
        drawn = rng.integers(len(every), size=_AT_ONCE).tolist()
        for number, turns in zip(drawn, rng.random((_AT_ONCE, 3)).tolist(), strict=True):
            graph, edge = every[number]
            cut = None
            if cuts and graph.cuts and turns[0] < 0.5:
                cut = graph.cuts[int(rng.integers(len(graph.cuts)))]
                if turns[0] < 0.25:
                    edge = cut  # begin where the change is to be seen
            # An end of an edge drawn evenly is a node drawn in proportion to its degree.
            start = edge[turns[1] < 0.5]
            nodes = walk(graph.closed[cut], start, _WALK, rng)
            yield graph.walk_prompt(start, _either_way(cut, turns[2])), graph.text(nodes[1:])


def walk(graph: Map, start: int, steps: int, rng: np.random.Generator) -> list[int]:
    """Nodes of a random walk of so many steps."""
    nodes = [start]
    for draw in rng.random(steps).tolist():
        around = graph.graph.neighbours[nodes[-1]]
        nodes.append(around[int(draw * len(around))])
    return nodes


def _paths(maps: World, seed: int, longest: int, cuts: bool) -> Iterator[tuple[str, str]]:
    rng = generator(seed, "cogeval", "paths", longest, int(cuts))
    taught = [
        each
        for graph in maps.values()
        for each in graph.questions
        if not each.held_out and each.distance <= longest
    ]
    while True:
        drawn = rng.integers(len(taught), size=_AT_ONCE).tolist()
        for number, turns in zip(drawn, rng.random((_AT_ONCE, 3)).tolist(), strict=True):
            question = taught[number]
            graph = maps[question.graph]
            if cuts and turns[0] < 0.5:
                cut = _taught_cut(graph, question, rng)
                changed = question if cut is None else graph.question(question.start, question.goal, cut)
                question = changed if changed.distance <= longest else question
            found = graph.closed[question.cut].shortest(question.start, question.goal)
            path = found[int(turns[1] * len(found))]
            said = question._replace(cut=_either_way(question.cut, turns[2]))
            yield graph.path_prompt(said), graph.text(path)


def _taught_cut(graph: Map, question: Question, rng: np.random.Generator) -> Pair | None:
    """An edge to close: half of the time one of a shortest path of the pair, if there is such a one."""
    allowed = [cut for cut in graph.cuts if cut not in graph.held_out_cuts]
    if allowed and rng.random() < 0.5:
        path = {
            (min(step), max(step))
            for found in graph.shortest(question.start, question.goal)
            for step in itertools.pairwise(found)
        }
        allowed = [cut for cut in allowed if cut in path] or allowed
    return allowed[int(rng.integers(len(allowed)))] if allowed else None


def _either_way(cut: Pair | None, turn: float) -> Pair | None:
    return cut if cut is None or turn < 0.5 else (cut[1], cut[0])
