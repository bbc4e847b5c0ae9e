"""Elo over many random orderings of the same games (numba; every kernel releases the GIL).

A game is one uint32: the first player in bits 17-31, the second in bits 2-16, what came out in bits 0-1
(0 the first wins, 1 the second, 2 a tie). Ratings are kept as powers, q = base^(R / scale): expected is
then q1 / (q1 + q2), and a game multiplies one side by base^(K (s - e) / scale) and divides the other by it,
so that no logarithm and no large exponential is taken within.

Orderings are played `LANES` at a time, step by step in turn. Each is one long chain of dependent
operations; several of them keep the processor busy. Every ordering has its own random numbers (splitmix64
from the key and its number), so that results do not depend on threads.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

LANES = 8
MOST_PLAYERS = 1 << 15
SMALL = 0.25
"""Exponents up to this are taken by a polynomial, to 1e-15."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_A = np.uint64(0xBF58476D1CE4E5B9)
_B = np.uint64(0x94D049BB133111EB)
_30, _27, _31, _32 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32)


@njit(cache=True, nogil=True, inline="always")
def _mixed(z: Any) -> Any:
    z = (z ^ (z >> _30)) * _A
    z = (z ^ (z >> _27)) * _B
    return z ^ (z >> _31)


@njit(cache=True, nogil=True, inline="always")
def _below(z: Any, n: Any) -> Any:
    """A whole number in [0, n) from 32 random bits, n < 2^31 (bias below n / 2^32)."""
    return np.int64((z >> _32) * np.uint64(n) >> _32)


@njit(cache=True, nogil=True, inline="always")
def _exp_small(x: Any) -> Any:
    """exp(x), |x| <= SMALL: Taylor to the tenth power, the halves evaluated side by side."""
    x2 = x * x
    even = 1.0 + x2 * (0.5 + x2 * (1 / 24 + x2 * (1 / 720 + x2 * (1 / 40320 + x2 * (1 / 3628800)))))
    odd = x * (1.0 + x2 * (1 / 6 + x2 * (1 / 120 + x2 * (1 / 5040 + x2 * (1 / 362880)))))
    return even + odd


@njit(cache=True, nogil=True)
def _play(games: Any, n: Any, order: Any, power: Any, states: Any, step: Any) -> None:
    """Shuffle and play the games once in each lane, from equal ratings.

    games: (>= n,) uint32. order: (LANES, >= n) uint32 and power: (LANES, P), scratch; power holds the
    result. states: (LANES,) uint64, of the random numbers. step: K ln(base) / scale.
    """
    small = step <= SMALL
    for lane in range(LANES):
        for i in range(n):
            order[lane, i] = games[i]
        for player in range(power.shape[1]):
            power[lane, player] = 1.0
    for i in range(n):
        for lane in range(LANES):
            states[lane] += _GOLDEN
            row = order[lane]
            q = power[lane]
            j = i + _below(_mixed(states[lane]), n - i)  # Fisher and Yates, a step before each game
            game = row[j]
            row[j] = row[i]
            a = np.int64(game >> np.uint32(17))
            b = np.int64((game >> np.uint32(2)) & np.uint32(0x7FFF))
            out = game & np.uint32(3)
            score = 0.5 if out == np.uint32(2) else 1.0 - np.float64(out)
            qa = q[a]
            qb = q[b]
            x = step * (score - qa / (qa + qb))
            factor = _exp_small(x) if small else math.exp(x)
            q[a] = qa * factor
            q[b] = qb / factor


@njit(cache=True, nogil=True)
def orderings(
    games: Any, players: Any, step: Any, key: Any, begin: Any, count: Any, sums: Any, squares: Any
) -> None:
    """Natural logarithms of the powers after orderings begin ... begin + count - 1.

    sums, squares: (blocks, P) float64, a block for LANES orderings, zero before: what they and their squares
    add up to. begin is a multiple of LANES.
    """
    n = games.size
    order = np.empty((LANES, n), np.uint32)
    power = np.empty((LANES, players), np.float64)
    states = np.empty(LANES, np.uint64)
    for block in range((count + LANES - 1) // LANES):
        first = begin + block * LANES
        for lane in range(LANES):
            states[lane] = _mixed(key + _mixed(np.uint64(first + lane) * _GOLDEN))
        _play(games, n, order, power, states, step)
        for lane in range(min(LANES, begin + count - first)):
            for player in range(players):
                log = math.log(power[lane, player])
                sums[first // LANES, player] += log
                squares[first // LANES, player] += log * log


@njit(cache=True, nogil=True)
def resampled(
    games: Any,
    offsets: Any,
    players: Any,
    step: Any,
    key: Any,
    begin: Any,
    end: Any,
    rounds: Any,
    means: Any,
    noise: Any,
) -> None:
    """Mean logarithms over rounds * LANES orderings of games whose prompts are drawn with replacement.

    games: sorted by prompt; offsets: (C + 1,), where each prompt's begin. means, noise: (R, P), of which
    rows begin ... end - 1 are filled: the means, and the variance of each mean that is left from ordering.
    """
    prompts = offsets.size - 1
    largest = 0
    for prompt in range(prompts):
        largest = max(largest, offsets[prompt + 1] - offsets[prompt])
    drawn = np.empty(prompts * largest, np.uint32)
    order = np.empty((LANES, prompts * largest), np.uint32)
    power = np.empty((LANES, players), np.float64)
    states = np.empty(LANES, np.uint64)
    for sample in range(begin, end):
        state = _mixed(key + _mixed(np.uint64(sample) * _GOLDEN))
        n = 0
        for _ in range(prompts):
            state += _GOLDEN
            prompt = _below(_mixed(state), prompts)
            for i in range(offsets[prompt], offsets[prompt + 1]):
                drawn[n] = games[i]
                n += 1
        for player in range(players):
            means[sample, player] = 0.0
            noise[sample, player] = 0.0
        for lane in range(LANES):
            state += _GOLDEN
            states[lane] = _mixed(_mixed(state))
        for _ in range(rounds):
            _play(drawn, n, order, power, states, step)
            for lane in range(LANES):
                for player in range(players):
                    log = math.log(power[lane, player])
                    means[sample, player] += log
                    noise[sample, player] += log * log
        total = rounds * LANES
        for player in range(players):
            mean = means[sample, player] / total
            means[sample, player] = mean
            spread = noise[sample, player] / total - mean * mean
            noise[sample, player] = max(0.0, spread) / (total - 1)
