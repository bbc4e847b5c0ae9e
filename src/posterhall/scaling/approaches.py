"""Approaches 1 and 2 of Hoffmann et al. 2022: optimal sizes straight from the runs, without a law of loss.

Both give power laws N = k_N C^a and D = k_D C^b, and both are known to be biased, which their flags say:

- approach 1 takes the best run at each compute. With finished runs only (not whole training curves) it is as
  coarse as the runs' sizes are;
- approach 2 fits parabolas of loss in ln N at equal compute. Where alpha and beta differ, or the sizes do not
  straddle the optimum evenly, the parabola's vertex is off, by up to 10 % of the budget in published grids.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from posterhall.errors import DataError
from posterhall.scaling import checks
from posterhall.scaling.effective import Array
from posterhall.scaling.settings import FitSettings
from posterhall.scaling.table import Runs
from posterhall.seeds import generator
from posterhall.stats import Interval

_SAME_COMPUTE = 0.1
"""Difference of ln C up to which neighbouring runs belong to one isoFLOP curve."""
_BINS = 0.5
"""Width in ln C of the bins of approach 1."""


@dataclass(frozen=True)
class PowerLaws:
    """Optimal sizes as powers of compute.

    Attributes:
        approach: 1 or 2.
        values: a and k_N (N = k_N C^a), b and k_D (D = k_D C^b).
        objective: sum of squared residuals of ln N about the power law.
        optima: one row a compute level: C, N, D and the loss there, (levels, 4).
        intervals: of a and b, over resamples of the levels.
        flags: its biases.
    """

    approach: int
    values: MappingProxyType[str, float]
    objective: float
    optima: Array
    intervals: MappingProxyType[str, Interval]
    flags: tuple[str, ...]

    def allocate(self, flops: float) -> tuple[float, float]:
        """Parameters and tokens for a compute budget."""
        v = self.values
        return v["k_N"] * flops ** v["a"], v["k_D"] * flops ** v["b"]


def envelope(runs: Runs, settings: FitSettings | None = None) -> PowerLaws:
    """Approach 1: the best run in each interval of compute (half a unit of ln C wide).

    Raises:
        DataError: if the runs span fewer than three intervals.
    """
    checks.enough(len(runs))
    bins = np.floor((np.log(runs.flops) - math.log(runs.flops.min())) / _BINS).astype(int)
    best = [
        int(inside[runs.loss[inside].argmin()])
        for inside in (np.flatnonzero(bins == b) for b in np.unique(bins))
    ]
    # A run that a smaller budget beats is not on the envelope.
    kept, lowest = [], math.inf
    for i in sorted(best, key=lambda i: float(runs.flops[i])):
        if runs.loss[i] < lowest:
            kept.append(i)
            lowest = float(runs.loss[i])
    optima = np.stack([runs.flops, runs.params, runs.tokens, runs.loss], axis=1)[kept]
    flags = [
        "approach 1 on finished runs is as coarse as their sizes, and a run with a schedule cut short is not "
        "the best of its compute; approach 3 (the law) is the better estimate"
    ]
    return _powers(1, optima, flags, settings or FitSettings())


def parabolas(runs: Runs, settings: FitSettings | None = None) -> PowerLaws:
    """Approach 2: a parabola of loss in ln N through the runs of equal compute, and its vertex.

    Runs whose ln C differ by less than 0.1 from their neighbour's are one curve. A curve counts with three
    sizes or more, if it opens upward and its vertex lies within its sizes.

    Raises:
        DataError: if fewer than three curves count.
    """
    checks.enough(len(runs))
    order = np.argsort(runs.flops, kind="stable")
    logs = np.log(runs.flops[order])
    curves = np.split(order, np.flatnonzero(np.diff(logs) > _SAME_COMPUTE) + 1)
    rows, uneven, left_out = [], 0, 0
    for curve in curves:
        sizes = np.log(runs.params[curve])
        if np.unique(sizes).size < 3:
            left_out += 1
            continue
        middle = sizes.mean()
        bend, slope, level = np.polyfit(sizes - middle, runs.loss[curve], 2)
        vertex = middle - slope / (2 * bend) if bend > 0 else math.nan
        if not sizes.min() <= vertex <= sizes.max():
            left_out += 1
            continue
        reach = (vertex - sizes.min(), sizes.max() - vertex)
        uneven += int(max(reach) > 2 * min(reach))
        flops = float(np.exp(np.log(runs.flops[curve]).mean()))
        size = math.exp(vertex)
        rows.append((flops, size, flops / (6 * size), float(level - slope**2 / (4 * bend))))
    flags = [
        "approach 2 is biased where alpha and beta differ: the loss is no parabola in ln N; approach 3 (the "
        "law) is not"
    ]
    if uneven:
        flags.append(
            f"{uneven} of {len(rows)} curves reach twice as far on one side of their vertex as on the "
            "other, which shifts it"
        )
    if left_out:
        flags.append(
            f"{left_out} groups of equal compute are left out: under three sizes, or no minimum inside"
        )
    return _powers(2, np.array(rows).reshape(-1, 4), flags, settings or FitSettings())


def _powers(approach: int, optima: Array, flags: list[str], settings: FitSettings) -> PowerLaws:
    if len(optima) < 3:
        wanted = (
            "runs of three or more compute budgets"
            if approach == 1
            else "three budgets with three sizes each"
        )
        raise DataError(
            f"approach {approach} finds {len(optima)} compute budgets with an optimum; a power law needs "
            f"three. Add {wanted}, or use approach 3, which needs no equal budgets"
        )
    c, n, d = (np.log(optima[:, i]) for i in range(3))

    def solve(pick: Any) -> tuple[float, float, float, float]:
        a, k_n = np.polyfit(c[pick], n[pick], 1)
        b, k_d = np.polyfit(c[pick], d[pick], 1)
        return float(a), float(k_n), float(b), float(k_d)

    a, k_n, b, k_d = solve(slice(None))
    intervals = {}
    if settings.bootstrap:
        draw = generator(settings.seed, "scaling", "approach", approach)
        picks = [draw.integers(0, len(c), len(c)) for _ in range(settings.bootstrap)]
        drawn = np.array([solve(p) for p in picks if np.unique(c[p]).size > 1])
        tail = (1 - settings.level) / 2
        for name, column, value in (("a", 0, a), ("b", 2, b)):
            low, high = np.quantile(drawn[:, column], [tail, 1 - tail])
            method = f"bootstrap over compute budgets, {len(drawn)} resamples, percentiles"
            intervals[name] = Interval(value, float(low), float(high), settings.level, len(c), method)
    return PowerLaws(
        approach=approach,
        values=MappingProxyType({"a": a, "k_N": math.exp(k_n), "b": b, "k_D": math.exp(k_d)}),
        objective=float(((k_n + a * c - n) ** 2).sum()),
        optima=optima,
        intervals=MappingProxyType(intervals),
        flags=tuple(flags),
    )
