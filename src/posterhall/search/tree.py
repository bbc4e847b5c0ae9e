"""What a search has looked at: states by number, why each was kept or not, and the path chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal, get_args

from posterhall.errors import DataError
from posterhall.search.protocol import State

Status = Literal["open", "kept", "dropped", "pruned", "duplicate"]
"""open: nobody came back to it; kept: selected, or expanded; dropped: valued, others were better; pruned:
its value forbids to go on; duplicate: the same as another state (`same_as`)."""


@dataclass(slots=True)
class Node:
    """A state in the tree: its parent's thoughts and one more."""

    number: int
    """In the order of making; the root is 0."""
    parent: int | None
    """The parent's number; None for the root."""
    thought: str
    """What it adds to its parent; empty for the root."""
    depth: int
    """Thoughts up to here."""
    status: Status = "open"
    """What became of it."""
    finished: bool = False
    """Whether nothing is to be added."""
    value: float | None = None
    """What the evaluator gave; None if nobody asked."""
    score: float | None = None
    """How sure the generator said it was, added up over replies, where it says that."""
    votes: dict[str, int] = field(default_factory=dict)
    """Replies of the evaluator by the class they name, or "chosen"; those that could not be read are under
    "unread"."""
    same_as: int | None = None
    """For a duplicate, the number of the state it is the same as."""
    visits: int = 0
    """Of Monte Carlo tree search."""

    def to_dict(self) -> dict[str, Any]:
        """As in a file: what is not set is left out."""
        return {
            name: value
            for name, default in _DEFAULTS.items()
            if (value := getattr(self, name)) != default or type(value) is not type(default)
        }


_NEEDED = object()
_DEFAULTS = {
    each.name: {} if each.name == "votes" else _NEEDED if each.default is MISSING else each.default
    for each in fields(Node)
} | {"status": _NEEDED}


class Tree:
    """All states of a search for one problem.

    Attributes:
        problem: in the task's canonical form.
        nodes: by number.
        chosen: number of the node of the answer; None if there is none.
    """

    def __init__(self, problem: str) -> None:
        self.problem = problem
        self.nodes: list[Node] = [Node(0, None, "", 0, status="kept")]
        self.chosen: int | None = None
        self._states: list[State | None] = [State(problem)]

    @property
    def root(self) -> Node:
        """The problem with no thought yet."""
        return self.nodes[0]

    def add(self, parent: Node, thought: str, *, score: float | None = None) -> Node:
        """Make a child."""
        node = Node(len(self.nodes), parent.number, thought, parent.depth + 1, score=score)
        self.nodes.append(node)
        self._states.append(None)
        return node

    def state(self, node: Node) -> State:
        """The problem and the thoughts up to a node."""
        state = self._states[node.number]
        if state is None:
            parent = self.nodes[node.parent or 0]
            state = self._states[node.number] = self.state(parent).then(node.thought)
        return state

    def path(self, node: Node) -> list[Node]:
        """From the root's child to a node."""
        path = []
        while node.parent is not None:
            path.append(node)
            node = self.nodes[node.parent]
        return path[::-1]

    def children(self) -> dict[int, list[Node]]:
        """The children of each node that has any, by its number, in the order of making."""
        found: dict[int, list[Node]] = {}
        for node in self.nodes:
            if node.parent is not None:
                found.setdefault(node.parent, []).append(node)
        return found

    def to_dict(self) -> dict[str, Any]:
        """As in a file, `from_dict` reads it."""
        return {
            "problem": self.problem,
            "chosen": self.chosen,
            "nodes": [node.to_dict() for node in self.nodes],
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Tree:
        """What `to_dict` gave.

        Raises:
            DataError: if it is no tree.
        """
        try:
            tree = cls(value["problem"])
            tree.nodes = [Node(**each) for each in value["nodes"]]
            tree.chosen = value["chosen"]
            tree._states = [None] * len(tree.nodes)
            tree._states[0] = State(tree.problem)
            sound = tree.chosen is None or 0 <= tree.chosen < len(tree.nodes)
            for number, node in enumerate(tree.nodes):
                sound &= node.number == number and node.status in get_args(Status)
                sound &= node.parent is None if number == 0 else 0 <= (node.parent or 0) < number
        except (KeyError, TypeError, IndexError) as error:
            raise DataError(f"not a search tree ({type(error).__name__}: {error})") from None
        if not sound:
            raise DataError("not a search tree: its numbers do not fit together")
        return tree
