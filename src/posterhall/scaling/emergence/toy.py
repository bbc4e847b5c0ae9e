"""A smooth improvement that looks sharp: the mathematical model of Schaeffer et al. 2023, §2."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from posterhall import seeds
from posterhall.errors import DataError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Toy:
    """Per-token loss falls as a power of the number of parameters: L(N) = (N / c)^alpha.

    Errors of different tokens are independent, which they are not for real models: theirs go together,
    so p^L understates how often a long answer is right.
    """

    c: float = 1e8
    """Parameters at which the loss is 1 nat, > 0."""

    alpha: float = -0.25
    """Exponent, < 0: the loss falls."""

    def __post_init__(self) -> None:
        if not (self.c > 0 and self.alpha < 0):
            raise DataError(
                f"c {self.c} must be positive and alpha {self.alpha} negative: the loss falls with N"
            )

    def cross_entropy(self, n: npt.ArrayLike) -> Floats:
        """Loss a token in nats at N parameters."""
        return np.asarray(np.power(np.asarray(n, np.float64) / self.c, self.alpha))

    def p(self, n: npt.ArrayLike) -> Floats:
        """Probability that one token is right: exp(-L(N))."""
        return np.asarray(np.exp(-self.cross_entropy(n)))

    def accuracy(self, n: npt.ArrayLike, length: int) -> Floats:
        """Probability that all tokens of an answer are right: p^length."""
        return np.asarray(np.exp(-length * self.cross_entropy(n)))

    def edit_distance(self, n: npt.ArrayLike, length: int) -> Floats:
        """Expected number of wrong tokens: length · (1 - p).

        Appendix A.3 prints length · (1 - ε) for an error rate ε; with ε = 1 - p it is length · ε.
        """
        return np.asarray(-length * np.expm1(-self.cross_entropy(n)))

    def sampled_accuracy(self, n: npt.ArrayLike, length: int, items: int, *, seed: int) -> Floats:
        """Accuracy as a test of so many items would measure it: Binomial(items, p^length) / items."""
        rate = self.accuracy(n, length)
        return np.asarray(seeds.generator(seed, "toy", length, items).binomial(items, rate) / items)
