"""Who makes thoughts: a model that proposes many in one reply, or is sampled for one at a time."""

from __future__ import annotations

from collections.abc import Sequence

from posterhall.search.context import Search
from posterhall.search.tree import Node


async def expand(search: Search, nodes: Sequence[Node]) -> list[list[Node]]:
    """Ask for the next thoughts of some states, all at once, and add them to the tree.

    A state's thoughts are in the order of its replies. Where the generator says how sure it is, the same
    thought in several replies is one candidate whose scores are added (the crosswords of the paper);
    otherwise it is two candidates until duplicates are looked for.

    Returns:
        For each node, in order, its children; duplicates are among them only as `duplicates` has it.
    """
    settings, task = search.settings, search.task
    ask = task.propose if settings.generator == "propose" else task.sample
    states = [search.state(node) for node in nodes]
    replies = await search.asker.generate(settings.generator, list(map(ask, states)), settings.proposals)
    found = []
    for node, state, samples in zip(nodes, states, replies, strict=True):
        node.status = "kept"
        thoughts: list[tuple[str, float | None]] = []
        scores: dict[str, float] = {}
        for sample in samples:
            read = task.thoughts(state, sample.text)
            search.unread[settings.generator] += read.unread
            if read.scores is None:
                thoughts += [(thought, None) for thought in read.found]
            else:
                for thought, score in zip(read.found, read.scores, strict=True):
                    scores[thought] = scores.get(thought, 0.0) + score
        found.append(thoughts + list(scores.items()))
    return search.grow(nodes, found)
