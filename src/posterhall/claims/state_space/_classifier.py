"""Classifiers of sequences of numbers, one for every arm; only imported where torch is wanted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.claims.mirage._images import Images, Shuffled, digits
from posterhall.claims.mirage._nets import begin, classification, parameters
from posterhall.claims.rows import Budget
from posterhall.extras import nn, torch
from posterhall.models.config import DecoderConfig
from posterhall.models.config import Scalar as Setting
from posterhall.models.mixers import Placement, factory
from posterhall.seeds import derive, generator

CLASSES = 10
_ROWS = 250  # of a test at a time


class OnMixer(nn.Module):
    """Pre-norm residual layers of a mixer, the mean over positions, and a head.

    Args:
        mixer: name in `posterhall.models.mixers.MIXERS`.
        given: its settings.
        dim, layers, length: of the model; length is that of the longest sequence.
        seed: of the initial weights.
    """

    def __init__(
        self, mixer: str, given: Mapping[str, Setting], *, dim: int, layers: int, length: int, seed: int
    ) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(1, dim), nn.Linear(dim, CLASSES)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(layers))
        config = DecoderConfig(
            vocab_size=1, dim=dim, layers=layers, max_length=length, positions="none",
            mixers=(mixer,), mixer_settings={mixer: given},
        )  # fmt: skip
        begin(self, seed)
        made = [factory(mixer)(config, layer) for layer in range(layers)]
        for layer, each in enumerate(made):
            each.initialise(torch.Generator().manual_seed(derive(seed, "mixer", layer)))
        self.mixers = nn.ModuleList(made)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sequences (B, L) to logits (B, 10)."""
        h = self.embed(x[..., None])
        placement = Placement(len(x), x.shape[1], x.device)
        for norm, mixer in zip(self.norms, self.mixers, strict=True):
            h = h + mixer(norm(h), placement)
        result: torch.Tensor = self.head(h.mean(dim=1))
        return result


class Recurrent(nn.Module):
    """Layers of an LSTM or a GRU, the mean over positions, and a head."""

    def __init__(self, cell: str, *, dim: int, layers: int, seed: int) -> None:
        super().__init__()
        self.net: Any = (nn.LSTM if cell == "LSTM" else nn.GRU)(1, dim, layers, batch_first=True)
        self.head = nn.Linear(dim, CLASSES)
        bound = 1 / math.sqrt(dim)  # as torch has it, from a generator
        draw = torch.Generator().manual_seed(derive(seed, "recurrent"))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-bound, bound, generator=draw)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sequences (B, L) to logits (B, 10)."""
        result: torch.Tensor = self.head(self.net(x[..., None])[0].mean(dim=1))
        return result


class Encoder(nn.Module):
    """A pre-norm Transformer that sees both ways, with learned positions; the mean, and a head."""

    def __init__(self, *, dim: int, layers: int, length: int, seed: int) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(1, dim), nn.Linear(dim, CLASSES)
        self.place = nn.Parameter(torch.zeros(length, dim))
        block = nn.TransformerEncoderLayer(
            dim, 4, 3 * dim, dropout=0.0, batch_first=True, norm_first=True, activation="gelu"
        )
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        begin(self, seed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sequences (B, L) to logits (B, 10)."""
        result: torch.Tensor = self.head(self.blocks(self.embed(x[..., None]) + self.place).mean(dim=1))
        return result


def made(arm: str, budget: Budget, seed: int) -> nn.Module:
    """The network of an arm ("S4D-Lin", "S4D-Real", "LSTM", "GRU", "Transformer").

    S4D has the budget's width; the others the one that comes nearest to its number of parameters.
    """
    dim = budget.width

    def sized(width: int) -> nn.Module:
        if arm == "Transformer":
            return Encoder(dim=width, layers=budget.layers, length=budget.length, seed=seed)
        return Recurrent(arm, dim=width, layers=max(1, budget.layers - 1), seed=seed)

    def s4d(init: str) -> nn.Module:
        given: dict[str, Setting] = {"state": budget.state, "init": init}
        return OnMixer("s4d", given, dim=dim, layers=budget.layers, length=budget.length, seed=seed)

    if arm.startswith("S4D"):
        return s4d("real" if arm == "S4D-Real" else "lin")
    wanted = parameters(s4d("lin"))
    # Four heads of the Transformer must divide its width; parameters grow with it.
    widths = range(4, 4 * dim + 1, 4 if arm == "Transformer" else 1)
    return min((sized(width) for width in widths), key=lambda model: abs(parameters(model) - wanted))


def flattened(images: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Digits of 8 x 8 row by row, at length 256 each pixel as 2 x 2; float32 (n, length) in [-1, 1]."""
    times = math.isqrt(length // 64)
    square = images.reshape(-1, 8, 8).repeat(times, axis=1).repeat(times, axis=2)
    return square.reshape(len(images), -1) * 2 - 1


def accuracy(arm: str, budget: Budget, seed: int, *, shuffled: bool = False) -> dict[str, Any]:
    """Train an arm at every rate of the budget, and test the one that was best on validation images.

    Args:
        arm: see `made`.
        budget: width, layers, state, length, steps, tested, rates ("0.001,0.004").
        seed: of division, weights and batches; the same for all arms.
        shuffled: every image's pixels in an order of their own, in training and test.

    Returns:
        "accuracy" on test images, "lr" and "parameters".
    """
    from posterhall.train import TrainSettings, fit

    images: Images = digits(seed)
    order = generator(seed, "pixels")
    x, held = (flattened(each, budget.length) for each in (images.train, images.test))
    if shuffled:
        x, held = order.permuted(x, axis=1), order.permuted(held, axis=1)
    y = images.train_classes
    kept = 200  # for choosing the rate
    best: tuple[float, float, nn.Module] | None = None
    for rate in (float(each) for each in str(budget.rates).split(",")):
        model = made(arm, budget, derive(seed, "weights"))
        settings = TrainSettings(
            lr=rate, steps=budget.steps, batch=64, warmup=0.05, weight_decay=0.01, log_every=budget.steps,
            dtype="float32",
        )  # fmt: skip
        data = Shuffled(derive(seed, "batches"), x=x[kept:], y=y[kept:])
        fit(model, data, objective=classification, settings=settings)
        model.eval()
        right = _right(model, x[:kept], y[:kept])
        if best is None or right > best[0]:
            best = right, rate, model
    assert best is not None  # noqa: S101 - for the type checker
    found = _right(best[2], held[: budget.tested], images.test_classes[: budget.tested])
    return {"accuracy": found, "lr": best[1], "parameters": float(parameters(best[2]))}


def _right(model: nn.Module, x: NDArray[np.float32], y: NDArray[np.int64]) -> float:
    with torch.no_grad():
        logits = torch.cat([model(part) for part in torch.split(torch.from_numpy(x), _ROWS)])
    return float((logits.argmax(dim=1).numpy() == y).mean())
