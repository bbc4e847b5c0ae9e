"""Claims of Muennighoff et al. 2023, "Scaling Data-Constrained Language Models" (arXiv 2305.16264).

- `repetition`: what repeated data cost, by training on them.
- `life`: R_D*, by the law fitted to runs of one's own.
- `refit`: what the paper's own 182 runs say about its law, refitted; nothing is trained.
- `allocation`: what follows for spending a budget.
- `filling`: code in the place of prose.
- `cleaning`: filters and deduplication on noise of known truth.
- `filtering`: cleaning and then repeating, by training.

The paper's runs are shipped with `posterhall.scaling` (from huggingface/datablations, Apache-2.0). The
others train byte-level decoders on text that every machine with Python has; `corpus=PATH` and `code=PATH` put
text of one's own in its place.
"""

from __future__ import annotations

from posterhall.claims.datablations import (  # noqa: F401
    allocation,
    cleaning,
    filling,
    filtering,
    life,
    refit,
    repetition,
)
