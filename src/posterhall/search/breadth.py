"""Breadth-first search: all states of a step at once, the best of them kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from posterhall.search.context import Search, by_value
from posterhall.search.evaluate import evaluate
from posterhall.search.generate import expand
from posterhall.search.tree import Node


async def breadth_first(search: Search) -> None:
    """Keep the `breadth` best states of each step (Yao et al. 2023, algorithm 1).

    States that are finished early stay among the candidates of later steps. It ends when no state that is
    kept has a next thought: a search that runs into a dead end has found the states before it.
    """
    frontier = search.kept = [search.tree.root]
    for step in range(search.steps):
        going = [node for node in frontier if not search.ended(node)]
        grown = await expand(search, going) if going else []
        children = [child for group in grown for child in group]
        if not children:
            return
        candidates = [node for node in frontier if search.ended(node)] + children
        await evaluate(search, candidates)
        frontier = select(search, candidates, step)
        for node in candidates:
            if node.status != "duplicate":
                node.status = "dropped"
        for node in frontier:
            node.status = "kept"
        passing = [node for node in frontier if search.passes(node)]
        search.kept = frontier = passing + [node for node in frontier if node not in passing]
        if passing:
            return


def select(search: Search, candidates: Sequence[Node], step: int) -> list[Node]:
    """The states to keep, best first: the greatest values, or drawn in proportion to them."""
    settings = search.settings
    if settings.selection == "greedy" or len(candidates) <= settings.breadth:
        return by_value(candidates)[: settings.breadth]
    order = drawn([node.value or 0.0 for node in candidates], search.random("select", step))
    return by_value(candidates[place] for place in order[: settings.breadth])


def drawn(values: Sequence[float], random: np.random.Generator) -> list[int]:
    """A random order of places: each next one drawn in proportion to its value from those left.

    Places of value 0 or less come after all others, each as likely as another; so equal values of any size,
    and values that are all 0, are drawn uniformly.
    """
    weights = np.asarray(values, dtype=np.float64)
    # Exponential variables of rate w: the smallest is that of i with probability w_i / sum(w).
    waits = random.standard_exponential(len(weights))
    positive = weights > 0
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        times = np.where(positive, np.log(waits) - np.log(np.where(positive, weights, 1.0)), waits)
    return [int(place) for place in np.lexsort((times, ~positive))]
