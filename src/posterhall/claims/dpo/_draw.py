"""Figures of these claims: rewards against divergence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from posterhall.claims import Axis, Line, Panel, Points, Row

KL = Axis("KL to the reference (nats)", low=0.0)
REWARD = Axis("expected true reward")


def numbers(row: Row, metric: str) -> tuple[float, ...]:
    """A metric of a row that is a list."""
    value = row[metric]
    return value if isinstance(value, tuple) else (value,)


def frontier_panel(rows: Sequence[Row], methods: Mapping[str, str], *, title: str = "") -> Panel:
    """The frontier (mean over seeds) and every point of every seed of some arms.

    Args:
        rows: of arms with "kls" and "rewards", and of "frontier" with the same.
        methods: arm to label.
        title: of the panel.
    """
    marks: list[Line | Points] = []
    bounds = [row for row in rows if row.arm == "frontier"]
    if bounds:
        x = numbers(bounds[0], "kls")
        y = np.mean([numbers(row, "rewards") for row in bounds], axis=0)
        marks.append(Line("best that any policy can have", x, tuple(y.tolist()), markers=False))
    for arm, label in methods.items():
        mine = [row for row in rows if row.arm == arm]
        if mine:
            x, y = (
                tuple(value for row in mine for value in numbers(row, metric))
                for metric in ("kls", "rewards")
            )
            marks.append(Points(label, x, y))
    return Panel(*marks, x=KL, y=REWARD, title=title)
