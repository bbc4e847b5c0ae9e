"""A search under way for one problem: what all algorithms share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np

from posterhall.errors import UsageError
from posterhall.search.asking import Asker
from posterhall.search.protocol import Check, State, Task
from posterhall.search.settings import SearchSettings
from posterhall.search.tree import Node, Tree
from posterhall.seeds import derive, generator


class Search:
    """A task, a problem, a model to ask and the tree so far.

    Attributes:
        kept: the best states so far, best first: what a search that is stopped has found.
        answered: of methods without a tree, the answers beside the nodes they stand in.
        unread: pieces of replies that could not be read, by what they were for.
        cost: of the path to a state, where an algorithm minds it: then of two states that are the same
            anywhere in the tree, the one with the cheaper path counts.
    """

    def __init__(self, task: Task, problem: str, asker: Asker, settings: SearchSettings) -> None:
        if settings.use_check and not task.checkable:
            raise UsageError(
                f"the task {task.name} has no free checker (its check needs the known answer); "
                "search without use_check"
            )
        self.task = task
        self.problem = problem
        self.asker = asker
        self.settings = settings
        self.tree = Tree(problem)
        self.tree.root.finished = task.finished(self.tree.state(self.tree.root))
        self.steps = task.depth if settings.steps is None else settings.steps
        self.kept: list[Node] = []
        self.answered: dict[int, str | None] = {}
        self.unread: Counter[str] = Counter()
        self.cost: Callable[[Node], float] | None = None
        self._seen: dict[Hashable, int] = {}
        if settings.deduplicate == "tree":
            self._seen[task.key(self.tree.state(self.tree.root))] = 0

    def state(self, node: Node) -> State:
        """The state that a node stands for."""
        return self.tree.state(node)

    def ended(self, node: Node) -> bool:
        """Whether there is nothing below a node: it is finished, or at the greatest depth."""
        return node.finished or node.depth >= self.steps

    def answer(self, node: Node) -> str | None:
        """The answer that a node stands for."""
        if node.number in self.answered:
            return self.answered[node.number]
        return self.task.answer(self.state(node))

    def check(self, answer: str | None) -> Check:
        """What the task says of an answer."""
        return self.task.check(self.problem, answer)

    def passes(self, node: Node) -> bool:
        """Whether the search may end with this node: the free checker may be asked, and says yes."""
        return self.settings.use_check and node.finished and self.check(self.answer(node)).solved

    def random(self, *purpose: str | int) -> np.random.Generator:
        """Random numbers for one purpose within this problem."""
        return generator(self.settings.seed, self.problem, *purpose)

    def number(self, node: Node) -> float:
        """A random number in [0, 1) that belongs to a state."""
        state = self.state(node)
        return derive(self.settings.seed, "value", state.problem, *state.thoughts) / 2**63

    def grow(
        self, parents: Sequence[Node], found: Iterable[Sequence[tuple[str, float | None]]]
    ) -> list[list[Node]]:
        """Make the children of some nodes, those that are duplicates marked so.

        Args:
            parents: in the order of the frontier.
            found: for each, the thoughts found and their scores.

        Returns:
            For each parent, its children in order, without the duplicates unless they are candidates.
        """
        rule, zero = self.settings.deduplicate, self.settings.duplicates == "zero"
        seen = self._seen if rule == "tree" else {}
        grown = []
        for parent, thoughts in zip(parents, found, strict=True):
            children = []
            for thought, score in thoughts:
                node = self.tree.add(parent, thought, score=score)
                node.finished = self.task.finished(self.state(node))
                if rule != "off" and self._is_known(node, seen):
                    if not zero:
                        continue
                    node.value = 0.0
                children.append(node)
            grown.append(children)
        return grown

    def _is_known(self, node: Node, seen: dict[Hashable, int]) -> bool:
        """Whether there is the same state already; it is marked as a duplicate then, or the other one is."""
        state = self.state(node)
        key = state.thoughts if self.settings.deduplicate == "text" else self.task.key(state)
        number = seen.setdefault(key, node.number)
        if number == node.number:
            return False
        first = self.tree.nodes[number]
        if self.cost is None or self.settings.deduplicate != "tree" or self.cost(first) <= self.cost(node):
            node.status, node.same_as = "duplicate", number
            return True
        first.status, first.same_as = "duplicate", node.number
        seen[key] = node.number
        return False


def by_value(nodes: Iterable[Node]) -> list[Node]:
    """Greatest value first, the earlier first among equals; without value last."""
    return sorted(nodes, key=lambda node: (node.value is None, -(node.value or 0.0), node.number))
