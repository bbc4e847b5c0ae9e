"""What is asked: the conditions of the paper, generated for any graph, with their keys computed.

An `Item` is a graph to be learnt, perhaps a first question, then what changes, and the question that counts.
A condition is made wherever the graph admits it: on A and B the published data has no pairs of three steps,
here there are some (see `graphs.PUBLISHED`); on A and C no policy can be revalued, because no room on the way
leaves a choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np

from posterhall.errors import DataError, did_you_mean
from posterhall.evals.planning import paths
from posterhall.evals.planning.graphs import Edge, Graph
from posterhall.seeds import generator

Kind = Literal["path", "reward", "chance", "clusters", "hub"]
TRIES = 60
"""Draws of a start, a goal or rewards before a graph counts as not admitting a condition."""
_FOUR = (56.0, 22.0, 10.0, 50.0)
_TWO = (10.0, 50.0)
"""Rewards put on a graph that has none: those of B, and of A and C."""


@dataclass(frozen=True)
class Edit:
    """One thing that changes."""

    kind: Literal["block", "open", "teleport", "reward", "chance"]
    a: int
    b: int = -1
    other: int = -1
    """chance: where the step from a to b leads otherwise."""
    amount: float = 0.0
    """reward: what is found at a now. chance: how probable it is to be led to `other`."""


@dataclass(frozen=True)
class Question:
    """What is asked, and what a right answer is.

    A path is right that begins at `start` and ends at one of `goals` by as few steps as lead there.
    """

    kind: Kind
    graph: Graph
    """On which an answer is judged."""
    start: int = -1
    goals: tuple[int, ...] = ()
    """The ends that are equally good; for a hub, the nodes that are right."""
    number: int = -1
    """clusters: how many there are."""
    step_cost: float = 0.0

    @property
    def distance(self) -> int:
        """Fewest steps from the start to a goal; -1 where no path is asked for."""
        if self.kind in ("clusters", "hub"):
            return -1
        return min(int(paths.distances(self.graph.adjacency)[self.start, goal]) for goal in self.goals)

    def key(self) -> list[tuple[int, ...]]:
        """All right paths, in lexical order; for a hub, each right node; none for a number."""
        if self.kind == "clusters":
            return []
        if self.kind == "hub":
            return [(node,) for node in self.goals]
        found = [paths.shortest_paths(self.graph.adjacency, self.start, goal) for goal in self.goals]
        return sorted(path for some in found for path in some)

    @property
    def crosses(self) -> bool | None:
        """Whether every right path leads from one cluster to another; None where there are none."""
        clusters = self.graph.clusters
        if clusters is None or self.start < 0:
            return None
        return all(clusters[self.start] != clusters[goal] for goal in self.goals)


@dataclass(frozen=True)
class Item:
    """A condition on a graph, drawn."""

    condition: str
    graph: Graph
    """What is told first."""
    question: Question
    """The one that counts; about the graph after `edits`."""
    first: Question | None = None
    """Asked before the change, where there are two turns."""
    edits: tuple[Edit, ...] = ()


Maker: TypeAlias = Callable[[Graph, np.random.Generator, float], Item | None]


@dataclass(frozen=True)
class Condition:
    """One of `CONDITIONS`."""

    category: str
    """As in the paper's statistics: traversal, value, revaluation, shortcut, detour, structure."""
    summary: str
    make: Maker


def make(
    condition: str, graph: Graph, *, seed: int = 0, repetition: int = 0, step_cost: float = 0.0
) -> Item | None:
    """An item of a condition on a graph, or None if the graph does not admit it.

    Args:
        condition: of `CONDITIONS`.
        graph: what to ask about.
        seed, repetition: what the item follows from, beside the graph's name.
        step_cost: what each step takes off a reward, >= 0; with 0, the largest reward counts alone.

    Raises:
        DataError: for an unknown condition.
    """
    if condition not in CONDITIONS:
        raise DataError(
            f"condition {condition!r}: allowed are {', '.join(CONDITIONS)}."
            f"{did_you_mean(condition, CONDITIONS)}"
        )
    random = generator(seed, "planning", "item", graph.name, condition, repetition)
    return CONDITIONS[condition].make(graph, random, step_cost)


def hub(graph: Graph) -> Question:
    """Asks for the node through which most shortest paths lead; ties are all right."""
    between = paths.betweenness(graph.adjacency)
    top = float(between.max())
    return Question("hub", graph, goals=tuple(map(int, np.flatnonzero(between >= top * (1 - 1e-9)))))


