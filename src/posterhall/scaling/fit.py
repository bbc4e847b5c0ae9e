"""Fits of laws to runs: every minimum that is found, how far it can be trusted, and what is odd about it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from posterhall.errors import DataError, did_you_mean
from posterhall.scaling import checks, intervals
from posterhall.scaling.constants import BASE, LIVES, published
from posterhall.scaling.effective import Array
from posterhall.scaling.intervals import HeldOut
from posterhall.scaling.problems import Problem, descents, problem
from posterhall.scaling.settings import FitSettings
from posterhall.scaling.table import Runs

if TYPE_CHECKING:
    from posterhall.scaling.laws import Law
    from posterhall.stats import Interval

_SAME = 1e-3
"""Difference of coordinates (mostly logarithms) below which two minima are one."""
_FEW = 4
_PER_CONSTANT = 3
_ABSENT = 1e-6
"""Share of the loss below which a term is not there."""


@dataclass(frozen=True)
class Minimum:
    """A local minimum of the objective.

    Attributes:
        values: all constants of the law there.
        objective: the sum of Huber's function.
        r2: share of the variance of the loss that is explained there.
    """

    values: Mapping[str, float]
    objective: float
    r2: float


@dataclass(frozen=True)
class Fit:
    """A fitted law.

    Attributes:
        law, options: the law's name and the form of it.
        values: constants at the best minimum; `free` names those that were fitted.
        objective, r2: there.
        n: runs.
        minima: all minima found, the best first.
        intervals: of each fitted constant, by profile for lives and resampling for others; an end is
            infinite where the runs do not bound it.
        resampled: of each fitted constant by resampling alone.
        profiles: for each life, (values, objectives): the best objective with the life held there.
        draws: constants on each resample, in the order of `values`, (resamples, constants); empty without.
        held_out: how the law, fitted without the largest runs, predicts them; None if there are too few.
        outliers: runs that the law misses most, with the residual of ln L.
        ranges: smallest and largest params, tokens, unique_tokens, flops of the runs.
        flags: what to know before the fit is used.
    """

    law: str
    options: Mapping[str, Any]
    values: Mapping[str, float]
    free: tuple[str, ...]
    objective: float
    r2: float
    n: int
    minima: tuple[Minimum, ...]
    intervals: Mapping[str, Interval]
    resampled: Mapping[str, Interval]
    profiles: Mapping[str, tuple[Array, Array]]
    draws: Array
    held_out: HeldOut | None
    outliers: tuple[tuple[str, float], ...]
    ranges: Mapping[str, tuple[float, float]]
    flags: tuple[str, ...]


def fit(
    law: Law,
    runs: Runs,
    *,
    frozen: str | Mapping[str, float] | None = None,
    settings: FitSettings | None = None,
    watch: Callable[[float], None] | None = None,
) -> Fit:
    """Fit a law: minimise the sum of Huber's function of ln L predicted - ln L seen.

    Hoffmann et al. 2022, eq. 4 (delta 1e-3), from many starts. Chinchilla's law starts from the valleys of
    a variable projection over (alpha, beta) and is brought down by BFGS on the exact objective. The lives of
    the data-constrained law start from a grid in their logarithms (Muennighoff et al. 2023 used a 4 x 4
    grid from 0 to 20, which their own best minimum lies outside of).

    Args:
        law: which law, in which form.
        runs: at least six.
        frozen: constants that stay: a published set (its E, A, B, alpha, beta), or values by symbol.
        settings: see `FitSettings`.
        watch: is told after each resample how many are done.

    Raises:
        DataError: if the runs cannot show what is to be fitted.
    """
    chosen = settings or FitSettings()
    held = _frozen(law, frozen)
    _possible(law, runs, held)
    posed = problem(law, runs, held, chosen.delta, chosen.seed)
    weights = np.ones(len(runs))
    found = _distinct(posed, descents(posed, weights), weights)
    minima = tuple(
        Minimum(MappingProxyType(posed.values(point)), value, _r2(law, posed.values(point), runs))
        for value, point in found
    )
    best = minima[0]
    points = [point for _, point in found]

    profiles = {}
    if chosen.profile:
        profiles = {n: intervals.profile(posed, points, n, weights) for n in LIVES if n in posed.names}
    draws = np.empty((0, len(best.values)))
    if chosen.bootstrap:
        draws = intervals.bootstrap(posed, points, runs.groups, chosen, watch)
    resampled = intervals.from_draws(posed.names, best.values, draws, chosen.level, len(runs))
    bounds = dict(resampled)
    for name, profiled in profiles.items():
        bounds[name] = intervals.from_profile(
            best.values[name], profiled, best.objective, chosen.level, len(runs)
        )

    held_out = intervals.held_out(law, runs, held, chosen)
    residuals = np.log(law.formula(best.values, runs.params, runs.tokens, runs.unique_tokens) / runs.loss)
    outliers = _outliers(residuals, runs)
    flags = [*runs.flags, *_flags(posed, minima, bounds, profiles, runs, residuals, chosen)]
    if outliers:
        flags.append(f"{len(outliers)} runs lie more than five robust deviations off the law: see outliers")
    return Fit(
        law=law.name,
        options=MappingProxyType(law.options),
        values=best.values,
        free=posed.names,
        objective=best.objective,
        r2=best.r2,
        n=len(runs),
        minima=minima,
        intervals=MappingProxyType(bounds),
        resampled=MappingProxyType(resampled),
        profiles=MappingProxyType(profiles),
        draws=draws,
        held_out=held_out,
        outliers=outliers,
        ranges=MappingProxyType(
            {
                name: (float(column.min()), float(column.max()))
                for name, column in (
                    ("params", runs.params),
                    ("tokens", runs.tokens),
                    ("unique_tokens", runs.unique_tokens),
                    ("flops", runs.flops),
                )
            }
        ),
        flags=tuple(flags),
    )


def _frozen(law: Law, frozen: str | Mapping[str, float] | None) -> dict[str, float]:
    if frozen is None:
        return {}
    known = [symbol.name for symbol in law.symbols]
    held: dict[str, float]
    if isinstance(frozen, str):
        base = published(frozen).values
        held = {k: base[k] for k in BASE if k in known}
        if not held:
            raise DataError(
                f"law '{law.name}' shares no constants with '{frozen}', so there is nothing to freeze"
            )
    else:
        held = {k: float(v) for k, v in frozen.items()}
    for name, value in held.items():
        if name not in known:
            raise DataError(
                f"law '{law.name}' has no constant '{name}' to freeze; it has: {', '.join(known)}."
                f"{did_you_mean(name, known)}"
            )
        if math.isnan(value) or value < 0:
            raise DataError(f"{name} is frozen at {value}; it must be 0 or more")
    if len({*held, *law.settled}) == len(known):
        raise DataError("all constants are frozen, so there is nothing to fit; freeze fewer")
    return held


def _possible(law: Law, runs: Runs, held: Mapping[str, float]) -> None:
    checks.enough(len(runs))
    if not {"alpha", "beta"} <= set(held):
        checks.varied(runs.params, runs.tokens)
    free = len(law.symbols) - len({*held, *law.settled}) - int(bool(getattr(law, "tied", False)))
    distinct = len(set(runs.groups.tolist()))
    if distinct <= free:
        raise DataError(
            f"{distinct} different settings cannot show {free} constants; add runs, or freeze constants of a "
            "published law (--frozen paper)"
        )
    if not law.needs_unique:
        return
    if not runs.repeats:
        raise DataError(
            f"law '{law.name}' needs unique tokens, and {runs.source or 'the table'} has none; name their "
            "column (--columns unique_tokens=COLUMN, or epochs=COLUMN), or fit --law chinchilla"
        )
    if not (runs.epochs > 1 + 1e-6).any() and "R_D" not in {*held, *law.settled}:
        raise DataError(
            f"no run repeats a token, so law '{law.name}' cannot be told from Chinchilla's; add runs of "
            "several epochs, or fit --law chinchilla"
        )


def _distinct(posed: Problem, found: list[tuple[float, Array]], weights: Array) -> list[tuple[float, Array]]:
    """Different minima, the best first, with lives of no effect at infinity."""
    kept: list[tuple[float, Array]] = []
    for value, point in found:
        value, point = _endless(posed, value, point, weights)
        same = any(
            np.abs(point - other).max() < _SAME or (abs(value - lower) < 1e-9 * lower and _near(point, other))
            for lower, other in kept
        )
        if not same and value < 1.5 * found[0][0]:
            kept.append((value, point))
    return kept[:20]


def _near(a: Array, b: Array) -> bool:
    """Whether two points of equal objective differ only along a direction that does not matter."""
    return bool(np.median(np.abs(a - b)) < 1e-2)


def _endless(posed: Problem, value: float, point: Array, weights: Array) -> tuple[float, Array]:
    """Move a life that went astray to infinity or to 0, where that is no worse."""
    values = posed.values(point)
    for name in LIVES:
        if name in posed.names and not 1e-4 < values[name] < 1e6:
            there = posed.point({**values, name: math.inf if values[name] > 1 else 0.0})
            moved = posed.objective(there, weights)
            if moved <= value * (1 + 1e-7):
                value, point, values = moved, there, posed.values(there)
    return value, point


def _r2(law: Law, values: Mapping[str, float], runs: Runs) -> float:
    predicted = law.formula(values, runs.params, runs.tokens, runs.unique_tokens)
    spread = float(((runs.loss - runs.loss.mean()) ** 2).sum())
    return 1 - float(((predicted - runs.loss) ** 2).sum()) / spread if spread > 0 else math.nan


def _outliers(residuals: Array, runs: Runs) -> tuple[tuple[str, float], ...]:
    """Runs beyond five robust standard deviations of the residuals (1.4826 x the median), the worst first."""
    scale = 1.4826 * float(np.median(np.abs(residuals)))
    beyond = np.flatnonzero(np.abs(residuals) > 5 * max(scale, 1e-12))
    beyond = beyond[np.argsort(-np.abs(residuals[beyond]), kind="stable")]
    return tuple((runs.names[i], float(-residuals[i])) for i in beyond.tolist())


def _flags(
    posed: Problem,
    minima: tuple[Minimum, ...],
    bounds: Mapping[str, Interval],
    profiles: Mapping[str, Any],
    runs: Runs,
    residuals: Array,
    settings: FitSettings,
) -> list[str]:
    best = minima[0].values
    flags = []
    for what, column in (("params", runs.params), ("tokens", runs.tokens)):
        sizes = np.unique(column).size
        if sizes < _FEW:
            flags.append(f"only {sizes} different {what}: their exponent rests on little")
    if len(runs) < _PER_CONSTANT * len(posed.names):
        flags.append(
            f"{len(runs)} runs for {len(posed.names)} constants: intervals are rough, more runs help"
        )
    for name in ("alpha", "beta"):
        if name in posed.names and best[name] <= 0:
            size = "larger models are" if name == "alpha" else "more tokens are"
            flags.append(f"{name} is {best[name]:.3g}: by this fit {size} worse, so nothing can be allocated")
    if "E" in posed.names and best["E"] < _ABSENT * float(runs.loss.min()):
        flags.append("E is 0 at the best fit: the runs do not show an irreducible loss")
    close = intervals.threshold(minima[0].objective, settings.level, len(runs))
    rivals = [m for m in minima[1:] if m.objective <= close]
    if rivals:
        lives = [n for n in posed.names if n in LIVES] or list(posed.names)
        shown = "; ".join(", ".join(f"{n} {m.values[n]:.4g}" for n in lives) for m in rivals[:5])
        flags.append(
            f"{len(rivals)} other minima are as likely as the best at the {settings.level:.0%} level "
            f"({shown}): no single one is the answer"
        )
    for name in profiles:
        interval = bounds[name]
        if math.isinf(interval.high) and interval.low <= 0.11:
            flags.append(f"{name} is not determined by these runs: any value does")
        elif math.isinf(interval.high):
            flags.append(f"{name} has no upper bound: these runs allow that it never ends")
        elif interval.low > 0 and interval.high / interval.low > 4:
            flags.append(f"{name} is known only to a factor of {interval.high / interval.low:.0f}")
    return flags
