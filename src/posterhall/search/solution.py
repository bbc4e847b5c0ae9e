"""What a search has found for one problem."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from posterhall.config import finite
from posterhall.errors import DataError
from posterhall.lm.metered import Usage
from posterhall.search.protocol import Check
from posterhall.search.tree import Tree


@dataclass(frozen=True)
class Solution:
    """The answer, and everything that was kept beside it.

    Three different things are called success in the literature, and are apart here: `solved` (the answer
    that the method itself takes for the best), `any_solved` (one of all that were kept: pass@k, the paper's
    any-of-b), and the answer that a free checker would pick among them (`checked_answer`).
    """

    problem: str
    """In the task's canonical form."""
    answer: str | None
    """The best state that amounts to an answer, by the method's own values; None if there is none."""
    check: Check
    """What the task says of it."""
    answers: tuple[str | None, ...]
    """Of all states kept in the end, best first; None for one that amounts to no answer."""
    checks: tuple[Check, ...]
    """What the task says of each of `answers`."""
    tree: Tree
    """All states looked at."""
    usage: Usage
    """What was asked, equal questions once, whether or not a cache answered."""
    seconds: float
    """Wall time; problems that are solved at the same time share it."""
    stopped_by: str | None = None
    """Why it ended early, in words; None if it came to its own end."""
    unread: Mapping[str, int] = field(default_factory=dict)
    """Pieces of replies that could not be read, by what they were for."""
    truncated: int = 0
    """Replies that were cut off at their most tokens, or withheld."""

    @property
    def solved(self) -> bool:
        """Whether the answer is right (top-1)."""
        return self.check.solved

    @property
    def any_solved(self) -> bool:
        """Whether one of all that were kept is right."""
        return any(check.solved for check in self.checks)

    @property
    def share_solved(self) -> float:
        """How many of those kept are right, as a share: what one of them drawn at random is worth."""
        return sum(check.solved for check in self.checks) / len(self.checks) if self.checks else 0.0

    @property
    def checked_answer(self) -> str | None:
        """The first of all kept that passes the task's check, else `answer`: what a checker would take."""
        for answer, check in zip(self.answers, self.checks, strict=True):
            if check.solved:
                return answer
        return self.answer

    def to_dict(self, *, tree: bool = True) -> dict[str, Any]:
        """As in a file; `from_dict` reads it."""
        value = {
            "problem": self.problem,
            "answer": self.answer,
            "solved": self.solved,
            "any_solved": self.any_solved,
            "check": _check(self.check),
            "answers": list(self.answers),
            "checks": [_check(each) for each in self.checks],
            "usage": {each.name: getattr(self.usage, each.name) for each in fields(Usage)},
            "seconds": round(self.seconds, 3),
            "stopped_by": self.stopped_by,
            "unread": dict(self.unread),
            "truncated": self.truncated,
        }
        if tree:
            value["tree"] = self.tree.to_dict()
        found: dict[str, Any] = finite(value)
        return found

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Solution:
        """What `to_dict` gave, with the tree.

        Raises:
            DataError: if it is no solution.
        """
        try:
            return cls(
                problem=value["problem"],
                answer=value["answer"],
                check=Check(**value["check"]),
                answers=tuple(value["answers"]),
                checks=tuple(Check(**each) for each in value["checks"]),
                tree=Tree.from_dict(value["tree"]),
                usage=Usage(**value["usage"]),
                seconds=value["seconds"],
                stopped_by=value["stopped_by"],
                unread=value["unread"],
                truncated=value["truncated"],
            )
        except (KeyError, TypeError) as error:
            raise DataError(f"not a solution of a search ({type(error).__name__}: {error})") from None


def _check(check: Check) -> dict[str, Any]:
    value: dict[str, Any] = {"solved": check.solved, "score": check.score, "why": check.why}
    return value | ({"parts": dict(check.parts)} if check.parts else {})