# -- drawing ----------------------------------------------------------------------------------------


def _shuffled(random: np.random.Generator, things: Iterable[Edge]) -> Iterator[Edge]:
    """Things in random order."""
    listed = list(things)
    for at in random.permutation(len(listed)):
        yield listed[at]


def _pairs(graph: Graph, *, least: int, most: int = 1 << 30) -> list[Edge]:
    """Pairs that many steps apart."""
    far = paths.distances(graph.adjacency)
    return [(int(a), int(b)) for a, b in np.argwhere((far >= least) & (far <= most))]


def _path(graph: Graph, start: int, goal: int) -> Question:
    return Question("path", graph, start, (goal,))


def _reward(graph: Graph, start: int, cost: float, kind: Kind = "reward") -> Question | None:
    """Asks for the best reward; None if it is out of reach, or had without a step."""
    goals, _ = paths.best_ends(graph.adjacency, start, dict(graph.rewards), step_cost=cost)
    return (
        Question(kind, graph, start, tuple(goals), step_cost=cost) if goals and start not in goals else None
    )


def _furnished(
    graph: Graph, random: np.random.Generator, amounts: tuple[float, ...]
) -> Iterator[tuple[Graph, int]]:
    """The graph with rewards, and a start: its own, or drawn, again and again."""
    for _ in range(TRIES):
        order = [int(node) for node in random.permutation(len(graph))]
        start = graph.start if graph.start is not None else order[0]
        if graph.rewards:
            yield graph, start
            if graph.start is not None:
                return  # nothing is left to be drawn
            continue
        free = [node for node in order if node != start]
        if len(free) < len(amounts):
            return
        yield graph.edited(rewards=dict(zip(free, amounts, strict=False))), start


def _journeys(graph: Graph, random: np.random.Generator, least: int) -> Iterator[Edge]:
    """Start and goal at least that many steps apart; from the start to the best reward, if there are such."""
    if graph.start is not None and graph.rewards:
        question = _reward(graph, graph.start, 0.0)
        if question is not None and question.distance >= least:
            yield graph.start, question.goals[0]
        return
    yield from list(_shuffled(random, _pairs(graph, least=least)))[:TRIES]


# -- traversal, value, clusters -----------------------------------------------------------------------


def _steps(least: int, most: int, name: str) -> Maker:
    def make(graph: Graph, random: np.random.Generator, cost: float) -> Item | None:
        pairs = _pairs(graph, least=least, most=most)
        if not pairs:
            return None
        start, goal = pairs[random.integers(len(pairs))]
        return Item(name, graph, _path(graph, start, goal))

    return make


def _clusters(graph: Graph, random: np.random.Generator, cost: float) -> Item | None:
    if graph.clusters is None or len(set(graph.clusters)) < 2:
        return None
    return Item("nClusters", graph, Question("clusters", graph, number=len(set(graph.clusters))))


def _value(graph: Graph, random: np.random.Generator, cost: float) -> Item | None:
    for furnished, start in _furnished(graph, random, _TWO):
        question = _reward(furnished, start, cost)
        if question is not None:
            return Item("valuePath", furnished, question)
    return None


# -- revaluation --------------------------------------------------------------------------------------


def _choices(graph: Graph, start: int, here: int, cost: float) -> set[int]:
    """Best next nodes from `here` for one who came from `start` and does not turn back."""
    far = paths.distances(graph.adjacency)
    ahead = {
        node: amount
        for node, amount in graph.rewards.items()
        if far[here, node] > 0 and far[start, here] + far[here, node] == far[start, node]
    }
    ends, _ = paths.best_ends(graph.adjacency, here, ahead, step_cost=cost)
    return {node for node in graph.neighbours[here] for end in ends if far[node, end] == far[here, end] - 1}


