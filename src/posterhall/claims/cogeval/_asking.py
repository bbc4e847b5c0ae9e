"""What a model is asked, whichever model it is, and how its answers are judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posterhall.claims.cogeval._world import LETTERS, LONGEST, Pair, Question, World
from posterhall.claims.rows import Budget, Scalar
from posterhall.errors import DataError
from posterhall.seeds import generator

Floats = NDArray[np.float64]
Codes = NDArray[np.int8]
Path = tuple[int, ...] | None
"""Nodes that an answer names, -1 for a name that no node has; None where nothing could be read."""

KNOWN = 0.02
"""The model's edges are the steps to which it gives more than this probability: an eighth of what the rarest
true step of a walk has (1/6, in F)."""


class Solver(ABC):
    """A model that has been taught six graphs, and knows the paths of some pairs.

    Attributes:
        maps: the graphs; their `held_out` pairs are those whose path it was not taught.
    """

    maps: World

    @abstractmethod
    def say(self, questions: Sequence[Question], temperature: float, samples: int) -> list[list[Path]]:
        """So many answers to each question."""

    @abstractmethod
    def steps(self, asked: Sequence[tuple[str, int]]) -> list[Floats]:
        """Where the model goes from a node of a graph: for each, (n,), the probability of each node."""

    @abstractmethod
    def after(self, closed: Mapping[str, Sequence[Pair]]) -> Solver:
        """The model when it has learnt of edges that were closed, by their steps and not by paths."""

    def some(self, questions: Iterable[Question]) -> list[Question]:
        """Those of the questions that it has time for."""
        return list(questions)

    def asked(self, keep: Callable[[Question], bool]) -> list[Question]:
        """Questions of all graphs that satisfy a condition."""
        return self.some(each for graph in self.maps.values() for each in graph.questions if keep(each))

    def answer(self, questions: Sequence[Question], *, temperature: float = 0.0, samples: int = 1) -> Answers:
        """Ask, and judge what is said."""
        if not questions:
            return Answers([], np.zeros((0, samples), np.int8), [])
        return judge(self.maps, questions, self.say(questions, temperature, samples))

    def edges(self, letters: Iterable[str] = LETTERS) -> dict[str, Floats]:
        """By graph, (n, n): row a is where the model goes from a."""
        maps = [self.maps[letter] for letter in letters]
        found = iter(self.steps([(each.letter, node) for each in maps for node in range(len(each.graph))]))
        return {each.letter: np.stack([next(found) for _ in range(len(each.graph))]) for each in maps}


def solver(params: Mapping[str, Scalar], budget: Budget, seed: int, *, longest: int = LONGEST) -> Solver:
    """The seed's small model, or the one that the user names with ``--set model=ADDRESS``."""
    if params.get("model"):
        from posterhall.claims.cogeval._endpoint import Told

        return Told(str(params["model"]), str(params["domain"]), budget, seed)
    from posterhall.claims.cogeval._small import Small

    return Small(budget, seed, longest=longest)


# -- answers ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answers:
    """Answers judged on the graph (`posterhall.evals.planning.scoring`)."""

    questions: list[Question]
    codes: Codes
    """(questions, samples), of `scoring.OUTCOMES`."""
    said: list[list[Path]]

    @property
    def right(self) -> Floats:
        """(questions,): the share of the samples that are right."""
        return np.asarray((self.codes == 0).mean(axis=1))

    def mean(
        self, stratum: Callable[[Question], Hashable], within: Iterable[Hashable] | None = None
    ) -> float:
        """Share that is right, each stratum counting alike; of some strata, or of all."""
        strata = self.strata(stratum)
        chosen = list(strata if within is None else within)
        if not chosen:
            raise DataError("no question of the kind is left; give the claim a larger budget or another seed")
        return float(np.mean([np.mean(strata[each]) for each in chosen]))

    def strata(self, stratum: Callable[[Question], Hashable]) -> dict[Hashable, list[float]]:
        """What share of the answers to each question is right, by stratum."""
        found: dict[Hashable, list[float]] = {}
        for question, right in zip(self.questions, self.right.tolist(), strict=True):
            found.setdefault(stratum(question), []).append(right)
        return found

    def of(self, keep: Callable[[Question], bool]) -> Answers:
        """Those to some of the questions."""
        chosen = [i for i, each in enumerate(self.questions) if keep(each)]
        return Answers(
            [self.questions[i] for i in chosen], self.codes[chosen], [self.said[i] for i in chosen]
        )


