"""How much reward a divergence from a reference can buy: the exact frontier, and how far below it one is.

Of all policies p at a divergence KL(p || q) from a reference q, the one with the greatest expected reward is
the reference tilted by it, p(y) = q(y) exp(r(y) / beta) / Z (Rafailov et al. 2023, eq. 4), and whatever the
policy, for every beta > 0

    E_p[r] <= beta KL(p || q) + beta log E_q[exp(r / beta)]        (Donsker & Varadhan 1975)

The least right-hand side over all beta is the frontier; no policy lies above it. With several prompts
divergences, rewards and log Z are means over them, and the bound holds for the means.

Distributions are log-probabilities (P, N) in nats, float64: of N answers to each of P prompts, every row
normalised; or (N,) for one prompt. Samples of the reference, each with log-probability -log N, give an
estimate of the frontier, too low where it would take answers that are not among them (at the most log N).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from posterhall.errors import DataError, PosterhallError

Floats: TypeAlias = npt.NDArray[np.float64]

TOLERANCE = 1e-6
"""By how much a point may seem to lie above the frontier, in units of reward, before it is an error."""
_NORMALISED = 1e-6
_SHARPEST, _FLATTEST = 1e-5, 1e6
"""Range of beta that is searched, in units of the rewards' range."""


class Frontier:
    """The greatest expected reward at each divergence from a reference.

    Args:
        logq: (P, N) log-probabilities of the reference.
        reward: (P, N) rewards, finite; those of answers that never come do not matter.

    Attributes:
        reference: expected reward of the reference, at divergence 0.
        most_reward: the greatest there is, the mean over prompts.
        most_kl: the divergence from which on it can be had.

    Raises:
        DataError: for shapes that differ, rewards that are not finite, or rows that do not sum to 1.
    """

    def __init__(self, logq: npt.ArrayLike, reward: npt.ArrayLike) -> None:
        q, r = _rows(logq, "log-probabilities"), _rows(reward, "rewards")
        if q.shape != r.shape:
            raise DataError(f"log-probabilities {q.shape} and rewards {r.shape}; both must be (P, N)")
        _check_normalised(q)
        masses: list[Floats] = []
        values: list[Floats] = []
        for row, (logs, rewards) in enumerate(zip(q, r, strict=True)):
            there = np.isfinite(logs)
            if not np.isfinite(rewards[there]).all():
                raise DataError(f"row {row}: a reward is not finite; leave such answers out, or score them")
            # Answers of one reward are one answer here: with few rewards everything below is quick.
            kept, which = np.unique(rewards[there], return_inverse=True)
            masses.append(_mass(which, logs[there]))
            values.append(kept)
        width = max(map(len, values))
        self._values, self._logs = np.zeros((len(q), width)), np.full((len(q), width), -math.inf)
        for row, (mass, kept) in enumerate(zip(masses, values, strict=True)):
            self._values[row, : len(kept)] = kept
            self._logs[row, : len(kept)] = np.log(mass)
        self._range = max(float(kept[-1] - kept[0]) for kept in values)
        self.reference = float((np.exp(self._logs) * self._values).sum(1).mean())
        self.most_reward = float(np.mean([kept[-1] for kept in values]))
        self.most_kl = float(-np.mean([math.log(mass[-1]) for mass in masses]))

    def tilted(self, beta: float) -> tuple[float, float]:
        """Divergence (nats) and expected reward of q exp(r / beta) / Z.

        Raises:
            DataError: for a beta that is not above 0.
        """
        if not beta > 0:
            raise DataError(f"beta is {beta}; it must be above 0")
        tilt = self._values / beta
        logz = _log_sum(self._logs + tilt)
        p = np.exp(self._logs + tilt - logz[:, None])
        rewards = (p * self._values).sum(1)
        return max(0.0, float((rewards / beta - logz).mean())), float(rewards.mean())

    def beta(self, kl: float) -> float:
        """The beta at which the tilted reference diverges by `kl` nats: the price of a nat there.

        Within 1e-5 to 1e6 times the range of the rewards; beyond, the end of it.

        Raises:
            DataError: for a divergence below 0, or none at all.
        """
        if not kl >= 0:
            raise DataError(f"a divergence of {kl} nats; it must be at least 0")
        from scipy.optimize import brentq

        def excess(log_beta: float) -> float:
            return self.tilted(math.exp(log_beta))[0] - kl

        low, high = (math.log(each * (self._range or 1.0)) for each in (_SHARPEST, _FLATTEST))
        # The divergence falls with beta.
        if excess(low) <= 0:
            return math.exp(low)
        if excess(high) >= 0:
            return math.exp(high)
        return math.exp(brentq(excess, low, high, xtol=1e-10))

    def bound(self, kl: float) -> float:
        """The most that any policy at this divergence (nats, >= 0) or a smaller one can expect.

        Raises:
            DataError: for a divergence below 0, or none at all.
        """
        beta = self.beta(kl)
        if kl >= self.most_kl or self._range == 0:
            return self.most_reward
        if kl == 0:
            return self.reference
        # Any beta gives a bound; the one found, the least, up to the square of its error.
        logz = float(_log_sum(self._logs + self._values / beta).mean())
        return min(self.most_reward, beta * (kl + logz))

    def gap(self, kl: float, reward: float) -> float:
        """How far a policy lies below the frontier, in units of reward; never below -1e-6.

        Raises:
            PosterhallError: if it lies above: then divergence or reward were not measured right, or not
                on these answers.
        """
        gap = self.bound(kl) - reward
        if not gap >= -TOLERANCE:
            raise PosterhallError(
                f"an expected reward of {reward:.8f} at a divergence of {kl:.8f} nats lies {-gap:.2g} above "
                "what any policy can reach: one of the two is measured wrongly"
            )
        return gap


