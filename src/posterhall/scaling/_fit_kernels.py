"""Objective, gradient and minimisers of the laws that are fitted most (numba; all release the GIL).

Seven coordinates, whatever the law: ``a = ln A, b = ln B, e = ln E, alpha, beta, ln R_D*, ln R_N*``.
Which of them are free is a list of indices; Chinchilla's law ignores the last two. A life (R*) of
``ln R* > FOREVER`` means that repetition costs nothing.

The objective is Hoffmann et al.'s (2022, eq. 4): sum over runs of Huber_delta(LSE(...) - ln L).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

CHINCHILLA, EXPONENTIAL, GEOMETRIC = 0, 1, 2
COORDINATES = 7
FOREVER = 46.0
"""ln of a life (about 1e20 repetitions) that no run can tell from an infinite one."""
_TINY_EXPONENT = 1e-6
_LARGEST = 690.0
"""ln A and ln B; beyond it (exponents above about 30) the coefficients are no numbers."""


@njit(cache=True, nogil=True, error_model="numpy")
def repeated(decay: Any, repeats: Any, life: Any) -> Any:
    """Worth of `repeats` repetitions in units of a first pass, with its derivatives.

    Args:
        decay: EXPONENTIAL, g = R* (1 - exp(-R / R*)), or GEOMETRIC, g = R* (1 - q^R) with
            q = R* / (1 + R*), the share of its worth that each repetition keeps.
        repeats: R >= 0.
        life: ln R*.

    Returns:
        g, dg/dR, dg/d(ln R*).
    """
    if life > FOREVER:
        return repeats, 1.0, 0.0
    star = np.exp(life)
    if decay == GEOMETRIC:
        rate = np.log1p(1.0 / star)
        rate_slope = -1.0 / (star * (star + 1.0))
    else:
        rate = 1.0 / star
        rate_slope = -1.0 / (star * star)
    x = repeats * rate
    lost = -np.expm1(-x)  # R/R* may be 1e-8
    kept = 1.0 - lost
    if x < 1e-4 and decay == EXPONENTIAL:
        slope = x * x / 2.0 - x * x * x / 3.0  # lost + star repeats rate_slope kept cancels here
    elif x < 1e-4:
        slope = (repeats + repeats * repeats) / (2.0 * star * star)
    else:
        slope = lost + star * repeats * rate_slope * kept
    return star * lost, star * rate * kept, star * slope


@njit(cache=True, nogil=True, error_model="numpy")
def log_loss(law: Any, theta: Any, n: Any, d: Any, u: Any, slopes: Any) -> Any:
    """ln L of one run and its derivatives.

    Args:
        law: CHINCHILLA, EXPONENTIAL or GEOMETRIC.
        theta: the seven coordinates.
        n, d, u: ln of parameters, tokens and unique tokens.
        slopes: (7,), is filled with d ln L / d theta.
    """
    a, b, e, alpha, beta = theta[0], theta[1], theta[2], theta[3], theta[4]
    n_value, d_value = n, d
    n_slope_g, n_slope_life, d_slope_life, excess = 0.0, 0.0, 0.0, 0.0
    base = 0.0
    if law != CHINCHILLA:
        worth, _, by_life = repeated(law, np.expm1(d - u), theta[5])
        d_value = u + np.log1p(worth)
        d_slope_life = by_life / (1.0 + worth)
        if theta[6] <= FOREVER:
            # U_N, the parameters that the unique tokens can use: N where that is fewer.
            base = (np.log(alpha) + a - np.log(beta) - b) / (alpha + beta)  # ln G
            q = (beta / alpha) * (u + base) + base
            if q < n:
                excess = np.expm1(n - q)
                worth, by_repeats, by_life = repeated(law, excess, theta[6])
                n_value = q + np.log1p(worth)
                n_slope_life = by_life / (1.0 + worth)
                n_slope_g = 1.0 - by_repeats * (excess + 1.0) / (1.0 + worth)  # d ln N' / d ln U_N
    first, second = a - alpha * n_value, b - beta * d_value
    top = max(first, second, e)
    p, q_, r = np.exp(first - top), np.exp(second - top), np.exp(e - top)
    total = p + q_ + r
    p, q_, r = p / total, q_ / total, r / total
    slopes[0], slopes[1], slopes[2] = p, q_, r
    slopes[3], slopes[4] = -p * n_value, -q_ * d_value
    slopes[5], slopes[6] = -q_ * beta * d_slope_life, -p * alpha * n_slope_life
    if n_slope_g != 0.0:
        through = -p * alpha * n_slope_g
        by_base = beta / alpha + 1.0
        whole = alpha + beta
        slopes[0] += through * by_base / whole
        slopes[1] -= through * by_base / whole
        slopes[3] += through * (-beta / alpha**2 * (u + base) + by_base * (1.0 / alpha - base) / whole)
        slopes[4] += through * ((u + base) / alpha + by_base * (-1.0 / beta - base) / whole)
    return top + np.log(total)


@njit(cache=True, nogil=True, error_model="numpy")
def objective(law: Any, theta: Any, data: Any, weights: Any, delta: Any, gradient: Any) -> Any:
    """Sum of weight x Huber_delta(ln L predicted - ln L seen); fills `gradient` (7,).

    Args:
        data: (4, n): ln parameters, ln tokens, ln unique tokens, ln loss.
        weights: (n,), how often each run counts.
    """
    slopes = np.empty(COORDINATES)
    gradient[:] = 0.0
    if max(theta[0], theta[1]) > _LARGEST:
        return np.inf
    if law != CHINCHILLA and min(theta[3], theta[4]) < _TINY_EXPONENT:
        return np.inf
    total = 0.0
    for i in range(data.shape[1]):
        if weights[i] == 0.0:
            continue
        residual = log_loss(law, theta, data[0, i], data[1, i], data[2, i], slopes) - data[3, i]
        if abs(residual) <= delta:
            total += weights[i] * 0.5 * residual * residual
            push = weights[i] * residual
        else:
            total += weights[i] * delta * (abs(residual) - 0.5 * delta)
            push = weights[i] * (delta if residual > 0 else -delta)
        for j in range(COORDINATES):
            gradient[j] += push * slopes[j]
    return total if np.isfinite(total) else np.inf


@njit(cache=True, nogil=True, error_model="numpy")
def minimise(law: Any, theta: Any, ways: Any, data: Any, weights: Any, delta: Any, most: Any) -> Any:
    """BFGS with a weak-Wolfe line search (Lewis & Overton 2013), which the kinks of |x| do not stop.

    Args:
        theta: (7,), start; replaced by the minimum.
        ways: (7, k), the directions in which theta may go, as `posterhall.scaling.fit.directions` makes them.
        most: steps at most.

    Returns:
        The objective there; infinite where the start has none.
    """
    size = ways.shape[1]
    full = np.empty(COORDINATES)
    trial = np.empty(COORDINATES)
    g, g_new, step, y, hy = np.empty(size), np.empty(size), np.empty(size), np.empty(size), np.empty(size)
    scale = 1.0 / (delta * max(weights.sum(), 1.0))  # the objective as a mean of about |residual|
    value = objective(law, theta, data, weights, delta, full) * scale
    if not np.isfinite(value) or size == 0:
        return value / scale
    _project(ways, full, scale, g)
    inverse = np.eye(size)
    fresh, still = True, 0
    for _ in range(most):
        slope = 0.0
        for i in range(size):
            step[i] = 0.0
            for j in range(size):
                step[i] -= inverse[i, j] * g[j]
            slope += step[i] * g[i]
        accepted = slope < 0.0
        if accepted:
            longest = np.abs(step).max()
            first = 0.1 / longest if fresh else 1.0
            found, at = _search(
                law, theta, ways, data, weights, delta, scale, value, slope, step,
                min(first, 1.0 / longest), 10.0 / longest, trial, full, g_new,
            )  # fmt: skip
            accepted = at > 0.0
        if not accepted:
            if fresh:
                break
            inverse[:] = np.eye(size)
            fresh = True
            continue
        sy, yy = 0.0, 0.0
        for i in range(size):
            y[i] = g_new[i] - g[i]
            step[i] *= at
            sy += step[i] * y[i]
            yy += y[i] * y[i]
        if sy > 1e-300 and yy > 0.0:
            if fresh:
                inverse *= sy / yy
            yhy = 0.0
            for i in range(size):
                hy[i] = 0.0
                for j in range(size):
                    hy[i] += inverse[i, j] * y[j]
                yhy += y[i] * hy[i]
            for i in range(size):
                for j in range(size):
                    inverse[i, j] += (1.0 + yhy / sy) * step[i] * step[j] / sy
                    inverse[i, j] -= (hy[i] * step[j] + step[i] * hy[j]) / sy
            fresh = False
        still = still + 1 if value - found <= 1e-13 * value else 0
        theta[:] = trial
        value = found
        g[:] = g_new
        if still == 2:
            inverse[:] = np.eye(size)
            fresh = True
        elif still > 3:
            break
    return value / scale


@njit(cache=True, nogil=True, error_model="numpy")
def _project(ways: Any, full: Any, scale: Any, out: Any) -> None:
    for k in range(ways.shape[1]):
        out[k] = 0.0
        for j in range(COORDINATES):
            out[k] += scale * full[j] * ways[j, k]


@njit(cache=True, nogil=True, error_model="numpy")
def _search(
    law: Any, theta: Any, ways: Any, data: Any, weights: Any, delta: Any, scale: Any, value: Any, slope: Any,
    step: Any, at: Any, longest: Any, trial: Any, full: Any, gradient: Any,
) -> Any:  # fmt: skip
    """Weak-Wolfe bisection along `step`; leaves the point in `trial` and its gradient in `gradient`.

    Returns:
        The value and the step's size there; size 0 where no step descends.
    """
    low, high = 0.0, np.inf
    found, reached = np.inf, 0.0
    for _ in range(30):
        for j in range(COORDINATES):
            trial[j] = theta[j]
            for k in range(ways.shape[1]):
                trial[j] += at * step[k] * ways[j, k]
        found = objective(law, trial, data, weights, delta, full) * scale
        reached = at
        if not found <= value + 1e-4 * at * slope:
            high = at
        else:
            _project(ways, full, scale, gradient)
            ahead = 0.0
            for k in range(ways.shape[1]):
                ahead += step[k] * gradient[k]
            if ahead >= 0.9 * slope or at >= longest:
                return found, at
            low = at
        if high - low <= 1e-15 * high:
            break
        at = 0.5 * (low + high) if high < np.inf else min(2.0 * at, longest)
    if low == 0.0:
        return value, 0.0
    if reached != low:
        for j in range(COORDINATES):
            trial[j] = theta[j]
            for k in range(ways.shape[1]):
                trial[j] += low * step[k] * ways[j, k]
        found = objective(law, trial, data, weights, delta, full) * scale
        _project(ways, full, scale, gradient)
    return found, low
