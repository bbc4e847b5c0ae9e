"""How a token is drawn from logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from posterhall.errors import DataError
from posterhall.extras import torch


@dataclass(frozen=True)
class Sampling:
    """The settings of a row."""

    temperature: float = 1.0
    """Logits are divided by it, >= 0; 0 takes the likeliest token."""
    top_k: int | None = None
    """Only so many of the likeliest tokens, >= 1 (Fan et al. 2018)."""
    top_p: float | None = None
    """Only the fewest of the likeliest tokens that have this probability together, in (0, 1] (Holtzman
    et al. 2020, §3.1), of what top_k leaves."""

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and np.isfinite(self.temperature)):
            raise DataError(f"temperature is {self.temperature}; it must be at least 0")
        if self.top_k is not None and self.top_k < 1:
            raise DataError(f"top_k is {self.top_k}; it must be at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise DataError(f"top_p is {self.top_p}; it must be above 0 and at most 1")

    @property
    def is_greedy(self) -> bool:
        """Whether it takes the likeliest token always."""
        return self.temperature == 0 or self.top_k == 1

    @property
    def is_cut(self) -> bool:
        """Whether some tokens cannot be drawn."""
        return self.top_k is not None or self.top_p is not None

    def draw(self, logits: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
        """Tokens (n,) of logits (n, V), by numbers in [0, 1) (n,)."""
        numbers = [iter([each]).__next__ for each in uniforms.tolist()]
        return Draws([self] * len(logits))(logits, numbers)


class Draws:
    """Draws for rows of a batch, each by its own settings, those of one kind together.

    Args:
        settings: one a row.
    """

    def __init__(self, settings: Sequence[Sampling]) -> None:
        self._rows = len(settings)
        self._greedy = [at for at, each in enumerate(settings) if each.is_greedy]
        drawn = [(at, each) for at, each in enumerate(settings) if not each.is_greedy]
        self._plain = _Group([(at, each) for at, each in drawn if not each.is_cut])
        self._cut = _Group([(at, each) for at, each in drawn if each.is_cut])

    def __call__(self, logits: torch.Tensor, uniforms: Sequence[Callable[[], float]]) -> torch.Tensor:
        """Tokens (n,) of logits (n, V).

        Args:
            logits: float32.
            uniforms: for each row what gives its next number in [0, 1); not called if it needs none.

        Raises:
            DataError: for a row whose largest logit is infinite or not a number.
        """
        if not bool(logits.amax(dim=-1).isfinite().all()):
            raise DataError(
                "the model's logits are not finite, so that no token can be drawn; its weights are "
                "broken, or too large for their dtype: load others, or take float32"
            )
        if len(self._greedy) == self._rows:
            return logits.argmax(dim=-1)
        tokens = logits.new_empty(self._rows, dtype=torch.long)
        if self._greedy:
            rows = torch.tensor(self._greedy, device=logits.device)
            tokens[rows] = logits[rows].argmax(dim=-1)
        if self._plain.places:
            numbers = self._plain.numbers(logits, uniforms)
            self._plain.give(tokens, invert(self._plain.scaled(logits).softmax(dim=-1), numbers))
        if self._cut.places:
            numbers = self._cut.numbers(logits, uniforms)
            ordered, order = self._cut.cut(self._cut.scaled(logits))
            self._cut.give(tokens, order.gather(-1, invert(ordered, numbers)[:, None]).squeeze(-1))
        return tokens


class _Group:
    """Rows whose tokens are drawn in the same way."""

    def __init__(self, members: Sequence[tuple[int, Sampling]]) -> None:
        self.places = [at for at, _ in members]
        self._settings = [each for _, each in members]

    def scaled(self, logits: torch.Tensor) -> torch.Tensor:
        """Their logits by temperature, in float64."""
        chosen = logits if len(self.places) == len(logits) else logits[self._index(logits)]
        return chosen.double() / self._column(logits, [each.temperature for each in self._settings])

    def numbers(self, logits: torch.Tensor, uniforms: Sequence[Callable[[], float]]) -> torch.Tensor:
        """Their random numbers."""
        numbers = [uniforms[at]() for at in self.places]
        return torch.tensor(numbers, dtype=torch.float64, device=logits.device)

    def cut(self, scaled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What top_k and top_p leave of the probabilities, likeliest first, and which tokens these are."""
        # Equal ones in the order of the vocabulary, on every device.
        ordered, order = scaled.sort(dim=-1, descending=True, stable=True)
        size = ordered.shape[-1]
        place = torch.arange(size, device=ordered.device)
        most = self._column(ordered, [each.top_k or size for each in self._settings])
        # Nothing is before 2: sums of probabilities may round to above 1.
        share = self._column(ordered, [2.0 if each.top_p is None else each.top_p for each in self._settings])
        left = ordered.masked_fill(place >= most, -torch.inf).softmax(dim=-1)
        before = left.cumsum(dim=-1) - left
        return left.where(before < share, 0.0), order

    def give(self, tokens: torch.Tensor, drawn: torch.Tensor) -> None:
        tokens[self._index(tokens)] = drawn

    def _index(self, like: torch.Tensor) -> torch.Tensor:
        return torch.tensor(self.places, device=like.device)

    def _column(self, like: torch.Tensor, values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64, device=like.device)[:, None]


def chances(logits: torch.Tensor, settings: Sequence[Sampling]) -> torch.Tensor:
    """The probabilities (n, V) with which tokens are drawn, float64, of logits (n, V) and n settings."""
    found = torch.zeros(logits.shape, dtype=torch.float64, device=logits.device)
    greedy = [at for at, each in enumerate(settings) if each.is_greedy]
    if greedy:
        rows = torch.tensor(greedy, device=logits.device)
        found[rows, logits[rows].argmax(dim=-1)] = 1.0
    for is_cut in (False, True):
        group = _Group(
            [(at, each) for at, each in enumerate(settings) if not each.is_greedy and each.is_cut == is_cut]
        )
        if not group.places:
            continue
        scaled = group.scaled(logits)
        if is_cut:
            ordered, order = group.cut(scaled)
            ordered = ordered / ordered.sum(dim=-1, keepdim=True)
            group.give(found, torch.zeros_like(scaled).scatter_(-1, order, ordered))
        else:
            group.give(found, scaled.softmax(dim=-1))
    return found


def invert(weights: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Tokens (n,): of each row of weights (n, V), the first up to which more than a share u of them lies;
    never one of none.

    Args:
        weights: >= 0, float64, not all 0 in a row; they need not sum to 1.
        uniforms: (n,) in [0, 1), float64.
    """
    reached = weights.cumsum(dim=-1)
    aim = uniforms[:, None] * reached[:, -1:]
    found = torch.searchsorted(reached, aim, right=True).clamp_(max=weights.shape[-1] - 1)
    if bool((weights.gather(-1, found) > 0).all()):
        return found.squeeze(-1)
    # u < 1, but u times the total can round up to it.
    place = torch.arange(1, weights.shape[-1] + 1, device=weights.device)
    last = (weights > 0).long().mul_(place).amax(-1) - 1
    return torch.minimum(found.squeeze(-1), last)
