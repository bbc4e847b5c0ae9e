"""Many queries (MQAR) at a fixed budget: who has learnt to recall when attention has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from posterhall.claims import Axis, Budget, Claim, Figure, Line, Paired, Panel, Reference, Row, Strip, claim

SOLVERS = {"attention": "attention", "Based": "based"}
"""Arms that are to recall, with their mixers."""
OTHERS = {"long convolution": "long_conv", "S4D": "s4d", "Hyena": "hyena"}
"""Arms that are not."""
LEAST, MOST = "the lesser of attention and Based", "the best of the others"
SHUFFLED = "attention, answers shuffled"
_MODELS = (*SOLVERS, *OTHERS)


class _AtAFixedBudget(Claim):
    """What both claims share: arms, margin, control, and how they are run. Their budgets differ in `conv`."""

    kind = Paired(metric="accuracy", arms=(LEAST, MOST), margin=0.5)
    paper_value = (
        "above .99 against below .5 at width 64 (read off Fig. 2: length 512; Based is Arora et al. 2024's)"
    )
    refuted_by = "the best of the others answers as many as the lesser of attention and Based"
    negative_control = (
        "attention on rows whose answers are shuffled among the queries must not come out ahead"
    )
    control_arms = (SHUFFLED, MOST)
    deviates = (
        "length 32, 8 pairs, 128 tokens (laptop) against lengths to 512, 64 pairs, 8192 tokens; 600 steps "
        "of 64 fresh rows at most, where slow learners may still climb; width and depth are equal, "
        "parameters differ (rows tell them); pre-norm residuals without further norms; one learning rate for "
        "all at smoke and laptop; rotary positions for attention"
    )
    diverged = {"accuracy": 0.0}

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.claims.recall._arms import rows

        yield from rows(budget, seed)

    def figure(self, rows: Sequence[Row]) -> Figure:
        from posterhall.claims.lines import mean_line, numbers

        one = next(row for row in rows if row.arm == SHUFFLED)
        steps, plateau, taps = numbers(one, "steps"), one.number("plateau"), one.number("conv")
        lines: list[Line] = [mean_line(rows, arm, steps, "curve", label=arm) for arm in _MODELS]
        accuracy = Axis("queries answered", percent=True, low=0.0, high=1.0)
        before = (
            f"With a convolution of {taps:.0f} taps before every mixer" if taps else "Mixers by themselves"
        )
        return Figure(
            Panel(
                *lines,
                Reference(plateau, "1 / pairs: any of the values"),
                x=Axis("steps"),
                y=accuracy,
                title="Validation",
            ),
            Panel(
                Strip.of(rows, "accuracy", (*_MODELS, SHUFFLED)),
                Reference(plateau, "1 / pairs", axis="x"),
                x=accuracy,
                title="Test",
            ),
            Panel(Strip.of(rows, "steps_taken", _MODELS), x=Axis("steps taken", low=0.0)),
            Panel(Strip.of(rows, "seconds", _MODELS), x=Axis("CPU seconds of training", low=0.0)),
            caption=f"{before}. Queries answered while training (mean over seeds with its 95 % interval; the "
            "last value goes on after an early end) and at its end, and what training took.",
        )


_SCALES = {
    "smoke": Budget(
        length=16,
        pairs=4,
        vocab=32,
        width=64,
        conv=0,
        steps=200,
        batch=32,
        every=50,
        rates="0.005",
        seconds=10.0,
    ),
    "laptop": Budget(
        length=32,
        pairs=8,
        vocab=128,
        width=64,
        conv=0,
        steps=600,
        batch=64,
        every=100,
        rates="0.003",
        seconds=55.0,
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


@claim(id="recall-needs-attention", paper="recall", where="§4; Fig. 2")
class RecallNeedsAttention(_AtAFixedBudget):
    """At a number of steps in which attention learns to recall, attention and Based answer over half of all
    queries more than long convolutions, S4D and Hyena of the same width and depth.

    Per seed, the lesser of the first two stands against the best of the others. All have the same rows and
    the same number of steps; a training ends early once it is above 99.5 % on validation rows. Lengths,
    vocabulary and steps were chosen by when attention and Based learn on a seed that no run takes.
    """

    scales = _SCALES


@claim(
    id="short-convolution-is-not-recall", paper="recall", where="§4; app. (short convolutions)", headline=True
)
class ShortConvolutionIsNotRecall(_AtAFixedBudget):
    """With the same short convolution of 3 taps before every mixer, attention and Based still answer over
    half of all queries more than long convolutions, S4D and Hyena of the same width and depth.

    Attention then learns in fewer steps, so that the budget is smaller.
    """

    scales = {
        "smoke": _SCALES["smoke"].replace(conv=3, steps=60, every=20, rates="0.01", seconds=3.5),
        "laptop": _SCALES["laptop"].replace(conv=3, steps=400, every=50, seconds=30.0),
        "full": _SCALES["full"].replace(conv=3),
    }
