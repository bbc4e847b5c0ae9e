"""Emergence: does a score jump with scale, or does its metric, its test set or its grid of scales?

Follows "Are Emergent Abilities of Large Language Models a Mirage?" (Schaeffer et al. 2023,
arXiv 2304.15004) and its critics. Read scores, then analyse every task × metric × family::

    from posterhall.scaling import emergence
    findings = emergence.analyse(emergence.read(["scores.csv"]))

- `readers`, `series`: score files of lm-evaluation-harness and BIG-bench, plain tables; what is checked.
- `analysis`: emergence score with interval, p-value against a straight line, false-discovery control.
- `curves`: smooth models against models with a break, by what they say of the largest scales.
- `planner`: how many test items are needed to see a rate.
- `correlation`: how well each score of an item follows compute.
- `toy`: the paper's model of a smooth improvement that looks sharp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from posterhall import lazy

if TYPE_CHECKING:
    from posterhall.scaling.emergence.analysis import Finding, analyse, tally
    from posterhall.scaling.emergence.correlation import per_sample, survival
    from posterhall.scaling.emergence.curves import compare, predict_largest
    from posterhall.scaling.emergence.planner import Plan, plan
    from posterhall.scaling.emergence.readers import read
    from posterhall.scaling.emergence.series import Row, Series, grouped
    from posterhall.scaling.emergence.toy import Toy

__all__ = [
    "Finding",
    "Plan",
    "Row",
    "Series",
    "Toy",
    "analyse",
    "compare",
    "grouped",
    "per_sample",
    "plan",
    "predict_largest",
    "read",
    "survival",
    "tally",
]

_HOMES = {
    "Finding": "analysis",
    "Plan": "planner",
    "Row": "series",
    "Series": "series",
    "Toy": "toy",
    "analyse": "analysis",
    "compare": "curves",
    "grouped": "series",
    "per_sample": "correlation",
    "plan": "planner",
    "predict_largest": "curves",
    "read": "readers",
    "survival": "correlation",
    "tally": "analysis",
}

__getattr__, __dir__ = lazy.attributes(__name__, names=_HOMES)
