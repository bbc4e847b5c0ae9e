"""Who says what a state is worth: a model that classes, scores or compares states; chance; the task."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from posterhall.lm.protocol import transcript
from posterhall.search.context import Search
from posterhall.search.protocol import State
from posterhall.search.tree import Node

UNREAD = "unread"
"""Under which votes that could not be read are counted."""


async def evaluate(search: Search, nodes: Sequence[Node]) -> None:
    """Give states their values, all at once.

    States that have one keep it. A vote that cannot be read adds nothing and is counted.
    """
    settings, task = search.settings, search.task
    asked = []
    for node in nodes:
        if node.value is not None:
            continue
        if settings.evaluator == "random":
            node.value = search.number(node)
            continue
        worth = task.worth(search.state(node)) if settings.use_worth else None
        if worth is not None:
            node.value = worth
        elif settings.evaluator == "free":
            node.value = 0.0
        else:
            asked.append(node)
    if asked and settings.evaluator == "value":
        await _classes(search, asked)
    elif asked and settings.evaluator == "logprob":
        await _probabilities(search, asked)
    elif asked:
        await _votes(search, asked)


def greatest(search: Search) -> float:
    """The greatest value that a state can have."""
    settings, best = search.settings, max(search.task.grades.values())
    each = {
        "value": settings.votes * best,
        "logprob": best,
        "vote": settings.votes,
        "random": 1,
        "free": best,
    }
    return float(each[settings.evaluator])


def least(search: Search) -> float:
    """The value of a state which all votes put into the worst class."""
    settings, worst = search.settings, min(search.task.grades.values())
    each = {"value": settings.votes * worst, "logprob": worst, "vote": 0, "random": 0, "free": 0}
    return float(each[settings.evaluator])


def share(search: Search, node: Node) -> float:
    """A node's value as a share of the greatest, in [0, 1]."""
    return min(1.0, max(0.0, (node.value or 0.0) / greatest(search)))


async def _classes(search: Search, nodes: Sequence[Node]) -> None:
    """The value of the classes named, added up over votes (paper, §3.3(a))."""
    task = search.task
    aspects = [task.aspects(search.state(node)) for node in nodes]
    flat = [ask for several in aspects for ask in several]
    replies = iter(await search.asker.generate("value", flat, search.settings.votes))
    for node, several in zip(nodes, aspects, strict=True):
        state = search.state(node)
        values = []
        for _ in several:
            total = 0.0
            for sample in next(replies):
                rating, name = task.rating(state, sample.text), UNREAD
                if rating is not None and math.isfinite(rating):
                    total += rating
                    name = task.grade(state, sample.text) or f"{rating:g}"
                else:
                    search.unread["value"] += 1
                node.votes[name] = node.votes.get(name, 0) + 1
            values.append(total)
        node.value = _combined(search, values)


def _combined(search: Search, values: Sequence[float]) -> float:
    if not values:
        return greatest(search)
    return min(values) if search.task.combine == "min" else math.fsum(values)


async def _probabilities(search: Search, nodes: Sequence[Node]) -> None:
    """The mean worth of the classes, weighted by what the model finds each probable: one vote, no noise."""
    task = search.task
    items, owners = [], []
    for node in nodes:
        for ask in task.aspects(search.state(node)):
            prompt = transcript(ask.prompt)
            items.append((prompt, tuple(task.classes(prompt).values())))
            owners.append((node, list(task.classes(prompt))))
    values: dict[int, list[float]] = {node.number: [] for node in nodes}
    for (node, names), scored in zip(owners, await search.asker.score(items), strict=True):
        logs = np.array([each.total for each in scored])
        top = logs.max()
        if not np.isfinite(top):  # the model finds every class impossible: it says nothing
            search.unread["value"] += 1
            node.votes[UNREAD] = node.votes.get(UNREAD, 0) + 1
            values[node.number].append(0.0)
            continue
        weights = np.exp(logs - top)
        grades = np.array([task.grades[name] for name in names])
        name = names[int(weights.argmax())]
        node.votes[name] = node.votes.get(name, 0) + 1
        values[node.number].append(float(weights @ grades / weights.sum()))
    for node in nodes:
        node.value = _combined(search, values[node.number])


async def _votes(search: Search, nodes: Sequence[Node]) -> None:
    """How many votes chose a state among all of them (paper, §3.3(b)); one alone needs no vote."""
    votes = search.settings.votes
    for node in nodes:
        node.value = 0.0
    if len(nodes) == 1:
        nodes[0].value = float(votes)
        return
    states: list[State] = [search.state(node) for node in nodes]
    [replies] = await search.asker.generate("vote", [search.task.vote(states)], votes)
    for sample in replies:
        place = search.task.choice(states, sample.text)
        if place is None or not 0 <= place < len(nodes):
            search.unread["vote"] += 1
            continue
        node = nodes[place]
        node.value = (node.value or 0.0) + 1.0
        node.votes["chosen"] = node.votes.get("chosen", 0) + 1
