"""Planning on graphs that a model is told of in words (CogEval, Momennejad et al., NeurIPS 2023).

A graph, a cover story, a question whose answers are computed, a reply, a verdict by the graph itself.

Modules are imported on first use: `.graphs` (the six published ones, and files), `.families` (random
ones), `.paths` (distances and all shortest paths), `.conditions` (what is asked), `.domains` (cover stories),
`.prompts` (how it is put), `.answers` (reading a path out of a reply), `.scoring` (the verifier), `.jobs`
(an evaluation as a run), `.rows` (what a run keeps), `.judge` (a model as judge), `.export`
(lm-evaluation-harness).
"""

from __future__ import annotations

from posterhall import lazy

__all__ = [
    "answers",
    "conditions",
    "domains",
    "export",
    "families",
    "graphs",
    "jobs",
    "judge",
    "paths",
    "prompts",
    "rows",
    "scoring",
]

__getattr__, __dir__ = lazy.attributes(__name__, modules=__all__)
