"""One model of the grid: trained at every rate, chosen on validation rows, tested once."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall import seeds
from posterhall.data.epochs import Epochs
from posterhall.data.labelled import Divided
from posterhall.data.labelled import Sequences as Rows
from posterhall.errors import DataError, Interrupted, MissingExtra, PosterhallError
from posterhall.evals.grids import Told
from posterhall.evals.long_range.settings import Cell, LongRangeSettings
from posterhall.evals.long_range.tasks import load, positions
from posterhall.extras import functional, torch
from posterhall.models.classifier import Classifier, ClassifierConfig, lengthened, parameters, sized
from posterhall.train.loop import fit
from posterhall.train.settings import TrainSettings

_TESTED = 1 << 16
"""Positions at a time, about."""


class Shuffled:
    """Rows as training data: all of them once an epoch, in an order that follows from seed and epoch."""

    def __init__(self, rows: Rows, seed: int) -> None:
        self.rows, self.items = rows, len(rows.labels)
        self._epochs = Epochs(
            self.items, lambda epoch: seeds.generator(seed, "order", epoch).permutation(self.items)
        )

    def take(self, first: int, count: int) -> dict[str, NDArray[Any]]:
        """Rows of the endless sequence of epochs."""
        return batch(self.rows.take(self._epochs.drawn(first, count)))


def batch(rows: Rows) -> dict[str, NDArray[Any]]:
    """What a classifier and `classification` take, no longer than the longest row."""
    longest = int(rows.lengths.max())
    inputs = rows.inputs[:, :, :longest] if rows.lengths.ndim == 2 else rows.inputs[:, :longest]
    return {"inputs": inputs, "lengths": rows.lengths, "labels": rows.labels}


def classification(model: Any, given: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, Any]]:
    """Mean cross-entropy of rows, nats; see `batch`."""
    labels = given["labels"]
    logits = model(given["inputs"], given["lengths"])
    return functional.cross_entropy(logits, labels), {"tokens": len(labels)}


def score(model: Classifier, rows: Rows) -> dict[str, float]:
    """Mean "loss" (nats) and "accuracy" over rows, of a model in evaluation mode."""
    at_once = max(1, _TESTED // (positions(rows) * (rows.lengths.shape[1] if rows.lengths.ndim == 2 else 1)))
    device = next(model.parameters()).device
    loss = right = 0.0
    with torch.no_grad():
        for first in range(0, len(rows.labels), at_once):
            part = batch(rows.take(slice(first, first + at_once)))
            inputs, lengths, labels = (torch.as_tensor(each).to(device) for each in part.values())
            logits = model(inputs, lengths).float()
            loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
            right += int((logits.argmax(dim=1) == labels).sum())
    return {"loss": loss / len(rows.labels), "accuracy": right / len(rows.labels)}


@dataclass
class Tuned:
    """What is left of trainings at several rates."""

    model: Classifier | None
    """The best on validation rows, in evaluation mode; None if all trainings failed."""
    lr: float | None
    """Its rate."""
    validation: float | None
    """Its accuracy on validation rows."""
    steps: int
    """Of its training."""
    curve: list[dict[str, float]]
    """What was told in all trainings."""
    errors: dict[float, str]
    """Why trainings failed, by rate."""


class _Watch:
    """What is seen and told of one training while it goes on."""

    def __init__(
        self, rows: Rows, settings: TrainSettings, seconds: float | None, told: Callable[..., None]
    ) -> None:
        self.rows, self.lr, self.seconds, self.told = rows, settings.lr, seconds, told
        self.steps = settings.steps or 1
        self.every = settings.eval_every or self.steps
        self.began = time.process_time()
        self.curve: list[dict[str, float]] = []

    def evaluate(self, model: Classifier) -> dict[str, float]:
        """Score validation rows."""
        found = score(model, self.rows)
        step = min((len(self.curve) + 1) * self.every, self.steps)
        line = {"lr": self.lr, "step": step, **found, "seconds": self.spent}
        self.curve.append(line)
        self.told(step / self.steps, line)
        return found

    def enough(self, found: Mapping[str, float]) -> bool:
        """Whether its time is over."""
        del found
        return self.seconds is not None and self.spent > self.seconds

    @property
    def spent(self) -> float:
        """CPU seconds so far."""
        return time.process_time() - self.began


def tune(
    build: Callable[[], Classifier],
    data: Divided,
    rates: Sequence[float],
    settings: TrainSettings,
    *,
    seed: int,
    seconds: float | None = None,
    told: Told | None = None,
) -> Tuned:
    """Train the same model at several rates, and choose by accuracy on validation rows (then by loss).

    Args:
        build: makes it, as it begins.
        data: whose test rows are not looked at.
        rates: peak rates.
        settings: of training, in steps; their `lr` is replaced.
        seed: of the rows' order, the same at every rate.
        seconds: most CPU seconds of a training, asked at each evaluation.
        told: hears of each evaluation: "lr", "step", "loss", "accuracy" and "seconds" (CPU).
    """
    found = Tuned(None, None, None, 0, [], {})
    best = (-1.0, 0.0)
    for number, rate in enumerate(rates):

        def tell(share: float, line: Mapping[str, Any], number: int = number) -> None:
            if told is not None:
                told((number + share) / len(rates), line)

        model, own = build(), dataclasses.replace(settings, lr=rate)
        watch = _Watch(data.validation, own, seconds, tell)
        try:
            trained = fit(
                model,
                Shuffled(data.train, seed),
                objective=classification,
                settings=own,
                evaluate=watch.evaluate,
                enough=watch.enough,
            )
            line = score(model.eval(), data.validation)
            if not math.isfinite(line["loss"]):
                raise PosterhallError(f"the loss on validation rows is {line['loss']} after the last step")
        except (Interrupted, MissingExtra):
            raise
        except PosterhallError as failed:  # it diverged: a result like others
            found.errors[rate] = str(failed)
            continue
        finally:
            found.curve += watch.curve
        worth = (line["accuracy"], -line["loss"])
        if found.model is None or worth > best:
            best = worth
            found.model, found.lr = model, rate
            found.validation, found.steps = line["accuracy"], trained.steps
    return found


def train(
    cell: Cell, settings: LongRangeSettings, *, told: Told | None = None, keep: Path | None = None
) -> dict[str, Any]:
    """Train a cell's model at every rate, and test the best one.

    Args:
        cell: which.
        settings: how.
        told: hears of each evaluation.
        keep: where to save the model; None: nowhere.

    Returns:
        What the table needs: "mixer", "seed", "length" (positions of a row in training), "width",
        "parameters", "looks_ahead", "continuous"; "accuracy" on test rows, "validation", "lr", "steps";
        "seconds" (CPU, of all rates with their evaluations); "chance" (accuracy of always naming the class
        that is most frequent in training); "at" and "rates" (see `_tested`); "curve"; "errors" (by rate).
        Where all trainings failed, what depends on a model is None.
    """
    data = load(settings, cell.length, cell.seed)
    length = positions(data.train)
    config = shapes(settings, data, length)[cell.mixer]

    def build() -> Classifier:
        model = Classifier(config, seed=seeds.derive(cell.seed, "long range", "model"))
        if data.vocab is None:
            model.standardise(data.train.inputs, data.train.lengths)
        return model.to(settings.device)

    began = time.process_time()
    tuned = tune(
        build,
        data,
        settings.lr,
        _training(settings, cell.seed),
        seed=seeds.derive(cell.seed, "long range", "rows"),
        seconds=settings.seconds,
        told=told,
    )
    spent = time.process_time() - began
    model = tuned.model
    if model is not None and keep is not None:
        from posterhall.models.classifier import save

        save(model, keep)
    frequent = int(np.bincount(data.train.labels).argmax())
    fresh = build()
    return {
        "mixer": cell.mixer,
        "seed": cell.seed,
        "length": length,
        "width": config.dim,
        "parameters": parameters(fresh),
        "looks_ahead": fresh.looks_ahead,
        "continuous": fresh.continuous,
        "accuracy": None if model is None else score(model, data.test)["accuracy"],
        "validation": tuned.validation,
        "lr": tuned.lr,
        "steps": tuned.steps,
        "seconds": spent,
        "chance": float((data.test.labels == frequent).mean()),
        "at": [] if model is None else list(_lengths(model, cell, settings, length)),
        "rates": [] if model is None else list(_rates(model, cell, settings)),
        "curve": tuned.curve,
        "errors": {f"{rate:g}": said for rate, said in tuned.errors.items()},
    }


def shapes(settings: LongRangeSettings, data: Divided, length: int) -> dict[str, ClassifierConfig]:
    """The shape of every arm's models: the first at the width given, the others of about its size.

    Raises:
        DataError: for a mixer or a setting that does not exist, or a width that does not suit it.
    """
    first, *others = settings.mixers
    found = {first: settings.shape(first, data, length)}
    if others:
        wanted = parameters(Classifier(found[first], seed=None))
        for arm in others:
            config = settings.shape(arm, data, length)
            # Mamba's kernel takes 8 channels at a time, rotary positions pairs of entries of each head.
            found[arm] = sized(
                config, wanted, multiple=1 if config.recurrent else np.lcm(8, 2 * config.heads)
            )
    return found


def rehearse(settings: LongRangeSettings, data: Divided) -> None:
    """Take one step with each arm's model, and forget it.

    Raises:
        DataError: for a mixer or a setting that does not exist, or a size that does not suit it.
    """
    rows = data.train.take(slice(0, 2))
    for config in shapes(settings, data, positions(data.train)).values():
        once = TrainSettings(lr=1e-6, batch=2, steps=1, dtype="float32")
        model = Classifier(config, seed=0).to(settings.device)
        fit(model, Shuffled(rows, 0), objective=classification, settings=once)


def _lengths(
    model: Classifier, cell: Cell, settings: LongRangeSettings, trained: int
) -> Iterator[dict[str, Any]]:
    for length in settings.evaluate_at:
        if length != trained:
            rows = load(settings, length, cell.seed).test
            yield {"length": length, **_tested(model, rows)}


def _rates(model: Classifier, cell: Cell, settings: LongRangeSettings) -> Iterator[dict[str, Any]]:
    for rate in settings.rates:
        if rate != 1:
            rows = load(settings, cell.length, cell.seed, rate).test
            yield {"rate": rate, "length": positions(rows), **_tested(model, rows, rate)}


def _tested(model: Classifier, rows: Rows, rate: float = 1.0) -> dict[str, Any]:
    """ "accuracy" on rows of another length or sampling rate, or None with what was "refused"."""
    length = positions(rows)
    if length > model.config.max_length:
        try:
            model = lengthened(model, length)
        except DataError as error:
            return {"accuracy": None, "refused": str(error)}
    if not model.continuous or rate == 1:
        return {"accuracy": score(model, rows)["accuracy"], "refused": None}
    before = model.rate
    model.rate = before / rate
    try:
        return {"accuracy": score(model, rows)["accuracy"], "refused": None}
    finally:
        model.rate = before


def _training(settings: LongRangeSettings, seed: int) -> TrainSettings:
    return TrainSettings(
        steps=settings.steps,
        warmup=settings.warmup if settings.warmup < 1 else float(settings.steps),
        batch=settings.batch,
        weight_decay=settings.weight_decay,
        eval_every=settings.eval_every,
        log_every=settings.eval_every,
        seed=seed,
    )
