"""Claims of Muennighoff et al. 2023, "Scaling Data-Constrained Language Models" (arXiv 2305.16264).

- `refit`: what the paper's own 182 runs say about its law, refitted; nothing is trained.
- `allocation`: what follows for spending a budget.

The runs are shipped with `posterhall.scaling` (from huggingface/datablations, Apache-2.0).
"""

from __future__ import annotations

from posterhall.claims.datablations import allocation, refit  # noqa: F401
