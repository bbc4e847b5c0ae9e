"""Monte Carlo tree search over thoughts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from posterhall.search.context import Search, by_value
from posterhall.search.evaluate import evaluate, share
from posterhall.search.generate import expand
from posterhall.search.tree import Node


async def monte_carlo(search: Search) -> None:
    """`expansions` times: descend by the bound, expand a leaf, value it, and tell all on the way.

    A leaf's value is that of its best child, as a share of the greatest value possible; with `rollout`, that
    of the finished state to which thoughts drawn at random lead. What a rollout has asked for stays in the
    tree. A finished state counts what it is worth each time it is reached; a dead end counts 0. The answer
    is the finished state of the greatest value that was visited.
    """
    walk = _Walk(search)
    try:
        for iteration in range(search.settings.expansions):
            path = await walk.descend(iteration)
            walk.tell(path, await walk.reward(path[-1]))
            if search.passes(path[-1]):
                return
    finally:
        visited = [node for node in search.tree.nodes if search.ended(node) and node.visits]
        search.kept = sorted(by_value(visited), key=lambda node: (not search.passes(node), not node.finished))
        if not search.kept:
            search.kept = [walk.most_visited()]


class _Walk:
    """What is known of the tree by visiting it."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.children: dict[int, list[Node]] = {}
        self.total: dict[int, float] = {}

    async def descend(self, iteration: int) -> list[Node]:
        """From the root to a new state, or to one that has nothing below it."""
        search, rollout = self.search, self.search.settings.rollout
        node = search.tree.root
        path = [node]
        while not search.ended(node):
            new = node.number not in self.children
            if new:
                await self._expand(node)
            kids = self.children[node.number]
            if not kids:
                break
            node = self.pick(node, kids)
            path.append(node)
            if new:
                break
        if rollout:
            random = search.random("rollout", iteration)
            while not search.ended(node):
                if node.number not in self.children:
                    await self._expand(node)
                kids = self.children[node.number]
                if not kids:
                    break
                node = kids[int(random.integers(len(kids)))]
                path.append(node)
        return path

    async def _expand(self, node: Node) -> None:
        search, limit = self.search, self.search.settings.children
        [kids] = await expand(search, [node])
        if not search.settings.rollout:
            await evaluate(search, kids)
            kids = by_value(kids)
        if limit is not None:
            for kid in kids[limit:]:
                kid.status = "dropped"
            kids = kids[:limit]
        self.children[node.number] = kids

    async def reward(self, node: Node) -> float:
        """What a visit of the last state of a path is worth, in [0, 1]."""
        if not self.search.ended(node) and self.children.get(node.number) == []:
            return 0.0
        await evaluate(self.search, [node])
        return share(self.search, node)

    def tell(self, path: Sequence[Node], reward: float) -> None:
        """Let all states of a path know."""
        for node in path:
            node.status = "kept"
            node.visits += 1
            self.total[node.number] = self.total.get(node.number, 0.0) + reward

    def pick(self, parent: Node, kids: Sequence[Node]) -> Node:
        """The child of the greatest upper bound; the first among equals."""
        settings = self.search.settings
        if settings.policy == "uct":
            for kid in kids:
                if not kid.visits:
                    return kid
            return max(kids, key=lambda kid: self._mean(kid) + self._bonus(parent, kid))
        shares = [share(self.search, kid) for kid in kids]
        whole = sum(shares)
        priors = {
            kid.number: each / whole if whole else 1 / len(kids)
            for kid, each in zip(kids, shares, strict=True)
        }
        weight = settings.exploration * math.sqrt(max(1, parent.visits))
        return max(kids, key=lambda kid: self._mean(kid) + weight * priors[kid.number] / (1 + kid.visits))

    def _mean(self, node: Node) -> float:
        return self.total.get(node.number, 0.0) / max(1, node.visits)

    def _bonus(self, parent: Node, kid: Node) -> float:
        return self.search.settings.exploration * math.sqrt(math.log(max(1, parent.visits)) / kid.visits)

    def most_visited(self) -> Node:
        """Where most visits lead."""
        node = self.search.tree.root
        while kids := self.children.get(node.number):
            best = max(kids, key=lambda kid: kid.visits)
            if not best.visits:
                break
            node = best
        return node
