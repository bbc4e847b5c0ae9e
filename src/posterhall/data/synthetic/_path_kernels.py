"""Dashed contours that keep clear of each other, drawn one dash at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

DASH, MARKER = 191, 255
"""Levels of a dash's pixels and of a marker's."""

_ANGLES = 8  # directions tried for each dash
_STARTS = 60  # beginnings tried for each contour


@njit(cache=True, nogil=True)
def _near(grid: Any, row: int, column: int, reach: int, value: int) -> None:
    """Sets the square of half a side `reach` around a pixel."""
    side = len(grid)
    grid[
        max(0, row - reach) : min(side, row + reach + 1),
        max(0, column - reach) : min(side, column + reach + 1),
    ] = value


@njit(cache=True, nogil=True)
def _any(grid: Any, row: int, column: int, reach: int) -> bool:
    side = len(grid)
    for i in range(max(0, row - reach), min(side, row + reach + 1)):
        for j in range(max(0, column - reach), min(side, column + reach + 1)):
            if grid[i, j]:
                return True
    return False


@njit(cache=True, nogil=True)
def _contour(
    rng: Any,
    taken: Any,
    drawn: Any,
    own: Any,
    dashes: int,
    dash: int,
    gap: int,
    turn: float,
    edge: int,
    clear: int,
    pixels: Any,
) -> bool:
    """Pixels (dashes * dash, 2) of a contour that keeps off what is taken; False if it found no way.

    Both ends stay `edge` pixels off the border, and `clear` off all that is drawn.
    """
    side = len(taken)
    own[:] = 0
    y = edge + rng.random() * (side - 1 - 2 * edge)
    x = edge + rng.random() * (side - 1 - 2 * edge)
    if _any(drawn, round(y), round(x), clear):
        return False
    angle = rng.random() * 2 * np.pi
    for number in range(dashes):
        found = False
        for _ in range(_ANGLES):
            way = angle + (2 * rng.random() - 1) * turn if number else rng.random() * 2 * np.pi
            dy, dx = np.sin(way), np.cos(way)
            # The gap lies in the direction of the dash that follows it.
            y0, x0 = (y + (gap + 1) * dy, x + (gap + 1) * dx) if number else (y, x)
            good = True
            for step in range(dash):
                row, column = round(y0 + step * dy), round(x0 + step * dx)
                if not (edge <= row < side - edge and edge <= column < side - edge):
                    good = False
                    break
                if taken[row, column] or 0 < own[row, column] < number:
                    good = False
                    break
                pixels[number * dash + step, 0] = row
                pixels[number * dash + step, 1] = column
            if good:
                found = True
                break
        if not found:
            return False
        angle = way
        y, x = y0 + (dash - 1) * dy, x0 + (dash - 1) * dx
        for step in range(dash):
            row, column = pixels[number * dash + step]
            # Numbers from 1, and the older of two stays: only the dash just before may be near.
            for i in range(max(0, row - gap - 1), min(side, row + gap + 2)):
                for j in range(max(0, column - gap - 1), min(side, column + gap + 2)):
                    if own[i, j] == 0:
                        own[i, j] = number + 1
    return not _any(drawn, round(y), round(x), clear)


@njit(cache=True, nogil=True)
def _commit(pixels: Any, image: Any, taken: Any, drawn: Any, gap: int) -> None:
    for at in range(len(pixels)):
        row, column = pixels[at]
        image[row, column] = DASH
        drawn[row, column] = 1
        _near(taken, row, column, gap + 1, 1)


@njit(cache=True, nogil=True)
def _marker(image: Any, row: int, column: int, radius: float) -> None:
    reach = int(radius)
    for i in range(row - reach, row + reach + 1):
        for j in range(column - reach, column + reach + 1):
            if (i - row) ** 2 + (j - column) ** 2 <= radius * radius:
                image[i, j] = MARKER


@njit(cache=True, nogil=True)
def draw(
    rng: Any,
    joined: bool,
    dashes: int,
    dash: int,
    gap: int,
    turn: float,
    radius: float,
    distractors: int,
    short: int,
    image: Any,
    tries: int,
) -> bool:
    """One image (side, side) uint8, markers on the ends of one contour or of two; False without room."""
    side = len(image)
    reach = int(radius)
    clear = 2 * reach + gap + 1  # markers of two contours stay apart as well
    taken = np.zeros((side, side), np.uint8)
    drawn = np.zeros((side, side), np.uint8)
    own = np.zeros((side, side), np.int64)
    ends = np.zeros((2, 2, 2), np.int64)
    pixels = np.zeros((dashes * dash, 2), np.int64)
    for _ in range(tries):
        image[:] = 0
        taken[:] = 0
        drawn[:] = 0
        placed = 0
        for _ in range(_STARTS):
            if _contour(rng, taken, drawn, own, dashes, dash, gap, turn, reach, clear, pixels):
                _commit(pixels, image, taken, drawn, gap)
                ends[placed, 0] = pixels[0]
                ends[placed, 1] = pixels[-1]
                for end in range(2):
                    _near(taken, ends[placed, end, 0], ends[placed, end, 1], clear, 1)
                placed += 1
                if placed == 2:
                    break
        if placed < 2:
            continue
        apart = np.abs(ends[0, 0] - ends[0, 1]).max()
        if apart <= 2 * reach + 1:  # its own two markers would run into one
            continue
        for _ in range(distractors):
            for _ in range(_STARTS):
                if _contour(rng, taken, drawn, own, short, dash, gap, turn, reach, 0, pixels[: short * dash]):
                    _commit(pixels[: short * dash], image, taken, drawn, gap)
                    break
        first = int(rng.random() * 2)
        one = ends[0, first]
        other = ends[0, 1 - first] if joined else ends[1, int(rng.random() * 2)]
        _marker(image, one[0], one[1], radius)
        _marker(image, other[0], other[1], radius)
        return True
    return False
