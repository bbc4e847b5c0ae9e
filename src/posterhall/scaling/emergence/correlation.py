"""How well each item's score follows compute, and how that is lost along the chain of scores.

Schaeffer et al. 2024 (arXiv 2406.04391): from NLL over p of the vocabulary and p among the choices to
accuracy, the correlation of one item's score with log compute falls at every step, since it comes to
depend on what happens to a few wrong options. Shown as a survival function over items.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from posterhall.errors import DataError

Floats = npt.NDArray[np.float64]
Kind = Literal["pearson", "spearman", "kendall"]


def per_sample(scores: npt.ArrayLike, scale: npt.ArrayLike, kind: Kind = "spearman") -> Floats:
    """Correlation of each item's score with log scale over the models, (m,), NaN where it is constant.

    Args:
        scores: of n models on m items, (n, m), high for good.
        scale: compute or parameters of each model, (n,), > 0.
        kind: pearson (on log scale), spearman, or kendall (tau-b).

    Raises:
        DataError: for other shapes, fewer than three models, scores that are not finite, or equal scales.
    """
    y, x = np.asarray(scores, np.float64), np.asarray(scale, np.float64)
    if y.ndim != 2 or x.shape != y.shape[:1] or x.size < 3:
        raise DataError(
            f"scores have shape {y.shape}, scales {x.shape}; give (models, items) of three models or more"
        )
    if not (x > 0).all() or np.ptp(x) == 0:
        raise DataError("scales must be positive and not all equal; log scale is what is correlated with")
    if not np.isfinite(y).all():
        i, j = np.argwhere(~np.isfinite(y))[0]
        raise DataError(f"model {i}, item {j}: score {y[i, j]}; clip log 0 before correlating")
    t = np.log(x)
    if kind == "kendall":
        return _kendall(y, t)
    if kind == "spearman":
        from scipy.stats import rankdata

        y, t = rankdata(y, axis=0), rankdata(t)
    elif kind != "pearson":
        raise DataError(f"correlation {kind!r}; allowed are pearson, spearman and kendall")
    constant = np.ptp(y, axis=0) == 0
    y, t = y - y.mean(axis=0), t - t.mean()
    norm = np.sqrt(np.square(y).sum(axis=0) * (t @ t))
    return _ratio(t @ y, np.where(constant, 0.0, norm))


def _kendall(y: Floats, t: Floats) -> Floats:
    a, b = np.triu_indices(t.size, 1)
    order = np.sign(t[b] - t[a])  # (pairs,)
    steps = np.sign(y[b] - y[a])  # (pairs, m)
    return _ratio(order @ steps, np.sqrt(np.abs(steps).sum(axis=0) * np.abs(order).sum()))


def _ratio(top: Floats, bottom: Floats) -> Floats:
    return np.asarray(np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0))


def survival(correlations: npt.ArrayLike, at: npt.ArrayLike) -> Floats:
    """Share of items whose correlation exceeds each value of `at`.

    Items with a constant score (NaN) follow nothing: they count as correlation 0, not as missing.
    """
    values = np.nan_to_num(np.asarray(correlations, np.float64), nan=0.0)
    if values.ndim != 1 or not values.size:
        raise DataError(f"correlations have shape {values.shape}; give one an item")
    above = np.searchsorted(np.sort(values), np.asarray(at, np.float64), side="right")
    return np.asarray(1 - above / values.size)
