"""Compute-optimal parameters and tokens, with the width that the fit leaves to the answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from posterhall.errors import DataError
from posterhall.scaling.effective import Array, balance

if TYPE_CHECKING:
    from posterhall.scaling.laws import Law

_POINTS = 2001
_EXTRAPOLATION = 10.0
"""Factor beyond the runs of the fit from which on an answer is flagged."""
_MOST_DRAWS = 400


@dataclass(frozen=True)
class Allocation:
    """An answer to "how large, and for how long?".

    Attributes:
        params, tokens: N and D with 6 N D = C.
        epochs: D / U; 1 where unique tokens are not limited.
        loss: predicted, nats a token.
        interval: (low, high) of the four above over `draws` draws of the law's constants; empty without.
        draws: how many draws there were.
        level: of the interval.
        flags: what to know before it is used.
    """

    params: float
    tokens: float
    epochs: float
    loss: float
    interval: Mapping[str, tuple[float, float]]
    draws: int
    level: float
    flags: tuple[str, ...]


def allocate(
    law: Law, flops: float, unique_tokens: float | None = None, *, draws: bool = True, level: float = 0.95
) -> Allocation:
    """Minimise the law's loss over D with N = C / (6 D) and U = min(unique tokens, D).

    A scan of ln D from one token to one parameter, then Brent's method in the lowest valley: exact, and
    without the factor of three around Chinchilla's optimum to which Muennighoff et al.'s scan is confined.

    Args:
        law: with constants, published or fitted.
        flops: compute budget C, > 6.
        unique_tokens: tokens there are to train on, U > 0; None for any number.
        draws: whether to put an interval on the answer: over the fit's resamples; for the published
            constants of the data-constrained law, over refits of its lives to the runs they are from.
        level: of the interval.

    Raises:
        DataError: on a budget that is not positive, or a law by which larger is never better.
    """
    if not (math.isfinite(flops) and flops > 6):
        raise DataError(f"flops is {flops:g}; give the compute budget in FLOP, as 1e21")
    if unique_tokens is not None and not (math.isfinite(unique_tokens) and unique_tokens > 0):
        raise DataError(f"unique_tokens is {unique_tokens:g}; give how many tokens there are, as 25e9")
    values = law.values
    tokens, loss = optimum(law, values, flops, unique_tokens)
    drawn = _draws(law) if draws else np.empty((0, 0))
    interval: dict[str, tuple[float, float]] = {}
    used = 0
    unbounded = 0
    if len(drawn):
        step = max(1, len(drawn) // _MOST_DRAWS)
        answers = []
        for row in drawn[::step]:
            each = dict(zip(values, row.tolist(), strict=True))
            try:
                at, reached = optimum(law, each, flops, unique_tokens)
            except DataError:  # a resample whose exponents have no optimum
                unbounded += 1
                continue
            answers.append(_answer(flops, at, unique_tokens, reached))
        used = len(answers)
        if used >= 20:
            ends = np.quantile(answers, [(1 - level) / 2, (1 + level) / 2], axis=0)
            names = ("params", "tokens", "epochs", "loss")
            interval = {n: (float(ends[0, i]), float(ends[1, i])) for i, n in enumerate(names)}
    found = _answer(flops, tokens, unique_tokens, loss)
    flags = _flags(law, flops, found, unique_tokens)
    if unbounded:
        flags.append(
            f"{unbounded} of {used + unbounded} draws have no optimum and are left out of the interval"
        )
    if interval and interval["epochs"][1] / interval["epochs"][0] > 1.5:
        low, high = interval["epochs"]
        flags.append(
            f"the runs allow between {low:.3g} and {high:.3g} epochs: the optimum is known only that well"
        )
    return Allocation(*found, interval, used, level, tuple(flags))


def optimum(
    law: Law, values: Mapping[str, float], flops: float, unique_tokens: float | None
) -> tuple[float, float]:
    """Best D and its loss for values of the law's constants.

    Raises:
        DataError: if the best is at the edge, one parameter or one token.
    """
    from scipy.optimize import minimize_scalar

    top = math.log(flops / 6)

    def loss(log_tokens: Array) -> Array:
        d = np.exp(log_tokens)
        u = d if unique_tokens is None else np.minimum(unique_tokens, d)
        with np.errstate(all="ignore"):
            found = law.formula(values, np.exp(top - log_tokens), d, u)
        return np.where(np.isfinite(found), found, np.inf)

    grid = np.linspace(0.0, top, _POINTS)
    scanned = loss(grid)
    best = int(scanned.argmin())
    if best in (0, _POINTS - 1) or not math.isfinite(scanned[best]):
        what = "tokens" if best == 0 else "parameters"
        raise DataError(
            f"law '{law.name}' with these constants has no optimum: the fewer {what} the better. An exponent "
            "or coefficient is 0 or below; fit it to runs that vary in both sizes"
        )
    # As an offset: Brent's tolerance is relative to the variable.
    found = minimize_scalar(
        lambda x: float(loss(np.array([grid[best] + x]))[0]),
        bounds=(grid[best - 1] - grid[best], grid[best + 1] - grid[best]),
        method="bounded",
        options={"xatol": 1e-10},
    )
    tokens, lowest = float(np.exp(grid[best] + found.x)), float(found.fun)
    if unique_tokens is not None and abs(math.log(unique_tokens / tokens)) < 1e-6:
        # A law may have a kink at D = U, which Brent's method comes near to but does not hit.
        u = np.array([unique_tokens])  # not through its logarithm: a last digit above U would be a repetition
        at_kink = float(law.formula(values, flops / (6 * u), u, u)[0])
        if at_kink <= lowest:
            return unique_tokens, at_kink
    return tokens, lowest


def closed_form(flops: float, *, A: float, B: float, alpha: float, beta: float) -> tuple[float, float]:
    """Chinchilla's optimum: N = G (C / 6)^(beta / (alpha + beta)), D = (C / 6)^(alpha / (alpha + beta)) / G.

    Hoffmann et al. 2022, eq. 4.

    Returns:
        Parameters and tokens.
    """
    g = balance(A=A, B=B, alpha=alpha, beta=beta)
    half = flops / 6
    return g * half ** (beta / (alpha + beta)), half ** (alpha / (alpha + beta)) / g


def _answer(
    flops: float, tokens: float, unique_tokens: float | None, loss: float
) -> tuple[float, float, float, float]:
    epochs = 1.0 if unique_tokens is None else max(1.0, tokens / unique_tokens)
    return flops / (6 * tokens), tokens, epochs, loss


def _draws(law: Law) -> Array:
    """Draws of the constants: of the fit, or of the published lives (never shown without their width)."""
    if hasattr(law, "fit_"):
        return law.fit_.draws
    from posterhall.scaling import runs182

    return runs182.draws(law)


def _flags(
    law: Law, flops: float, found: tuple[float, float, float, float], unique_tokens: float | None
) -> list[str]:
    params, tokens, epochs, _ = found
    flags: list[str] = []
    if unique_tokens is not None and not law.needs_unique and tokens > unique_tokens:
        flags.append(
            f"law '{law.name}' takes repeated tokens for fresh ones, and this is {epochs:.3g} epochs; "
            "use the data-constrained law"
        )
    if not hasattr(law, "fit_"):
        return flags
    for name, value in (("params", params), ("tokens", tokens), ("flops", flops)):
        low, high = law.fit_.ranges[name]
        if value > _EXTRAPOLATION * high or value < low / _EXTRAPOLATION:
            side = "above the largest" if value > high else "below the smallest"
            end = high if value > high else low
            flags.append(
                f"extrapolation: {name} {value:.3g} is {max(value / high, low / value):.0f} times {side} "
                f"of the fit's runs ({end:.3g})"
            )
    if epochs > 1:
        seen = law.fit_.ranges["tokens"][1] / law.fit_.ranges["unique_tokens"][0]
        if epochs > seen:
            flags.append(
                f"extrapolation: {epochs:.3g} epochs, and no run of the fit can have had more than {seen:.3g}"
            )
    return flags
