"""How many test items it takes to see a small rate.

A test of n items resolves accuracy to 1/n, and mean token error to 1/(n L) (Schaeffer et al. 2023, §2
and A.3). An answer of L tokens, each right with probability p, is right with probability p^L; long
answers of small models need more items than most tests have, and such a model scores 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from posterhall.errors import DataError


@dataclass(frozen=True)
class Plan:
    """Items needed for one answer length.

    Attributes:
        length: L, tokens.
        rate: q = p^L, how often the whole answer is right.
        items_measured: for a standard error of `relative_error` · q: (1 - q) / (q r²).
        items_seen: for at least one right answer with `probability`: ln(1 - P) / ln(1 - q).
        items_edit_distance: for the mean edit distance L (1 - p) to the same relative error:
            p / ((1 - p) L r²).
        relative_error, probability: r and P.
    """

    length: int
    rate: float
    items_measured: int
    items_seen: int
    items_edit_distance: int
    relative_error: float
    probability: float


def plan(
    p: float,
    lengths: Sequence[int] = (1, 2, 5, 10, 20),
    *,
    relative_error: float = 0.1,
    probability: float = 0.95,
) -> list[Plan]:
    """Items needed to see p^L, for each length L.

    Args:
        p: probability that one token is right, in (0, 1).
        lengths: tokens in the answer, each >= 1.
        relative_error: r, wanted standard error over the rate, > 0; 0.1 needs about 100 / p^L items.
        probability: P, wanted chance of at least one right answer, in (0, 1).

    Raises:
        DataError: for a value outside its range, or a rate so small that it is 0 in floating point.
    """
    for name, value in (("p", p), ("probability", probability)):
        if not 0 < value < 1:
            raise DataError(f"{name} is {value}; it must lie between 0 and 1, both excluded")
    if not relative_error > 0:
        raise DataError(f"relative error is {relative_error}; it must be positive, as 0.1 for 10 %")
    plans = []
    for length in lengths:
        if length < 1:
            raise DataError(f"length {length}; an answer has one token or more")
        log_rate = length * math.log(p)
        if log_rate < -700:
            raise DataError(f"p^L for p = {p:g} and L = {length} is below 1e-304; no test can show it")
        rate = math.exp(log_rate)
        miss = -math.expm1(log_rate)  # 1 - q without cancellation
        plans.append(
            Plan(
                length,
                rate,
                math.ceil(miss / (rate * relative_error**2)),
                max(1, math.ceil(math.log1p(-probability) / math.log1p(-rate))),
                math.ceil(p / ((1 - p) * length * relative_error**2)),
                relative_error,
                probability,
            )
        )
    return plans


def least_rate(items: int, *, relative_error: float = 0.1) -> float:
    """The smallest rate that so many items measure to a relative standard error r: 1 / (1 + n r²)."""
    if items < 1:
        raise DataError(f"{items} items; a test has one or more")
    return 1 / (1 + items * relative_error**2)
