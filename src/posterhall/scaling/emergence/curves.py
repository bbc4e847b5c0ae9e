"""Smooth curves against curves with a break, judged by the scales they have not seen.

The strongest objection to "emergence is a mirage" is that a smooth metric found afterwards is no
prediction. So models compete on prediction: fitted to the smaller scales, they must say what the
larger ones score. Smooth, in log scale: a line, a parabola, a power law, a sigmoid, and a Gompertz curve,
which is what p^L makes of a power law in the loss. Break: two line segments, a jump between parallel
lines, a broken scaling law (Caballero et al. 2022, eq. 1, one break).

No method sees a break that lies beyond the scales it is given; what is asked is whether models *with* a
break foretell held-out scales better than models without one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from posterhall import seeds
from posterhall.errors import DataError
from posterhall.metrics.emergence import ordered
from posterhall.scaling.emergence._separable import Axes, Floats, Model, fit, foretell, no_axes, no_shape

Verdict = Literal["smooth", "break", "undecided", "too few scales"]

LEAST_SCALES = 6
"""Five to fit four parameters, and one to foretell."""
SIGNIFICANCE = 0.05
"""Chance, about, of calling a smooth curve (one of the smooth models, with the noise stated) a break."""
NEAR = 6.0
"""Smooth models within so much of the best AICc must all be unable to explain a break's advantage."""


def _expit(z: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * z)))


def _power_axes(u: Floats) -> Axes:
    return (np.linspace(-8.0, 8.0, 129),)


def _power(u: Floats, theta: Floats) -> Floats:
    return np.asarray(np.exp(-theta[:, :1] * u))  # x^-α in log scale


def _sigmoid_axes(u: Floats) -> Axes:
    # From 10 % to 90 % it takes 4.4 widths. Steeper than two steps between scales is a jump, not smooth.
    narrowest = 2 * float(np.median(np.diff(u))) / 4.4
    return np.linspace(-0.25, 1.5, 36), np.geomspace(narrowest, max(1.0, 2 * narrowest), 16)


def _sigmoid(u: Floats, theta: Floats) -> Floats:
    return _expit((u - theta[:, :1]) / theta[:, 1:])


def _gompertz_axes(u: Floats) -> Axes:
    # From 10 % to 90 % it takes 3.08 widths; the middle lies far ahead for long answers.
    narrowest = 2 * float(np.median(np.diff(u))) / 3.08
    return np.linspace(-0.5, 3.0, 36), np.geomspace(narrowest, max(1.5, 2 * narrowest), 16)


def _gompertz(u: Floats, theta: Floats) -> Floats:
    return np.asarray(np.exp(-np.exp(np.minimum((theta[:, :1] - u) / theta[:, 1:], 700.0))))


def _hinge_axes(u: Floats) -> Axes:
    return (np.linspace(u[1], u[-2], 65),)  # two points on either side at least


def _hinge(u: Floats, theta: Floats) -> Floats:
    return np.asarray(np.maximum(u - theta, 0.0))


def _jump_axes(u: Floats) -> Axes:
    middles = (u[1:] + u[:-1]) / 2
    return (middles[1:-1] if middles.size > 3 else middles,)


def _jump(u: Floats, theta: Floats) -> Floats:
    return np.asarray((u > theta).astype(np.float64))


def _broken_axes(u: Floats) -> Axes:
    return (
        np.linspace(-6.0, 6.0, 9),
        np.linspace(-12.0, 12.0, 9),
        np.linspace(u[1], u[-2], 9),
        np.array([0.02, 0.06, 0.2]),
    )


def _broken(u: Floats, theta: Floats) -> Floats:
    c0, c1, d, f = (theta[:, i : i + 1] for i in range(4))
    return np.asarray(np.exp(-c0 * u - c1 * f * np.logaddexp(0.0, (u - d) / f)))


MODELS: tuple[Model, ...] = (
    Model("line", "smooth", 1, no_axes, no_shape, 2, 3),
    Model("parabola", "smooth", 2, no_axes, no_shape, 3, 4),
    Model("power law", "smooth", 0, _power_axes, _power, 3, 4),
    Model("sigmoid", "smooth", 0, _sigmoid_axes, _sigmoid, 4, 5),
    Model("Gompertz", "smooth", 0, _gompertz_axes, _gompertz, 4, 5),
    Model("two segments", "break", 1, _hinge_axes, _hinge, 4, 5),
    Model("jump", "break", 1, _jump_axes, _jump, 4, 5),
    Model("broken power law", "break", 0, _broken_axes, _broken, 6, 8),
)