def _reward_change(name: str, amounts: tuple[float, ...], *, on_the_way: bool) -> Maker:
    """A reward grows, so that another way is best from the start on.

    Momennejad et al. 2017: with `on_the_way` the best choice at a node between start and goal changes as well
    (policy revaluation); without, it does not (reward revaluation), and new values suffice.
    """

    def make(graph: Graph, random: np.random.Generator, cost: float) -> Item | None:
        for furnished, start in _furnished(graph, random, amounts):
            first = _reward(furnished, start, cost)
            if first is None:
                continue
            for target, _ in _shuffled(random, ((node, 0) for node in furnished.rewards)):
                far = paths.distances(furnished.adjacency)[start, target]
                if target in first.goals or far < 1:
                    continue
                amount = float(np.ceil(2 * max(furnished.rewards.values()) + cost * far))
                after = furnished.edited(rewards={target: amount})
                question = _reward(after, start, cost)
                if question is None or question.goals != (target,):
                    continue
                between = {node for path in question.key() for node in path[1:-1]}
                old = {node: _choices(furnished, start, node, cost) for node in (start, *between)}
                new = {node: _choices(after, start, node, cost) for node in (start, *between)}
                changed = {node for node in old if old[node] and not old[node] & new[node]}
                if start in changed and bool(changed & between) is on_the_way:
                    return Item(name, furnished, question, first, (Edit("reward", target, amount=amount),))
        return None

    return make


def _transitions(graph: Graph, random: np.random.Generator, cost: float) -> Item | None:
    """Two edges swap their ends: every node keeps its number of edges, and the old way is gone."""
    for furnished, start in _furnished(graph, random, _TWO):
        first = _reward(furnished, start, cost)
        if first is None:
            continue
        old_key = first.key()
        on_way = {edge for path in old_key for edge in pairwise(path)}
        steps = [*graph.edges] if graph.directed else [*graph.edges, *((b, a) for a, b in graph.edges)]
        for a, b in _shuffled(random, (edge for edge in steps if edge in on_way)):
            for c, d in _shuffled(random, steps):
                there = furnished.adjacency
                if len({a, b, c, d}) < 4 or there[a, d] or there[c, b]:
                    continue
                after = furnished.edited(without=((a, b), (c, d)), with_edges=((a, d), (c, b)))
                question = _reward(after, start, cost)
                if question is None or not _broken(after, old_key):
                    continue
                edits = (Edit("block", a, b), Edit("block", c, d), Edit("open", a, d), Edit("open", c, b))
                return Item("transReval", furnished, question, first, edits)
    return None


def _broken(graph: Graph, key: list[tuple[int, ...]]) -> bool:
    """Whether none of the paths can be walked."""
    there = graph.adjacency
    return not any(all(there[a, b] for a, b in pairwise(path)) for path in key)


def _stochastic(graph: Graph, random: np.random.Generator, cost: float) -> Item | None:
    """The last steps to two rewards lead to the other one more often than not.

    A path is named by where its steps are meant to lead, and is as good as what is found on average.
    """
    if graph.start is None:
        return None
    first = _reward(graph, graph.start, cost)
    if first is None:
        return None
    into = {node: np.flatnonzero(graph.adjacency[:, node]) for node in graph.rewards}
    leaves = [node for node, from_ in into.items() if len(from_) == 1 and node != graph.start]
    pairs = [(best, each) for best in first.goals for each in leaves if best in leaves and each != best]
    for best, other in _shuffled(random, pairs):
        astray = float(random.choice([0.7, 0.8, 0.9]))
        here, there = graph.rewards[best], graph.rewards[other]
        mean = {
            best: (1 - astray) * here + astray * there,
            other: (1 - astray) * there + astray * here,
        }
        question = _reward(graph.edited(rewards=mean), graph.start, cost, "chance")
        if question is None or set(question.goals) & set(first.goals):
            continue
        edits = (
            Edit("chance", int(into[best][0]), best, other, astray),
            Edit("chance", int(into[other][0]), other, best, astray),
        )
        return Item("transRevalStochastic", graph, question, first, edits)
    return None


# -- shortcuts and detours ----------------------------------------------------------------------------


def _shortcut(name: str, *, teleport: bool) -> Maker:
    """A new edge, or a teleport (one way), makes the way shorter."""

    def make(graph: Graph, random: np.random.Generator, cost: float) -> Item | None:
        far = paths.distances(graph.adjacency)
        for start, goal in (*_journeys(graph, random, 3), *_journeys(graph, random, 2)):
            by = far[start][:, None] + 1 + far[:, goal][None, :]  # steps over a new edge from row to column
            usable = (far[start] >= 0)[:, None] & (far[:, goal] >= 0)[None, :]
            usable &= ~graph.adjacency & ~np.eye(len(graph), dtype=np.bool_) & (by < far[start, goal])
            if (usable & (by > 1)).any():  # one step straight to the goal leaves nothing to plan
                usable &= by > 1
            found = np.argwhere(usable)
            if len(found):
                a, b = map(int, found[random.integers(len(found))])
                new = ((a, b),)
                after = graph.edited(with_one_way=new) if teleport else graph.edited(with_edges=new)
                edit = Edit("teleport" if teleport else "open", a, b)
                first = _path(graph, start, goal)
                return Item(name, graph, _path(after, start, goal), first, (edit,))
        return None

    return make


