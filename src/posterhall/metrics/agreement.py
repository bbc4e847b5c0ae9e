"""How far judges agree beyond chance: kappa of two (Cohen 1960) and of any number (Fleiss 1971).

Intervals come from a jackknife that leaves out one item, or one cluster of items (a prompt with all its
comparisons), at a time: kappa is a smooth function of counts, so that is enough, and it draws nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from posterhall.errors import DataError
from posterhall.stats.estimates import Interval, checked_level, t_quantile

Floats: TypeAlias = npt.NDArray[np.float64]


def kappa(a: npt.ArrayLike, b: npt.ArrayLike) -> float | None:
    """Agreement of two judges beyond chance: (p_o - p_e) / (1 - p_e), p_e from each one's own shares.

    Args:
        a, b: shape (n,), what each says of the same n things: labels of any kind.

    Returns:
        At most 1; 0 for what chance gives; None if chance alone makes them agree (both always say the same).

    Raises:
        DataError: for lists of different lengths, or empty ones.
    """
    x, y, classes = _coded(a, b)
    return _known(float(_cohen(np.bincount(x * classes + y, minlength=classes**2)[None])[0]))


def kappa_interval(
    a: npt.ArrayLike, b: npt.ArrayLike, *, clusters: npt.ArrayLike | None = None, level: float = 0.95
) -> Interval | None:
    """`kappa` with its interval.

    Args:
        a, b: shape (n,), labels of the same n things.
        clusters: shape (n,), what belongs together; None: each thing is by itself.
        level: coverage, in (0, 1).

    Returns:
        The interval, infinite where there is one cluster only; None where kappa is.

    Raises:
        DataError: for lists of different lengths, or empty ones.
    """
    x, y, classes = _coded(a, b)
    cells = np.zeros((x.size, classes**2))
    cells[np.arange(x.size), x * classes + y] = 1
    return _jackknife(_cohen, cells, clusters, level, "kappa of Cohen, jackknife")


def fleiss(counts: npt.ArrayLike) -> float | None:
    """Agreement of any number of judges beyond chance (Fleiss 1971).

    Fleiss has equally many judges for each thing; here their number may differ: a thing's agreement is the
    share of its pairs of judges that agree, and things count alike, as with him.

    Args:
        counts: shape (n, K), how many judges put thing i into class k; two or more for each thing.

    Returns:
        At most 1; None if all verdicts are of one class.

    Raises:
        DataError: for no things, negative or broken counts, or a thing with fewer than two judges.
    """
    return _known(float(_fleiss(_sums(counts).sum(axis=0)[None])[0]))


def fleiss_interval(
    counts: npt.ArrayLike, *, clusters: npt.ArrayLike | None = None, level: float = 0.95
) -> Interval | None:
    """`fleiss` with its interval; see `kappa_interval`."""
    return _jackknife(_fleiss, _sums(counts), clusters, level, "kappa of Fleiss, jackknife")


def _coded(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    x, y = np.asarray(a), np.asarray(b)
    if x.ndim != 1 or x.shape != y.shape or not x.size:
        raise DataError(f"{x.size} and {y.size} verdicts; there must be as many of each, and some")
    names, codes = np.unique(np.concatenate([x, y]), return_inverse=True)
    codes = codes.astype(np.int64)
    return codes[: x.size], codes[x.size :], len(names)


def _cohen(tables: Floats | npt.NDArray[np.int64]) -> Floats:
    """Of tables of confusion, shape (B, K * K); NaN where chance agreement is whole."""
    size = math.isqrt(tables.shape[1])
    shares = tables.reshape(-1, size, size) / tables.sum(axis=1)[:, None, None]
    same = np.trace(shares, axis1=1, axis2=2)
    chance = (shares.sum(axis=1) * shares.sum(axis=2)).sum(axis=1)
    return _beyond(same, chance)


def _sums(counts: npt.ArrayLike) -> Floats:
    """What Fleiss' kappa is a function of, a row a thing: its agreement, itself, its verdicts by class."""
    table = np.asarray(counts, dtype=np.float64)
    if table.ndim != 2 or 0 in table.shape:
        raise DataError(f"counts have shape {table.shape}; give (things, classes), with one of each at least")
    if not np.isfinite(table).all() or (table < 0).any() or (table != np.floor(table)).any():
        raise DataError("counts hold something that is no count; give whole numbers from 0 on")
    judges = table.sum(axis=1)
    if (judges < 2).any():
        raise DataError(f"thing {int(np.argmax(judges < 2))} has fewer than two judges; leave it out")
    same = ((table * (table - 1)).sum(axis=1)) / (judges * (judges - 1))
    return np.column_stack([same, np.ones(len(table)), table])


def _fleiss(sums: Floats) -> Floats:
    shares = sums[:, 2:] / sums[:, 2:].sum(axis=1, keepdims=True)
    return _beyond(sums[:, 0] / sums[:, 1], (shares**2).sum(axis=1))


def _beyond(same: Floats, chance: Floats) -> Floats:
    whole = np.isclose(chance, 1.0, rtol=1e-12, atol=0)
    return np.where(whole, np.nan, (same - chance) / np.where(whole, 1.0, 1 - chance))


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _jackknife(
    statistic: Callable[[Floats], Floats],
    rows: Floats,
    clusters: npt.ArrayLike | None,
    level: float,
    method: str,
) -> Interval | None:
    checked_level(level)
    if clusters is not None:
        labels = np.asarray(clusters)
        if labels.shape != rows.shape[:1]:
            raise DataError(f"{labels.size} clusters for {len(rows)} things; give one for each")
        _, inverse = np.unique(labels, return_inverse=True)
        grouped = np.zeros((int(inverse.max()) + 1, rows.shape[1]))
        np.add.at(grouped, inverse, rows)
        rows = grouped
    whole = rows.sum(axis=0)
    estimate = float(statistic(whole[None])[0])
    if math.isnan(estimate):
        return None
    n = len(rows)
    if n < 2:
        return Interval(estimate, -math.inf, math.inf, level, n, method)
    without = statistic(whole - rows)
    # Without that one all may be of a class: as far from chance as the whole, then.
    without = np.where(np.isnan(without), estimate, without)
    error = math.sqrt((n - 1) / n * float(((without - without.mean()) ** 2).sum()))
    half = t_quantile(0.5 + level / 2, n - 1) * error
    return Interval(estimate, max(-1.0, estimate - half), min(1.0, estimate + half), level, n, method)
