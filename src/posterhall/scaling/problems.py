"""A law with runs as a problem to minimise: where to start, and how to get down from there.

The objective is always Hoffmann et al.'s: the *sum* over runs of Huber_delta(ln L predicted - ln L), natural
logarithms. (As a mean, it stops optimisers early: Besiroglu et al. 2024.) Laws with a compiled objective go
through `Compiled`; all others through `General`, which calls their formula.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from posterhall.errors import DataError
from posterhall.scaling.constants import BASE, LIVES
from posterhall.scaling.effective import Array
from posterhall.scaling.table import Runs

if TYPE_CHECKING:
    from posterhall.scaling.laws import Law

EXPONENTS = (
    -0.3,
    -0.05,
    0.02,
    0.06,
    0.1,
    0.15,
    0.2,
    0.25,
    0.3,
    0.35,
    0.4,
    0.5,
    0.6,
    0.75,
    1.0,
    1.4,
    2.0,
    3.5,
    7.0,
)
"""Grid of alpha and beta for starts; wide, since few sizes or outliers can drive an exponent far."""
STARTS = 24
STEPS = 500
ENDLESS = 1e8
"""A fitted life above this is infinite to any table."""


class Problem(Protocol):
    """What fits and intervals need of a law with its runs."""

    names: tuple[str, ...]
    """Constants that are fitted, in the order of a point's coordinates."""
    quick: bool
    """Whether a descent takes about a millisecond, so that there may be thousands."""

    def values(self, point: Array) -> dict[str, float]:
        """All constants at a point."""

    def point(self, values: Mapping[str, float]) -> Array:
        """Coordinates of values."""

    def objective(self, point: Array, weights: Array) -> float:
        """The weighted objective."""

    def starts(self, weights: Array) -> Iterator[Array]:
        """Points to start from."""

    def variants(self, point: Array) -> Iterator[Array]:
        """Points from which it may go further down than from a minimum that was found."""

    def descend(self, start: Array, weights: Array, held: Sequence[str] = ()) -> tuple[float, Array]:
        """The minimum below a start; constants in `held` stay as they are."""


def problem(law: Law, runs: Runs, frozen: Mapping[str, float], delta: float, seed: int) -> Problem:
    """The problem of fitting a law, with some constants frozen."""
    settled = {**frozen, **law.settled}
    if law.kernel is not None:
        return Compiled(law, runs, settled, delta)
    return General(law, runs, settled, delta, seed)