def judge(maps: World, questions: Sequence[Question], said: Sequence[Sequence[Path]]) -> Answers:
    """Walk each answer on its graph."""
    from posterhall.evals.planning import scoring

    places = {letter: i for i, letter in enumerate(maps)}
    flat = [(each, path) for each, paths in zip(questions, said, strict=True) for path in paths]
    found = scoring.verify(
        scoring.Worlds.of(each.graph for each in maps.values()),
        [path for _, path in flat],
        np.array([each.start for each, _ in flat]),
        np.array([each.goal for each, _ in flat]),
        world=np.array([places[each.graph] for each, _ in flat]),
    )
    return Answers(list(questions), found.codes.reshape(len(questions), -1), [list(each) for each in said])


def matched(first: Answers, second: Answers, stratum: Callable[[Question], Hashable]) -> tuple[float, float]:
    """Shares that are right, over the strata of which both have questions, each counting alike."""
    both = [each for each in first.strata(stratum) if each in second.strata(stratum)]
    return first.mean(stratum, both), second.mean(stratum, both)


# -- search -----------------------------------------------------------------------------------------


def search(maps: World, questions: Sequence[Question], edges: Mapping[str, Floats]) -> Answers:
    """Answers by breadth-first search over the edges that a model believes in; the true graph only judges.

    Args:
        maps: the graphs, to judge by.
        questions: what is searched for.
        edges: by graph, (n, n), the probability that the model gives each step.
    """
    from posterhall.evals.planning import paths

    said: list[list[Path]] = []
    for each in questions:
        believed = edges[each.graph] > KNOWN
        np.fill_diagonal(believed, False)
        found = paths.shortest_paths(believed, each.start, each.goal)
        said.append([found[0] if found else ()])
    return judge(maps, questions, said)


def misplaced(edges: Mapping[str, Floats], seed: int) -> dict[str, Floats]:
    """The same steps under names dealt out anew: a graph of the same shape, and the wrong one."""
    found = {}
    for letter, steps in edges.items():
        order = generator(seed, "cogeval", "misplaced", letter).permutation(len(steps))
        found[letter] = steps[np.ix_(order, order)]
    return found


# -- what claims share ------------------------------------------------------------------------------

DEVIATES = (
    "one transformer of 2 layers and 105,000 parameters a seed, taught walks and shortest paths of up to 4 "
    "edges on all six graphs, with the graphs in its weights, against GPT-4 and seven others told of them in "
    "the prompt; greedy answers unless said otherwise; A and C may be walked both ways"
)
PARAMS: dict[str, Scalar] = {"model": None, "domain": "ordRooms"}
"""``--set model=ADDRESS`` asks another model, told of the graphs in the words of the domain."""


def scales(*, seconds: float = 2.0, trains: float = 0.0, seeds: int = 8) -> dict[str, Budget]:
    """Budgets; `seconds` is what one seed takes at laptop scale, and `trains` what training adds to that.

    `questions` and `samples` matter to a model that is asked over a network; a small one answers them all.
    """
    return {
        "smoke": Budget(
            steps=400, lessons=16_000, news=100, samples=4, questions=1, seconds=seconds / 2 + trains / 4
        ),
        "laptop": Budget(
            steps=2000,
            lessons=80_000,
            news=300,
            samples=10,
            questions=3,
            seeds=seeds,
            seconds=seconds + trains,
        ),
        "full": Budget(
            steps=20_000,
            lessons=800_000,
            news=1000,
            samples=30,
            questions=10,
            seeds=20,
            seconds=3 * seconds + 10 * trains,
        ),
    }


def by_graph(question: Question) -> Hashable:
    """A stratum a graph."""
    return question.graph


def by_distance(question: Question) -> Hashable:
    """A stratum a distance."""
    return question.distance


def by_place(question: Question) -> Hashable:
    """A stratum a graph and distance."""
    return question.graph, question.distance