def _detour(name: str, *, teleport: bool) -> Maker:
    """An edge of every shortest way is gone, and the way that is left leads round.

    Without a teleport, that way is in the graph already, if any graph of its kind has one; where an edge is
    the only connection (lines, trees) a new edge is opened elsewhere. With one, the teleport is on the way.
    """

    def make(graph: Graph, random: np.random.Generator, cost: float) -> Item | None:
        journeys = list(_journeys(graph, random, 2))
        for start, goal in journeys:
            old = int(paths.distances(graph.adjacency)[start, goal])
            path = paths.shortest_paths(graph.adjacency, start, goal)[0]
            for a, b in _shuffled(random, pairwise(path)):
                if (a, b) in graph.one_way:
                    continue
                blocked = graph.edited(without=((a, b),))
                left = int(paths.distances(blocked.adjacency)[start, goal])
                if left == old:
                    continue
                first, block = _path(graph, start, goal), Edit("block", a, b)
                if left > old and not teleport:
                    return Item(name, graph, _path(blocked, start, goal), first, (block,))
                found = _way_round(blocked, start, goal, old, {(a, b), (b, a)}, random)
                if found is not None:
                    new = (found,)
                    after = blocked.edited(with_one_way=new) if teleport else blocked.edited(with_edges=new)
                    edits = (block, Edit("teleport" if teleport else "open", *found))
                    return Item(name, graph, _path(after, start, goal), first, edits)
        return None

    return make


def _way_round(
    graph: Graph, start: int, goal: int, old: int, gone: set[Edge], random: np.random.Generator
) -> Edge | None:
    """A new edge that every shortest way takes, and none shorter than `old`; longer ones, if there are."""
    far = paths.distances(graph.adjacency)
    by = far[start][:, None] + 1 + far[:, goal][None, :]
    usable = (far[start] >= 0)[:, None] & (far[:, goal] >= 0)[None, :] & ~graph.adjacency
    usable &= ~np.eye(len(graph), dtype=np.bool_) & (by >= old)
    if far[start, goal] >= 0:
        usable &= by < far[start, goal]
    for a, b in gone:
        usable[a, b] = False
    if (usable & (by > old)).any():
        usable &= by > old
    found = np.argwhere(usable)
    if not len(found):
        return None
    a, b = map(int, found[random.integers(len(found))])
    return a, b


CONDITIONS: dict[str, Condition] = {
    "1stepPath": Condition("traversal", "shortest path of one step", _steps(1, 1, "1stepPath")),
    "2stepPath": Condition("traversal", "of two", _steps(2, 2, "2stepPath")),
    "3stepPath": Condition("traversal", "of three", _steps(3, 3, "3stepPath")),
    "nstepPath": Condition("traversal", "of four or more", _steps(4, 1 << 30, "nstepPath")),
    "nClusters": Condition("structure", "how many clusters there are", _clusters),
    "valuePath": Condition("value", "path to the best reward", _value),
    "rewardReval": Condition(
        "revaluation",
        "a reward changes; choices on the way stay",
        _reward_change("rewardReval", _TWO, on_the_way=False),
    ),
    "policyReval": Condition(
        "revaluation",
        "a reward changes, and with it choices on the way",
        _reward_change("policyReval", _FOUR, on_the_way=True),
    ),
    "transReval": Condition("revaluation", "two edges swap their ends", _transitions),
    "transRevalStochastic": Condition("revaluation", "two edges often lead astray", _stochastic),
    "nonteleShortcut": Condition("shortcut", "a new edge", _shortcut("nonteleShortcut", teleport=False)),
    "teleShortcut": Condition("shortcut", "a teleport", _shortcut("teleShortcut", teleport=True)),
    "nonteleDetour": Condition("detour", "an edge is gone", _detour("nonteleDetour", teleport=False)),
    "teleDetour": Condition(
        "detour", "an edge is gone, a teleport helps", _detour("teleDetour", teleport=True)
    ),
}
"""By the names of the published data. Left out are its variants ending in Shortest, which word the shortcuts
otherwise, and mapRepresentation, which has no right answer."""
