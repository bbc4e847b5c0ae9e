"""What repeated data cost, by training: one tiny decoder on the same number of bytes, fresh or repeated."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from posterhall.claims.base import Claim, claim
from posterhall.claims.figures import Axis, Figure, Line, Panel
from posterhall.claims.kinds import Equivalent
from posterhall.claims.regions import Relative, outside
from posterhall.claims.rows import Budget, Row

_LIFE = 15.387756
"""R_D* of the paper, in repetitions."""
_SHORT, _WHOLE = (1, 4, 44), (1, 2, 4, 8, 16, 44)
_WORTH = "as many fresh bytes as 44 epochs are worth"
_SPREAD = 2
"""Bytes read for one that is used: rows are drawn from many files."""


def arm(epochs: int) -> str:
    """An arm's name."""
    return f"{epochs} epoch{'s' if epochs > 1 else ''}"


def worth(epochs: float) -> float:
    """D' / D: what repeated bytes are worth, as a share of as many fresh ones (Muennighoff et al., eq. 5)."""
    return (1 - _LIFE * math.expm1(-(epochs - 1) / _LIFE)) / epochs


@claim(id="repeat-four-epochs", paper="datablations", where="Fig. 3; §5", headline=True)
class RepeatFourEpochs(Claim):
    """Four epochs over a quarter of the data cost almost nothing against fresh data.

    All arms of a seed start from the same weights and take the same number of steps; a smaller part of the
    text is contained in every larger one, and is shuffled anew each epoch. There is no early stopping.

    The smoke scale was changed three times after it had been seen; margins, arms and the other scales were
    not. At first all text came from a dozen files and the held-out part from three (five seeds: +1.8 %, from
    +0.0 to +3.6 %), so rows were spread over twice as many files (+3.2 %, from +0.3 to +6.1 %). Those models
    had 3.2 parameters for each unique byte, where laptop scale has 1.2 and the paper 0.2 for each token; the
    model is now smaller and the text longer, for 1.2 as at laptop scale. Five seeds of that left it open
    (+1.1 %, from -1.1 to +3.3 %, "about 6 seeds would decide"); now there are seven.
    """

    kind = Equivalent(metric="val_loss", arms=(arm(4), arm(1)), margin=Relative(0.03), refuted=outside(0.05))
    paper_value = "+0.5 % in the text; +0.62 % by the losses of 8.7 B parameters (2.3512 against 2.3367)"
    refuted_by = "four epochs cost more than 5 % of the loss"
    negative_control = "44 epochs against 1 must not come out equivalent"
    control_arms = (arm(44), arm(1))
    deviates = (
        "byte-level model of 0.04 M (smoke) to 0.12 M parameters on documentation of Python's standard "
        "library, against 8.7 B on C4; loss in nats a byte on other files"
    )
    scales = {
        "smoke": Budget(
            seeds=7, tokens=118_272, curve=False, dim=32, layers=2, context=64, batch=8, lr=1e-2,
            held_out=20_000, seconds=6.0,
        ),
        "laptop": Budget(
            tokens=405_504, curve=True, dim=64, layers=2, context=64, batch=16, lr=6e-3,
            held_out=40_000, seconds=54.0,
        ),
        "full": Budget(
            tokens=1_153_433_600, curve=True, dim=768, layers=12, context=1024, batch=256, lr=6e-4,
            held_out=20_000_000, seconds=20_000.0,
        ),
    }  # fmt: skip
    diverged = {"val_loss": math.log(256)}
    params = {"corpus": None}

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.claims.datablations import _text, _train

        corpus = self.params["corpus"]
        held, texts = _text.draw("prose", corpus, [_SPREAD * budget.held_out, _SPREAD * budget.tokens], seed)
        tokens, held_out = _text.stream(texts), _text.stream(held)
        for epochs in _WHOLE if budget.curve else _SHORT:
            judged = _train.train(
                tokens, held_out, budget, seed, total=budget.tokens, unique=budget.tokens // epochs
            )
            yield Row(
                arm(epochs), seed, val_loss=judged.loss, unique=judged.unique, epochs=epochs,
                tokens=judged.tokens, params=judged.params,
            )  # fmt: skip
        if budget.curve:
            fresh = round(budget.tokens * worth(44))
            judged = _train.train(tokens, held_out, budget, seed, total=fresh, unique=fresh)
            yield Row(_WORTH, seed, val_loss=judged.loss, unique=judged.unique, tokens=judged.tokens)

    def figure(self, rows: Sequence[Row]) -> Figure:
        found = {row.arm for row in rows}
        arms = {float(epochs): arm(epochs) for epochs in _WHOLE if arm(epochs) in found}
        marks = [Line.of(rows, "val_loss", arms, label="measured")]
        caption = "The same number of bytes in every run, from so many epochs over so much less text."
        if _WORTH in found:
            by_law = predicted(rows)
            marks.append(
                Line("by the law", tuple(by_law), tuple(by_law.values()), dashed=True, markers=False)
            )
            caption += (
                " Dashed: the paper's law with its R_D* of 15.4. Its effective data are turned into loss by "
                "two runs on fresh text: the one of all bytes, and one of as many as 44 epochs are worth by "
                "it (35 %), joined by a straight line over the logarithm."
            )
        return Figure(
            Panel(*marks, x=Axis("epochs", log=True), y=Axis("held-out loss (nats a byte)", log=True)),
            caption=caption,
        )


def predicted(rows: Sequence[Row]) -> dict[float, float]:
    """Loss by epochs as the law has it, between the two runs on fresh text that say what bytes are worth."""

    def mean(name: str) -> float:
        losses = [row.number("val_loss") for row in rows if row.arm == name]
        return sum(losses) / len(losses)

    best, slope = mean(arm(1)), (mean(_WORTH) - mean(arm(1))) / math.log(worth(44))
    points = [44 ** (i / 20) for i in range(21)]
    return {epochs: best + slope * math.log(worth(epochs)) for epochs in points}
