"""Small networks for images, and how they are trained; only imported where torch is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.claims.mirage._images import Shuffled
from posterhall.extras import functional, nn, torch
from posterhall.seeds import derive

CLASSES = 10


class Autoencoder(nn.Module):
    """One hidden layer: x to m + W' relu(W x + b) + b', m the mean image (Schaeffer et al. 2023, §5)."""

    def __init__(self, pixels: int, width: int, mean: NDArray[np.float32]) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(pixels, width), nn.Linear(width, pixels)
        self.register_buffer("mean", torch.as_tensor(mean))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, pixels) to the same."""
        result: torch.Tensor = self.mean + self.decode(functional.relu(self.encode(x)))
        return result


class Conv(nn.Module):
    """LeNet's plan for 8 x 8 pixels: two convolutions with pooling, of c and 2 c channels, and a head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        self.head = nn.Linear(2 * channels * 4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 64) pixels to (B, 10) logits."""
        x = functional.max_pool2d(functional.relu(self.first(x.view(-1, 1, 8, 8))), 2)
        x = functional.max_pool2d(functional.relu(self.second(x)), 2)
        result: torch.Tensor = self.head(x.flatten(1))
        return result


class Sequence(nn.Module):
    """A causal transformer over pairs of an image and its label, which names each image from those before.

    Images come in through one convolution, labels through an embedding; the classes stay what they are in
    every sequence, as in the paper's experiment.
    """

    def __init__(self, width: int, layers: int, length: int) -> None:
        super().__init__()
        self.image = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(4),
            nn.Flatten(),
            nn.Linear(4 * width, width),
        )
        self.label = nn.Embedding(CLASSES, width)
        self.place = nn.Parameter(torch.zeros(2 * length, width))
        block = nn.TransformerEncoderLayer(
            width, 1, 4 * width, dropout=0.0, batch_first=True, norm_first=True, activation="gelu"
        )
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Images (B, L, 64) and labels (B, L) to logits (B, L, 10)."""
        batch, length = labels.shape
        images = self.image(x.reshape(-1, 1, 8, 8)).view(batch, length, -1)
        pairs = torch.stack([images, self.label(labels)], dim=2).flatten(1, 2) + self.place[: 2 * length]
        mask = nn.Transformer.generate_square_subsequent_mask(2 * length)
        result: torch.Tensor = self.head(self.blocks(pairs, mask=mask, is_causal=True)[:, ::2])
        return result


def parameters(model: nn.Module) -> int:
    """How many numbers a network learns."""
    return sum(p.numel() for p in model.parameters())


def begin(model: nn.Module, seed: int) -> None:
    """Initial weights that follow from the seed alone: matrices by their inputs, biases zero."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2:
                draw = torch.Generator().manual_seed(derive(seed, "weights", name))
                parameter.normal_(0.0, parameter[0].numel() ** -0.5, generator=draw)
            elif name.endswith("bias"):
                parameter.zero_()


def train(
    model: nn.Module, arrays: Mapping[str, NDArray[Any]], objective: Any, *, steps: int, lr: float, seed: int
) -> None:
    """Train a network in place: AdamW, cosine to a tenth, batches of 64."""
    from posterhall.train import TrainSettings, fit

    begin(model, seed)
    settings = TrainSettings(lr=lr, steps=steps, batch=64, warmup=0.05, weight_decay=0.0, log_every=steps)
    fit(model, Shuffled(derive(seed, "batches"), **arrays), objective=objective, settings=settings)
    model.eval()


def squared_error(model: Any, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, Any]]:
    """Mean over images of the squared distance to their reconstruction."""
    x = batch["x"]
    return (model(x) - x).square().sum(dim=1).mean(), {"tokens": len(x)}


def classification(model: Any, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, Any]]:
    """Cross-entropy of images ``x``; or of sequences, where there are some."""
    y = batch["y"]
    logits = model(batch["x"]) if y.dim() == 1 else model(batch["x"], y)
    return functional.cross_entropy(logits.flatten(0, -2), y.flatten()), {"tokens": y.numel()}
