"""Mazes on a square grid, with more than one way through, and their shortest ways."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from posterhall.errors import DataError
from posterhall.seeds import generator


@dataclass(frozen=True)
class Maze:
    """Cells numbered row by row, and between which of them one can go, both ways.

    Attributes:
        side: cells a side.
        neighbours: of each cell, those that can be reached in one step, ascending.
    """

    side: int
    neighbours: tuple[tuple[int, ...], ...]

    @classmethod
    def drawn(cls, side: int, *, opened: float = 0.1, seed: int = 0) -> Maze:
        """A maze that is connected: a random tree (by depth-first walks), and some more walls opened.

        Args:
            side: cells a side, 2 to 100.
            opened: share of the walls that the tree leaves which are opened too, in [0, 1]; each makes a
                loop.
            seed: of the draws.

        Raises:
            DataError: for a value out of its range.
        """
        if not (2 <= side <= 100 and 0 <= opened <= 1):
            raise DataError(f"side is {side} and opened {opened}; allowed are 2 to 100, and 0 to 1")
        rng = generator(seed, "maze", side)
        beside = [_beside(cell, side) for cell in range(side * side)]
        ways: list[set[int]] = [set() for _ in beside]
        stack, seen = [0], {0}
        while stack:
            here = stack[-1]
            new = [cell for cell in beside[here] if cell not in seen]
            if not new:
                stack.pop()
                continue
            chosen = new[int(rng.integers(len(new)))]
            ways[here].add(chosen)
            ways[chosen].add(here)
            seen.add(chosen)
            stack.append(chosen)
        walls = [(a, b) for a in range(len(beside)) for b in beside[a] if a < b and b not in ways[a]]
        for at in rng.permutation(len(walls))[: round(opened * len(walls))].tolist():
            a, b = walls[at]
            ways[a].add(b)
            ways[b].add(a)
        return cls(side, tuple(tuple(sorted(each)) for each in ways))

    def distances(self, goal: int) -> list[int]:
        """Steps from each cell to a goal."""
        found = [-1] * len(self.neighbours)
        found[goal] = 0
        queue = deque([goal])
        while queue:
            here = queue.popleft()
            for cell in self.neighbours[here]:
                if found[cell] < 0:
                    found[cell] = found[here] + 1
                    queue.append(cell)
        return found

    def shortest(self, start: int, goal: int, rng: np.random.Generator) -> list[int]:
        """A shortest way from start to goal, both ends in it; of several, steps are drawn uniformly."""
        left = self.distances(goal)
        way = [start]
        while way[-1] != goal:
            nearer = [cell for cell in self.neighbours[way[-1]] if left[cell] < left[way[-1]]]
            way.append(nearer[int(rng.integers(len(nearer)))])
        return way


def _beside(cell: int, side: int) -> list[int]:
    row, column = divmod(cell, side)
    steps = ((row - 1, column), (row, column - 1), (row, column + 1), (row + 1, column))
    return [r * side + c for r, c in steps if 0 <= r < side and 0 <= c < side]
