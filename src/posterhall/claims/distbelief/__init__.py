"""Claims of Dean et al. 2012, "Large Scale Distributed Deep Networks" (DistBelief).

What its Downpour SGD says about learning: asynchronous replicas, whose copies of the parameters are stale,
learn as well as one. What it says about speed on hundreds of machines cannot be seen on one machine, and
no claim here is about that. So replicas run on a simulated clock, where staleness is real and only time is
made up; the claim about a killed worker runs real processes.

The paper's own words and numbers were read second-hand, in a digest, and are marked so.

- `staleness`: what staleness costs a dense network, against replicas, rate and optimiser.
- `rows`: what it costs word vectors, where a mini-batch touches few rows.
- `failure`: what the death of a worker costs.
"""

from __future__ import annotations

# In the order in which they are listed and reported.
from posterhall.claims.distbelief import staleness, rows, failure  # isort: skip

__all__ = ["failure", "rows", "staleness"]
