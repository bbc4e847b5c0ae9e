"""How long repeated data last: the law fitted to runs of one's own, from the first step to the last."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from posterhall.claims.base import Claim, claim
from posterhall.claims.figures import Axis, Band, Figure, Line, Panel, Strip
from posterhall.claims.kinds import Fit
from posterhall.claims.rows import Budget, Row

if TYPE_CHECKING:
    from posterhall.scaling.settings import FitSettings
    from posterhall.scaling.table import Runs

_REPEATED, _FRESH, _RUNS = "repeated data", "fresh data said to be repeated", "runs"
_PUBLISHED = 15.387756
_LOW, _HIGH = math.log10(_PUBLISHED / 3), math.log10(_PUBLISHED * 3)
_ENDLESS = 4.0
"""log10 of the longest life that is told from none: 10,000 repetitions."""


@claim(id="life-of-data-in-own-runs", paper="datablations", where="§5, eq. 5; R_D* = 15.39 in App. A")
class LifeInOwnRuns(Claim):
    """Fitted to runs of our own, the life R_D* of repeated data is 15.4 within a factor of three.

    On each seed decoders of several sizes are trained on fresh bytes for several lengths, which gives the
    law's E, A, B and alpha = beta, and on repeated bytes, which with them gives R_D*, the others frozen: the
    paper's two steps. What is judged is its decimal logarithm, so that lives twice and half as long weigh
    the same; one longer than 10,000 repetitions counts as 10,000. The rows keep the profile interval of each
    seed's fit. The smoke scale was cut for time after it had been seen, from 49 kB to 33 kB; the longer one
    gave 1.30 (0.85 to 1.75).
    """

    kind = Fit(metric="log10_life", arm=_REPEATED, low=_LOW, high=_HIGH)
    paper_value = "R_D* = 15.39 (log10 1.19), from 182 runs"
    refuted_by = "R_D* is below 5.1 or above 46 repetitions"
    negative_control = "fresh data that are only said to be repeated must not give such a life"
    control_arms = (_FRESH,)
    deviates = (
        "byte-level models of 0.01 M to 0.12 M parameters on documentation, with two to sixteen epochs; "
        "the decay of surplus parameters (R_N*) is left out, as a third of the runs at most has any"
    )
    scales = {
        "smoke": Budget(
            tokens=32_768, lengths=3, sizes="16 32", repeats="4 16", layers=2, context=64, batch=8, lr=1e-2,
            held_out=16_000, seconds=4.0,
        ),
        "laptop": Budget(
            tokens=196_608, lengths=4, sizes="16 32 64", repeats="2 4 8 16", layers=2, context=64, batch=16,
            lr=8e-3, held_out=30_000, seconds=70.0,
        ),
        "full": Budget(
            tokens=805_306_368, lengths=5, sizes="128 256 384 512 768", repeats="2 4 8 16 32 64", layers=8,
            context=1024, batch=128, lr=1e-3, held_out=20_000_000, seconds=40_000.0,
        ),
    }  # fmt: skip
    diverged = {"log10_life": _ENDLESS}
    params = {"corpus": None}

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.claims.datablations import _text, _train
        from posterhall.seeds import derive

        corpus = self.params["corpus"]
        held, texts = _text.draw("prose", corpus, [2 * budget.held_out, 2 * budget.tokens], seed)
        tokens, held_out = _text.stream(texts), _text.stream(held)
        fresh: list[tuple[float, ...]] = []
        repeated: list[tuple[float, ...]] = []
        called: list[tuple[float, ...]] = []

        def trained(dim: int, total: int, unique: int, draw: int) -> tuple[float, ...]:
            judged = _train.train(
                tokens, held_out, budget, derive(seed, "life", draw), total=total, unique=unique, dim=dim
            )
            return judged.params, judged.tokens, judged.unique, judged.loss

        for dim in map(int, budget.sizes.split()):
            for halvings in range(budget.lengths):
                total = budget.tokens >> halvings
                fresh.append(trained(dim, total, total, 0))
            again = trained(dim, budget.tokens, budget.tokens, 1)  # other weights, other bytes
            for epochs in map(int, budget.repeats.split()):
                repeated.append(trained(dim, budget.tokens, budget.tokens // epochs, 0))
                called.append((again[0], again[1], again[1] // epochs, again[3]))
        base = chinchilla(fresh)
        params, seen, unique, loss = zip(*fresh, *repeated, strict=True)
        yield Row(
            _RUNS, seed, params=params, tokens=seen, unique=unique, loss=loss,
            E=base["E"], A=base["A"], B=base["B"], alpha=base["alpha"],
        )  # fmt: skip
        for name, measured in ((_REPEATED, repeated), (_FRESH, called)):
            found, low, high = life([*fresh, *measured], base)
            yield Row(name, seed, log10_life=found, log10_low=low, log10_high=high)

    def figure(self, rows: Sequence[Row]) -> Figure:
        fits = Panel(
            Strip.of(rows, "log10_life", (_REPEATED, _FRESH)),
            Band(_LOW, _HIGH, "15.4 within a factor of three", axis="x"),
            x=Axis("log10 of R_D* (repetitions)", high=_ENDLESS),
            title="fitted lives",
        )
        epochs, excess = cost_of_epochs([row for row in rows if row.arm == _RUNS])
        return Figure(
            fits,
            Panel(
                Line("measured", epochs, excess),
                x=Axis("epochs", log=True),
                y=Axis("loss above fresh data", percent=True),
                title="what they are fitted to",
            ),
            caption="Left: a dot is a seed with its own runs; 4 stands for a life without end. Right: mean "
            "over sizes and seeds.",
        )


def chinchilla(runs: Sequence[tuple[float, ...]]) -> dict[str, float]:
    """E, A, B and alpha = beta by runs (params, tokens, unique tokens, loss) on fresh data."""
    from posterhall.scaling import Chinchilla

    return dict(Chinchilla(tied=True).fit(_table(runs), settings=_settings()).params_)


def life(runs: Sequence[tuple[float, ...]], base: dict[str, float]) -> tuple[float, float, float]:
    """log10 of R_D* and of the ends of its profile interval, the other constants frozen; within -4 to 4."""
    from posterhall.scaling import DataConstrained

    law = DataConstrained(effects="data").fit(_table(runs), frozen=base, settings=_settings())
    interval = law.interval_["R_D"]
    low, middle, high = (
        max(-_ENDLESS, min(_ENDLESS, math.log10(max(value, 1e-4))))
        for value in (interval.low, law.params_["R_D"], interval.high)
    )
    return middle, low, high


def cost_of_epochs(rows: Sequence[Row]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Epochs, and by how much the loss is above that of as many fresh tokens, mean over sizes and seeds."""
    import numpy as np

    costs: dict[float, list[float]] = {}
    for row in rows:
        params, tokens, unique, loss = (
            np.array(row[name]) for name in ("params", "tokens", "unique", "loss")
        )
        for i in np.flatnonzero(unique < tokens).tolist():
            fresh = (params == params[i]) & (tokens == tokens[i]) & (unique == tokens[i])
            cost = float(loss[i] / loss[fresh].mean() - 1)
            costs.setdefault(float(tokens[i] / unique[i]), []).append(cost)
    ordered = sorted(costs)
    return tuple(ordered), tuple(float(np.mean(costs[epochs])) for epochs in ordered)


def _table(runs: Sequence[tuple[float, ...]]) -> Runs:
    import numpy as np

    from posterhall.scaling import Runs

    params, tokens, unique, loss = np.array(runs, np.float64).T
    return Runs(params, tokens, unique, loss, tuple(f"run {i}" for i in range(len(runs))))


def _settings() -> FitSettings:
    from posterhall.scaling import FitSettings

    return FitSettings(bootstrap=0, held_out=0, threads=1)
