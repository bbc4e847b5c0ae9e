"""The counter-example: a task with a true transition, which every metric shows, told from a mirage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from posterhall.claims import Axis, Budget, Claim, Figure, Panel, Region, Row, Threshold, claim
from posterhall.claims.mirage._measure import curve_panel
from posterhall.seeds import derive, generator

_FINEST = 0.01
"""Held-out errors below this share of a curve's range count as this share."""


@claim(id="true-transition-under-every-metric", paper="mirage", where="§6 (what the paper does not claim)")
class TrueTransitionUnderEveryMetric(Claim):
    """Where a network begins to generalise at once, as in modular addition with enough examples, curves
    with a break foretell even its likelihood and Brier score at least twice as well as smooth ones.

    The scale is the number of examples, over a grid of equal steps. Models with and without a break are
    fitted to the smaller scales and foretell the larger ones (`posterhall.scaling.emergence.compare`); the
    measure is log2 of the best smooth model's error over that of the best with a break, by the metric (of
    accuracy, likelihood and Brier score) for which it is least. That models of two-digit multiplication
    do not show it, by the one of edit distance and likelihood for which it is greatest, is the control:
    there the paper's claim is at stake.
    """

    kind = Threshold(metric="break_advantage", arm="modular addition", at_least=1.0, refuted=Region(high=0.0))
    paper_value = "none: the paper does not claim that large models cannot have emergent abilities (§6)"
    refuted_by = "by some metric smooth curves foretell the transition as well"
    negative_control = "models that multiply, by their edit distance or likelihood, must not show a break"
    control_arms = ("digit multiplication",)
    deviates = (
        "not in the paper; a network of one hidden layer with squares as activation (Gromov 2023, "
        "arXiv 2301.02679), trained on 6 % to 90 % of all sums modulo 23 or 31; the control as in "
        "metric-swap-multiplication, with eight widths from 4 to 64"
    )
    scales = {
        "smoke": Budget(modulus=23, points=12, hidden=128, steps=300, widths=6, family_steps=60, seconds=6.0),
        "laptop": Budget(
            modulus=31, points=16, hidden=192, steps=1000, widths=8, family_steps=300, seconds=45.0,
        ),
        "full": Budget(
            modulus=97, points=32, hidden=1024, steps=20_000, widths=12, family_steps=20_000, seeds=10,
            seconds=50_000.0,
        ),
    }  # fmt: skip

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.claims.mirage._family import trained
        from posterhall.claims.mirage.arithmetic import spread
        from posterhall.data.synthetic.arithmetic import Arithmetic

        fractions = np.linspace(0.06, 0.9, budget.points)
        found = [_modular(budget, float(fraction), seed) for fraction in fractions]
        examples = [each["examples"] for each in found]
        curves = {name: [each[name] for each in found] for name in ("accuracy", "likelihood", "Brier score")}
        yield from _rows("modular addition", curves, examples, min, seed)
        family = trained(
            Arithmetic("*", 2), spread(budget.widths), steps=budget.family_steps, items=2000, seed=seed
        )
        gentle = {name: family.scores(name).tolist() for name in ("edit distance", "likelihood")}
        yield from _rows("digit multiplication", gentle, family.sizes, max, seed)

    def figure(self, rows: Sequence[Row]) -> Figure:
        def panel(arm: str, names: Sequence[str], x: str) -> Panel:
            arms = {f"{arm}, {name}": name for name in names}
            return curve_panel(rows, arms, "shares", x=x, y=Axis("from worst to best"), title=arm)

        return Figure(
            panel("modular addition", ("accuracy", "likelihood", "Brier score"), "examples trained on"),
            panel("digit multiplication", ("edit distance", "likelihood"), "parameters"),
            caption="Scores from the worst (0) to the best (1) of each seed and metric.",
        )


def break_advantage(scales: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """log2 of the smallest held-out error of a smooth model over that of one with a break; 0 if both tie.

    Errors below a hundredth of the range of scores count as that: both kinds are exact then.
    """
    from posterhall.scaling.emergence import compare

    # Whether the advantage is luck is for the seeds to say, so no curves are drawn around the fits.
    found = compare(scales, scores, resamples=1)
    least = _FINEST * float(np.ptp(np.asarray(scores, np.float64))) or 1.0
    smooth, broken = (found.best(kind) for kind in ("smooth", "break"))
    if smooth is None or broken is None:
        return 0.0
    return float(np.log2(max(smooth.held_out, least) / max(broken.held_out, least)))


def _rows(
    arm: str, curves: dict[str, list[float]], scales: list[int], choose: Any, seed: int
) -> Iterator[Row]:
    advantages = {name: break_advantage(scales, scores) for name, scores in curves.items()}
    yield Row(arm, seed, break_advantage=choose(advantages.values()))
    for name, scores in curves.items():
        values = np.array(scores if name == "accuracy" else [-s for s in scores])
        shares = (values - values.min()) / (np.ptp(values) or 1.0)
        yield Row(
            f"{arm}, {name}",
            seed,
            break_advantage=advantages[name],
            scores=scores,
            shares=shares,
            scales=[float(s) for s in scales],
        )


def _modular(budget: Budget, fraction: float, seed: int) -> dict[str, Any]:
    """Train on a share of all sums modulo p; test on the tenth that no training sees."""
    from posterhall.extras import functional, torch

    p = int(budget.modulus)
    a, b = np.divmod(generator(seed, "sums").permutation(p * p), p)
    test = p * p // 10
    count = min(round(fraction * p * p), p * p - test)
    x = functional.one_hot(torch.as_tensor(a), p) + 0.0, functional.one_hot(torch.as_tensor(b), p) + 0.0
    inputs, sums = torch.cat(x, dim=1), torch.as_tensor((a + b) % p)
    weights = []
    for name, shape in (("first", (2 * p, budget.hidden)), ("second", (budget.hidden, p))):
        draw = torch.Generator().manual_seed(derive(seed, "weights", name))
        scale = (2.0 if name == "first" else 1.0) * shape[0] ** -0.5
        weights.append((torch.randn(shape, generator=draw) * scale).requires_grad_())
    first, second = weights
    optimiser = torch.optim.AdamW(weights, lr=1e-2, weight_decay=1.0, betas=(0.9, 0.98))
    seen, right = inputs[test : test + count], sums[test : test + count]
    for _ in range(budget.steps):
        loss = functional.cross_entropy((seen @ first).square() @ second, right)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    with torch.no_grad():
        logits = (inputs[:test] @ first).square() @ second
        wanted = sums[:test]
        probabilities = logits.softmax(dim=1)
        brier = (probabilities - functional.one_hot(wanted, p)).square().sum(dim=1).mean()
        return {
            "examples": count,
            "accuracy": float((logits.argmax(dim=1) == wanted).float().mean()),
            "likelihood": float(functional.cross_entropy(logits, wanted)),
            "Brier score": float(brier),
        }
