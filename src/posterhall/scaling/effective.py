"""What repeated tokens and surplus parameters are worth, and when they stop counting."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from posterhall.errors import DataError

Array = npt.NDArray[np.float64]
Decay = Literal["exponential", "geometric", "explicit"]


def worth(repeats: npt.ArrayLike, r_star: float, decay: Decay = "exponential") -> Array:
    """Worth of R repetitions in units of one first pass.

    - ``exponential``: R* (1 - exp(-R / R*)), Muennighoff et al. 2023, eq. 5;
    - ``geometric``: (1 - delta)(1 - (1 - delta)^R) / delta, with R* = (1 - delta) / delta: each repetition
      is worth a share 1 - delta of the one before;
    - ``explicit``: the sum with q = exp(-k), (1 - e^{-k (R + 1)}) / (1 - e^{-k}) - 1. It is the geometric
      law with 1 - delta = e^{-k}, so R* = 1 / expm1(k); only the name of its constant differs.

    R counts repetitions (epochs - 1), so R* is a 1/e life, not a half-life as the paper's prose has it.

    Args:
        repeats: R, any shape, >= 0.
        r_star: R* >= 0; inf means that repetition costs nothing, 0 that it brings nothing.
        decay: which of the three.

    Returns:
        Between 0 and R, in the shape of `repeats`.
    """
    r = np.asarray(repeats, dtype=np.float64)
    if np.isinf(r_star):
        return r.copy()
    if r_star == 0:
        return np.zeros_like(r)
    if decay == "exponential":
        return np.asarray(-r_star * np.expm1(-r / r_star))  # expm1: R/R* is often 1e-3
    return np.asarray(-r_star * np.expm1(-r * np.log1p(1 / r_star)))


def effective_data(
    unique: npt.ArrayLike, tokens: npt.ArrayLike, r_star: float, decay: Decay = "exponential"
) -> Array:
    """D' = U + U worth(D / U - 1), the unrepeated tokens that would teach as much.

    Args:
        unique: unique tokens U, > 0; more than `tokens` counts as `tokens`.
        tokens: tokens trained on, D, > 0.
        r_star: R_D*, repetitions.
        decay: how worth is lost.

    Returns:
        D', between U and D.
    """
    d = np.asarray(tokens, dtype=np.float64)
    u = np.minimum(unique, d)
    return np.asarray(u * (1 + worth(d / u - 1, r_star, decay)))


def effective_params(
    params: npt.ArrayLike, useful: npt.ArrayLike, r_star: float, decay: Decay = "exponential"
) -> Array:
    """N' = U_N + U_N worth(N / U_N - 1), the parameters that the data can use.

    Args:
        params: parameters N, > 0.
        useful: U_N from `useful_params`; more than `params` counts as `params`.
        r_star: R_N*, in multiples of U_N.
        decay: how worth is lost.
    """
    n = np.asarray(params, dtype=np.float64)
    u = np.minimum(useful, n)
    return np.asarray(u * (1 + worth(n / u - 1, r_star, decay)))


def useful_params(unique: npt.ArrayLike, *, A: float, B: float, alpha: float, beta: float) -> Array:
    """U_N, the parameters that are optimal for U fresh tokens: (U G)^(beta / alpha) G.

    G = (alpha A / (beta B))^(1 / (alpha + beta)), as in Hoffmann et al. 2022, eq. 4. With C4's constants
    U_N is 0.051 U.

    Raises:
        DataError: if an exponent is not positive; there is no optimum then.
    """
    g = balance(A=A, B=B, alpha=alpha, beta=beta)
    return np.asarray((np.asarray(unique, dtype=np.float64) * g) ** (beta / alpha) * g)


def balance(*, A: float, B: float, alpha: float, beta: float) -> float:
    """G = (alpha A / (beta B))^(1 / (alpha + beta)); see `useful_params`.

    Raises:
        DataError: if a coefficient or an exponent is not positive.
    """
    if min(A, B, alpha, beta) <= 0:
        raise DataError(
            f"A={A:.4g}, B={B:.4g}, alpha={alpha:.4g}, beta={beta:.4g}: an optimum needs all four above 0; "
            "with a law whose exponent is negative a larger model or more data would be worse"
        )
    return float(np.exp((np.log(alpha * A) - np.log(beta * B)) / (alpha + beta)))