@dataclass(frozen=True)
class Scored:
    """A model and how it did.

    Attributes:
        name, kind: of the model.
        held_out: root mean square error on left-out largest scales, averaged over how many are left out.
        aicc: Akaike's criterion with small-sample correction on all scales; inf with too few.
        parameters: free numbers.
    """

    name: str
    kind: Literal["smooth", "break"]
    held_out: float
    aicc: float
    parameters: int


@dataclass(frozen=True)
class Comparison:
    """Smooth against break.

    Attributes:
        verdict: ``break`` if a model with a break foretells the left-out scales better than every smooth
            one, by more than noise around smooth curves does in 95 of 100 cases; ``smooth`` if a
            smooth one is as good as any, or errs by no more than twice the noise; ``undecided`` between;
            ``too few scales`` below six.
        p: how often curves drawn around a smooth model favour a break as much (log ratio of held-out
            errors and of residuals), of all smooth models that fit nearly as well as the best the largest
            such share; 1 if no break is ahead, None if too few.
        models: every model, best held-out error first within each kind, smooth ones first.
        left_out: largest number of scales left out.
        noise: root mean square standard error of the left-out scores, known or estimated.
    """

    verdict: Verdict
    p: float | None
    models: tuple[Scored, ...]
    left_out: int
    noise: float

    def best(self, kind: Literal["smooth", "break"]) -> Scored | None:
        """The model of that kind with the smallest held-out error."""
        return next((model for model in self.models if model.kind == kind), None)


@dataclass(frozen=True)
class _Curve:
    """A series in order of scale: log scale and scores, (n,); standard errors or None; bounds or None."""

    t: Floats
    y: Floats
    errors: Floats | None
    bounds: tuple[float, float] | None

    def first(self, n: int) -> _Curve:
        return _Curve(self.t[:n], self.y[:n], None if self.errors is None else self.errors[:n], self.bounds)

    def unit(self, n: int) -> Floats:
        """All log scales on the scale where the first n run from 0 to 1."""
        return np.asarray((self.t - self.t[0]) / (self.t[n - 1] - self.t[0]))

    def clipped(self, y: Floats) -> Floats:
        return y if self.bounds is None else np.clip(y, *self.bounds)


def _curve(
    x: npt.ArrayLike, y: npt.ArrayLike, noise: npt.ArrayLike | None, bounds: tuple[float, float] | None
) -> _Curve:
    scales, scores = ordered(x, y)
    if scales[0] <= 0:
        raise DataError(f"scale {scales[0]:g}; it must be positive, its logarithm is used")
    errors = None if noise is None else np.asarray(noise, np.float64)[np.argsort(np.asarray(x, np.float64))]
    if errors is not None and not (np.isfinite(errors) & (errors >= 0)).all():
        raise DataError(f"standard errors {errors.tolist()} must be finite and not negative")
    return _Curve(np.log(scales), scores, errors, bounds)


