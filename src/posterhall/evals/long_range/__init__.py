"""Long range: classifiers of long sequences on any mixer, of one size, tuned over one grid (Tay et al. 2021).

Modules are imported on first use: `.settings` (a grid, and what an arm of it is), `.tasks` (what there is
to classify), `.training` (one model), `.jobs` (the grid as a run), `.summary` (what came out, by arm and
length).
"""

from __future__ import annotations

from posterhall import lazy

__all__ = ["jobs", "settings", "summary", "tasks", "training"]

__getattr__, __dir__ = lazy.attributes(__name__, modules=__all__)