def divergence(logp: npt.ArrayLike, logq: npt.ArrayLike) -> float:
    """KL(p || q) in nats, the mean over rows; infinite where p has what q has not.

    Raises:
        DataError: for shapes that differ, or rows that do not sum to 1.
    """
    p, q = _rows(logp, "log-probabilities"), _rows(logq, "log-probabilities of the reference")
    if p.shape != q.shape:
        raise DataError(f"log-probabilities {p.shape} and {q.shape}; both must be (P, N)")
    _check_normalised(p)
    _check_normalised(q)
    there = p > -math.inf
    ratio = np.where(there, p, 0.0) - np.where(there, q, 0.0)
    # Never below 0 but for the rounding of a sum of many terms.
    return max(0.0, float((np.exp(p) * ratio).sum(1).mean()))


def expected(logp: npt.ArrayLike, values: npt.ArrayLike) -> float:
    """E_p of values (P, N), the mean over rows."""
    p, v = _rows(logp, "log-probabilities"), _rows(values, "values")
    if p.shape != v.shape:
        raise DataError(f"log-probabilities {p.shape} and values {v.shape}; both must be (P, N)")
    return float((np.exp(p) * np.where(p > -math.inf, v, 0.0)).sum(1).mean())


def best_of(logq: npt.ArrayLike, score: npt.ArrayLike, n: int) -> Floats:
    """The distribution of the best of n independent answers of a reference, by a score.

    Of a score that is reached with mass m, below which lies F: (F + m)^n - F^n, divided among the answers
    of this score as the reference divides it (ties are broken at random).

    Args:
        logq: (P, N) log-probabilities of the reference.
        score: (P, N), what the best is chosen by.
        n: answers drawn, >= 1.

    Returns:
        (P, N) log-probabilities.
    """
    q, s = _rows(logq, "log-probabilities"), _rows(score, "scores")
    if q.shape != s.shape:
        raise DataError(f"log-probabilities {q.shape} and scores {s.shape}; both must be (P, N)")
    if n < 1:
        raise DataError(f"the best of {n}; at least 1 answer must be drawn")
    _check_normalised(q)
    out = np.empty_like(q)
    for row, (logs, scores) in enumerate(zip(q, s, strict=True)):
        _, which = np.unique(scores, return_inverse=True)
        mass = _mass(which, logs)
        mass /= mass.sum()
        above = np.append(np.cumsum(mass[:0:-1])[::-1], 0.0)  # summed from the top: exact where F is near 1
        reached = np.maximum(1 - above, mass)
        with np.errstate(divide="ignore", invalid="ignore"):  # scores that nothing has
            # log of reached^n (1 - (F / reached)^n), with F / reached = 1 - mass / reached
            fewer = n * np.log1p(-np.minimum(mass / reached, 1.0))
            logs_of_best = n * np.log1p(-np.minimum(above, 1 - mass)) + np.log(-np.expm1(fewer))
            out[row] = logs + (logs_of_best - np.log(mass))[which]
        out[row][logs == -math.inf] = -math.inf
    return out


def attainable(kls: Sequence[float], rewards: Sequence[float], at: npt.ArrayLike) -> Floats:
    """The reward that a set of policies reaches at given divergences, mixed at random where none lies.

    To take one of two policies by chance has the interpolated reward at no more than the interpolated
    divergence (which is convex), so the upper concave envelope of points can be had; and what can be had at
    a divergence can be had at a greater one.

    Args:
        kls, rewards: of the policies, finite; the reference, at divergence 0, among them.
        at: (M,) divergences, >= 0.

    Returns:
        (M,) rewards.

    Raises:
        DataError: if no point is at 0, where the envelope begins.
    """
    points = sorted(zip(map(float, kls), map(float, rewards), strict=True))
    if not points or points[0][0] != 0 or not np.isfinite(points).all():
        raise DataError("points must be finite and begin with the reference, at a divergence of 0")
    hull: list[tuple[float, float]] = []
    for x, y in points:
        if hull and x == hull[-1][0]:
            if y <= hull[-1][1]:
                continue
            hull.pop()
        while len(hull) > 1 and _turns_up(hull[-2], hull[-1], (x, y)):
            hull.pop()
        hull.append((x, y))
    xs, ys = map(np.array, zip(*hull, strict=True))
    found: Floats = np.interp(np.asarray(at, np.float64), xs, np.maximum.accumulate(ys))
    return found


def _turns_up(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """Whether b lies on or below the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) <= (c[1] - a[1]) * (b[0] - a[0])


def _mass(which: npt.NDArray[np.intp], logs: Floats) -> Floats:
    """The probability of each group of answers."""
    found: Floats = np.bincount(which, np.exp(logs))  # type: ignore[assignment]  # with weights, float64
    return found


def _log_sum(logs: Floats) -> Floats:
    """log of the sum of each row's exponentials."""
    most = logs.max(1)
    total: Floats = most + np.log(np.exp(logs - most[:, None]).sum(1))
    return total


def _rows(values: Any, name: str) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or 0 in array.shape:
        raise DataError(f"{name} have shape {array.shape}; give (prompts, answers), one of each at least")
    return array


def _check_normalised(logs: Floats) -> None:
    sums = np.exp(logs).sum(1)
    bad = np.flatnonzero(~(np.abs(sums - 1) <= _NORMALISED))
    if bad.size:
        raise DataError(
            f"row {bad[0]}: probabilities sum to {sums[bad[0]]:.6g}, not 1; all answers that can come must "
            "be there, as natural logarithms"
        )
