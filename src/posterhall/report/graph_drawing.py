"""A graph of a planning conversation as SVG: its edges, a shortest path, and the path that was answered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any

from posterhall.evals.planning.graphs import PUBLISHED

WIDTH, HEIGHT, EDGE = 380.0, 300.0, 26.0
RADIUS = 7.0
_LABEL = 15
"""Characters of a label; more are cut, and stand in its title."""


def svg(row: Mapping[str, Any]) -> str:
    """Draw one conversation.

    A wide band is a shortest path, a line with arrows the path answered, dashed where there is no such edge.
    Of the row only numbers get into the drawing, and names, which are escaped.

    Args:
        row: of `posterhall.evals.planning.rows.SCHEMA`, scored.
    """
    names: Sequence[str] = row["names"]
    places = _places(row["graph"], len(names))
    flat = row["edges"]
    steps = set(zip(flat[::2], flat[1::2], strict=True))
    both = sorted((a, b) for a, b in steps if a < b and (b, a) in steps)
    one_way = sorted((a, b) for a, b in steps if (b, a) not in steps)
    answered = [node for node in row["answer_path"] or [] if 0 <= node < len(names)]
    if row["start_omitted"] and row["start"] >= 0:
        answered.insert(0, row["start"])
    best = row["key"][0] if row["key"] else []
    parts = [
        f'<path class="edge" d="{"".join(_line(places, a, b) for a, b in both)}"/>',
        *(
            f'<path class="edge" d="{_line(places, a, b, short=True)}" marker-end="url(#arrow-edge)"/>'
            for a, b in one_way
        ),
    ]
    if len(best) > 1:
        parts.append(f'<path class="best" d="{_polyline(places, best)}"/>')
    for a, b in pairwise(answered):
        if a == b:
            continue
        real = (a, b) in steps
        kind, head = ("step", "arrow-step") if real else ("step invented", "arrow-invented")
        parts.append(
            f'<path class="{kind}" d="{_line(places, a, b, short=True)}" marker-end="url(#{head})"/>'
        )
    goals = set(row["goals"] or [])
    for node, (x, y) in enumerate(places):
        kind = "node start" if node == row["start"] else "node goal" if node in goals else "node"
        label = _label(names[node], row["node_form"])
        shown = label if len(label) <= _LABEL else label[: _LABEL - 1] + "…"
        parts.append(
            f'<g class="{kind}"><title>{escape(names[node])}</title>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS:g}"/>'
            f'<text x="{x:.1f}" y="{y - RADIUS - 3:.1f}">{escape(shown)}</text></g>'
        )
    said = "no path was read" if not answered else f"{len(answered)} places answered"
    return (
        f'<svg class="graph" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" '
        f'aria-label="The graph, a shortest path and the answer: {said}">{"".join(parts)}</svg>'
    )


def _places(graph: str, size: int) -> list[tuple[float, float]]:
    """Where each node is drawn: as its author has it for the published graphs, else on a circle."""
    known = PUBLISHED.get(graph)
    if known is not None and len(known) == size:
        units = list(known.positions)
    else:
        turns = [2 * math.pi * node / size - math.pi / 2 for node in range(size)]
        units = [(0.5 + 0.48 * math.cos(turn), 0.5 + 0.48 * math.sin(turn)) for turn in turns]
    return [(EDGE + x * (WIDTH - 2 * EDGE), EDGE + y * (HEIGHT - 1.5 * EDGE)) for x, y in units]


def _line(places: Sequence[tuple[float, float]], a: int, b: int, *, short: bool = False) -> str:
    (x, y), (u, v) = places[a], places[b]
    if short:  # ends at the rim of the node, where the arrow's head is
        far = math.hypot(u - x, v - y) or 1.0
        u, v = u - (u - x) * RADIUS / far, v - (v - y) * RADIUS / far
    return f"M{x:.1f} {y:.1f}L{u:.1f} {v:.1f}"


def _polyline(places: Sequence[tuple[float, float]], path: Sequence[int]) -> str:
    return "M" + "L".join(f"{places[node][0]:.1f} {places[node][1]:.1f}" for node in path)


def _label(name: str, form: str) -> str:
    before, _, after = form.partition("{label}")
    return name[len(before) : len(name) - len(after)] or name
