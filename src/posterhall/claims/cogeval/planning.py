"""Whether a model that knows every step can put steps together: by itself, and by search over its steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from posterhall.claims import Axis, Budget, Claim, Figure, Line, Paired, Panel, Row, Threshold, claim
from posterhall.claims.cogeval._asking import (
    DEVIATES,
    KNOWN,
    PARAMS,
    Answers,
    Floats,
    Solver,
    by_graph,
    by_place,
    matched,
    misplaced,
    scales,
    search,
    solver,
)
from posterhall.claims.cogeval._world import LETTERS, LONGEST, Question

_DISTANCES = range(1, LONGEST + 1)
_SHORT = 2
"""Edges of the longest path that the model of short paths is taught."""


@claim(id="single-steps-are-known", paper="cogeval", where="abstract (failure modes); talk")
class SingleStepsAreKnown(Claim):
    """Wherever a walk stands, the model puts at least 95 % of its probability on true neighbours.

    The mean over the nodes of each graph, and over the six graphs. A model on a server is asked which places
    can be reached in one step, and what it names shares the probability.
    """

    kind = Threshold(metric="known", arm="the model's steps", at_least=0.95)
    paper_value = "no number of its own; all questions of traversal: GPT-4 .71, GPT-3.5 .49"
    refuted_by = "less than 95 % of the probability is on true neighbours"
    negative_control = "steps judged by the same graphs with names dealt out anew must not count as known"
    control_arms = ("steps, names dealt out anew",)
    deviates = DEVIATES
    scales = scales()
    params = PARAMS

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        asked = solver(self.params, budget, seed)
        edges = asked.edges()
        for arm, steps in (
            ("the model's steps", edges),
            ("steps, names dealt out anew", misplaced(edges, seed)),
        ):
            known = [
                (steps[letter] * asked.maps[letter].graph.adjacency).sum(axis=1).mean() for letter in LETTERS
            ]
            found, invented = _belief(asked, steps)
            yield Row(arm, seed, known=float(np.mean(known)), by_graph=known, found=found, invented=invented)


@claim(id="steps-do-not-make-plans", paper="cogeval", where="abstract; talk")
class StepsDoNotMakePlans(Claim):
    """Of pairs whose path was never taught, those three or four steps apart are answered right less often
    than neighbours are, by more than 30 points, although other paths of the same lengths were taught.

    Greedy answers; the mean over graphs in which both kinds of pair are held out. The control has the pairs
    whose path was taught: where the model cannot say even those, length by itself explains the gap. (A model
    on a server is told the path of such a pair in the prompt.)
    """

    kind = Paired(metric="share_right", arms=("1 step", "3 and 4 steps"), margin=0.3)
    paper_value = "no number by distance; GPT-4 over all conditions: line of 7 rooms .79, D .41, F .38"
    refuted_by = "answers three and four steps away are right as often as one step away"
    negative_control = "on pairs whose path was taught there must be no such gap"
    control_arms = ("1 step, taught", "3 and 4 steps, taught")
    deviates = DEVIATES
    scales = scales()
    params = PARAMS

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        asked = solver(self.params, budget, seed)
        answers = asked.answer(asked.asked(lambda each: each.distance <= LONGEST))
        for suffix, these in (
            ("", answers.of(lambda each: each.held_out)),
            (", taught", answers.of(lambda each: not each.held_out)),
        ):
            near, far = matched(
                these.of(lambda each: each.distance == 1), these.of(lambda each: each.distance >= 3), by_graph
            )
            yield Row(f"1 step{suffix}", seed, share_right=near)
            yield Row(f"3 and 4 steps{suffix}", seed, share_right=far)
            yield from _by_distance(f"answers{suffix}", these, seed)

    def figure(self, rows: Sequence[Row]) -> Figure:
        lines = {"answers": "path never taught", "answers, taught": "path taught"}
        return _distance_figure(rows, lines, "Greedy answers by distance, the mean over graphs.")


@claim(
    id="search-finds-what-answers-miss",
    paper="cogeval",
    where="abstract; Webb, Mondal & Momennejad 2023 (MAP)",
    headline=True,
)
class SearchFindsWhatAnswersMiss(Claim):
    """Breadth-first search over the steps that a model believes in finds the way between pairs three or four
    steps apart, never taught, more often than the model's own answer, by more than 30 points.

    A step is believed in if the model gives it more than 2 % in a walk. Both arms have the same weights, and
    the search sees nothing of the graph but what the model says. Other paths of these lengths were taught,
    so it is not length that the answer lacks. Each graph and distance counts alike.
    """

    kind = Paired(metric="share_right", arms=("search over its own steps", "direct answer"), margin=0.3)
    paper_value = (
        "none for CogEval; MAP, a search in which GPT-4 is every part: 100 % of value paths, against 49 to "
        "60 % by Tree of Thoughts (its repository)"
    )
    refuted_by = "search over the model's own steps is right no more often than its answer"
    negative_control = "search over the same steps under names dealt out anew must not win"
    control_arms = ("search over misplaced steps", "direct answer")
    deviates = DEVIATES
    scales = scales(trains=30.0)
    params = PARAMS

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        asked = solver(self.params, budget, seed)
        edges = asked.edges()
        questions = asked.asked(lambda each: each.held_out and each.distance <= LONGEST)
        for arm, answers in (
            ("direct answer", asked.answer(questions)),
            ("search over its own steps", search(asked.maps, questions, edges)),
            ("search over misplaced steps", search(asked.maps, questions, misplaced(edges, seed))),
        ):
            yield Row(arm, seed, share_right=answers.of(lambda each: each.distance >= 3).mean(by_place))
            yield from _by_distance(arm, answers, seed)

    def figure(self, rows: Sequence[Row]) -> Figure:
        arms = ("search over its own steps", "direct answer", "search over misplaced steps")
        return _distance_figure(
            rows, {arm: arm for arm in arms}, "Pairs whose path was never taught, the mean over graphs."
        )


@claim(id="short-paths-are-not-stitched", paper="cogeval", where="abstract (failure modes)")
class ShortPathsAreNotStitched(Claim):
    """A model that was taught walks, and paths of one and two steps only, answers no more than 10 % of the
    questions for three steps or more.

    All pairs at such a distance, each graph and distance counting alike. This is where planning and the
    length of an answer cannot be told apart; `steps-do-not-make-plans` keeps the length taught.
    """

    kind = Threshold(metric="share_right", arm="direct answer", at_most=0.1)
    paper_value = (
        "no number of its own; GPT-4 on D, paths of several steps: 191 of 360 right (published logs)"
    )
    refuted_by = "more than 10 % of the answers are right"
    negative_control = "search over the same model's steps must not be as bad"
    control_arms = ("search over its own steps",)
    deviates = DEVIATES.replace("up to 4 edges", "up to 2 edges")
    scales = scales(trains=30.0, seeds=5)

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        asked = solver(self.params, budget, seed, longest=_SHORT)
        edges = asked.edges()
        found, invented = _belief(asked, edges)
        questions = asked.asked(lambda each: each.distance > _SHORT)
        for arm, answers in (
            ("direct answer", asked.answer(questions)),
            ("search over its own steps", search(asked.maps, questions, edges)),
        ):
            yield Row(arm, seed, share_right=answers.mean(by_place), found=found, invented=invented)


def _belief(asked: Solver, edges: Mapping[str, Floats]) -> tuple[float, int]:
    """Share of the true edges that are believed in, and how many are that are not there."""
    pairs = [(edges[letter] > KNOWN, asked.maps[letter].graph.adjacency) for letter in edges]
    true = sum(int(actual.sum()) for _, actual in pairs)
    found = sum(int((believed & actual).sum()) for believed, actual in pairs)
    return found / true, sum(int((believed & ~actual).sum()) for believed, actual in pairs)


def _by_distance(arm: str, answers: Answers, seed: int) -> Iterator[Row]:
    for distance in _DISTANCES:

        def here(each: Question, distance: int = distance) -> bool:
            return each.distance == distance

        yield Row(_at(arm, distance), seed, share_right=answers.of(here).mean(by_graph))


def _at(arm: str, distance: int) -> str:
    return f"{arm}, at {distance}"


def _distance_figure(rows: Sequence[Row], arms: Mapping[str, str], caption: str) -> Figure:
    lines = [
        Line.of(rows, "share_right", {distance: _at(arm, distance) for distance in _DISTANCES}, label=label)
        for arm, label in arms.items()
    ]
    y = Axis("answers right", percent=True, low=0.0, high=1.0)
    return Figure(Panel(*lines, x=Axis("steps from start to goal"), y=y), caption=caption)
