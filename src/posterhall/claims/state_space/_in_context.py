"""Models that learn from rows of tokens where to look back; only imported where torch is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from posterhall.claims.recall._arms import Shuffled
from posterhall.claims.rows import Budget
from posterhall.data.synthetic.in_context import InductionHeads, SelectiveCopying
from posterhall.data.synthetic.recall import Ints, Rows, Task
from posterhall.evals.recall.training import score, state_bytes
from posterhall.models.config import DecoderConfig, Positions
from posterhall.models.decoder import Decoder
from posterhall.seeds import derive
from posterhall.train import TrainSettings, fit, next_token

_ENOUGH = 0.995  # on validation rows; then no rate can be better, and none is tried any more
_STATE = 32  # numbers of state by the width of Mamba: 16 for each of two inner channels


@dataclass(frozen=True)
class Tail:
    """The last tokens of a task's rows, with their labels: what stood before is not to be had."""

    task: Task
    tokens: int

    @property
    def vocab(self) -> int:
        """See `Task`."""
        return self.task.vocab

    @property
    def plateau(self) -> float:
        """See `Task`."""
        return self.task.plateau

    def draw(self, rows: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """See `Task`."""
        ids, labels = self.task.draw(rows, rng)
        return ids[:, -self.tokens :], labels[:, -self.tokens :]


def copying(mixer: str, budget: Budget, seed: int, *, shuffled: bool = False) -> dict[str, Any]:
    """Train two layers of a mixer on selective copying, and test them on 1,024 other rows.

    Args:
        mixer: mamba, of the budget's width; or s4d, of the width that comes nearest to its number of
            parameters, with as many numbers of state.
        budget: length, copied, vocab, width, steps, batch, every, rates ("0.001,0.003").
        seed: of rows and weights.
        shuffled: answers are dealt out at random to the questions of their row.

    Returns:
        "accuracy" (of copied tokens), "lr", "steps", "parameters", "width" and "state_bytes" (of a row).
    """
    task: Task = SelectiveCopying(budget.length, budget.copied, budget.vocab)
    mamba = _config("mamba", task, budget.width, task.tokens, state=_STATE // 2)
    config = mamba
    if mixer != "mamba":
        config = min(
            (
                # Numbers of state come in pairs: one complex number each.
                _config(mixer, task, width, task.tokens, state=2 * round(_STATE * budget.width / width / 2))
                for width in range(budget.width // 2, 3 * budget.width)
            ),
            key=lambda each: abs(_parameters(each) - _parameters(mamba)),
        )
    model, told = _taught(config, Shuffled(task) if shuffled else task, budget, seed)
    test = Rows(Shuffled(task) if shuffled else task, seed=seed, split="test", items=1024)
    held = state_bytes(model, task.tokens)
    assert held is not None  # noqa: S101 - all of them look back only
    return {
        **told,
        "accuracy": score(model, test)["accuracy"],
        "width": float(config.dim),
        "state_bytes": float(held),
    }


def induction(mixer: str, positions: Positions, budget: Budget, seed: int) -> dict[str, Any]:
    """Train two layers of a mixer on induction heads, and test them on longer and longer rows.

    Args:
        mixer: mamba, of the budget's width; or attention, of the width that comes nearest to its number of
            parameters, learned positions not counted.
        positions: rotary, learned or none.
        budget: trained and longest (tokens of a row), vocab, width, steps, batch, every, rates, and tested:
            tokens of test rows of each length, which are 8 rows or more.
        seed: of rows and weights.

    Returns:
        "lengths", doubling, and "curve", the accuracy at each; "cut", the accuracy at the last where only as
        many tokens as were trained on are shown, the last ones; "lr", "steps" and "parameters".
    """
    task = InductionHeads(budget.trained, budget.vocab)
    mamba = _config("mamba", task, budget.width, budget.longest)
    config = mamba
    if mixer != "mamba":
        config = min(
            (
                _config(mixer, task, width, budget.longest, positions=positions)
                for width in range(budget.width // 2, 3 * budget.width, 2)
            ),
            key=lambda each: abs(_parameters(each) - _parameters(mamba)),
        )
    model, told = _taught(config, task, budget, seed)

    def tested(of: Task, length: int) -> float:
        rows = max(8, budget.tested // length)
        return score(model, Rows(of, seed=seed, split="test", items=rows))["accuracy"]

    lengths = [budget.trained]
    while lengths[-1] < budget.longest:
        lengths.append(2 * lengths[-1])
    longest = InductionHeads(lengths[-1], budget.vocab)
    return {
        **told,
        "lengths": lengths,
        "curve": [tested(InductionHeads(length, budget.vocab), length) for length in lengths],
        "cut": tested(Tail(longest, budget.trained), lengths[-1]),
    }


def _config(
    mixer: str,
    task: Task,
    width: int,
    longest: int,
    *,
    state: int | None = None,
    positions: Positions = "none",
) -> DecoderConfig:
    return DecoderConfig(
        vocab_size=task.vocab, dim=width, layers=2, heads=1, ffn_dim=0, max_length=longest,
        positions=positions, tie_embeddings=False, mixers=(mixer,),
        mixer_settings={} if state is None else {mixer: {"state": state}}, init_std=width**-0.5,
    )  # fmt: skip


def _parameters(config: DecoderConfig) -> int:
    """Numbers a model learns, but for learned positions, most of which are those of lengths never seen."""
    named = Decoder(config, seed=None).named_parameters()
    return sum(each.numel() for name, each in named if name != "positions")


def _taught(config: DecoderConfig, task: Task, budget: Budget, seed: int) -> tuple[Decoder, dict[str, float]]:
    """The model of the rate that is best on validation rows, and its "lr", "steps" and "parameters"."""
    validation = Rows(task, seed=seed, split="validation", items=256)
    best: tuple[float, Decoder, dict[str, float]] | None = None
    for rate in (float(each) for each in str(budget.rates).split(",")):
        model = Decoder(config, seed=derive(seed, "in context", "model"))
        settings = TrainSettings(
            lr=rate, schedule="constant", warmup=0.05, batch=budget.batch, steps=budget.steps, beta2=0.98,
            weight_decay=0.0, clip=1.0, dtype="float32", log_every=budget.steps, eval_every=budget.every,
            seed=seed,
        )  # fmt: skip
        trained = fit(
            model,
            Rows(task, seed=seed, split="train"),
            objective=next_token,
            settings=settings,
            evaluate=lambda each: score(each, validation),
            enough=lambda found: found["accuracy"] > _ENOUGH,
        )
        right = trained.evaluation["accuracy"]
        if best is None or right > best[0]:
            told = {"lr": rate, "steps": float(trained.steps), "parameters": float(_parameters(config))}
            best = right, model.eval(), told
        if right > _ENOUGH:
            break
    assert best is not None  # noqa: S101 - for the type checker: a budget has rates
    return best[1], best[2]