def _left_out(n: int) -> int:
    return max(1, min(n // 4, n - LEAST_SCALES + 1))


def _able(models: Sequence[Model], n: int) -> list[Model]:
    return [model for model in models if n >= model.least]


def _held_out(model: Model, curve: _Curve, ys: Floats, left_out: int) -> Floats:
    """Error on the largest k scales, averaged over k = 1 .. left_out, of many curves; (curves,)."""
    total = np.zeros(len(ys))
    for k in range(1, left_out + 1):
        n = curve.t.size - k
        u = curve.unit(n)
        ahead = curve.clipped(foretell(model, u[:n], ys[:, :n], u[n:]))
        total += np.sqrt(np.mean(np.square(ahead - ys[:, n:]), axis=1))
    return total / left_out


def _errors(models: Sequence[Model], curve: _Curve, ys: Floats, left_out: int) -> Floats:
    return np.stack([_held_out(model, curve, ys, left_out) for model in models])


def _residuals(models: Sequence[Model], curve: _Curve, ys: Floats) -> Floats:
    """Root mean square residual of each model on all scales of each curve, (models, curves)."""
    u = curve.unit(curve.t.size)
    fitted = np.stack([foretell(model, u, ys, u) for model in models])
    return np.asarray(np.sqrt(np.mean(np.square(fitted - ys), axis=2)))


def _aicc(model: Model, rss: float, curve: _Curve) -> float:
    n, k = curve.t.size, model.parameters + 1  # the noise is a parameter too
    if n <= k + 1:
        return math.inf
    # A curve that a model meets exactly must not get -inf.
    floor = max(1e-12 * n * float(np.ptp(curve.y)) ** 2, 1e-300)
    return n * math.log(max(rss, floor) / n) + 2 * k + 2 * k * (k + 1) / (n - k - 1)


def compare(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    noise: npt.ArrayLike | None = None,
    bounds: tuple[float, float] | None = None,
    models: Sequence[Model] = MODELS,
    seed: int = 0,
    resamples: int = 100,
) -> Comparison:
    """Which kind of curve foretells the largest scales.

    Every model is fitted by least squares in log scale to all but the largest k scales and asked for
    those, for k = 1 to a quarter of the scales. Whether a break's advantage is more than luck is found by
    doing the same to curves drawn around the smooth models that fit (parametric bootstrap).

    Args:
        x: scales, (n,), > 0, distinct.
        y: scores, (n,).
        noise: standard error of each score, (n,) in the order of `x`; None takes the spread around the
            model with the best AICc, of whichever kind.
        bounds: predictions are clipped to them, (0, 1) for a fraction.
        models: the competitors.
        seed: of the drawn curves.
        resamples: curves drawn around each smooth model that fits.

    Raises:
        DataError: for scales that are not positive, and as `metrics.emergence.ordered`.
    """
    curve = _curve(x, y, noise, bounds)
    n = curve.t.size
    if n < LEAST_SCALES:
        return Comparison("too few scales", None, (), 0, 0.0)
    left_out = _left_out(n)
    able = _able(models, n - left_out)
    u = curve.unit(n)
    fits = [fit(model, u, curve.y) for model in able]
    criteria = [_aicc(model, fitted.rss, curve) for model, fitted in zip(able, fits, strict=True)]
    held = _errors(able, curve, curve.y[None], left_out)
    smooth = np.array([model.kind == "smooth" for model in able])

    errors = curve.errors
    if errors is None:
        i = int(np.argmin(criteria))
        errors = np.full(n, math.sqrt(fits[i].rss / max(n - able[i].parameters, 1)))
    tiny = 1e-9 * float(np.ptp(curve.y)) + 1e-300
    ahead = float(_advantage(held, smooth, tiny)[0])
    inside = float(_advantage(_residuals(able, curve, curve.y[None]), smooth, tiny)[0])
    generator = seeds.generator(seed, "emergence", "compare")
    p = 0.0 if ahead > 0 else 1.0
    for i in _plausible(criteria, held[:, 0], smooth) if ahead > 0 else ():
        drawn = fits[i].predict(u) + errors * generator.standard_normal((resamples, n))
        drawn = curve.clipped(drawn)
        luck = _advantage(_errors(able, curve, drawn, left_out), smooth, tiny)
        luck += _advantage(_residuals(able, curve, drawn), smooth, tiny)
        p = max(p, (1 + int((luck >= ahead + inside).sum())) / (1 + resamples))

    spread = math.sqrt(float(np.mean(np.square(errors[-left_out:]))))
    verdict: Verdict = "undecided"
    if ahead > 0 and p <= SIGNIFICANCE:
        verdict = "break"
    elif ahead <= 0 or held[smooth].min() <= 2 * spread:
        verdict = "smooth"
    scored = [
        Scored(model.name, model.kind, float(error), criterion, model.parameters)
        for model, error, criterion in zip(able, held[:, 0], criteria, strict=True)
    ]
    scored.sort(key=lambda each: (each.kind == "break", each.held_out, each.parameters))
    return Comparison(verdict, p, tuple(scored), left_out, spread)


def _plausible(criteria: list[float], held: Floats, smooth: npt.NDArray[np.bool_]) -> list[int]:
    """Smooth models that may well be true: that with the best held-out error, and all near the best AICc."""
    known = np.where(smooth, criteria, np.inf)
    near = np.isfinite(known) & (known <= known.min() + NEAR)
    near[np.argmin(np.where(smooth, held, np.inf))] = True
    return np.flatnonzero(near).tolist()


def _advantage(held: Floats, smooth: npt.NDArray[np.bool_], tiny: float) -> Floats:
    """log of the best smooth error over the best with a break, (curves,), of errors (models, curves)."""
    if smooth.all():
        return np.full(held.shape[1], -np.inf)
    floored = np.maximum(held, tiny)
    return np.asarray(np.log(floored[smooth].min(axis=0) / floored[~smooth].min(axis=0)))


@dataclass(frozen=True)
class Prediction:
    """The largest scale's score as foretold from the smaller ones by smooth curves.

    Attributes:
        scale: the largest.
        predicted, low, high: prediction with its 95 % interval.
        actual: what it scored.
        model: the smooth model of the prediction, chosen by held-out error among the smaller scales.
        surprise: ``above`` or ``below`` if the actual score lies outside the interval, else ``none``.
    """

    scale: float
    predicted: float
    low: float
    high: float
    actual: float
    model: str
    surprise: Literal["above", "below", "none"]


def predict_largest(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    noise: npt.ArrayLike | None = None,
    bounds: tuple[float, float] | None = None,
    seed: int = 0,
    level: float = 0.95,
    resamples: int = 1000,
) -> Prediction:
    """Foretell the largest model's score from all the others, by smooth models alone.

    The interval mixes all smooth models, each weighted by the inverse square of its held-out error
    among the smaller scales: curves drawn around each one's fit are fitted again and extrapolated, and
    noise is added (parametric bootstrap). It is as good as one of these models is true.

    Args:
        x: scales, (n,), > 0, distinct, n >= 5.
        y: scores, (n,).
        noise: standard error of each score, in the order of `x`; None takes each fit's residual spread.
        bounds: predictions are clipped to them.
        seed: of the bootstrap.
        level: of the interval.
        resamples: curves drawn, about.

    Raises:
        DataError: with fewer than five scales, and as `compare`.
    """
    whole = _curve(x, y, noise, bounds)
    n = whole.t.size - 1
    if n < 4:
        raise DataError(f"{n + 1} scales; foretelling the largest needs four smaller ones")
    curve = whole.first(n)
    u = whole.unit(n)
    smooth = [model for model in MODELS if model.kind == "smooth"]
    left_out = _left_out(n)
    able = _able(smooth, n - left_out) or smooth[:1]
    tiny = 1e-9 * float(np.ptp(curve.y)) + 1e-300
    held = np.array([max(float(_held_out(model, curve, curve.y[None], left_out)[0]), tiny) for model in able])
    weights = (held.min() / held) ** 2  # relative first: the square of a tiny error underflows
    weights /= weights.sum()
    generator = seeds.generator(seed, "emergence", "predict")
    draws = []
    for model, weight in zip(able, weights, strict=True):
        count = round(resamples * weight)
        if not count:
            continue
        fitted = fit(model, u[:n], curve.y)
        residual = math.sqrt(fitted.rss / max(n - model.parameters, 1))
        errors = np.full(n + 1, residual) if whole.errors is None else whole.errors
        around = fitted.predict(u[:n]) + errors[:n] * generator.standard_normal((count, n))
        ahead = foretell(model, u[:n], curve.clipped(around), u[n:])[:, 0]
        draws.append(ahead + errors[n] * generator.standard_normal(count))
    low, high = np.quantile(whole.clipped(np.concatenate(draws)), [(1 - level) / 2, (1 + level) / 2])
    best = able[int(held.argmin())]
    predicted = float(whole.clipped(fit(best, u[:n], curve.y).predict(u[n:]))[0])
    low, high = min(low, predicted), max(high, predicted)
    actual = float(whole.y[n])
    surprise: Literal["above", "below", "none"] = "none"
    if actual > high + tiny:
        surprise = "above"
    elif actual < low - tiny:
        surprise = "below"
    scale = math.exp(whole.t[n])
    return Prediction(scale, predicted, float(low), float(high), actual, best.name, surprise)
