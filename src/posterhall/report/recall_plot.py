"""Draws an evaluation of recall: how accuracy rose in training, and what it costs in state."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posterhall.errors import DataError
from posterhall.report.emergence_plot import _SETTINGS, COLOURS, checked_ending
from posterhall.runs import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_SIZES = 8
_GREY = "#8a8a8a"


def draw(result: Mapping[str, Any], path: Path) -> int:
    """Write curves and frontier, a row of two panels for each size of the task, with its plateau dashed.

    On the left accuracy on validation rows over CPU seconds, a line a model with the arm's best rate; on the
    right accuracy on test rows over the bytes of a row's state, those that no other beats connected.

    Args:
        result: what `posterhall.evals.recall.jobs.evaluate` returns.
        path: .svg, .png or .pdf.

    Returns:
        How many sizes found no place, of more than `MOST_SIZES`.

    Raises:
        DataError: on another ending, or more arms than there are colours.
    """
    ending = checked_ending(path)
    table: Sequence[Mapping[str, Any]] = result["table"]
    arms = list(dict.fromkeys(row["mixer"] for row in table))
    colours = dict(zip(arms, itertools.cycle(COLOURS), strict=False))
    sizes = list(dict.fromkeys((row["length"], row["pairs"]) for row in table))
    if not sizes:
        raise DataError("no model to draw")
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = sizes[:MOST_SIZES]
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(8.2, 2.8 * len(shown) + 0.25 * len(arms)))
        figure.set_layout_engine("constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(len(shown), 2, squeeze=False)
        for (left, right), size in zip(grid, shown, strict=True):
            rows = [row for row in table if (row["length"], row["pairs"]) == size]
            title = f"{size[0]} tokens" + ("" if size[1] is None else f", {size[1]} pairs")
            left.set_title(title, loc="left", fontsize=10)
            _curves(left, rows, result["models"], colours)
            points = [point for point in result["frontier"] if (point["length"], point["pairs"]) == size]
            _frontier(right, rows, points, colours)
        handles = [mpl.lines.Line2D([], [], color=colours[arm], label=arm, lw=1.5) for arm in arms]
        legend = figure.legend(handles=handles, loc="outside lower left", frameon=False, ncols=2)
        for text in legend.get_texts():
            text.set_parse_math(False)
        # No date inside, for the same reason as the salt.
        metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[ending]
        with atomic_file(path) as file:
            figure.savefig(file, format=ending, dpi=150, metadata=metadata)
    return len(sizes) - len(shown)


def _curves(
    axes: Axes,
    rows: Sequence[Mapping[str, Any]],
    models: Sequence[Mapping[str, Any]],
    colours: Mapping[str, str],
) -> None:
    axes.axhline(rows[0]["plateau"], color=_GREY, lw=0.8, ls=(0, (5, 2.5)))
    for row in rows:
        for model in models:
            if all(model[name] == row[name] for name in ("mixer", "length", "pairs", "width", "lr")):
                seconds = [0.0, *(point["seconds"] for point in model["curve"])]
                accuracy = [0.0, *(point["accuracy"] for point in model["curve"])]
                axes.plot(seconds, accuracy, color=colours[row["mixer"]], lw=1.2)
    axes.set_xlabel("CPU seconds")
    axes.set_ylabel("accuracy (validation)")
    axes.set_ylim(0.0, 1.03)
    axes.set_xlim(left=0.0)


def _frontier(
    axes: Axes,
    rows: Sequence[Mapping[str, Any]],
    points: Sequence[Mapping[str, Any]],
    colours: Mapping[str, str],
) -> None:
    axes.axhline(rows[0]["plateau"], color=_GREY, lw=0.8, ls=(0, (5, 2.5)))
    axes.plot(
        [point["state_bytes"] for point in points],
        [point["accuracy"] for point in points],
        color=_GREY,
        lw=0.8,
        zorder=1,
    )
    streaming = [row for row in rows if row["state_bytes"]]
    for row in streaming:
        axes.scatter(row["state_bytes"], row["accuracy"], color=colours[row["mixer"]], s=22, zorder=2)
    if streaming:
        axes.set_xscale("log")
    axes.set_xlabel("bytes of state a row")
    axes.set_ylabel("accuracy (test)")
    axes.set_ylim(0.0, 1.03)
