"""A language model's loss after its weights are quantised, by code and by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from posterhall.claims.base import Claim, claim
from posterhall.claims.figures import Axis, Figure, Panel, Strip
from posterhall.claims.kinds import Ordering, Paired
from posterhall.claims.rows import Budget, Row, Scalar

NF4_DQ, NF4, NF4_UP = "NF4 + DQ", "NF4", "NF4, ties upward"
E2M1, E3M0, INT4 = "FP4 (E2M1)", "E3M0", "Int4"
CODES: dict[str, tuple[str, int, dict[str, Any]]] = {
    NF4_DQ: ("nf4", 64, {"double": True}),
    NF4: ("nf4", 64, {}),
    NF4_UP: ("nf4", 64, {"tie": "up"}),
    "AF4": ("af4", 64, {}),
    E2M1: ("e2m1", 64, {}),
    "FP4 (bitsandbytes)": ("fp4", 64, {}),
    INT4: ("int4", 64, {}),
    E3M0: ("e3m0", 64, {}),
}
"""Code, block and other settings of `posterhall.quantize.quantize`, by arm."""
_MODEL = (
    "byte-level decoders of 0.1 M (smoke) to 0.2 M parameters, trained here on documentation of Python's "
    "standard library and judged on other files of it, against OPT, BLOOM, LLaMA and Pythia of 125 M to 13 B "
    "on Pile-CC"
)
_SCALES = {
    "smoke": Budget(
        tokens=131_072, dim=64, layers=2, context=64, batch=16, lr=6e-3, held_out=30_000, seconds=9.0
    ),
    "laptop": Budget(
        tokens=393_216, dim=64, layers=3, context=64, batch=16, lr=6e-3, held_out=60_000, seconds=22.0
    ),
    "full": Budget(
        tokens=1_153_433_600, dim=768, layers=12, context=1024, batch=256, lr=6e-4, held_out=20_000_000,
        seconds=20_000.0,
    ),
}  # fmt: skip


def _rises(
    budget: Budget, seed: int, corpus: Scalar, arms: dict[str, tuple[str, int, dict[str, Any]]]
) -> Iterator[Row]:
    """What each quantisation adds to the loss of one trained model, nats a byte."""
    from posterhall.claims.qlora import _models

    base = _models.pretrained("prose", corpus, budget, seed)
    before = _models.loss(base.model, base.held_out, budget)
    yield Row("not quantised", seed, loss=before, loss_rise=0.0)
    for arm, (code, block, others) in arms.items():
        model = _models.quantised(base.model, code, block=block, **others)
        after = _models.loss(model, base.held_out, budget)
        yield Row(arm, seed, loss=after, loss_rise=after - before)


@claim(id="nf4-costs-least-perplexity", paper="qlora", where="Table 2; Fig. 3")
class NF4CostsLeastPerplexity(Claim):
    """Quantising a language model's linear layers to NF4 with quantised scales raises its loss by less than
    quantising them to FP4 (E2M1) does."""

    kind = Paired(metric="loss_rise", arms=(NF4_DQ, E2M1), direction="lower")
    paper_value = "perplexity 27.41 against 31.07 (mean over models)"
    refuted_by = "E2M1 raises the loss by as little"
    negative_control = "NF4 with quantised scales must not cost less than NF4 without"
    control_arms = (NF4_DQ, NF4)
    deviates = _MODEL
    scales = _SCALES
    params = {"corpus": None}

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        yield from _rises(budget, seed, self.params["corpus"], CODES)

    def figure(self, rows: Sequence[Row]) -> Figure:
        return Figure(
            Panel(Strip.of(rows, "loss_rise", tuple(CODES)), x=Axis("rise of the loss (nats a byte)")),
            caption="What quantising the linear layers of one trained model adds to its loss on held-out "
            "text; a dot is a model, blocks have 64 weights.",
        )


@claim(id="order-of-codes", paper="qlora", where="Table 2")
class OrderOfCodes(Claim):
    """By the loss of quantised language models codes rank as in the paper: NF4 with quantised scales, then
    E3M0, then FP4 (E2M1), then Int4."""

    kind = Ordering(metric="loss_rise", arms=(NF4_DQ, E3M0, E2M1, INT4), direction="lower")
    paper_value = "perplexity 27.41, 29.48, 31.07, 34.34"
    refuted_by = "two neighbours are equal or stand the other way round"
    negative_control = "three ways of writing NF4 must not be ranked"
    control_arms = (NF4_UP, NF4, NF4_DQ)
    deviates = _MODEL
    scales = _SCALES
    params = {"corpus": None}

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        yield from _rises(budget, seed, self.params["corpus"], CODES)

    def figure(self, rows: Sequence[Row]) -> Figure:
        return Figure(
            Panel(
                Strip.of(rows, "loss_rise", (NF4_DQ, E3M0, E2M1, INT4)),
                x=Axis("rise of the loss (nats a byte)"),
            ),
            caption="Four codes of the paper's Table 2, in its order from the top; a dot is a model.",
        )


_BLOCKS = (32, 64, 256, 1024)


@claim(id="larger-blocks-cost", paper="qlora", where="§2 (block-wise k-bit quantization)")
class LargerBlocksCost(Claim):
    """A scale for every 1,024 weights instead of every 64 raises the loss of a language model in NF4."""

    kind = Paired(metric="loss_rise", arms=("blocks of 1024", "blocks of 64"))
    paper_value = "no number given (blocks of 64 'for higher quantization precision')"
    refuted_by = "blocks of 1,024 cost as little"
    negative_control = "blocks of 64 must not cost more for being filled column by column"
    control_arms = ("blocks of 64, down the columns", "blocks of 64")
    deviates = _MODEL
    scales = _SCALES
    params = {"corpus": None}

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        arms: dict[str, tuple[str, int, dict[str, Any]]] = {
            f"blocks of {block}": ("nf4", block, {}) for block in _BLOCKS
        }
        arms["blocks of 64, down the columns"] = ("nf4", 64, {"transposed": True})
        yield from _rises(budget, seed, self.params["corpus"], arms)

    def figure(self, rows: Sequence[Row]) -> Figure:
        return Figure(
            Panel(
                Strip.of(rows, "loss_rise", [f"blocks of {block}" for block in _BLOCKS]),
                x=Axis("rise of the loss (nats a byte)"),
            ),
            caption="NF4 with plain scales; a dot is a model.",
        )
