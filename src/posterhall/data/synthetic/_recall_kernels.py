"""Draws without replacement, a row at a time, from uniform numbers that the caller drew."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def distinct(uniform: Any, among: int, out: Any) -> None:
    """Each row of out (N, K): K different numbers of 0 to among - 1, in random order.

    The first K steps of Fisher and Yates's shuffle, with uniform (N, K) in [0, 1). A row begins with the
    permutation that the one before left, which is as good as any other.
    """
    rows, count = uniform.shape
    order = np.arange(among)
    for row in range(rows):
        for i in range(count):
            j = i + int(uniform[row, i] * (among - i))
            drawn = order[j]
            order[j] = order[i]
            order[i] = drawn
            out[row, i] = drawn


@njit(cache=True, nogil=True)
def earliest(times: Any, count: int, out: Any) -> None:
    """Each row of out (N, K): the places of the K = count smallest of times (N, M), the smallest first.

    Of exponential times with rates p, these are K draws without replacement, one after the other, each
    by p among what is left (the Gumbel trick, without its logarithms).
    """
    rows, among = times.shape
    for row in range(rows):
        held = 0
        line, places = times[row], out[row]
        for place in range(among):
            time = line[place]
            if held == count and time >= line[places[count - 1]]:
                continue
            at = held if held < count else count - 1
            held = min(held + 1, count)
            while at > 0 and line[places[at - 1]] > time:
                places[at] = places[at - 1]
                at -= 1
            places[at] = place
