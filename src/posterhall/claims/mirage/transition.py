"""The counter-example: a task with a true transition, which every metric shows, told from a mirage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from posterhall.claims import Axis, Budget, Claim, Figure, Panel, Region, Row, Threshold, claim
from posterhall.claims.mirage._measure import curve_panel
from posterhall.seeds import derive, generator

_METRICS = ("accuracy", "likelihood", "Brier score")
_GENTLE = ("edit distance", "likelihood")
_NEEDED = 7
"""Bits that must be seen before anything can be known."""


@claim(id="true-transition-under-every-metric", paper="mirage", where="Discussion (what it does not claim)")
class TrueTransitionUnderEveryMetric(Claim):
    """Where an ability needs what smaller models cannot see, curves with a break describe it better than
    smooth ones by every metric, likelihood and Brier score included.

    Networks see the last 1 to 14 bits of a random sequence and are to tell whether the newest one and the
    seventh from the end differ: without that bit nothing can be known. The measure is
    AICc of the best smooth curve less that of the best with a break
    (`posterhall.scaling.emergence.compare`), for the metric for which it is least; 10 is a model without
    any support (Burnham & Anderson 2002, §2.6). The control is where the paper's claim is at stake: models
    that multiply, by the one of edit distance and likelihood for which it is greatest.

    Errors on held-out larger scales, by which `compare` decides, cannot tell here: beyond the transition
    both kinds of curve foretell the plateau. A first design had modular addition by the number of examples;
    on a seed that is not run its rise went over a third of the grid, smooth at this size by any metric.
    """

    kind = Threshold(metric="break_evidence", arm="far bit", at_least=10.0, refuted=Region(high=0.0))
    paper_value = "none: the paper does not claim that large models cannot have emergent abilities"
    refuted_by = "by some metric a smooth curve describes the transition as well"
    negative_control = "models that multiply, by their edit distance or likelihood, must not show a break"
    control_arms = ("digit multiplication",)
    deviates = (
        "not in the paper; networks of one hidden layer whose scale is their context; the control as in "
        "exact-match-starts-later, with widths from 4 to 64"
    )
    scales = {
        "smoke": Budget(contexts=12, steps=150, widths=8, family_steps=40, seconds=5.0),
        "laptop": Budget(contexts=14, steps=500, widths=8, family_steps=200, seconds=25.0),
        "full": Budget(contexts=14, steps=10_000, widths=12, family_steps=20_000, seeds=10, seconds=40_000.0),
    }

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.claims.mirage._family import trained
        from posterhall.claims.mirage.arithmetic import spread
        from posterhall.data.synthetic.arithmetic import Arithmetic

        contexts = range(1, budget.contexts + 1)
        found = [_far_bit(context, budget.steps, seed) for context in contexts]
        curves = {name: [each[name] for each in found] for name in _METRICS}
        yield from _rows("far bit", curves, list(contexts), min, seed)
        widths = spread(budget.widths)
        family = trained(Arithmetic("*", 2), widths, steps=budget.family_steps, items=2000, seed=seed)
        gentle = {"edit distance": family.scores("edit distance"), "likelihood": family.scores("likelihood")}
        yield from _rows("digit multiplication", gentle, family.sizes, max, seed)

    def figure(self, rows: Sequence[Row]) -> Figure:
        def panel(arm: str, names: Sequence[str], x: str) -> Panel:
            arms = {f"{arm}, {name}": name for name in names}
            return curve_panel(rows, arms, "shares", x=x, y=Axis("from worst to best"), title=arm)

        return Figure(
            panel("far bit", _METRICS, "bits seen"),
            panel("digit multiplication", _GENTLE, "parameters"),
            caption="Scores from the worst (0) to the best (1) of each seed and metric.",
        )


def break_evidence(scales: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """AICc of the best smooth curve less that of the best with a break; 0 if there are too few scales."""
    from posterhall.scaling.emergence import compare

    # Whether the evidence is luck is for the seeds to say, so hardly any curves are drawn around the fits.
    found = compare(scales, scores, resamples=1)
    least = {
        kind: min((model.aicc for model in found.models if model.kind == kind), default=np.inf)
        for kind in ("smooth", "break")
    }
    return float(least["smooth"] - least["break"]) if np.isfinite(list(least.values())).all() else 0.0


def _rows(
    arm: str,
    curves: Mapping[str, npt.ArrayLike],
    scales: list[int],
    choose: Callable[[Iterable[float]], float],
    seed: int,
) -> Iterator[Row]:
    evidence = {name: break_evidence(scales, scores) for name, scores in curves.items()}
    yield Row(arm, seed, break_evidence=choose(evidence.values()))
    for name, scores in curves.items():
        values = np.asarray(scores, np.float64) * (1 if name == "accuracy" else -1)
        shares = (values - values.min()) / (np.ptp(values) or 1.0)
        yield Row(
            f"{arm}, {name}",
            seed,
            break_evidence=evidence[name],
            scores=np.asarray(scores),
            shares=shares,
            scales=scales,
        )


def _far_bit(context: int, steps: int, seed: int) -> dict[str, float]:
    """Train on the last `context` bits of sequences, and test on 2,000 others."""
    from posterhall.claims.mirage import _nets
    from posterhall.extras import functional, nn, torch

    longest, tested = 16, 2000
    bits = generator(seed, "bits").integers(0, 2, size=(64 * steps + tested, longest))
    wanted = bits[:, 0] ^ bits[:, _NEEDED - 1]
    signs = (2.0 * bits[:, :context] - 1.0).astype(np.float32)
    model = nn.Sequential(nn.Linear(context, 64), nn.ReLU(), nn.Linear(64, 2))
    arrays = {"x": signs[tested:], "y": wanted[tested:]}
    _nets.train(model, arrays, _nets.classification, steps=steps, lr=1e-2, seed=derive(seed, "far bit"))
    with torch.no_grad():
        logits = model(torch.as_tensor(signs[:tested]))
        right = torch.as_tensor(wanted[:tested])
        error = logits.softmax(dim=1) - functional.one_hot(right, 2)
        return {
            "accuracy": float((logits.argmax(dim=1) == right).float().mean()),
            "likelihood": float(functional.cross_entropy(logits, right)),
            "Brier score": float(error.square().sum(dim=1).mean()),
        }