class Compiled:
    """Chinchilla's law and the data-constrained one, by `_fit_kernels`."""

    quick = True
    _NAMES = ("A", "B", "E", "alpha", "beta", "R_D", "R_N")
    _LOGS = (True, True, True, False, False, True, True)

    def __init__(self, law: Law, runs: Runs, frozen: Mapping[str, float], delta: float) -> None:
        assert law.kernel is not None  # noqa: S101 - `problem` chose this class
        self._law = law.kernel
        self._delta = delta
        self._tied = bool(getattr(law, "tied", False))
        self._all = tuple(symbol.name for symbol in law.symbols)
        logs = [np.log(x) for x in (runs.params, runs.tokens, runs.unique_tokens, runs.loss)]
        self._data = np.ascontiguousarray(np.stack(logs))
        self._loss = runs.loss
        self._centre = (float(self._data[0].mean()), float(self._data[1].mean()))
        self._published = dict(law.constants)
        self.names = tuple(n for n in self._NAMES if n in self._all and n not in frozen)
        if self._tied and not {"alpha", "beta"} <= set(self.names):
            raise DataError("alpha and beta are tied, so neither can be frozen; freeze others or untie them")
        self._base = np.full(7, 100.0)  # lives of laws without them: forever
        for i, name in enumerate(self._NAMES):
            if name in frozen:
                self._base[i] = self._coordinate(i, frozen[name])

    def _coordinate(self, i: int, value: float) -> float:
        if not self._LOGS[i]:
            return value
        return math.log(value) if 0 < value < math.inf else (100.0 if value > 0 else -100.0)

    def values(self, point: Array) -> dict[str, float]:
        """All constants at a point of seven coordinates."""
        found = {}
        for i, name in enumerate(self._NAMES):
            if name in self._all:
                raw = float(point[i])
                found[name] = math.exp(raw) if self._LOGS[i] else raw
                if name in LIVES and found[name] > ENDLESS:
                    found[name] = math.inf
        if found["E"] < 1e-15:
            found["E"] = 0.0
        return {name: found[name] for name in self._all}

    def point(self, values: Mapping[str, float]) -> Array:
        """The seven coordinates of values; frozen ones keep theirs."""
        point = self._base.copy()
        for i, name in enumerate(self._NAMES):
            if name in self.names:
                point[i] = self._coordinate(i, values[name])
        return point

    def directions(self, held: Sequence[str] = ()) -> Array:
        """Ways in which a point may move, (7, k).

        An exponent turns its term about the middle of the runs: otherwise ln A and alpha are all but
        collinear, since ln N is about 20 throughout.
        """
        free = [n for n in self.names if n not in held]
        ways = []
        for name in free:
            way = np.zeros(7)
            exponents = ("alpha", "beta") if self._tied and name == "alpha" else (name,)
            if self._tied and name == "beta":
                continue
            for each in exponents:
                way[self._NAMES.index(each)] = 1.0
                for exponent, term, middle in (("alpha", "A", 0), ("beta", "B", 1)):
                    if each == exponent and term in free:
                        way[middle] = self._centre[middle]
            ways.append(way)
        return np.ascontiguousarray(np.stack(ways, axis=1)) if ways else np.zeros((7, 0))

    def objective(self, point: Array, weights: Array) -> float:
        """The weighted objective."""
        from posterhall.scaling import _fit_kernels

        return float(_fit_kernels.objective(self._law, point, self._data, weights, self._delta, np.empty(7)))

    def descend(self, start: Array, weights: Array, held: Sequence[str] = ()) -> tuple[float, Array]:
        """BFGS from a start."""
        return self._down(start, weights, self.directions(held))

    def _down(self, start: Array, weights: Array, ways: Array) -> tuple[float, Array]:
        from posterhall.scaling import _fit_kernels

        point = start.copy()
        value = _fit_kernels.minimise(self._law, point, ways, self._data, weights, self._delta, STEPS)
        return float(value), point

    def starts(self, weights: Array) -> Iterator[Array]:
        """Valleys of a grid over the exponents, crossed with lives from days to eternity."""
        lives = [name for name in LIVES if name in self.names]
        bases = list(self._chinchilla(weights)) if set(self.names) - set(lives) else [self._base]
        if not lives:
            yield from bases
            return
        bases = self._settled_bases(bases, weights) if set(self.names) - set(lives) else bases
        steps = 8 if len(bases) == 1 else 4
        grid = np.linspace(math.log(0.2), math.log(2000.0), steps if len(lives) == 2 else 3 * steps)
        for base in bases:
            for first in grid:
                for second in grid if len(lives) == 2 else grid[:1]:
                    point = base.copy()
                    point[self._NAMES.index(lives[0])] = first
                    if len(lives) == 2:
                        point[self._NAMES.index(lives[1])] = second
                    yield point
        if set(lives) <= set(self._published) and len(bases) == 1:
            yield self.point({**self.values(bases[0]), **self._published})

    def variants(self, point: Array) -> Iterator[Array]:
        """The point itself, and without E: where the runs show none, it goes to 0 along a long valley."""
        yield point
        if "E" in self.names:
            without = point.copy()
            without[2] = -46.0
            yield without

    def _settled_bases(self, bases: list[Array], weights: Array) -> list[Array]:
        """The best few of Chinchilla's fits, and the published constants, to cross with lives."""
        from posterhall.scaling import _fit_kernels

        ways = self.directions(LIVES)
        kept = []
        for base in bases[:6]:
            point = base.copy()
            value = _fit_kernels.minimise(0, point, ways, self._data, weights, self._delta, STEPS)
            kept.append((float(value), point))
        best = [point for _, point in sorted(kept, key=lambda pair: pair[0]) if min(point[3:5]) > 0.01][:2]
        if set(self._published) >= set(self.names):
            best.append(self.point(self._published))
        return best

    def _chinchilla(self, weights: Array) -> Iterator[Array]:
        """Starts for E, A, B and the exponents (those that are free), the most promising first."""
        from posterhall.scaling import _start_kernels

        fixed = {n: self._base[self._NAMES.index(n)] for n in ("alpha", "beta") if n not in self.names}
        alphas = np.array([fixed["alpha"]] if "alpha" in fixed else EXPONENTS)
        betas = np.array([fixed["beta"]] if "beta" in fixed else EXPONENTS)
        solved = np.empty((alphas.size, betas.size, 3))
        n, d = self._data[0] - self._centre[0], self._data[1] - self._centre[1]
        values = _start_kernels.grid(n, d, self._loss, weights, self._delta, alphas, betas, solved)
        if self._tied:
            values = np.where(np.eye(alphas.size, dtype=bool), values, np.inf)
        for h, k in _valleys(values, STARTS):
            point = self._base.copy()
            for i, raw in (
                (0, solved[h, k, 0] + alphas[h] * self._centre[0]),
                (1, solved[h, k, 1] + betas[k] * self._centre[1]),
                (2, solved[h, k, 2]),
                (3, alphas[h]),
                (4, betas[k]),
            ):
                if self._NAMES[i] in self.names:
                    point[i] = raw
            yield point


