"""Claims of Yao et al. 2023, "Tree of Thoughts: Deliberate Problem Solving with Large Language Models".

That a model solves more problems if its thoughts are proposed, valued and searched than if it writes one
chain of thought. Nothing is downloaded: small models are trained from scratch for a game of numbers and for
mazes, kept by what they were made from (`posterhall.train.small`), and asked through the same tasks and
search as any model; a claim's other form, ``--set model=http://HOST/v1#NAME``, asks that model for the Game
of 24 and grids of words.

- `numbers`: search against one chain, breadth, values against chance, what chains are learnt from.
- `costs`: equal tokens against best of n and self-consistency, votes, duplicates.
- `grids`: depth-first search with and without pruning and backtracking.
- `maze`: a model of successful ways only, followed and searched.

Success is that of the one answer which a method chooses itself, unless "checked" is said: the paper's 74 %
counts any of five.
"""

from __future__ import annotations

# In the order in which they are listed and reported.
from posterhall.claims.tree_of_thoughts import numbers, costs, grids, maze  # isort: skip

__all__ = ["costs", "grids", "maze", "numbers"]
