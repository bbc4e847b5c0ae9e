"""The paper's mathematical model: what metric and test size do to models that improve smoothly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from posterhall.claims import Axis, Budget, Claim, Figure, Paired, Panel, Ratio, Row, Strip, claim
from posterhall.claims.mirage._measure import curve_panel, emergence

_SHAPE = "no model: the loss a token is (N / 1e8)^-0.25, twelve sizes from 1e8 to 3e11, errors independent"
_ITEMS = {"smoke": 100_000, "laptop": 100_000, "full": 10_000_000}


def _sizes() -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.geomspace(1e8, 3e11, 12)


@claim(id="sharp-metric-smooth-models", paper="mirage", where="§2, Fig. 2")
class SharpMetricSmoothModels(Claim):
    """Of models whose loss falls smoothly, accuracy on answers of 20 tokens rises at least five times as
    sharply as their edit distance falls.

    Sharpness is the emergence score over that of a straight line, ES / (n - 1). Scores are sampled, as
    from a test of many items.
    """

    kind = Ratio(metric="sharpness", arms=("accuracy, 20 tokens", "edit distance, 20 tokens"), at_least=5)
    paper_value = "no number given (Fig. 2 C against E)"
    refuted_by = "accuracy rises no more sharply than edit distance falls"
    negative_control = (
        "on answers of one token, where the two metrics are one, accuracy must not come out sharper"
    )
    control_arms = ("accuracy, 1 token", "edit distance, 1 token")
    deviates = f"{_SHAPE}; the paper gives a constant c > 0 and an exponent below 0, no values"
    scales = {
        scale: Budget(tested=items, seeds=10, seconds=0.1 + items / 1e8) for scale, items in _ITEMS.items()
    }

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.scaling.emergence import Toy
        from posterhall.seeds import generator

        toy, sizes = Toy(), _sizes()
        for length in (1, 2, 5, 10, 20):
            name = "1 token" if length == 1 else f"{length} tokens"
            accuracy = toy.sampled_accuracy(sizes, length, budget.tested, seed=seed)
            wrong = generator(seed, "toy distance", length).binomial(budget.tested * length, 1 - toy.p(sizes))
            distance = wrong / budget.tested
            for metric, scores, better in (("accuracy", accuracy, True), ("edit distance", distance, False)):
                sharp = emergence(sizes, scores, higher_is_better=better, resolution=1 / budget.tested)
                yield Row(f"{metric}, {name}", seed, sharpness=sharp, scores=scores, scales=sizes)

    def figure(self, rows: Sequence[Row]) -> Figure:
        def panel(metric: str, y: Axis) -> Panel:
            lengths = {1: "L = 1", 5: "L = 5", 10: "L = 10", 20: "L = 20"}
            arms = {f"{metric}, {n} token{'s' * (n > 1)}": label for n, label in lengths.items()}
            return curve_panel(rows, arms, "scores", x="parameters", y=y)

        return Figure(
            panel("accuracy", Axis("answers right", percent=True)),
            panel("edit distance", Axis("edit distance (tokens)")),
            caption="The same models by two metrics: all tokens right, and how many are wrong.",
        )


@claim(id="few-items-look-emergent", paper="mirage", where="§2; §3, Fig. 4; A.3")
class FewItemsLookEmergent(Claim):
    """A test of 100 items makes smoothly improving models look emergent without limit, where 100,000 items
    resolve them.

    On answers of 20 tokens. Emergent without limit: at least half of the steps between neighbouring sizes
    are zero, so that the emergence score divides by zero. The measure is in what share of 40 tests drawn
    anew that happens.
    """

    kind = Paired(metric="unlimited", arms=("100 items, 20 tokens", "100000 items, 20 tokens"), margin=0.5)
    paper_value = "no number given (Fig. 4: accuracy above zero for all sizes with a larger test)"
    refuted_by = "the small test resolves the models as often as the large one"
    negative_control = "on answers of one token, which 100 items resolve, test size must make no difference"
    control_arms = ("100 items, 1 token", "100000 items, 1 token")
    deviates = _SHAPE
    scales = {
        scale: Budget(tests=tests, seeds=10, seconds=0.2)
        for scale, tests in (("smoke", 40), ("laptop", 40), ("full", 1000))
    }

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.metrics.emergence import emergence_scores
        from posterhall.scaling.emergence import Toy
        from posterhall.seeds import derive

        toy, sizes = Toy(), _sizes()
        for items in (100, 1000, 100_000):
            for length in (1, 5, 20):
                scores = np.stack(
                    [
                        toy.sampled_accuracy(sizes, length, items, seed=derive(seed, "test", i))
                        for i in range(budget.tests)
                    ]
                )
                yield Row(
                    f"{items} items, {length} token{'s' * (length > 1)}",
                    seed,
                    unlimited=np.isinf(emergence_scores(scores)).mean(),
                    unseen=(scores == 0).mean(),
                )

    def figure(self, rows: Sequence[Row]) -> Figure:
        arms = [f"{items} items, {length}" for length in ("20 tokens", "5 tokens", "1 token")
                for items in (100, 1000, 100_000)]  # fmt: skip
        return Figure(
            Panel(
                Strip.of(rows, "unlimited", arms),
                x=Axis("tests with an infinite emergence score", percent=True),
            ),
            Panel(Strip.of(rows, "unseen", arms), x=Axis("sizes that score exactly 0", percent=True)),
            caption="What a test of so many items makes of the same smoothly improving models.",
        )
