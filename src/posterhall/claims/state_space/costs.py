"""Time by length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from posterhall.claims import Axis, Budget, Claim, Figure, Paired, Panel, Row, Strip, claim

_QUICK = ("S4D", "long convolution", "Mamba")
_STEEPEST = "the steepest of S4D, long convolution and Mamba"
_WINDOW = "attention in a window"


@claim(id="convolutions-grow-slower", paper="state_space", where="§3.4; Table 1", exclusive=True)
class ConvolutionsGrowSlower(Claim):
    """The time of exact attention grows with a power of the length that is greater by over 0.4 than that of
    convolutions by FFT (S4D's, and one learnt freely) and of Mamba's scan.

    A layer forward over one sequence, as in training, on one thread. Slopes of log CPU seconds by log length
    from 2,048 tokens on, since projections and fixed costs hide them below; each time is the median of
    repetitions in turn, each of so many calls that it takes 30 ms or more. Per seed, attention's slope stands
    against the greatest of the others.
    """

    kind = Paired(metric="slope", arms=("attention", _STEEPEST), margin=0.4)
    paper_value = "L^2 against L log L (no measured slope given)"
    refuted_by = "attention's time grows with no greater power"
    negative_control = "attention within a window of 64 tokens must not grow with a greater power"
    control_arms = (_WINDOW, _STEEPEST)
    deviates = (
        "one layer, torch's tiled attention with one head on a CPU; n log n cannot be told from n over these "
        "lengths, n^2 can"
    )
    scales = {
        "smoke": Budget(width=32, shortest=2048, longest=8192, repeats=3, seconds=2.0),
        "laptop": Budget(width=64, shortest=2048, longest=16_384, repeats=5, seconds=8.0),
        "full": Budget(width=64, shortest=2048, longest=65_536, repeats=5, seconds=300.0),
    }

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        import numpy as np

        from posterhall.claims.state_space._timing import timed

        lengths = [budget.shortest]
        while lengths[-1] < budget.longest:
            lengths.append(2 * lengths[-1])
        mixers = {
            "attention": "attention",
            "S4D": "s4d",
            "long convolution": "long_conv",
            "Mamba": "mamba",
            _WINDOW: "sliding_window",
        }
        slopes = {}
        for arm, times in timed(mixers, lengths, budget, seed).items():
            slopes[arm] = float(np.polyfit(np.log(lengths), np.log(times), 1)[0])
            yield Row(arm, seed, slope=slopes[arm], times=times, lengths=lengths)
        yield Row(_STEEPEST, seed, slope=max(slopes[arm] for arm in _QUICK))

    def figure(self, rows: Sequence[Row]) -> Figure:
        from posterhall.claims.lines import mean_line, numbers

        arms = ("attention", *_QUICK, _WINDOW)
        lengths = numbers(next(row for row in rows if row.arm == "attention"), "lengths")
        return Figure(
            Panel(
                *(mean_line(rows, arm, lengths, "times", label=arm) for arm in arms),
                x=Axis("tokens", log=True),
                y=Axis("CPU seconds", log=True),
            ),
            Panel(Strip.of(rows, "slope", arms), x=Axis("slope of log time by log length", low=0.0)),
            caption="A layer forward over one sequence, one thread, and the power of the length by which its "
            "time grows.",
        )
