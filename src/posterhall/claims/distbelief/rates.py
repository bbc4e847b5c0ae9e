"""Choosing learning rates by a stated rule, the same for everybody who is compared."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from posterhall.errors import DataError


def grid(lowest: float, factor: float, rates: int) -> tuple[float, ...]:
    """So many rates upward from the lowest, each a factor above the one before."""
    return tuple(float(f"{lowest * factor**i:.6g}") for i in range(rates))


def best(losses: Mapping[float, float]) -> float:
    """The rate with the lowest loss; the lower rate where two are equal.

    Raises:
        DataError: if no loss is finite.
    """
    kept = {rate: loss for rate, loss in sorted(losses.items()) if math.isfinite(loss)}
    if not kept:
        raise DataError(
            f"every rate diverged ({', '.join(f'{r:g}' for r in sorted(losses))}); add lower ones"
        )
    return min(kept, key=lambda rate: kept[rate])


def highest_good(losses: Mapping[float, float], worst: float) -> float:
    """The highest rate whose loss is at most `worst`.

    Raises:
        DataError: if there is none.
    """
    kept = [rate for rate, loss in losses.items() if loss <= worst]
    if not kept:
        raise DataError(f"no rate reaches a loss of {worst:.4g}; the best has {min(losses.values()):.4g}")
    return max(kept)


def lost_share(untrained: float, one: float, many: float) -> float:
    """The part of what one replica learns that many do not: 0 nothing, 1 all of it or worse.

    Below 0 where many learn more than one. A loss that is not finite counts as all lost.

    Args:
        untrained, one, many: losses before training, of one replica, of many.

    Raises:
        DataError: if one replica learned nothing.
    """
    if not one < untrained:
        raise DataError(f"one replica learned nothing (loss {untrained:.4g} before, {one:.4g} after)")
    if not math.isfinite(many):
        return 1.0
    return float(np.minimum((many - one) / (untrained - one), 1.0))
