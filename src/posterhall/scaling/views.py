"""What a figure of a law shows, as arrays: contours of loss, the frontier, profiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from posterhall.errors import DataError
from posterhall.scaling.allocate import optimum
from posterhall.scaling.effective import Array

if TYPE_CHECKING:
    from posterhall.scaling.laws import Law


@dataclass(frozen=True)
class Contours:
    """Loss over tokens and parameters.

    Attributes:
        tokens: (t,), repetitions included.
        params: (p,).
        loss: (p, t), nats a token.
        unique_tokens: U; None means that no token is repeated.
    """

    tokens: Array
    params: Array
    loss: Array
    unique_tokens: float | None


@dataclass(frozen=True)
class Frontier:
    """The optimum over a range of compute.

    Attributes:
        flops, params, tokens, loss: (k,).
    """

    flops: Array
    params: Array
    tokens: Array
    loss: Array


def contours(
    law: Law,
    *,
    tokens: tuple[float, float],
    params: tuple[float, float],
    unique_tokens: float | None = None,
    points: int = 121,
) -> Contours:
    """Loss on a logarithmic grid of tokens and parameters.

    Args:
        law: with constants.
        tokens, params: ranges, low below high, > 0.
        unique_tokens: U > 0; None means that no token is repeated.
        points: on each side, >= 2.

    Raises:
        DataError: on an empty range.
    """
    for what, (low, high) in (("tokens", tokens), ("params", params)):
        if not 0 < low < high:
            raise DataError(f"{what} from {low:g} to {high:g} is no range")
    across = np.geomspace(*tokens, points)
    up = np.geomspace(*params, points)
    return Contours(across, up, law.loss(up[:, None], across[None, :], unique_tokens), unique_tokens)


def frontier(
    law: Law, flops: tuple[float, float], unique_tokens: float | None = None, *, points: int = 41
) -> Frontier:
    """The best allocation at each of many compute budgets.

    Args:
        law: with constants.
        flops: lowest and highest budget, FLOP.
        unique_tokens: U, or None for any number.
        points: budgets.
    """
    budgets = np.geomspace(*flops, points)
    found = [optimum(law, law.values, float(c), unique_tokens) for c in budgets]
    tokens = np.array([d for d, _ in found])
    return Frontier(budgets, budgets / (6 * tokens), tokens, np.array([loss for _, loss in found]))
