"""Recall: small models of any mixer, trained on tasks that are solved by looking back (Arora et al. 2023).

Modules are imported on first use: `.settings` (a grid, and what an arm of it is), `.training` (one model),
`.jobs` (the grid as a run), `.summary` (what came out, by arm and size); `.slices` (which tokens of a text
are hits of recall), `.sliced` (perplexities by slice, of any checkpoints), `.published` (the published ones,
checked).
"""

from __future__ import annotations

from posterhall import lazy

__all__ = ["jobs", "published", "settings", "sliced", "slices", "summary", "training"]

__getattr__, __dir__ = lazy.attributes(__name__, modules=__all__)
