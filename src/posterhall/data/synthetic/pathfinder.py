"""Pathfinder: are two markers the ends of one dashed contour, among others that are not?

Linsley et al. 2018 (arXiv 1805.08315), and Tay et al. 2021 (Long Range Arena, arXiv 2011.04006): 32 x 32
pixels there, 128 x 128 in Path-X, read as one sequence of pixels, row by row. Every image has two long
contours and some short ones as distractors; the markers stand on both ends of one (class 1), or on an end
of each (class 0). A generator of its own: a contour is a walk of dashes with a gap between them, each
turned by up to `turn` against the one before, and contours stay so far from each other that a dash within
gap + 1 pixels (in the larger of both directions) always belongs to the same one. Dashes are one pixel wide
and not smoothed. Distances between markers differ a little between the classes, as they do in the
published images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posterhall.data.labelled import Sequences
from posterhall.data.synthetic import _path_kernels as kernels
from posterhall.errors import DataError
from posterhall.seeds import generator

_TRIES = 2000
_BLOCK = 64
"""Images drawn together; half of each class. Row i does not depend on how many rows are taken."""


@dataclass(frozen=True)
class Pathfinder:
    """The task; the defaults are of Long Range Arena's 32 x 32 images, `path_x` has those of 128 x 128.

    Raises:
        DataError: for a value out of its range.
    """

    side: int = 32
    """Pixels a side, 8 to 1,024; a sequence has side² steps."""
    dashes: int = 14
    """Of a long contour, at least 2 (contour_length)."""
    dash: int = 2
    """Pixels of a dash, at least 1 (paddle_length)."""
    gap: int = 1
    """Empty steps between two dashes, at least 0."""
    turn: float = 1.0
    """Largest turn from a dash to the next, radians, in [0, pi]; smaller is smoother (the authors'
    `continuity` is an inverse of it)."""
    radius: float = 1.5
    """Of a marker, pixels, at least 0."""
    distractors: int = 5
    """Short contours, as far as there is room, at least 0."""
    short: int = 4
    """Dashes of a distractor, from 1 to `dashes`."""

    def __post_init__(self) -> None:
        if not 8 <= self.side <= 1024:
            raise DataError(f"side is {self.side}; it must be from 8 to 1,024 pixels")
        for name, least in (("dashes", 2), ("dash", 1), ("gap", 0), ("distractors", 0), ("short", 1)):
            if getattr(self, name) < least:
                raise DataError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if self.short > self.dashes:
            raise DataError(f"short is {self.short}; it must not be above dashes, {self.dashes}")
        if not 0 <= self.turn <= math.pi:
            raise DataError(f"turn is {self.turn}; it must be from 0 to pi radians")
        if not 0 <= self.radius <= self.side / 8:
            raise DataError(f"radius is {self.radius}; it must be from 0 to side / 8 = {self.side / 8:g}")

    def draw(self, rows: int, *, seed: int, split: str) -> Sequences:
        """Rows 0 to rows - 1 of a split: samples (rows, side², 1) float32 in [0, 1], classes 0 and 1.

        Raises:
            DataError: if there is no room for two such contours.
        """
        images = np.empty((rows, self.side, self.side), np.uint8)
        labels = np.empty(rows, np.int64)
        for first in range(0, rows, _BLOCK):
            rng = generator(seed, "pathfinder", split, first // _BLOCK)
            classes = rng.permutation(np.arange(_BLOCK) % 2)
            for row in range(first, min(rows, first + _BLOCK)):
                labels[row] = classes[row - first]
                self._image(rng, bool(labels[row]), images[row])
        inputs = images.reshape(rows, self.side**2, 1).astype(np.float32) / 255
        return Sequences(inputs, labels, np.full(rows, self.side**2))

    def _image(self, rng: np.random.Generator, joined: bool, image: NDArray[np.uint8]) -> None:
        sizes = (self.dashes, self.dash, self.gap, self.turn, self.radius, self.distractors, self.short)
        if not kernels.draw(rng, joined, *sizes, image, _TRIES):
            raise DataError(
                f"two contours of {self.dashes} dashes of {self.dash} pixels found no room on {self.side} x "
                f"{self.side} in {_TRIES:,} tries; take fewer dashes, or a larger side"
            )


def path_x(side: int = 128) -> Pathfinder:
    """Path-X, 128 x 128 pixels (16,384 steps), and the same in proportion for other sides.

    As published: 14 dashes, markers of radius 3, distractors of 4 dashes, 35 // 4 of them. Dashes of 5
    pixels, gaps of 2 and turns of 1 / 1.8 (the published continuity) are this generator's reading.
    """
    scale = side / 128
    return Pathfinder(
        side=side,
        dash=max(1, round(5 * scale)),
        gap=max(1, round(2 * scale)),
        turn=1.0 / 1.8,
        radius=3 * scale,
        distractors=8,
    )