def _valleys(values: Array, most: int) -> list[tuple[int, int]]:
    """Cells below all their neighbours, then the lowest others; half and half, the lowest first."""
    edged = np.pad(values, 1, constant_values=np.inf)
    around = [
        edged[1 + i : edged.shape[0] - 1 + i, 1 + j : edged.shape[1] - 1 + j]
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
        if (i, j) != (0, 0)
    ]
    below = values <= np.min(around, axis=0)
    order = [int(k) for k in np.argsort(values, axis=None) if np.isfinite(values.flat[k])]
    valleys = [k for k in order if below.flat[k]][: most // 2]
    chosen = [*valleys, *[k for k in order if k not in set(valleys)]][:most]
    return [(int(k) // values.shape[1], int(k) % values.shape[1]) for k in chosen]


class General:
    """Any law, by its formula: L-BFGS-B with numeric gradients, Huber's delta closing in from above."""

    quick = False
    _STARTS = 12
    _SOFT = 0.03
    """Huber's delta at first: what squares see is smoother."""

    def __init__(self, law: Law, runs: Runs, frozen: Mapping[str, float], delta: float, seed: int) -> None:
        self._law, self._runs, self._delta, self._seed = law, runs, delta, seed
        self._fixed = dict(frozen)
        self._symbols = [s for s in law.symbols if s.name not in frozen]
        self.names = tuple(s.name for s in self._symbols)
        self._log_loss = np.log(runs.loss)
        self._bounds = [
            (math.log(s.low) - 14, math.log(s.high) + 14) if s.log else (1e-4, 5 * s.high)
            for s in self._symbols
        ]

    def values(self, point: Array) -> dict[str, float]:
        """All constants at a point."""
        free = {
            s.name: math.exp(min(x, 700.0)) if s.log else float(x)
            for s, x in zip(self._symbols, point, strict=True)
        }
        return {s.name: free.get(s.name, self._fixed.get(s.name, math.nan)) for s in self._law.symbols}

    def point(self, values: Mapping[str, float]) -> Array:
        """Coordinates of values, kept within the bounds."""
        raw = [math.log(max(values[s.name], 1e-300)) if s.log else values[s.name] for s in self._symbols]
        return np.clip(raw, [low for low, _ in self._bounds], [high for _, high in self._bounds])

    def _residuals(self, point: Array) -> Array:
        runs = self._runs
        with np.errstate(all="ignore"):
            try:
                loss = self._law.formula(self.values(point), runs.params, runs.tokens, runs.unique_tokens)
            except DataError:  # constants with which the law says nothing
                return np.full(len(runs), np.inf)
            return np.asarray(np.log(loss) - self._log_loss)

    def _huber(self, point: Array, weights: Array, delta: float) -> float:
        miss = np.abs(self._residuals(point))
        value = float(np.where(miss <= delta, 0.5 * miss * miss, delta * (miss - 0.5 * delta)) @ weights)
        return value if math.isfinite(value) else 1e6

    def objective(self, point: Array, weights: Array) -> float:
        """The weighted objective."""
        return self._huber(point, weights, self._delta)

    def descend(self, start: Array, weights: Array, held: Sequence[str] = ()) -> tuple[float, Array]:
        """From soft to the wanted delta, then again until nothing is gained."""
        from scipy.optimize import minimize

        free = [i for i, name in enumerate(self.names) if name not in held]
        point = start.copy()
        if not free:
            return self.objective(point, weights), point

        def at(moved: Array) -> Array:
            whole = point.copy()
            whole[free] = moved
            return whole

        def with_gradient(moved: Array, delta: float) -> tuple[float, Array]:
            scale = 1 / (delta * max(weights.sum(), 1.0))
            base = self._residuals(at(moved))
            if not np.isfinite(base).all():
                return 1e6, np.zeros(len(free))
            miss = np.abs(base)
            value = np.where(miss <= delta, 0.5 * miss * miss, delta * (miss - 0.5 * delta)) @ weights
            push = weights * np.clip(base, -delta, delta)
            gradient = np.empty(len(free))
            for k in range(len(free)):
                step = np.zeros(len(free))
                step[k] = 1e-6
                slope = (self._residuals(at(moved + step)) - self._residuals(at(moved - step))) / 2e-6
                gradient[k] = push @ np.nan_to_num(slope)
            return float(value * scale), gradient * scale

        bounds = [self._bounds[i] for i in free]
        for delta in (max(self._SOFT, self._delta), self._delta):
            moved = minimize(
                with_gradient, point[free], args=(delta,), jac=True, method="L-BFGS-B", bounds=bounds
            )
            point = at(moved.x)
        best = self.objective(point, weights)
        # L-BFGS-B ends early on what is all but a sum of |r|; BFGS gets down to the last digits.
        for _ in range(2):
            moved = minimize(
                with_gradient, point[free], args=(self._delta,), jac=True, options={"gtol": 1e-9}
            )
            value = self.objective(at(moved.x), weights)
            inside = all(low <= x <= high for x, (low, high) in zip(moved.x, bounds, strict=True))
            if not inside or not value < best:
                break
            best, point = value, at(moved.x)
        return best, point

    def variants(self, point: Array) -> Iterator[Array]:
        """The point itself."""
        yield point

    def starts(self, weights: Array) -> Iterator[Array]:
        """Random points of the symbols' ranges, and as many with the constants that Chinchilla's fit has."""
        from scipy.stats import qmc

        from posterhall.scaling.laws import Chinchilla

        low = [math.log(s.low) if s.log else s.low for s in self._symbols]
        high = [math.log(s.high) if s.log else s.high for s in self._symbols]
        shared = set(BASE) & set(self.names)
        likely: dict[str, float] = {}
        if shared and set(BASE) <= {s.name for s in self._law.symbols}:
            plain = Compiled(Chinchilla(), self._runs, {}, self._delta)
            _, point = plain.descend(next(iter(plain.starts(weights))), weights)
            likely = plain.values(point)
        if not self._symbols:
            return
        draws = qmc.Halton(len(self._symbols), seed=self._seed).random(self._STARTS)
        for i, raw in enumerate(qmc.scale(draws, low, high)):
            point = np.asarray(raw)
            if likely and i % 2 == 0:
                guess = self.values(point)
                guess.update({n: likely[n] for n in shared if likely[n] > 0})
                point = self.point(guess)
            yield point


def descents(posed: Problem, weights: Array) -> list[tuple[float, Array]]:
    """Every start taken down, then the best once more; the best first.

    Starts without a finite objective are left out.
    """
    found: list[tuple[float, Any]] = []
    for start in posed.starts(weights):
        value, point = posed.descend(start, weights)
        if math.isfinite(value):
            found.append((value, point))
    if not found:
        raise DataError("no start of the fit has a finite objective; check the units of the columns")
    best = min(found, key=lambda pair: pair[0])[1]
    found += [posed.descend(start, weights) for start in posed.variants(best)]
    return sorted(found, key=lambda pair: pair[0])
