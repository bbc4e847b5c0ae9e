"""Many queries (MQAR) at a fixed budget: who has learnt to recall when attention has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from posterhall.claims import Axis, Budget, Claim, Figure, Line, Paired, Panel, Reference, Row, Strip, claim

_LEAST, _MOST = "the lesser of attention and Based", "the best of the others"
_SHUFFLED = "attention, answers shuffled"
_MODELS = ("attention", "Based", "long convolution", "S4D", "Hyena")
_KIND = Paired(metric="accuracy", arms=(_LEAST, _MOST), margin=0.5)
_PAPER = "above .99 against below .5 at width 64 (read off Fig. 2: length 512; Based is Arora et al. 2024's)"
_CONTROL = "attention on rows whose answers are shuffled among the queries must not come out ahead"
_DEVIATES = (
    "length 64, 8 pairs, 256 tokens (laptop) against lengths to 512, 64 pairs, 8192 tokens; 800 steps "
    "of 64 fresh rows at most, where slow learners may still climb; width and depth are equal, parameters "
    "differ (rows tell them); pre-norm residuals without further norms; one learning rate for all at smoke "
    "and laptop; rotary positions for attention"
)


@claim(id="recall-needs-attention", paper="recall", where="§4; Fig. 2")
class RecallNeedsAttention(Claim):
    """At a number of steps in which attention learns to recall, attention and Based answer over half of all
    queries more than long convolutions, S4D and Hyena of the same width and depth.

    Per seed, the lesser of the first two stands against the best of the others. All have the same rows and
    the same number of steps; a training ends early once it is above 99.5 % on validation rows.
    """

    kind = _KIND
    paper_value = _PAPER
    refuted_by = "the best of the others answers as many as the lesser of attention and Based"
    negative_control = _CONTROL
    control_arms = (_SHUFFLED, _MOST)
    deviates = _DEVIATES
    diverged = {"accuracy": 0.0}
    scales = {
        "smoke": Budget(
            length=16,
            pairs=4,
            vocab=64,
            width=64,
            conv=0,
            steps=300,
            batch=32,
            every=50,
            rates="0.005",
            seconds=9.0,
        ),
        "laptop": Budget(
            length=64,
            pairs=8,
            vocab=256,
            width=64,
            conv=0,
            steps=800,
            batch=64,
            every=100,
            rates="0.003",
            seconds=110.0,
        ),
        "full": Budget(
            length=256,
            pairs=16,
            vocab=8192,
            width=64,
            conv=0,
            steps=20_000,
            batch=256,
            every=500,
            rates="0.001,0.003,0.01",
            seconds=60_000.0,
        ),
    }

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.claims.recall._arms import rows

        yield from rows(budget, seed)

    def figure(self, rows: Sequence[Row]) -> Figure:
        return _figure(rows, "Without a short convolution before the mixers.")


@claim(
    id="short-convolution-is-not-recall", paper="recall", where="§4; app. (short convolutions)", headline=True
)
class ShortConvolutionIsNotRecall(Claim):
    """With the same short convolution of 3 taps before every mixer, attention and Based still answer over
    half of all queries more than long convolutions, S4D and Hyena of the same width and depth.

    Attention then learns in fewer steps, so that the budget is smaller.
    """

    kind = _KIND
    paper_value = _PAPER
    refuted_by = "the best of the others answers as many as the lesser of attention and Based"
    negative_control = _CONTROL
    control_arms = (_SHUFFLED, _MOST)
    deviates = _DEVIATES
    diverged = {"accuracy": 0.0}
    scales = {
        "smoke": Budget(
            length=16,
            pairs=4,
            vocab=64,
            width=64,
            conv=3,
            steps=120,
            batch=32,
            every=30,
            rates="0.005",
            seconds=5.0,
        ),
        "laptop": Budget(
            length=64,
            pairs=8,
            vocab=256,
            width=64,
            conv=3,
            steps=400,
            batch=64,
            every=50,
            rates="0.003",
            seconds=50.0,
        ),
        "full": Budget(
            length=256,
            pairs=16,
            vocab=8192,
            width=64,
            conv=3,
            steps=20_000,
            batch=256,
            every=500,
            rates="0.001,0.003,0.01",
            seconds=60_000.0,
        ),
    }

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.claims.recall._arms import rows

        yield from rows(budget, seed)

    def figure(self, rows: Sequence[Row]) -> Figure:
        return _figure(rows, "With a convolution of 3 taps before every mixer.")


def _figure(rows: Sequence[Row], which: str) -> Figure:
    from posterhall.claims.distbelief.draw import mean_line
    from posterhall.claims.dpo._draw import numbers

    one = next(row for row in rows if row.arm == _SHUFFLED)
    steps, plateau = numbers(one, "steps"), one.number("plateau")
    lines: list[Line] = [mean_line(rows, arm, steps, "curve", label=arm) for arm in _MODELS]
    accuracy = Axis("queries answered", percent=True, low=0.0, high=1.0)
    return Figure(
        Panel(
            *lines,
            Reference(plateau, "1 / pairs: any of the values"),
            x=Axis("steps"),
            y=accuracy,
            title="Validation",
        ),
        Panel(
            Strip.of(rows, "accuracy", (*_MODELS, _SHUFFLED)),
            Reference(plateau, "1 / pairs", axis="x"),
            x=accuracy,
            title="Test",
        ),
        Panel(Strip.of(rows, "steps_taken", _MODELS), x=Axis("steps taken", low=0.0)),
        Panel(Strip.of(rows, "seconds", _MODELS), x=Axis("CPU seconds of training", low=0.0)),
        caption=f"{which} Queries answered while training (mean over seeds with its 95 % interval; the last "
        "value goes on after an early end) and at its end, and what training took.",
    )
