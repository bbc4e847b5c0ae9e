'''Headline claims of papers as experiments that end in a verdict.

A claim is decided before it is run. It states what it measures, the region of effects it claims, the
region that would refute it, and a negative control: the same measurement on arms where the mechanism is
missing. Then it is run on several seeds, and the rule is:

- **supported** if and only if the 95 % interval of the effect lies inside the claimed region;
- **refuted** if and only if it lies inside the stated refuting region;
- otherwise **inconclusive**, with the seeds estimated as needed;
- a control that comes out supported makes its claim inconclusive.

Writing one (in `posterhall/claims/PAPER.py`; then add the paper to `posterhall/claims/registry.py`):

    from collections.abc import Iterator
    from posterhall.claims import Axis, Budget, Claim, Figure, Line, Paired, Panel, Row, claim

    @claim(id="warmstart-helps", paper="distbelief", where="§5", headline=True)
    class Warmstart(Claim):
        """One sentence: the statement, as it will be printed.

        Further paragraphs are for readers of the code.
        """

        kind = Paired(metric="loss", arms=("warm", "cold"), margin=0.05, direction="lower")
        paper_value = "no number given (§5: 'eliminated stability problems')"
        refuted_by = "a warm start leaves the loss the same or makes it higher"
        negative_control = "a warm start of zero steps must not help"
        control_arms = ("warm of 0 steps", "cold")    # the same kind over other arms; or control = Kind(...)
        deviates = "a simulated clock and a network of 2,762 weights, against 42 M on 200 machines"
        scales = {
            "smoke": Budget(pushes=400, seconds=2.0),            # seeds=5 unless said otherwise
            "laptop": Budget(pushes=4000, seconds=15.0),
            "full": Budget(pushes=400_000, seconds=3600.0, seeds=10),
        }
        diverged = {"loss": 2.303}         # what a value that is not finite counts as: a guess at random
        params = {"corpus": None}          # what `--set corpus=PATH` may change, with defaults: self.params

        def run(self, budget: Budget, seed: int) -> Iterator[Row]:
            import numpy as np             # heavy imports belong here: `claims list` must be quick
            for arm in ("warm", "cold", "warm of 0 steps"):
                yield Row(arm, seed, loss=..., curve=[...])

        def figure(self, rows):            # optional; by default every arm with its seeds and interval
            return Figure(Panel(Line.of(rows, "loss", {1: "warm", 2: "cold"}, label="loss")), caption="...")

Rules that the decorator or the contract suite enforces: at least five seeds at every scale; a row for
every arm on every seed, the control's arms too; equal rows for an equal seed (draw from
`posterhall.seeds.generator(seed, ...)`, never from global state), except for measured time; claimed and
refuting regions that do not overlap. Pair arms: what a seed decides (data, initial weights) should be
the same for all arms of that seed.

Where the items of a test set are what varies, `unit = "item"` and metrics that are arrays (one score an
item, `clusters=` for groups of them) give a cluster bootstrap over items; then fewer than five seeds
will do, and at least thirty clusters are needed.

A claim that measures time or starts processes is declared with `exclusive=True` and runs alone, with all
cores; the others share the machine, one thread each. Kinds, margins and default refutations:
`posterhall.claims.kinds`. Figures: `posterhall.claims.figures`.
'''

from __future__ import annotations

from posterhall.claims.base import Claim, claim
from posterhall.claims.engine import read, run, stored_rows
from posterhall.claims.figures import Axis, Band, Bars, Figure, Line, Panel, Points, Reference, Strip
from posterhall.claims.kinds import Equivalent, Fit, Kind, Ordering, Paired, Ratio, Threshold
from posterhall.claims.regions import Absolute, Region, Relative, outside
from posterhall.claims.registry import PAPERS, Paper, load, select
from posterhall.claims.results import Outcome, Results
from posterhall.claims.rows import Budget, Row
from posterhall.claims.verdict import Verdict, decide, judge

__all__ = [
    "PAPERS",
    "Absolute",
    "Axis",
    "Band",
    "Bars",
    "Budget",
    "Claim",
    "Equivalent",
    "Figure",
    "Fit",
    "Kind",
    "Line",
    "Ordering",
    "Outcome",
    "Paired",
    "Panel",
    "Paper",
    "Points",
    "Ratio",
    "Reference",
    "Region",
    "Relative",
    "Results",
    "Row",
    "Strip",
    "Threshold",
    "Verdict",
    "claim",
    "decide",
    "judge",
    "load",
    "outside",
    "read",
    "run",
    "select",
    "stored_rows",
]
