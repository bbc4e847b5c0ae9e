"""Whether the shape of a graph decides how well ways on it are found, distance being equal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from posterhall.claims import Axis, Budget, Claim, Figure, Paired, Panel, Row, Strip, claim
from posterhall.claims.cogeval._asking import (
    DEVIATES,
    PARAMS,
    Answers,
    Solver,
    by_distance,
    by_place,
    matched,
    scales,
    solver,
)
from posterhall.claims.cogeval._world import LONGEST, Ints, Question
from posterhall.errors import DataError
from posterhall.seeds import generator

_CLUSTERED = "DEF"
_DEALS = 50
"""Clusterings drawn at random for the control of one seed."""


@claim(id="bridges-are-bottlenecks", paper="cogeval", where="talk (graphs D to F)")
class BridgesAreBottlenecks(Claim):
    """At equal distance, ways that cross from one cluster into another are found less often than ways within
    a cluster, by more than 10 points.

    Graphs D, E and F; each graph and distance at which both kinds of pair are held out counts alike:
    neighbours, and in D and F pairs two steps apart. The share is of answers at temperature 1, on pairs
    whose path was never taught. Walks visit bridges as often as other edges, and taught paths more often.
    """

    kind = Paired(metric="share_right", arms=("within a cluster", "across a bridge"), margin=0.1)
    paper_value = (
        "no number at equal distance; GPT-4 on D with BFS in words: 41 of 90 within a cluster, 5 of 90 one "
        "cluster away (9 and 3 without)"
    )
    refuted_by = "ways across bridges are found as often"
    negative_control = "clusters dealt out at random to the same nodes must not show it"
    control_arms = ("within a random cluster", "across random clusters")
    deviates = f"{DEVIATES}; answers at temperature 1"
    scales = scales()
    params = PARAMS

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        asked = solver(self.params, budget, seed)
        answers = _sampled(asked, budget, _CLUSTERED)
        within, across = _split(answers, lambda each: each.crosses)
        yield Row("within a cluster", seed, share_right=within)
        yield Row("across a bridge", seed, share_right=across)
        within, across = _at_random(asked, answers, seed)
        yield Row("within a random cluster", seed, share_right=within)
        yield Row("across random clusters", seed, share_right=across)


@claim(id="tree-is-harder-than-line", paper="cogeval", where="talk (graphs B and C)")
class TreeIsHarderThanLine(Claim):
    """At equal distance, ways on the tree of 7 nodes are found less often than on the line of 13, by more
    than 10 points, although it is the smaller graph.

    Distances 1 to 4, each counting alike; the share is of answers at temperature 1, on pairs whose path was
    never taught. The control is the line of 7 nodes, as small as the tree.
    """

    kind = Paired(metric="share_right", arms=("C, line of 13", "B, tree of 7"), margin=0.1)
    paper_value = "GPT-4 over all conditions: C .549, B .473; GPT-3.5 .45, .24 (published logs)"
    refuted_by = "ways on the tree are found as often as on the line"
    negative_control = "the line of 7 nodes must not be harder than the line of 13"
    control_arms = ("C, line of 13", "A, line of 7")
    deviates = f"{DEVIATES}; answers at temperature 1"
    scales = scales()
    params = PARAMS

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        asked = solver(self.params, budget, seed)
        answers = _sampled(asked, budget, "ABC")
        strata = [set(_of(answers, letter).strata(by_distance)) for letter in "ABC"]
        common = sorted(set.intersection(*strata), key=str)
        for letter, arm in (("A", "A, line of 7"), ("B", "B, tree of 7"), ("C", "C, line of 13")):
            yield Row(arm, seed, share_right=_of(answers, letter).mean(by_distance, common))

    def figure(self, rows: Sequence[Row]) -> Figure:
        return _strip(rows, ("A, line of 7", "B, tree of 7", "C, line of 13"))


@claim(id="single-bridges-are-harder", paper="cogeval", where="talk (graphs D and E)")
class SingleBridgesAreHarder(Claim):
    """At equal distance, ways are found less often where single bridges join the clusters (D) than where
    double ones do (E), by more than 10 points.

    Pairs in different clusters at distances 1 to 4, each counting alike; the share is of answers at
    temperature 1, on pairs whose path was never taught. Both graphs have four edges at every node.
    """

    kind = Paired(metric="share_right", arms=("E, double bridges", "D, single bridges"), margin=0.1)
    paper_value = "GPT-4 over all conditions: E .651, D .413; GPT-3.5 .20, .13 (published logs)"
    refuted_by = "ways over single bridges are found as often as over double ones"
    negative_control = "within clusters, where no bridge is passed, D must not be harder"
    control_arms = ("E, within clusters", "D, within clusters")
    deviates = f"{DEVIATES}; answers at temperature 1"
    scales = scales()
    params = PARAMS

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        asked = solver(self.params, budget, seed)
        answers = _sampled(asked, budget, "DE")
        for these, suffixes in (
            (answers.of(lambda each: each.crosses), ("double bridges", "single bridges")),
            (answers.of(lambda each: not each.crosses), ("within clusters", "within clusters")),
        ):
            shares = matched(_of(these, "E"), _of(these, "D"), by_distance)
            for letter, suffix, share in zip("ED", suffixes, shares, strict=True):
                yield Row(f"{letter}, {suffix}", seed, share_right=share)


def _sampled(asked: Solver, budget: Budget, letters: str) -> Answers:
    """Answers at temperature 1 on held-out pairs at distances that are taught."""
    questions = asked.asked(lambda each: each.held_out and each.distance <= LONGEST and each.graph in letters)
    return asked.answer(questions, temperature=1.0, samples=budget.samples)


def _of(answers: Answers, letter: str) -> Answers:
    return answers.of(lambda each: each.graph == letter)


def _split(answers: Answers, crosses: Callable[[Question], bool]) -> tuple[float, float]:
    """Shares within and across, each graph and distance with both counting alike."""
    return matched(answers.of(lambda each: not crosses(each)), answers.of(crosses), by_place)


def _at_random(asked: Solver, answers: Answers, seed: int) -> tuple[float, float]:
    """Shares within and across clusters that are dealt out among the nodes, the mean of many deals.

    Of few questions a deal may leave none to be matched; such deals are not counted.
    """
    rng = generator(seed, "cogeval", "random clusters")
    shares = []
    for _ in range(_DEALS):
        clusters = {each: rng.permutation(np.asarray(asked.maps[each].graph.clusters)) for each in _CLUSTERED}

        def crosses(each: Question, clusters: Mapping[str, Ints] = clusters) -> bool:
            return bool(clusters[each.graph][each.start] != clusters[each.graph][each.goal])

        with contextlib.suppress(DataError):
            shares.append(_split(answers, crosses))
    if not shares:
        raise DataError("too few questions to deal out clusters at random; ask more (--scale laptop)")
    within, across = np.mean(shares, axis=0).tolist()
    return within, across


def _strip(rows: Sequence[Row], arms: Sequence[str]) -> Figure:
    return Figure(
        Panel(Strip.of(rows, "share_right", arms), x=Axis("answers right", percent=True)),
        caption="Pairs whose path was never taught, by graph; dots are seeds.",
    )
