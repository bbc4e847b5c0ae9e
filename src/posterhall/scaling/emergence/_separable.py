"""Least squares for curves with one nonlinear shape: y = polynomial(u) + b · shape(u; θ).

For a given θ the rest is linear, so the best b and polynomial follow by projection and only θ is
searched (variable projection, Golub & Pereyra 1973): a grid, then the same grid laid ever finer around
its best point. With a dozen points a grid of a few hundred shapes is one small matrix product, needs no
start and cannot miss the basin, and serves many curves over the same scales at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Axes = tuple[Floats, ...]

ZOOMS = 4


@dataclass(frozen=True)
class Model:
    """A family of curves over u, log scale brought to 0..1 over the scales that are fitted.

    Attributes:
        name: in reports.
        kind: whether it has a break.
        degree: of the polynomial.
        axes: values of θ to search, given u.
        shape: (u (n,), θ (G, d)) -> (G, n).
        parameters: free numbers.
        least: points below which it is not fitted.
    """

    name: str
    kind: Literal["smooth", "break"]
    degree: int
    axes: Callable[[Floats], Axes]
    shape: Callable[[Floats, Floats], Floats]
    parameters: int
    least: int


def no_axes(u: Floats) -> Axes:
    """Of a polynomial alone."""
    return ()


def no_shape(u: Floats, theta: Floats) -> Floats:
    """Of a polynomial alone: one shape that is 0 throughout."""
    return np.zeros((len(theta), u.size))


@dataclass(frozen=True)
class Fitted:
    """A fitted curve; `predict` takes u on the scale of the fit, beyond 0..1 too."""

    model: Model
    theta: Floats
    coefficients: Floats
    rss: float

    def predict(self, u: Floats) -> Floats:
        """Values at u, (n,)."""
        return np.asarray(_columns(self.model, u, self.theta) @ self.coefficients)


def _columns(model: Model, u: Floats, theta: Floats) -> Floats:
    return np.column_stack([np.vander(u, model.degree + 1, increasing=True), model.shape(u, theta[None])[0]])


def _solve(model: Model, u: Floats, y: Floats, theta: Floats) -> Fitted:
    columns = _columns(model, u, theta)
    coefficients = np.asarray(np.linalg.lstsq(columns, y, rcond=1e-10)[0], np.float64)
    return Fitted(model, theta, coefficients, float(np.square(y - columns @ coefficients).sum()))


def _mesh(axes: Axes) -> Floats:
    if not axes:
        return np.empty((1, 0))
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


class Search:
    """A model's grid over fixed u, with all that does not depend on the curve computed once."""

    def __init__(self, model: Model, u: Floats, grid: Floats) -> None:
        self.grid = grid
        self.shapes = model.shape(u, grid)
        self.q, self.r = np.linalg.qr(np.vander(u, model.degree + 1, increasing=True))
        free = self.shapes - (self.shapes @ self.q) @ self.q.T  # what the polynomial cannot do
        norms = np.square(free).sum(axis=1)
        # A shape that is all but polynomial would fit rounding errors: its b is 0.
        usable = norms > 1e-10 * np.square(self.shapes).sum(axis=1)
        self.norms = np.where(usable, norms, np.inf)
        self.free = free

    def best(self, ys: Floats) -> tuple[npt.NDArray[np.intp], Floats]:
        """The shape that lowers each curve's residuals most, and its b; ys (curves, n), both (curves,)."""
        products = self.free @ ys.T
        chosen = (np.square(products) / self.norms[:, None]).argmax(axis=0)
        return chosen, products[chosen, np.arange(len(ys))] / self.norms[chosen]


def fit(model: Model, u: Floats, y: Floats) -> Fitted:
    """Least-squares fit of one curve, u and y (n,)."""
    axes = model.axes(u)
    found = []
    for _ in range(ZOOMS if axes else 1):
        grid = _mesh(axes)
        chosen = grid[Search(model, u, grid).best(y[None])[0][0]]
        found.append(_solve(model, u, y, chosen))
        axes = tuple(_around(axis, value) for axis, value in zip(axes, chosen, strict=True))
    return min(found, key=lambda each: each.rss)


def _around(axis: Floats, value: float) -> Floats:
    """The interval between the neighbours of a grid point, as finely divided as the axis was."""
    if axis.size == 1:
        return axis
    i = int(np.abs(axis - value).argmin())
    return np.linspace(axis[max(i - 1, 0)], axis[min(i + 1, axis.size - 1)], axis.size)


def foretell(model: Model, u: Floats, ys: Floats, at: Floats) -> Floats:
    """What the model, fitted to many curves over the same u, says at other places, (curves, points).

    One grid, no refinement: curves that differ by noise are compared under equal conditions.

    Args:
        model: fitted to each curve by itself.
        u: (n,).
        ys: (curves, n).
        at: (points,), on the scale of u.
    """
    search = Search(model, u, _mesh(model.axes(u)))
    chosen, b = search.best(ys)
    rest = ys - b[:, None] * search.shapes[chosen]
    polynomial = np.linalg.solve(search.r, search.q.T @ rest.T)  # (degree + 1, curves)
    ahead = model.shape(at, search.grid)[chosen]
    return np.asarray((np.vander(at, model.degree + 1, increasing=True) @ polynomial).T + b[:, None] * ahead)
