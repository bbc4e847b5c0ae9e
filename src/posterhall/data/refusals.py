"""Rows that a reader leaves out: how many for each reason, and where the first of them is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Refusals:
    """What was left out; nothing is repaired silently."""

    refused: Counter[str] = field(default_factory=Counter)
    """Rows, by reason."""
    first: dict[str, str] = field(default_factory=dict)
    """Where the first row of each reason is."""

    def refuse(self, reason: str, where: str) -> None:
        """Count a row that is left out."""
        self.refused[reason] += 1
        self.first.setdefault(reason, where)

    def reasons(self) -> str:
        """All of them in words, with the first place of each; empty if there are none."""
        return "; ".join(f"{reason}: {n:,}, first {self.first[reason]}" for reason, n in self.refused.items())
