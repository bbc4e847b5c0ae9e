"""What these claims measure: how sharply a score rises with scale, and how late."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from posterhall.claims.figures import Axis, Line, Panel
from posterhall.claims.rows import Row

Floats = npt.NDArray[np.float64]


def emergence(
    scales: npt.ArrayLike, scores: npt.ArrayLike, *, higher_is_better: bool = True, resolution: float = 0.0
) -> float:
    """ES / (n - 1), 1 for a straight line; see `posterhall.metrics.emergence`.

    Where at least half of the steps are too small for the test to see, ES is infinite. The median step is
    then taken to be `resolution`, the smallest that the test does see (1 / items for a share of items):
    a finite lower bound, so that coarseness alone never counts as sharpness without limit.
    """
    from posterhall.metrics.emergence import emergence_score

    found = emergence_score(scales, scores, higher_is_better=higher_is_better)
    most = math.inf
    if resolution:
        values = np.asarray(scores, np.float64)
        most = float(np.ptp(values)) / resolution / (found.scales - 1)
    return math.copysign(min(abs(found.normalised), most), found.normalised)


def onset(scales: npt.ArrayLike, scores: npt.ArrayLike, *, higher_is_better: bool = True) -> float:
    """How late a score begins to rise: the share of the range of log scale before a tenth of its rise.

    0.1 for a straight line, near 1 for an ability that only the largest models show; interpolated between
    scales. The rise is from the worst score to the best. It is what one sees in the paper's figures, and
    unlike ES it does not shrink when a rise is spread over many steps: in the paper's own model of answers
    of five tokens (`posterhall.scaling.emergence.Toy`), ES of accuracy is 0.87 times that of edit distance,
    while the onset is 0.28 against 0.07.
    """
    x = np.log(np.asarray(scales, np.float64))
    y = np.asarray(scores, np.float64) * (1 if higher_is_better else -1)
    x, y = x[np.argsort(x)], y[np.argsort(x)]
    wanted = y.min() + 0.1 * np.ptp(y)
    at = int(np.argmax(y >= wanted))
    if at == 0:
        return 0.0
    part = (wanted - y[at - 1]) / (y[at] - y[at - 1])
    return float((x[at - 1] + part * (x[at] - x[at - 1]) - x[0]) / (x[-1] - x[0]))


def curve_panel(
    rows: Sequence[Row], arms: Mapping[str, str], metric: str, *, x: str, y: Axis, title: str = ""
) -> Panel:
    """Mean over seeds of the curves that rows hold: `metric` against the rows' ``scales``.

    Args:
        arms: arm to the line's label.
    """
    from posterhall.claims.lines import mean_line

    lines: list[Line] = []
    for arm, label in arms.items():
        scales = next((row["scales"] for row in rows if row.arm == arm), ())
        if isinstance(scales, tuple) and scales:
            lines.append(mean_line(rows, arm, scales, metric, label=label))
    return Panel(*lines, x=Axis(x, log=True), y=y, title=title)
