"""The published perplexities by slice, recomputed: which cells do not go with each other.

A model's perplexities on all tokens, on hits of associative recall and on the others fix the share s of the
hits: log ppl = s log ppl_AR + (1 - s) log ppl_other. On one set of tokens it must be the same for all models.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

TEXTS_SHARE = 0.064
"""Of hits among all tokens, as the text of Zoology has it."""
_TOLERANCE = 0.05
"""How far, relatively, an implied share may be from the median: two digits after the point allow 2 %."""


@dataclass(frozen=True)
class Published:
    """A row of a table: perplexities, and the share of the gap to attention as it is printed."""

    model: str
    parameters: float
    """Millions."""
    overall: float
    hits: float
    other: float
    printed: float | None = None
    """Percent; None for attention itself."""

    @property
    def share(self) -> float:
        """The share of hits among all tokens that the row implies."""
        return (math.log(self.overall) - math.log(self.other)) / (math.log(self.hits) - math.log(self.other))


ZOOLOGY: tuple[tuple[Published, ...], ...] = (
    (
        Published("attention", 125, 11.01, 2.16, 12.45),
        Published("long convolution", 128, 16.98, 25.62, 16.46, 40.1),
        Published("H3", 168, 12.06, 6.75, 12.60, 88.4),
        Published("Hyena", 158, 11.60, 5.00, 12.28, 100.0),
        Published("RWKV", 169, 11.64, 5.70, 12.29, 100.0),
    ),
    (
        Published("attention", 360, 9.44, 1.98, 10.62),
        Published("long convolution", 360, 13.13, 13.27, 13.12, 40.5),
        Published("H3", 357, 10.38, 4.81, 11.00, 65.8),
        Published("Hyena", 358, 10.07, 3.83, 10.75, 98.2),
        Published("RWKV", 351, 9.79, 3.82, 10.51, 100.0),
    ),
)
"""Arora et al. 2023, table 1 (10^10 tokens of the Pile), by size, attention first. Printed percentages above
100 are cut to it there."""


@dataclass(frozen=True)
class Recomputed:
    """A row with what follows from it."""

    row: Published
    share: float
    """Of hits among all tokens, implied by the row; NaN where its slices are too alike to tell."""
    gap: float | None
    """Percent of the gap to attention that lies in hits, by the median share; None for attention."""
    flags: tuple[str, ...]
    """share: the row implies another share than the others; printed: the percentage does not follow from the
    row (those above 100, printed as 100, do)."""


def recompute(tables: Sequence[Sequence[Published]] = ZOOLOGY) -> list[Recomputed]:
    """Check every row of tables whose first rows are the models that the others are compared with."""
    # The closer the two perplexities, the less rounding leaves of the implied share.
    telling = [row.share for table in tables for row in table if abs(math.log(row.hits / row.other)) > 0.5]
    median = statistics.median(telling)
    found = []
    for table in tables:
        best = table[0]
        for row in table:
            flags = []
            alike = abs(math.log(row.hits / row.other)) <= 0.5
            if not alike and abs(row.share / median - 1) > _TOLERANCE:
                flags.append("share")
            gap = None
            if row is not best:
                gap = 100 * median * math.log(row.hits / best.hits) / math.log(row.overall / best.overall)
                if row.printed is not None and abs(min(gap, 100.0) - row.printed) > 2.0:
                    flags.append("printed")
            found.append(Recomputed(row, math.nan if alike else row.share, gap, tuple(flags)))
    return found
