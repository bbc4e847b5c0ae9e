"""Best-first search and A*: the most promising state anywhere is expanded next."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from posterhall.search.context import Search, by_value
from posterhall.search.evaluate import evaluate, share
from posterhall.search.generate import expand
from posterhall.search.tree import Node

Priority = Callable[[Node], tuple[float, float]]
"""Of a state: the least is expanded first; among equals, the earlier made."""


async def best_first(search: Search) -> None:
    """Expand the state of the greatest value; the first finished one that comes up is the answer."""
    await _ordered(search, lambda node: (-(node.value or 0.0), 0.0))


async def a_star(search: Search) -> None:
    """Expand the state of the least f = g + h (Hart, Nilsson & Raphael 1968).

    g is what the thoughts so far cost, h what is still to come: the task's least, and longer by `doubt` of
    it the worse the value is, h = remaining (1 + doubt (1 - value / greatest)). With `doubt` 0 and a
    `remaining` that is never too large, the first finished state to come up is of least cost. Among
    equals the deeper state comes first.
    """
    costs: dict[int, float] = {0: 0.0}

    def cost(node: Node) -> float:
        if node.number not in costs:
            parent = search.tree.nodes[node.parent or 0]
            costs[node.number] = cost(parent) + search.task.cost(search.state(parent), node.thought)
        return costs[node.number]

    def priority(node: Node) -> tuple[float, float]:
        rest = 0.0 if node.finished else search.task.remaining(search.state(node))
        return cost(node) + rest * (1 + search.settings.doubt * (1 - share(search, node))), -node.depth

    search.cost = cost
    await _ordered(search, priority)


async def _ordered(search: Search, priority: Priority) -> None:
    """Expand `breadth` states at once, in the order of priority, until a finished one is the next.

    States that are not finished at the greatest depth are put aside, and with `use_check` finished ones that
    the checker does not pass; the search goes on.
    """
    settings = search.settings
    queue = [((0.0, 0.0), 0)]
    found: list[Node] = []
    left = settings.expansions
    try:
        while queue and left:
            batch: list[Node] = []
            while queue and len(batch) < min(settings.breadth, left):
                node = search.tree.nodes[queue[0][1]]
                if (node.same_as or 0) > node.number:  # a cheaper path was found since
                    heapq.heappop(queue)
                    continue
                if search.ended(node):
                    if batch:  # those before it may lead to better ones
                        break
                    heapq.heappop(queue)
                    node.status = "kept"
                    found.append(node)
                    if node.finished and (not settings.use_check or search.passes(node)):
                        return
                    continue
                heapq.heappop(queue)
                batch.append(node)
            if not batch:
                return
            left -= len(batch)
            groups = await expand(search, batch)
            await evaluate(search, [child for group in groups for child in group])
            for group in groups:
                for place, child in enumerate(by_value(group)):
                    if settings.children is not None and place >= settings.children:
                        child.status = "dropped"
                    else:
                        heapq.heappush(queue, (priority(child), child.number))
    finally:
        waiting = [search.tree.nodes[number] for _, number in sorted(queue)]
        ended = found + [node for node in waiting if search.ended(node)]
        search.kept = sorted(ended, key=lambda node: (not search.passes(node), not node.finished))
        if not ended:
            search.kept = waiting[: settings.breadth] or [search.tree.root]
