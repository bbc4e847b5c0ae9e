"""Intervals of shares: so many of so many."""

from __future__ import annotations

import math

from scipy.special import ndtri

from posterhall.errors import DataError
from posterhall.stats.estimates import Interval, checked_level


def wilson(successes: float, n: int, level: float = 0.95) -> Interval:
    """The interval of a share by its score test (Wilson 1927): inside [0, 1], and of use also for few
    trials and where none or all succeed.

    Args:
        successes: how many, 0 to n; not a whole number where each trial is the mean of a cluster.
        n: of how many, >= 1.
        level: coverage, in (0, 1).

    Raises:
        DataError: if there are no trials, or more successes than trials.
    """
    checked_level(level)
    if n < 1 or not 0 <= successes <= n:
        raise DataError(f"{successes:g} of {n}: a share needs a trial or more, and at most as many successes")
    share = successes / n
    z2 = float(ndtri(0.5 + level / 2)) ** 2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    # The ends of none and of all are exact; rounding would put them a hair off.
    low, high = (0.0 if successes == 0 else low), (1.0 if successes == n else high)
    return Interval(share, low, high, level, n, "Wilson")
