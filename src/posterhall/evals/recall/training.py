"""One model of the grid: made, trained on fresh rows, tested."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from posterhall import seeds
from posterhall.data.packing import IGNORED
from posterhall.data.synthetic.recall import Rows, Task, overlap
from posterhall.errors import DataError, Interrupted, PosterhallError
from posterhall.evals.recall.settings import Cell, RecallSettings
from posterhall.extras import torch
from posterhall.models import mixers
from posterhall.models.decoder import Decoder
from posterhall.models.mixers.preceded import preceded
from posterhall.train.language import next_token
from posterhall.train.loop import fit
from posterhall.train.settings import TrainSettings

_TESTED = 256  # rows at a time


def train(
    cell: Cell, settings: RecallSettings, *, told: Callable[[int, Mapping[str, float]], None]
) -> dict[str, Any]:
    """Train and test a model.

    Args:
        cell: which.
        settings: how.
        told: is told of each evaluation: step, and "loss" and "accuracy" on validation rows, "seconds" of
            CPU so far.

    Returns:
        What the table needs: the cell's fields; "accuracy" (of queries) and "rows" (share of rows with every
        query right) on test rows, "validation" (accuracy), "steps", "seconds" (CPU, evaluations included),
        "solved" (whether `enough` was reached), "parameters", "state_bytes" (what one row's state holds after
        a whole row; None for mixers that see what comes after), "curve" (what `told` heard), "overlap" (test
        rows that were trained on), "error" (why training failed, or None; then there is no accuracy).
    """
    task = settings.made(cell.length, cell.pairs)
    model = build(cell, settings, task)
    validation, test = (
        Rows(task, seed=cell.seed, split=split, items=rows)
        for split, rows in (("validation", settings.validation_rows), ("test", settings.test_rows))
    )
    began = time.process_time()
    curve: list[dict[str, float]] = []

    def evaluate(trained: Any) -> dict[str, float]:
        found = score(trained, validation)
        point = {**found, "seconds": time.process_time() - began}
        step = min((len(curve) + 1) * settings.eval_every, settings.steps)
        curve.append({"step": step, **point})
        told(step, point)
        return found

    def enough(found: Mapping[str, float]) -> bool:
        late = settings.seconds is not None and time.process_time() - began > settings.seconds
        return late or found["accuracy"] > settings.enough

    data = Rows(task, seed=cell.seed, split="train")
    error = None
    tested: dict[str, float | None] = {"accuracy": None, "rows": None}
    try:
        trained = fit(
            model,
            data,
            objective=next_token,
            settings=_training(cell, settings),
            evaluate=evaluate,
            enough=enough,
        )
        steps = trained.steps
        spent = time.process_time() - began
        found = score(model.eval(), test)
        tested = {"accuracy": found["accuracy"], "rows": found["rows"]}
    except (DataError, Interrupted):
        raise
    except PosterhallError as failed:  # it diverged: a result like others
        error, spent, steps = str(failed), time.process_time() - began, int(curve[-1]["step"] if curve else 0)
    best = max((point["accuracy"] for point in curve), default=None)
    return {
        **asdict(cell),
        **tested,
        "validation": best if error is None else None,
        "steps": steps,
        "seconds": spent,
        "solved": best is not None and best > settings.enough,
        "parameters": sum(each.numel() for each in model.parameters()),
        "state_bytes": state_bytes(model, task.tokens),
        "overlap": overlap(data, steps * settings.batch, test),
        "curve": curve,
        "error": error,
    }


def rehearse(cell: Cell, settings: RecallSettings) -> None:
    """Take one step with a cell's model, and forget it.

    Raises:
        DataError: for a mixer or a setting that does not exist, or a size that does not suit it.
    """
    task = settings.made(cell.length, cell.pairs)
    rows = Rows(task, seed=cell.seed, split="rehearsal")
    once = TrainSettings(lr=1e-6, batch=2, steps=1, dtype="float32")
    fit(build(cell, settings, task), rows, objective=next_token, settings=once)


def build(cell: Cell, settings: RecallSettings, task: Task) -> Decoder:
    """The model of a cell, as it begins.

    Raises:
        DataError: for a mixer or a setting that does not exist.
    """
    config = settings.shape(cell.mixer, cell.width, task.tokens)
    own = {}
    if settings.conv:
        own = {name: preceded(mixers.factory(name), settings.conv) for name in config.mixers}
    return Decoder(config, seed=seeds.derive(cell.seed, "recall", "model"), mixers=own)


def score(model: Any, rows: Rows) -> dict[str, float]:
    """The mean "loss" (nats a query), "accuracy" (share of queries), and share of "rows" all right."""
    loss = right = queries = whole = 0.0
    with torch.no_grad():
        for first in range(0, rows.items, _TESTED):
            batch = rows.take(first, min(_TESTED, rows.items - first))
            labels = torch.from_numpy(batch["labels"])
            asked = labels != IGNORED
            hidden = model.hidden(torch.from_numpy(batch["ids"]))
            logits = model.logits(hidden[asked])
            wanted = labels[asked]
            loss += float(torch.nn.functional.cross_entropy(logits, wanted, reduction="sum"))
            hits = torch.zeros_like(asked)
            hits[asked] = logits.argmax(dim=-1) == wanted
            right += int(hits.sum())
            queries += int(asked.sum())
            whole += int((hits == asked).all(dim=1).sum())
    return {"loss": loss / queries, "accuracy": right / queries, "rows": whole / rows.items}


def state_bytes(model: Decoder, tokens: int) -> int | None:
    """Bytes of all tensors that a row's state holds after so many tokens; None for models without one."""
    blocks: Any = model.blocks
    if not all(block.mixer.causal for block in blocks):
        return None
    return sum(_held(state) for state in model.new_cache(1, tokens).states)


def _held(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, tuple | list):
        return sum(_held(each) for each in value)
    return sum(_held(each) for each in vars(value).values()) if hasattr(value, "__dict__") else 0


def _training(cell: Cell, settings: RecallSettings) -> TrainSettings:
    return TrainSettings(
        lr=cell.lr,
        schedule="constant",
        warmup=float(max(settings.warmup, 1)),
        batch=settings.batch,
        steps=settings.steps,
        beta2=0.98,
        weight_decay=settings.weight_decay,
        clip=1.0,
        dtype="float32",
        eval_every=settings.eval_every,
        keep="best",
        log_every=settings.eval_every,
        seed=cell.seed,
    )
