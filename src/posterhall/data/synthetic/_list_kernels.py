"""Nested lists of operations, drawn and worked out in one pass."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

DIGIT = 1
"""Token of the digit 0; the others follow."""
MIN, MAX, MED, SM, END = 11, 12, 13, 14, 15


@njit(cache=True, nogil=True)
def _tree(rng: Any, max_depth: int, max_args: int, share: float, out: Any) -> Any:
    """One tree, in order: (its length, its value), or (0, 0) if it does not fit into out (length,).

    A node is a list with the probability `share` while its depth is below max_depth (the root's is 1),
    else a digit; a list has 2 to max_args arguments, and one of four operators.
    """
    operator = np.empty(max_depth, np.int64)
    left = np.empty(max_depth, np.int64)  # arguments still to come
    held = np.empty((max_depth, max_args), np.int64)
    filled = np.zeros(max_depth, np.int64)
    level, used = 0, 0  # lists that are open
    while True:
        if level + 1 < max_depth and rng.random() <= share:
            if used >= len(out):
                return 0, 0
            # The authors' order: first how many, then (after the arguments) which operation; the draws
            # are independent, so that the distribution is the same.
            left[level] = 2 + int(rng.random() * (max_args - 1))
            operator[level] = MIN + int(rng.random() * 4)
            filled[level] = 0
            out[used] = operator[level]
            used += 1
            level += 1
            continue
        value = int(rng.random() * 10)
        if used >= len(out):
            return 0, 0
        out[used] = DIGIT + value
        used += 1
        while level > 0:
            here = level - 1
            held[here, filled[here]] = value
            filled[here] += 1
            if filled[here] < left[here]:
                break
            if used >= len(out):
                return 0, 0
            out[used] = END
            used += 1
            value = _value(operator[here], held[here, : filled[here]])
            level = here
        if level == 0:
            return used, value


@njit(cache=True, nogil=True)
def draw(rng: Any, over: int, max_depth: int, max_args: int, share: float, tries: int, out: Any) -> Any:
    """The first tree of more than `over` tokens that fits into out: (length, value); (0, 0) for none."""
    for _ in range(tries):
        length, value = _tree(rng, max_depth, max_args, share, out)
        if length > over:
            return length, value
    return 0, 0


@njit(cache=True, nogil=True)
def _value(operator: int, arguments: Any) -> Any:
    if operator == MIN:
        return arguments.min()
    if operator == MAX:
        return arguments.max()
    if operator == SM:
        return arguments.sum() % 10
    ordered = np.sort(arguments)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) // 2
