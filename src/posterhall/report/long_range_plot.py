"""Draws an evaluation of long range: accuracy over the length of the rows."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from posterhall.errors import DataError
from posterhall.report.emergence_plot import _SETTINGS, COLOURS, checked_ending
from posterhall.runs import atomic_file

_GREY = "#8a8a8a"


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Write accuracy on test rows over positions of a row, a line an arm, with 95 % intervals over seeds.

    Dotted lines lead from a length in training to further ones at which the same models were tested; what
    always naming the most frequent class scores is dashed in grey.

    Args:
        result: what `posterhall.evals.long_range.jobs.evaluate` returns.
        path: .svg, .png or .pdf.

    Raises:
        DataError: on another ending, or nothing to draw.
    """
    ending = checked_ending(path)
    table: Sequence[Mapping[str, Any]] = result["table"]
    if not table:
        raise DataError("no model to draw")
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    arms = list(dict.fromkeys(row["mixer"] for row in table))
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(6.2, 3.6 + 0.13 * len(arms)))
        figure.set_layout_engine("constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for arm, colour in zip(arms, itertools.cycle(COLOURS), strict=False):
            rows = sorted((row for row in table if row["mixer"] == arm), key=lambda row: int(row["length"]))
            lengths = [row["length"] for row in rows]
            means = [row["accuracy"] for row in rows]
            axes.plot(lengths, means, color=colour, lw=1.5, marker="o", ms=4, label=arm)
            for row in rows:
                if row["interval"]:
                    axes.plot([row["length"]] * 2, row["interval"], color=colour, lw=0.8)
                others = [(each["length"], each["accuracy"]) for each in row["at"] if not each["refused"]]
                if others:
                    along = sorted([(row["length"], row["accuracy"]), *others])
                    axes.plot(*zip(*along, strict=True), color=colour, lw=0.9, ls=":", marker=".", ms=4)
        chance = sum(row["chance"] for row in table) / len(table)
        axes.axhline(chance, color=_GREY, lw=0.8, ls=(0, (5, 2.5)))
        axes.set_xscale("log", base=2)
        axes.set_xlabel("positions of a row")
        axes.set_ylabel("accuracy (test)")
        axes.set_ylim(0.0, 1.03)
        axes.set_title(result["task"].partition(":")[0], loc="left", fontsize=10)
        legend = figure.legend(loc="outside lower left", frameon=False, ncols=3)
        for text in legend.get_texts():
            text.set_parse_math(False)
        # No date inside: equal results give equal files.
        metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[ending]
        with atomic_file(path) as file:
            figure.savefig(file, format=ending, dpi=150, metadata=metadata)
