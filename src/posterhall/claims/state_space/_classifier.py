"""Classifiers of handwritten digits, one for every arm; only imported where torch is wanted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.claims.mirage._images import Images, digits
from posterhall.claims.rows import Budget
from posterhall.data.labelled import Divided, Sequences
from posterhall.evals.long_range.training import score, tune
from posterhall.extras import require
from posterhall.models.classifier import Classifier, ClassifierConfig, parameters, sized
from posterhall.seeds import derive, generator
from posterhall.train import TrainSettings

CLASSES = 10
_CHOOSING = 200
"""Images of the training part by which rates are chosen."""


def made(arm: str, budget: Budget, seed: int) -> Classifier:
    """The network of an arm ("S4D-Lin", "S4D-Real", "LSTM", "GRU", "Transformer").

    S4D has the budget's width; the others the one that comes nearest to its number of parameters.
    """
    init = "real" if arm == "S4D-Real" else "lin"
    s4d = ClassifierConfig(
        classes=CLASSES,
        channels=1,
        max_length=budget.length,
        dim=budget.width,
        layers=budget.layers,
        mixers=("s4d",),
        mixer_settings={"s4d": {"state": budget.state, "init": init}},
    )
    if arm.startswith("S4D"):
        return Classifier(s4d, seed=seed)
    given: dict[str, Any] = {"classes": CLASSES, "channels": 1, "max_length": budget.length}
    if arm == "Transformer":
        given |= {
            "layers": budget.layers, "heads": 2, "mixers": ("attention",), "both_ways": True,
            "positions": "learned",
        }  # fmt: skip
    else:
        given |= {"layers": max(1, budget.layers - 1), "mixers": (arm.lower(),)}
    wanted = parameters(Classifier(s4d, seed=None))
    # Heads must divide the Transformer's width.
    config = sized(ClassifierConfig(**given), wanted, multiple=2 if arm == "Transformer" else 1)
    return Classifier(config, seed=seed)


def flattened(images: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Digits of 8 x 8 row by row, at length 256 each pixel as 2 x 2; float32 (n, length) in [-1, 1]."""
    times = math.isqrt(length // 64)
    square = images.reshape(-1, 8, 8).repeat(times, axis=1).repeat(times, axis=2)
    return square.reshape(len(images), -1) * 2 - 1


def accuracy(
    arm: str, budget: Budget, seed: int, *, shuffled: bool = False, permuted: bool = False
) -> dict[str, Any]:
    """Train an arm at every rate of the budget, and test the one that was best on validation images.

    Args:
        arm: see `made`.
        budget: width, layers, state, length, steps, batch, tested, rates ("0.001,0.004").
        seed: of division, weights and batches; the same for all arms.
        shuffled: every image's pixels in an order of their own, in training and test.
        permuted: the pixels of all images in one order, drawn for the seed.

    Returns:
        "accuracy" on test images, "lr" and "parameters"; "accuracy" is NaN if every training diverged.
    """
    images: Images = digits(seed)
    order = generator(seed, "pixels")
    x, held = (flattened(each, budget.length) for each in (images.train, images.test))
    if shuffled:
        x, held = order.permuted(x, axis=1), order.permuted(held, axis=1)
    if permuted:
        places = order.permutation(budget.length)
        x, held = x[:, places], held[:, places]
    y, tested = images.train_classes, int(budget.tested)
    data = Divided(
        _rows(x[_CHOOSING:], y[_CHOOSING:]),
        _rows(x[:_CHOOSING], y[:_CHOOSING]),
        _rows(held[:tested], images.test_classes[:tested]),
        classes=CLASSES,
    )
    settings = TrainSettings(
        steps=budget.steps,
        batch=budget.batch,
        warmup=0.05,
        weight_decay=0.01,
        log_every=budget.steps,
        dtype="float32",
    )
    tuned = tune(
        lambda: made(arm, budget, derive(seed, "weights")),
        data,
        [float(each) for each in str(budget.rates).split(",")],
        settings,
        seed=derive(seed, "batches"),
    )
    if tuned.model is None:
        return {"accuracy": math.nan, "lr": math.nan, "parameters": math.nan}
    found = score(tuned.model, data.test)["accuracy"]
    return {"accuracy": found, "lr": tuned.lr, "parameters": float(parameters(tuned.model))}


def linear(budget: Budget, seed: int) -> float:
    """Share of test images that logistic regression on the pixels names right, to which no order means
    anything; trained on the same images as the arms."""
    images: Images = digits(seed)
    models: Any = require("sklearn.linear_model", "train", "logistic regression")
    model = models.LogisticRegression(max_iter=1000)
    model.fit(images.train[_CHOOSING:], images.train_classes[_CHOOSING:])
    tested = int(budget.tested)
    return float(model.score(images.test[:tested], images.test_classes[:tested]))


def _rows(x: NDArray[np.float32], y: NDArray[np.int64]) -> Sequences:
    return Sequences(x[..., None], y, np.full(len(y), x.shape[1]))
