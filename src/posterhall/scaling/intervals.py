"""How far a fit can be trusted: resampling, profiles, and the largest runs held out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from posterhall.devices import cores
from posterhall.scaling import checks
from posterhall.scaling.effective import Array
from posterhall.scaling.problems import Problem, descents, problem
from posterhall.scaling.settings import FitSettings
from posterhall.scaling.table import Runs
from posterhall.seeds import derive, generator
from posterhall.stats import Interval

if TYPE_CHECKING:
    from posterhall.scaling.laws import Law

_LIVES = np.geomspace(0.1, 1e4, 41)
_WARM = 3
"""Minima of the whole table from which a resample is fitted."""


@dataclass(frozen=True)
class HeldOut:
    """The largest runs, predicted by a fit without them.

    Attributes:
        runs: how many were held out.
        above: the largest compute that the fit saw, FLOP.
        mean, worst: mean and largest |L predicted / L - 1|.
        bias: mean of L predicted / L - 1.
    """

    runs: int
    above: float
    mean: float
    worst: float
    bias: float


def bootstrap(
    posed: Problem,
    points: Sequence[Array],
    groups: npt.NDArray[np.int64],
    settings: FitSettings,
    watch: Callable[[float], None] | None = None,
) -> Array:
    """Constants on resamples of the runs, (resamples, constants); runs of one group stay together.

    Each resample is fitted from the best minima of the whole table: those that its own weights like best.
    """
    count = int(groups.max()) + 1
    draw = generator(settings.seed, "scaling", "bootstrap")
    counts = draw.multinomial(count, np.full(count, 1 / count), size=settings.bootstrap)
    order = list(posed.values(points[0]))

    def one(resample: npt.NDArray[np.int64]) -> list[float]:
        weights = resample[groups].astype(np.float64)
        nearest = sorted(points, key=lambda p: posed.objective(p, weights))[: _WARM if posed.quick else 1]
        _, point = min((posed.descend(p, weights) for p in nearest), key=lambda pair: pair[0])
        values = posed.values(point)
        return [values[name] for name in order]

    found = []
    with ThreadPoolExecutor(settings.threads or cores()) as pool:  # the kernels release the GIL
        for done, values in enumerate(pool.map(one, counts), start=1):
            found.append(values)
            if watch is not None:
                watch(done)
    return np.array(found)


def from_draws(
    names: Sequence[str], values: Mapping[str, float], draws: Array, level: float, n: int
) -> dict[str, Interval]:
    """Percentile intervals of the fitted constants; none without draws.

    An end that falls among infinite lives is infinite.
    """
    if not len(draws):
        return {}
    tail = (1 - level) / 2
    method = f"bootstrap over runs, {len(draws)} resamples, percentiles"
    found = {}
    for i, name in enumerate(values):
        if name in names:
            low, high = np.quantile(draws[:, i], [tail, 1 - tail], method="closest_observation")
            found[name] = Interval(values[name], float(low), float(high), level, n, method)
    return found


def threshold(objective: float, level: float, n: int) -> float:
    """The objective up to which a value is inside the interval.

    With delta far below the residuals the objective is all but delta times their sum, and its minimiser the
    maximum of a Laplace likelihood of scale b = mean |r|. Twice the log-likelihood ratio is then 2 n
    (objective / minimum - 1), to be held against chi-squared with one degree of freedom.
    """
    from scipy.special import chdtri

    return objective * (1 + float(chdtri(1, 1 - level)) / (2 * n))


def profile(posed: Problem, points: Sequence[Array], name: str, weights: Array) -> tuple[Array, Array]:
    """The best objective with one life held at each of many values, infinity last.

    Returns:
        values (41 from 0.1 to 10,000, or 9 where a descent takes long; the minima's own; then infinity)
        and objectives.
    """
    own = [posed.values(p)[name] for p in points]
    lives = _LIVES if posed.quick else _LIVES[::5]
    grid = np.unique([*lives, *[v for v in own if 0 < v < 1e6]])
    grid = np.append(grid, math.inf)
    lowest = np.full(grid.size, math.inf)
    for order in (range(grid.size), range(grid.size - 1, -1, -1)):  # up and down: no valley is missed
        last = points[0]
        for i in order:
            starts = [last, *points[:2]] if posed.quick else [last]
            for start in starts:
                held = posed.point({**posed.values(start), name: float(grid[i])})
                value, point = posed.descend(held, weights, (name,))
                if value < lowest[i]:
                    lowest[i], last = value, point
    return grid, lowest


_EXACT = 1e-20
"""An objective below it is rounding: the runs lie on the law, and nothing near is as likely."""


def from_profile(
    value: float, profiled: tuple[Array, Array], objective: float, level: float, n: int
) -> Interval:
    """Where the profile stays below the threshold; infinite where it still does at infinity."""
    grid, lowest = profiled
    best = min(objective, float(lowest.min()))
    method = "profile of the objective, Laplace likelihood ratio"
    if best < _EXACT:
        return Interval(value, value, value, level, n, method)
    edge = threshold(best, level, n)
    inside = np.flatnonzero(lowest <= edge)
    first, last = int(inside[0]), int(inside[-1])
    # At the grid's lower end the interval is open towards 0.
    low = 0.0 if first == 0 else _crossing(grid, lowest, edge, first, first - 1)
    high = float(grid[last])
    if last + 2 < grid.size:  # neither endless nor the last finite value
        high = _crossing(grid, lowest, edge, last, last + 1)
    return Interval(value, low, high, level, n, method)


def _crossing(grid: Array, lowest: Array, edge: float, inner: int, outer: int) -> float:
    """Where the profile crosses the edge between two values, linear in their logarithms."""
    share = (edge - lowest[inner]) / (lowest[outer] - lowest[inner])
    return float(grid[inner] * (grid[outer] / grid[inner]) ** share)


def held_out(law: Law, runs: Runs, frozen: Mapping[str, float], settings: FitSettings) -> HeldOut | None:
    """Fit without the largest runs by compute, and predict those; None where too few would be left."""
    count = round(settings.held_out * len(runs))
    if count < 1:
        return None
    edge = np.sort(runs.flops)[-count]
    large = runs.flops >= edge
    rest = runs.take(~large)
    free = len(law.symbols) - len({*frozen, *law.settled})
    if len(set(rest.groups.tolist())) <= max(free, checks.FEWEST):
        return None
    if (
        not {"alpha", "beta"} <= set(frozen)
        and min(np.unique(rest.params).size, np.unique(rest.tokens).size) < 2
    ):
        return None
    posed = problem(law, rest, frozen, settings.delta, derive(settings.seed, "scaling", "held out") % 2**31)
    _, point = descents(posed, np.ones(len(rest)))[0]
    tested = runs.take(large)
    predicted = law.formula(posed.values(point), tested.params, tested.tokens, tested.unique_tokens)
    miss = predicted / tested.loss - 1
    return HeldOut(
        runs=len(tested),
        above=float(rest.flops.max()),
        mean=float(np.abs(miss).mean()),
        worst=float(np.abs(miss).max()),
        bias=float(miss.mean()),
    )
