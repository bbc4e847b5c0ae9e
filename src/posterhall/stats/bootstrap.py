"""BCa bootstrap over items, and over clusters of items."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from posterhall.errors import DataError
from posterhall.stats.estimates import Floats, Interval, checked_level, units_for

Statistic = Callable[..., Any]


@dataclass(frozen=True)
class Bootstrap:
    """A bootstrap distribution with BCa intervals (Efron 1987).

    Attributes:
        estimate: the statistic on the data.
        replicates: its values on the resamples, sorted, shape (B,).
        bias: z0, the normal quantile of the share of replicates below the estimate.
        acceleration: a, from the jackknife's skewness.
        n: units resampled (items or clusters).
        method: words for the report.
    """

    estimate: float
    replicates: Floats = field(repr=False)
    bias: float
    acceleration: float
    n: int
    method: str

    def _end(self, p: float) -> float:
        from scipy.special import ndtr, ndtri

        z = self.bias + float(ndtri(p))
        share = float(ndtr(self.bias + z / (1 - self.acceleration * z)))  # Efron 1987, eq. 6.8
        return float(np.quantile(self.replicates, share))

    def interval(self, level: float = 0.95) -> Interval:
        """BCa interval at `level`."""
        checked_level(level)
        low, high = self._end((1 - level) / 2), self._end((1 + level) / 2)
        return Interval(self.estimate, low, high, level, self.n, self.method)

    def tail(self, bound: float, side: Literal["below", "above"]) -> float:
        """One-sided p-value: the error at which the BCa interval's end would just reach `bound`."""
        from scipy.special import ndtr, ndtri

        if math.isinf(bound):
            return 0.0 if (bound < 0) == (side == "below") else 1.0
        if self.replicates[0] == self.replicates[-1]:
            beyond = self.estimate > bound if side == "below" else self.estimate < bound
            return 0.0 if beyond else 1.0
        count = self.replicates.size
        below = int(np.searchsorted(self.replicates, bound, side="right" if side == "below" else "left"))
        # Never 0 or 1: B resamples cannot show an error below 1 / (B + 1).
        share = min(max(below, 1), count - 1) / (count + 1)
        w = float(ndtri(share)) - self.bias  # inverse of `_end`
        p = float(ndtr(w / (1 + self.acceleration * w) - self.bias))
        return p if side == "below" else 1 - p

    def needed(self, low: float, high: float, level: float = 0.95) -> int | None:
        """Units at which a normal interval of this spread would fit inside (low, high)."""
        spread = float(np.std(self.replicates)) * math.sqrt(self.n)
        return units_for(min(self.estimate - low, high - self.estimate), spread, level)


def _bca(estimate: float, replicates: Floats, jackknife: Floats, n: int, method: str) -> Bootstrap:
    from scipy.special import ndtri

    if not np.isfinite(replicates).all():
        raise DataError(
            f"{int((~np.isfinite(replicates)).sum())} of {replicates.size} resamples give a statistic that "
            "is not finite; choose a statistic that exists on every resample (a ratio of sums, not of items)"
        )
    ordered = np.sort(replicates)
    # Ties count half, as scipy does: without it a discrete statistic has a spurious bias.
    share = float(np.mean(ordered < estimate) + np.mean(ordered <= estimate)) / 2
    share = min(max(share, 0.5 / ordered.size), 1 - 0.5 / ordered.size)
    centred = jackknife.mean() - jackknife
    cube = float((centred**2).sum()) ** 1.5
    # A constant jackknife (no spread at all) has no skewness either.
    acceleration = float((centred**3).sum()) / (6 * cube) if cube > 0 else 0.0
    return Bootstrap(estimate, ordered, float(ndtri(share)), acceleration, n, method)


def _takes_axis(statistic: Statistic) -> bool:
    try:
        return "axis" in inspect.signature(statistic).parameters
    except (TypeError, ValueError):
        return False


