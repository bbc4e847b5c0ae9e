"""Intervals, bootstraps and corrections: everything a verdict or a comparison stands on.

Two levels. The functions (`mean_interval`, `paired_interval`, `bca_interval`...) answer with an
`Interval`. Beneath them an `Estimate` knows its sampling distribution, so that it can also give the
interval at another level, the p-value of lying inside a region, and the number of units that would
settle the matter; the claims engine uses those.
"""

from __future__ import annotations

from posterhall.stats.bootstrap import Bootstrap, bca_interval, bootstrap, cluster_bootstrap, clustered
from posterhall.stats.estimates import (
    Equivalence,
    Estimate,
    Interval,
    Smallest,
    StudentT,
    equivalence,
    mean_interval,
    paired_interval,
    ratio_interval,
    seeds_needed,
    student,
)
from posterhall.stats.multiple import benjamini_hochberg, holm
from posterhall.stats.rank import spearman, spearman_interval
from posterhall.stats.shares import wilson

__all__ = [
    "Bootstrap",
    "Equivalence",
    "Estimate",
    "Interval",
    "Smallest",
    "StudentT",
    "bca_interval",
    "benjamini_hochberg",
    "bootstrap",
    "cluster_bootstrap",
    "clustered",
    "equivalence",
    "holm",
    "mean_interval",
    "paired_interval",
    "ratio_interval",
    "seeds_needed",
    "spearman",
    "spearman_interval",
    "student",
    "wilson",
]
