"""A small classifier in numpy, to study staleness on: exact gradients, no framework, milliseconds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from posterhall.embeddings.parameter_server.shards import Matrix
from posterhall.seeds import generator


class Classifier:
    """A network of one hidden tanh layer that tells apart classes of Gaussian clouds; a `Task`.

    Each class has several clouds, so that no linear model separates them. Mini-batches are drawn
    afresh, so there is no overfitting and the loss tells about optimisation alone.

    Args:
        inputs, hidden, classes: sizes of the layers.
        batch: examples in a mini-batch.
        clouds: clouds a class.
        distance: standard deviation of a cloud's centre, in units of its points' standard deviation.
        held_out: examples that `loss` is measured on.
        seed: draws the centres and the held-out examples.
    """

    def __init__(
        self,
        *,
        inputs: int = 32,
        hidden: int = 64,
        classes: int = 10,
        batch: int = 32,
        clouds: int = 2,
        distance: float = 0.75,
        held_out: int = 2000,
        seed: int = 1,
    ) -> None:
        self.shape = (inputs, hidden, classes)
        self.batch = batch
        rng = generator(seed, "classifier")
        self._centres = (distance * rng.standard_normal((classes * clouds, inputs))).astype(np.float32)
        self._classes = classes
        self._held_out = self.examples(rng, held_out)

    def examples(self, rng: np.random.Generator, n: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Points float32 (n, inputs) and their classes int64 (n,)."""
        cloud = rng.integers(len(self._centres), size=n)
        noise = rng.standard_normal((n, self.shape[0]), dtype=np.float32)
        return self._centres[cloud] + noise, cloud % self._classes

    def initial(self, rng: np.random.Generator) -> list[Matrix]:
        """Weights (hidden, inputs), biases (1, hidden), weights (classes, hidden), biases (1, classes).

        Uniform in +-sqrt(6 / (in + out)) (Glorot & Bengio 2010), biases zero.
        """
        inputs, hidden, classes = self.shape
        parameters = []
        for out, into in ((hidden, inputs), (classes, hidden)):
            reach = np.sqrt(6 / (out + into))
            parameters.append(rng.uniform(-reach, reach, (out, into)).astype(np.float32))
            parameters.append(np.zeros((1, out), np.float32))
        return parameters

    def gradient(self, parameters: Sequence[Matrix], rng: np.random.Generator) -> tuple[list[Matrix], float]:
        """Gradients of the mean cross-entropy of a fresh mini-batch, and that loss in nats."""
        return self.gradient_at(parameters, *self.examples(rng, self.batch))

    def gradient_at(
        self, parameters: Sequence[Matrix], points: NDArray[np.float32], labels: NDArray[np.int64]
    ) -> tuple[list[Matrix], float]:
        """As `gradient`, on given examples."""
        first, first_bias, second, second_bias = parameters
        with np.errstate(over="ignore", invalid="ignore"):  # divergence is a result, not an error
            hidden = np.tanh(points @ first.T + first_bias)
            log_probability = _log_softmax(hidden @ second.T + second_bias)
            every = np.arange(len(labels))
            loss = -float(log_probability[every, labels].mean())
            slope = np.exp(log_probability)
            slope[every, labels] -= 1.0
            slope /= np.float32(len(labels))
            back = (slope @ second) * (1.0 - hidden * hidden)
            gradients = [
                back.T @ points,
                back.sum(axis=0, keepdims=True),
                slope.T @ hidden,
                slope.sum(axis=0, keepdims=True),
            ]
        return gradients, loss

    def loss(self, parameters: Sequence[Matrix]) -> float:
        """Mean cross-entropy on the held-out examples, in nats; infinite if parameters are not finite."""
        points, labels = self._held_out
        first, first_bias, second, second_bias = parameters
        with np.errstate(over="ignore", invalid="ignore"):
            hidden = np.tanh(points @ first.T + first_bias)
            chosen = _log_softmax(hidden @ second.T + second_bias)[np.arange(len(labels)), labels]
        loss = -float(chosen.mean())
        return loss if np.isfinite(loss) else float("inf")


def _log_softmax(logits: Matrix) -> Matrix:
    shifted: Matrix = logits - logits.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted
