"""What tuning takes in memory: the plan's arithmetic, held against bytes that were measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from posterhall.claims.base import Claim, claim
from posterhall.claims.figures import Axis, Bars, Figure, Panel
from posterhall.claims.kinds import Threshold
from posterhall.claims.regions import Region
from posterhall.claims.rows import Budget, Row

if TYPE_CHECKING:
    from posterhall.models.plan import Method

_SIZES = ("LLaMA-7B", "LLaMA-13B", "LLaMA-33B", "LLaMA-65B")
_METHODS: dict[Method, str] = {"full": "full fine-tuning", "lora": "LoRA", "qlora": "QLoRA"}
_LIMIT = 48.0
_WHOLE_STEP = 528
"""Tokens of a row: Guanaco's source of 16 and target of 512."""


@claim(id="sixty-five-billion-in-48-gb", paper="qlora", where="§1; Fig. 1; Fig. 6")
class SixtyFiveBillionIn48GB(Claim):
    """Tuning LLaMA-65B by QLoRA takes at most 48 GB, where the plan is corrected by what measuring finds.

    The plan adds up weights, scales, adapters, gradients, optimiser and activations (Guanaco's recipe: rank
    64 on all linear layers, rows of 528 tokens one at a time, blocks computed again). Each seed draws the
    shape of a small model, trains it a few steps by the same method, and counts the bytes that its tensors
    hold at most; the plan for the large model is multiplied by the quotient of measured and planned bytes.
    """

    kind = Threshold(
        metric="gigabytes", arm="QLoRA", at_most=_LIMIT, refuted=Region(low=_LIMIT, closed=False)
    )
    paper_value = "45.0 GB (Fig. 6; 'from >780 GB to <48 GB')"
    refuted_by = "it takes more than 48 GB"
    negative_control = "LoRA on 16-bit weights must not fit into 48 GB"
    control_arms = ("LoRA",)
    deviates = (
        "the large model's bytes are planned; those measured are of models of about a million parameters, in "
        "float32"
    )
    scales = {
        "smoke": Budget(seeds=6, least=64, most=160, steps=2, seconds=5.0),
        "laptop": Budget(seeds=10, least=64, most=256, steps=3, seconds=8.0),
        "full": Budget(seeds=10, least=512, most=2048, steps=3, seconds=300.0),
    }

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.claims.qlora import _bytes

        for method, arm in _METHODS.items():
            measured, planned = _bytes.drawn(budget, seed, method)
            bytes_by_size = [_bytes.guanaco(size, method, _WHOLE_STEP) for size in _SIZES]
            yield Row(
                arm, seed, gigabytes=bytes_by_size[-1] * measured / planned / 1e9, measured=measured,
                planned=planned, quotient=measured / planned,
                planned_gigabytes=[each / 1e9 for each in bytes_by_size],
            )  # fmt: skip

    def figure(self, rows: Sequence[Row]) -> Figure:
        planned = {row.arm: row["planned_gigabytes"] for row in rows}
        bars = [
            Bars(arm, _SIZES, tuple(values)) for arm, values in planned.items() if isinstance(values, tuple)
        ]
        return Figure(
            Panel(*bars, y=Axis("GB", log=True)),
            caption="Planned memory of tuning LLaMA by Guanaco's recipe: rank 64 on all linear layers, rows "
            f"of {_WHOLE_STEP} tokens, blocks computed again, Adam's states in float32.",
        )