def bootstrap(values: npt.ArrayLike, statistic: Statistic, *, seed: int, resamples: int = 2000) -> Bootstrap:
    """Bootstrap distribution of `statistic` over the rows of `values`.

    Args:
        values: shape (n,) or (n, k), n >= 2; rows are resampled together.
        statistic: array -> float. If it takes ``axis`` and `values` is (n,), it is called once on all
            resamples, shape (B, n), with ``axis=-1``.
        seed: seed of the resampling.
        resamples: B, >= 100.

    Raises:
        DataError: on fewer than two rows, non-finite values, or a statistic that is not finite.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.ndim not in (1, 2) or len(data) < 2:
        raise DataError(
            f"values have shape {data.shape}; a bootstrap needs (n,) or (n, k) with n of 2 or more"
        )
    if not np.isfinite(data).all():
        raise DataError("values hold NaN or infinity; a bootstrap needs finite numbers")
    _check_resamples(resamples)
    n = len(data)
    generator = np.random.Generator(np.random.Philox(seed))
    if data.ndim == 1 and _takes_axis(statistic):
        replicates = np.empty(resamples)
        block = max(1, 4_000_000 // n)  # at most 32 MB of resamples at a time
        for start in range(0, resamples, block):
            stop = min(start + block, resamples)
            picks = generator.integers(0, n, size=(stop - start, n))
            replicates[start:stop] = statistic(data[picks], axis=-1)
    else:
        replicates = np.array(
            [float(statistic(data[generator.integers(0, n, size=n)])) for _ in range(resamples)]
        )
    keep = np.ones(n, dtype=bool)
    jackknife = np.empty(n)
    for i in range(n):
        keep[i] = False
        jackknife[i] = float(statistic(data[keep]))
        keep[i] = True
    return _bca(float(statistic(data)), replicates, jackknife, n, "BCa bootstrap over items")


def bca_interval(
    values: npt.ArrayLike,
    statistic: Statistic = np.mean,
    *,
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Bias-corrected and accelerated bootstrap interval of `statistic`; see `bootstrap`."""
    return bootstrap(values, statistic, seed=seed, resamples=resamples).interval(level)


def _check_resamples(resamples: int) -> None:
    if resamples < 100:
        raise DataError(f"{resamples} resamples cannot show a 95 % interval; use 100 or more (2000 is usual)")


def clustered(
    values: npt.ArrayLike,
    clusters: npt.ArrayLike | None,
    statistic: Literal["mean", "ratio", "relative"] | Statistic = "mean",
    *,
    seed: int,
    resamples: int = 2000,
) -> Bootstrap:
    """Bootstrap distribution over clusters: whole clusters are drawn, their items stay together.

    Args:
        values: items, shape (n,), or (n, 2) for a ratio.
        clusters: the cluster of each item, shape (n,), any ids; None makes every item its own.
        statistic: ``mean`` of all items; ``ratio`` of the two columns' sums; ``relative``, that
            ratio - 1; or a callable on the resampled items (slower: a Python call a resample).
        seed: seed of the resampling.
        resamples: B, >= 100.

    Raises:
        DataError: on fewer than two clusters, unequal lengths or non-finite values.
    """
    data = np.asarray(values, dtype=np.float64)
    labels = np.arange(len(data)) if clusters is None else np.asarray(clusters)
    if labels.shape != data.shape[:1]:
        raise DataError(f"{labels.size} cluster ids for {len(data)} items; give one an item")
    if not np.isfinite(data).all():
        raise DataError("values hold NaN or infinity; a bootstrap needs finite numbers")
    _check_resamples(resamples)
    _, inverse = np.unique(labels, return_inverse=True)
    count = int(inverse.max()) + 1 if inverse.size else 0
    if count < 2:
        raise DataError(
            f"{count} cluster(s); a cluster bootstrap needs at least two, and thirty to be trusted"
        )
    generator = np.random.Generator(np.random.Philox(seed))
    method = "BCa bootstrap over items" if clusters is None else "BCa bootstrap over clusters of items"
    # (B, C): how often each cluster was drawn; a resample's sums are a matrix product with it.
    weights = generator.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64)
    if not isinstance(statistic, str):
        members = np.split(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1])

        def on(weight: Floats) -> float:
            rows = np.concatenate([np.repeat(m, int(w)) for m, w in zip(members, weight, strict=True) if w])
            return float(statistic(data[rows]))

        replicates = np.array([on(weight) for weight in weights])
        jackknife = np.array([on(row) for row in 1 - np.eye(count)])
        return _bca(on(np.ones(count)), replicates, jackknife, count, method)

    if statistic == "mean" and data.ndim == 1:
        columns = np.stack([data, np.ones(len(data))], axis=1)
    elif statistic in ("ratio", "relative") and data.ndim == 2 and data.shape[1] == 2:
        columns = data
    else:
        raise DataError(f"statistic {statistic!r} does not fit values of shape {data.shape}")
    sums = np.stack([np.bincount(inverse, weights=columns[:, j], minlength=count) for j in (0, 1)], axis=1)
    shift = 1.0 if statistic == "relative" else 0.0

    def quotient(total: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):  # _bca refuses what is not finite
            return np.asarray(total[..., 0] / total[..., 1] - shift)

    whole = sums.sum(axis=0)
    return _bca(float(quotient(whole)), quotient(weights @ sums), quotient(whole - sums), count, method)


def cluster_bootstrap(
    values: npt.ArrayLike,
    clusters: npt.ArrayLike | None,
    statistic: Literal["mean", "ratio", "relative"] | Statistic = "mean",
    *,
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """BCa interval with whole clusters resampled; see `clustered`.

    For scores of many items under few seeds or prompts, where items of one cluster are not independent.
    """
    return clustered(values, clusters, statistic, seed=seed, resamples=resamples).interval(level)
