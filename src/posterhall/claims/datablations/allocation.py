"""What the law says about spending a budget when tokens are limited, with the width the runs leave it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from posterhall.claims.base import Claim, claim
from posterhall.claims.figures import Axis, Figure, Panel, Strip
from posterhall.claims.kinds import Threshold
from posterhall.claims.regions import Region
from posterhall.claims.rows import Budget, Row

_BOTH, _DATA = "both decay", "surplus parameters keep their worth"
_UNIQUE = 25e9
_FLOPS = (3e21, 3e22)
"""Around the paper's 9.3e21 FLOP for 25 B unique tokens."""


@claim(id="epochs-before-parameters", paper="datablations", where="Fig. 1; §5")
class EpochsBeforeParameters(Claim):
    """With 25 billion unique tokens, more compute should go into epochs faster than into parameters: in at
    least 95 % of refits to resampled runs the best epochs grow faster than the best parameters do.

    Measured between 3e21 and 3e22 FLOP, around the paper's budget of 9.3e21.
    """

    kind = Threshold(metric="epochs_first", arm=_BOTH, at_least=0.95, refuted=Region(0.0, 0.5))
    paper_value = (
        "epochs first: R_N* 5.31 is below R_D* 15.39; 9.7 epochs of 6.3 B beat 7.1 of 8.7 B parameters"
    )
    refuted_by = "epochs grow faster in fewer than half of the refits"
    negative_control = "where surplus parameters keep their worth (R_N* endless), epochs must not come first"
    control_arms = (_DATA,)
    deviates = (
        "by the law's prediction over bootstrap refits of its lives to the 182 runs, the other constants "
        "frozen at the paper's; no model is trained"
    )
    scales = {
        "smoke": Budget(resamples=50, seconds=3.0),
        "laptop": Budget(resamples=200, seconds=12.0),
        "full": Budget(resamples=2000, seeds=10, seconds=120.0),
    }

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        import math

        import numpy as np

        from posterhall.claims.datablations import _resampled
        from posterhall.scaling import DataConstrained, runs182
        from posterhall.scaling.allocate import optimum
        from posterhall.scaling.constants import published

        law = DataConstrained()
        base = dict(published("c4").values)
        data, params = _resampled.lives(runs182.runs(), budget.resamples, seed)
        for arm, surplus in ((_BOTH, params), (_DATA, np.full_like(params, math.inf))):
            growth = []
            for life, other in zip(data.tolist(), surplus.tolist(), strict=True):
                values = {**base, "R_D": life, "R_N": other}
                tokens = [optimum(law, values, flops, _UNIQUE)[0] for flops in _FLOPS]
                epochs = math.log(tokens[1] / tokens[0])
                growth.append(epochs / math.log(_FLOPS[1] / _FLOPS[0]))  # 1/2: epochs and parameters alike
            yield Row(
                arm,
                seed,
                epochs_first=float(np.mean(np.array(growth) > 0.5)),
                growth=float(np.median(growth)),
            )

    def figure(self, rows: Sequence[Row]) -> Figure:
        return Figure(
            Panel(
                Strip.of(rows, "epochs_first", (_BOTH, _DATA)),
                x=Axis("refits in which epochs grow faster", percent=True, low=0, high=1),
            ),
            Panel(
                Strip.of(rows, "growth", (_BOTH, _DATA)), x=Axis("power of compute with which epochs grow")
            ),
            caption="Above a power of 1/2 epochs grow faster than parameters. A dot is a seed, with its "
            "own resamples of the published runs.",
        )
