"""Models that learn selective copying; only imported where torch is wanted."""

from __future__ import annotations

from typing import Any

from posterhall.claims.recall._arms import Shuffled
from posterhall.claims.rows import Budget
from posterhall.data.synthetic.in_context import SelectiveCopying
from posterhall.data.synthetic.recall import Rows, Task
from posterhall.evals.recall.training import score, state_bytes
from posterhall.models.config import DecoderConfig, Scalar
from posterhall.models.decoder import Decoder
from posterhall.seeds import derive
from posterhall.train import TrainSettings, fit, next_token

_STATE = 32
"""Numbers of state by the width: Mamba's 16 for each of two inner channels, S4D's 32."""


def trained(mixer: str, budget: Budget, seed: int, *, shuffled: bool = False) -> dict[str, Any]:
    """Train two layers of a mixer and test them on 1,024 fresh rows.

    Args:
        mixer: mamba or s4d.
        budget: length, copied, width, steps, batch.
        seed: of rows and weights.
        shuffled: answers are dealt out at random to the questions of their row.

    Returns:
        "accuracy" (of copied tokens), "parameters" and "state_bytes" (of a row).
    """
    task: Task = SelectiveCopying(budget.length, budget.copied)
    if shuffled:
        task = Shuffled(task)
    given: dict[str, Scalar] = {"state": _STATE if mixer == "s4d" else _STATE // 2}
    config = DecoderConfig(
        vocab_size=task.vocab, dim=budget.width, layers=2, heads=1, ffn_dim=0, max_length=task.tokens,
        positions="none", tie_embeddings=False, mixers=(mixer,), mixer_settings={mixer: given},
        init_std=budget.width**-0.5,
    )  # fmt: skip
    model = Decoder(config, seed=derive(seed, "copying", "model"))
    settings = TrainSettings(
        lr=3e-3, schedule="constant", warmup=0.05, batch=budget.batch, steps=budget.steps, beta2=0.98,
        clip=1.0, dtype="float32", log_every=budget.steps, seed=seed,
    )  # fmt: skip
    fit(model, Rows(task, seed=seed, split="train"), objective=next_token, settings=settings)
    found = score(model.eval(), Rows(task, seed=seed, split="test", items=1024))
    held = state_bytes(model, task.tokens)
    assert held is not None  # noqa: S101 - both look back only
    parameters = sum(each.numel() for each in model.parameters())
    return {"accuracy": found["accuracy"], "parameters": float(parameters), "state_bytes": float(held)}
