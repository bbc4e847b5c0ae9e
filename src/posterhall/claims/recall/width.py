"""How wide a model must be to recall, by how long its rows are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from posterhall.claims import Axis, Budget, Claim, Figure, Line, Paired, Panel, Row, Strip, claim

_MIXERS = {"attention": "attention", "Based": "based", "Hyena": "hyena", "BaseConv": "base_conv"}
_LESSER = "the lesser of Hyena and BaseConv"


@claim(id="width-follows-length", paper="recall", where="§4; Fig. 2; app. (theory of gated convolutions)")
class WidthFollowsLength(Claim):
    """The least width at which gated convolutions recall grows with the length of rows, by at least the root
    of it more than attention's does.

    The least width of a grid with over 90 % of queries answered, at each length, with as many pairs as fit
    (length / 4); growth is its doublings by doublings of length, from the shortest to the longest. Per seed,
    the lesser growth of Hyena and BaseConv stands against attention's. Where no width of the grid will do,
    twice the widest counts, which is the least that it can be; where the shortest rows already need more
    than the grid has, growth cannot be told, and the claim is not decided. Every mixer has the same
    convolution of 3 taps before it, the same rows and steps, and one rate.

    Widths of 8 and 128 and two fifths of the steps were left out of the laptop's grid to save time, after a
    look at one seed that no run takes: there attention needed 16 at every length, and Based 16, 32 and 32.
    """

    kind = Paired(metric="growth", arms=(_LESSER, "attention"), margin=0.5)
    paper_value = (
        "width 64 does for attention at all lengths, Hyena and BaseConv need d >= L: growth 1 against 0"
    )
    refuted_by = "the least width of Hyena or of BaseConv grows no more than attention's"
    negative_control = "Based, whose state does not depend on the length either, must not need more width"
    control_arms = ("Based", "attention")
    deviates = (
        "lengths 8 to 32 with 2 to 8 pairs (laptop) against 64 to 512 with 4 to 64, 64 tokens against 8192; "
        "hundreds of steps of fresh rows, so that width is what is needed within these steps; equal depth, "
        "and by design unequal widths"
    )
    scales = {
        "smoke": Budget(
            lengths="8,16",
            widths="16,64",
            vocab=32,
            conv=3,
            steps=80,
            batch=32,
            every=20,
            rates="0.01",
            seconds=5.0,
        ),
        "laptop": Budget(
            lengths="8,16,32",
            widths="16,32,64",
            vocab=64,
            conv=3,
            steps=300,
            batch=32,
            every=50,
            rates="0.003",
            seconds=45.0,
        ),
        "full": Budget(
            lengths="64,128,256,512",
            widths="64,128,256,512,1024",
            vocab=8192,
            conv=3,
            steps=20_000,
            batch=128,
            every=500,
            rates="0.0001,0.0005,0.002,0.01",
            seconds=1e6,
        ),
    }

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        import numpy as np

        from posterhall.claims.recall._arms import least_widths

        growths = {}
        for arm, mixer in _MIXERS.items():
            lengths, widths, parameters = least_widths(mixer, budget, seed)
            growths[arm] = float(np.log2(widths[-1] / widths[0]) / np.log2(lengths[-1] / lengths[0]))
            if widths[0] > max(int(each) for each in str(budget.widths).split(",")):
                growths[arm] = float("nan")  # not even the shortest rows are recalled: nothing to grow from
            yield Row(arm, seed, growth=growths[arm], lengths=lengths, widths=widths, parameters=parameters)
        yield Row(_LESSER, seed, growth=np.min([growths["Hyena"], growths["BaseConv"]]))

    def figure(self, rows: Sequence[Row]) -> Figure:
        from posterhall.claims.lines import mean_line, numbers

        lengths = numbers(next(row for row in rows if row.arm == "attention"), "lengths")
        diagonal = Line("width = length", lengths, lengths, dashed=True, markers=False)
        return Figure(
            Panel(
                *(mean_line(rows, arm, lengths, "widths", label=arm) for arm in _MIXERS),
                diagonal,
                x=Axis("length", log=True),
                y=Axis("least width", log=True),
            ),
            Panel(
                Strip.of(rows, "growth", tuple(_MIXERS)), x=Axis("doublings of width by doublings of length")
            ),
            caption="The least width with over 90 % of queries answered (mean over seeds with its 95 % "
            "interval); where none will do, twice the widest.",
        )
