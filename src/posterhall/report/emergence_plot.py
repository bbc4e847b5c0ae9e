"""Draws scores over scale, one panel a metric: the same outputs, smooth under one and sharp under another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from posterhall.errors import DataError
from posterhall.runs import atomic_file
from posterhall.scaling.emergence.analysis import Finding

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ENDINGS = ("svg", "png", "pdf")
MOST_PANELS = 8
COLOURS = ("#1f6f8b", "#c4572f", "#5b8c3a", "#7a5195", "#b8860b", "#2f4b7c", "#a05195", "#4d4d4d")
"""Lines that get a colour and a name; more are drawn thin and grey behind them."""

_SETTINGS: Any = {
    "svg.fonttype": "none",  # text stays text: searchable, and readable to a screen reader
    "svg.hashsalt": "posterhall",  # equal data give equal files
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": "#bbbbbb",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_LONGEST = 48  # letters of a name


def draw(findings: Sequence[Finding], path: Path, *, title: str = "") -> int:
    """Write the series as SVG, PNG or PDF, by the ending of `path`.

    Args:
        findings: from `posterhall.scaling.emergence.analyse`. Names in them are drawn as text: neither
            markup nor formulas in them are obeyed.
        path: where to write.
        title: above the picture.

    Returns:
        How many metrics found no panel, of more than `MOST_PANELS`; those with the largest emergence
        scores are drawn.

    Raises:
        DataError: on another ending, or nothing to draw.
    """
    ending = checked_ending(path)
    if not findings:
        raise DataError("no series to draw")
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metrics: dict[str, list[Finding]] = {}
    for finding in sorted(findings, key=lambda each: -abs(each.score)):
        metrics.setdefault(finding.series.metric, []).append(finding)
    chosen = list(metrics)[:MOST_PANELS]
    colours = _colours([metrics[metric] for metric in chosen])
    columns = min(len(chosen), 4)
    lines = -(-len(chosen) // columns)
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(max(3.1 * columns, 4.2), 2.7 * lines + 0.3 * len(colours) ** 0.5 + 0.4))
        figure.set_layout_engine("constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(lines, columns, squeeze=False)
        for axes, metric in zip(grid.flat, chosen, strict=False):
            _panel(axes, metric, metrics[metric], colours)
        for axes in list(grid.flat)[len(chosen) :]:
            axes.set_visible(False)
        _legend(figure, colours, columns)
        if title:
            figure.suptitle(_shown(title), x=0.01, ha="left", fontsize=10, parse_math=False)
        # No date inside, for the same reason as the salt.
        metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[ending]
        with atomic_file(path) as file:
            figure.savefig(file, format=ending, dpi=150, metadata=metadata)
    return len(metrics) - len(chosen)


def checked_ending(path: Path) -> str:
    """The ending of a figure's name, in small letters.

    Raises:
        DataError: if nothing can be drawn under that name.
    """
    ending = path.suffix.removeprefix(".").lower()
    if ending not in ENDINGS:
        raise DataError(f"{path.name} does not end in {', '.join('.' + each for each in ENDINGS)}")
    return ending


def _name(finding: Finding) -> str:
    parts = (finding.series.family, finding.series.task)
    return ", ".join(part for part in parts if part) or "all"


def _colours(panels: Sequence[Sequence[Finding]]) -> dict[str, str]:
    """Names that get a colour, the same in every panel: the most frequent first, a turn for each panel."""
    often = Counter(_name(finding) for panel in panels for finding in panel)
    queues = [sorted(dict.fromkeys(map(_name, panel)), key=lambda name: -often[name]) for panel in panels]
    turns = [name for turn in zip_longest(*queues) for name in turn if name is not None]
    names = list(dict.fromkeys(turns))[: len(COLOURS)]
    return dict(zip(sorted(names), COLOURS, strict=False))


def _panel(axes: Axes, metric: str, findings: Sequence[Finding], colours: dict[str, str]) -> None:
    unnamed = 0
    for finding in findings:
        series = finding.series
        colour = colours.get(_name(finding))
        if colour is None:
            unnamed += 1
            axes.plot(series.scales, series.scores, color="#cccccc", lw=0.7, zorder=1)
            continue
        errors = series.errors
        if errors is not None:
            low, high = series.scores - 2 * errors, series.scores + 2 * errors
            if series.bounds is not None:
                low, high = np.clip(low, *series.bounds), np.clip(high, *series.bounds)
            axes.fill_between(series.scales, low, high, color=colour, alpha=0.15, lw=0)
        axes.plot(series.scales, series.scores, color=colour, lw=1.4, marker="o", ms=3, zorder=3)
    for chance in {each.series.chance for each in findings if each.series.chance is not None}:
        axes.axhline(chance, color="#999999", lw=0.8, ls=(0, (4, 3)), zorder=0)
    axes.set_xscale("log")
    axes.grid(axis="y", color="#eeeeee", lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=7, color="#bbbbbb", labelcolor="#555555")
    axes.tick_params(which="minor", length=0)
    axes.set_xlabel("scale", fontsize=8, color="#555555")
    axes.set_title(_shown(metric), loc="left", fontsize=9, parse_math=False)
    direction = "higher is better" if findings[0].series.higher_is_better else "lower is better"
    said = direction + (f"; {unnamed} more in grey" if unnamed else "")
    axes.set_ylabel(said, fontsize=7, color="#777777")


def _legend(figure: Any, colours: dict[str, str], columns: int) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, lw=1.4, marker="o", ms=3) for colour in colours.values()]
    longest = max(len(_shown(name)) for name in colours)
    across = max(1, min(len(colours), int(columns * 40 / (longest + 6))))
    legend = figure.legend(
        handles,
        [""] * len(handles),
        loc="outside lower left",
        ncols=across,
        frameon=False,
        fontsize=8,
    )
    for text, name in zip(legend.get_texts(), colours, strict=True):
        text.set_parse_math(False)  # before the text: a lone $ is no formula
        text.set_text(_shown(name))


def _shown(name: str) -> str:
    """A name without control characters, which an SVG may not hold, and not too long."""
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    return clean if len(clean) <= _LONGEST else clean[: _LONGEST - 1] + "…"
