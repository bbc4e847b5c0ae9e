"""Depth-first search: the best child first, back when a state is hopeless."""

from __future__ import annotations

from collections.abc import Sequence

from posterhall.search.context import Search, by_value
from posterhall.search.evaluate import evaluate, least
from posterhall.search.generate import expand
from posterhall.search.tree import Node


async def depth_first(search: Search) -> None:
    """Follow children in their order, no further than states whose value is above the threshold
    (Yao et al. 2023, algorithm 2).

    It ends with `states` visited, where the free checker passes one (with `use_check`), or when there is
    nothing left; the answer is the deepest state visited, a finished one before others, the greatest value
    among finished ones, and then the first. The children of a state are valued in one round, also those
    that are never visited because the search ends before them.
    """
    settings = search.settings
    visited: list[Node] = []
    stack = [search.tree.root]
    try:
        while stack and len(visited) < settings.states:
            node = stack.pop()
            if node.parent is not None:
                node.status = "kept"
                visited.append(node)
            if search.passes(node):
                return
            if search.ended(node):
                if not settings.backtrack:
                    return
                continue
            [children] = await expand(search, [node])
            children = await _accepted(search, children)
            stack += reversed(children if settings.backtrack else children[:1])
    finally:
        search.kept = sorted(visited or [search.tree.root], key=lambda node: _rank(search, node))


def _rank(search: Search, node: Node) -> tuple[bool, bool, int, float]:
    value = (node.value or 0.0) if node.finished else 0.0
    return not search.passes(node), not node.finished, -node.depth, -value


async def _accepted(search: Search, children: Sequence[Node]) -> list[Node]:
    """The children to go on with, in the order in which to visit them.

    Where the generator said how sure it is, that is the order and the number is limited before anything is
    valued, as in the original's crosswords; otherwise values are the order, and the limit comes last.
    """
    settings = search.settings
    threshold = least(search) if settings.threshold is None else settings.threshold
    scored = bool(children) and all(child.score is not None for child in children)
    if scored:
        ordered = _limited(search, sorted(children, key=lambda child: -(child.score or 0.0)))
        if settings.prune:
            await evaluate(search, ordered)
    else:
        await evaluate(search, children)
        ordered = by_value(children)
    if settings.prune:
        for child in ordered:
            if (child.value or 0.0) <= threshold:
                child.status = "pruned"
        ordered = [child for child in ordered if child.status != "pruned"]
    return ordered if scored else _limited(search, ordered)


def _limited(search: Search, ordered: list[Node]) -> list[Node]:
    limit = search.settings.children
    if limit is None:
        return ordered
    for child in ordered[limit:]:
        child.status = "dropped"
    return ordered[:limit]
