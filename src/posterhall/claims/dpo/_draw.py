"""Figures of these claims: rewards against divergence."""

from __future__ import annotations

from collections.abc import Sequence

from posterhall.claims import Axis, Line, Panel, Points, Row
from posterhall.claims.lines import numbers

KL = Axis("KL to the reference (nats)", low=0.0)


def frontier_panels(rows: Sequence[Row], arms: Sequence[str]) -> tuple[Panel, Panel]:
    """Where methods stand: one seed's points under its frontier, and every seed's distances to its own.

    Frontiers differ from seed to seed, so that points of one may lie above that of another.

    Args:
        rows: of arms with "kls", "rewards" and "gaps", and of "frontier" with the first two.
        arms: to show.
    """
    first = min(row.seed for row in rows)
    under: list[Line | Points] = [
        Line(
            "the most that any policy can have",
            numbers(row, "kls"),
            numbers(row, "rewards"),
            markers=False,
        )
        for row in rows
        if row.arm == "frontier" and row.seed == first
    ]
    below: list[Line | Points] = []
    for arm in arms:
        mine = [row for row in rows if row.arm == arm]
        under += [
            Points(arm, numbers(row, "kls"), numbers(row, "rewards")) for row in mine if row.seed == first
        ]
        kls, gaps = (tuple(x for row in mine for x in numbers(row, name)) for name in ("kls", "gaps"))
        below.append(Points(arm, kls, gaps))
    return (
        Panel(*under, x=KL, y=Axis("expected true reward"), title=f"Seed {first}"),
        Panel(*below, x=KL, y=Axis("reward below the frontier", low=0.0), title="All seeds"),
    )
