"""The published perplexities by slice, recomputed from what their rounding leaves open."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from posterhall.claims import Axis, Bars, Budget, Claim, Figure, Fit, Panel, Reference, Row, Threshold, claim

if TYPE_CHECKING:
    from posterhall.evals.recall.published import Published

_DEVIATES = (
    "nothing is trained: the printed numbers of Table 1 are taken, and each seed draws the digits that "
    "rounding to two places has cut off"
)
_SCALES = {
    "smoke": Budget(seconds=0.1),
    "laptop": Budget(seeds=20, seconds=0.1),
    "full": Budget(seeds=200, seconds=0.1),
}


@claim(id="hits-are-as-many-as-the-text-says", paper="recall", where="§3 (6.4 % of tokens); Table 1")
class HitsAreAsManyAsTheTextSays(Claim):
    """The rows of Table 1 imply the share of recallable tokens that the text tells: 6.4 %, within 0.2 points.

    Overall perplexity is the mean of the slices' logarithms by their shares, so that each row implies one;
    the effect is their median. Rows whose slices are too alike to tell are left out.
    """

    kind = Fit(metric="percent", arm="Table 1", low=6.2, high=6.6)
    paper_value = "6.4 % (§3); 'about 7 %' in the talk"
    refuted_by = "the rows imply another share"
    negative_control = "the slices exchanged (hits for others) must not imply it"
    control_arms = ("slices exchanged",)
    deviates = _DEVIATES
    scales = _SCALES

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.evals.recall.published import recompute

        rows = _unrounded(seed)
        exchanged = [[replace(each, hits=each.other, other=each.hits) for each in size] for size in rows]
        for arm, tables in (("Table 1", rows), ("slices exchanged", exchanged)):
            shares = [100 * each.share for each in recompute(tables)]
            told = [share for share in shares if share == share]
            yield Row(arm, seed, percent=statistics.median(told), shares=shares)

    def figure(self, rows: Sequence[Row]) -> Figure:
        return Figure(
            _by_model(rows, "Table 1", "shares", "share implied (%)", Reference(6.4, "the text")),
            caption="The share of recallable tokens that each row of Table 1 implies; rows that differ are "
            "not of the same tokens. None for rows whose slices are too alike.",
        )


@claim(id="printed-shares-follow", paper="recall", where="Table 1 (% of gap due to recall)")
class PrintedSharesFollow(Claim):
    """Every printed share of the gap in Table 1 follows from its own row: none is more than 2 points off.

    Shares are taken at the median share of tokens that the rows imply, and cut at 100 as in the paper; the
    effect is the largest difference.
    """

    kind = Threshold(metric="off", arm="Table 1", at_most=2.0)
    paper_value = "40.1, 88.4, 100, 100 (150M); 40.5, 65.8, 98.2, 100 (355M)"
    refuted_by = "a row gives a share more than 2 points from the printed one"
    negative_control = "the printed shares dealt to the rows in reverse must not follow"
    control_arms = ("printed shares reversed",)
    deviates = _DEVIATES
    scales = _SCALES

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.evals.recall.published import recompute

        found = [each for each in recompute(_unrounded(seed)) if each.gap is not None]
        shares = [min(each.gap or 0.0, 100.0) for each in found]
        printed = [math.nan if each.row.printed is None else each.row.printed for each in found]
        for arm, told in (("Table 1", printed), ("printed shares reversed", printed[::-1])):
            off = [abs(share - other) for share, other in zip(shares, told, strict=True)]
            yield Row(arm, seed, off=max(off), by_row=off, recomputed=shares, printed=told)

    def figure(self, rows: Sequence[Row]) -> Figure:
        return Figure(
            _by_model(rows, "Table 1", "by_row", "points off", Reference(2.0, "2 points")),
            caption="How far the printed share of the gap is from what its row gives: Hyena's 98.2 % of 355M "
            "parameters is another number than its perplexities have.",
        )


def _unrounded(seed: int) -> list[list[Published]]:
    """Table 1 with the digits that rounding may have cut off."""
    from posterhall.evals.recall.published import ZOOLOGY
    from posterhall.seeds import generator

    rng = generator(seed, "recall", "digits")
    return [
        [
            replace(
                each,
                **{
                    name: getattr(each, name) + rng.uniform(-0.005, 0.005)
                    for name in ("overall", "hits", "other")
                },
            )
            for each in size
        ]
        for size in ZOOLOGY
    ]


def _by_model(rows: Sequence[Row], arm: str, metric: str, label: str, line: Reference) -> Panel:
    """Means over seeds of a list that has a number for each model of the table."""
    from posterhall.claims.lines import mean_line
    from posterhall.evals.recall.published import ZOOLOGY

    models = [f"{each.model} {each.parameters:g}M" for size in ZOOLOGY for each in size]
    mine = [row for row in rows if row.arm == arm]
    found = mean_line(mine, arm, range(_length(mine[0], metric)), metric, label=label)
    if len(found.y) < len(models):  # what is of a gap has no row for attention
        models = [name for name in models if not name.startswith("attention")]
    return Panel(Bars(label, tuple(models), found.y, found.low, found.high), line, y=Axis(label))


def _length(row: Row, metric: str) -> int:
    value = row[metric]
    return len(value) if isinstance(value, tuple) else 1
