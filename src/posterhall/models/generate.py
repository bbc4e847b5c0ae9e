"""Text from a decoder: batched, with a cache, each row drawn as if it were alone.

Rows of different length stand side by side with their padding at the end, where causality hides it, and
each row draws from a generator of its own. So the tokens of a row depend on its prompt and its seed, not on
its neighbours; only the last bits of the logits do (the matrix products of another batch size may round
otherwise), which can turn the draw of two tokens that are as good as equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, SupportsIndex

import numpy as np

from posterhall import seeds as seeding
from posterhall.errors import DataError
from posterhall.extras import torch

if TYPE_CHECKING:
    from posterhall.models.decoder import Decoder

Watch = Callable[[int, list[int]], bool]
"""Called with a row's number and its new tokens after each of them; true ends the row."""


@dataclass(frozen=True)
class Generation:
    """What was generated for one prompt."""

    ids: list[int]
    """New tokens, without the prompt and without the one that stopped it."""
    logprobs: list[float] | None
    """Log-probability of each under the model itself, whatever the temperature; None if not asked for."""
    stopped: bool
    """Whether a stop token or the watcher ended it; otherwise it was cut."""


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn from logits."""

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

    def draw(self, logits: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
        """Tokens (n,) of logits (n, V), by numbers in [0, 1) (n,)."""
        if self.temperature == 0:
            return logits.argmax(dim=-1)
        if self.top_k == 1:
            return logits.argmax(dim=-1)
        scaled = logits.double() / self.temperature
        if self.top_k is None and self.top_p is None:
            return _invert(scaled.softmax(dim=-1), uniforms)
        # Likeliest first; equal ones in the order of the vocabulary, on every device.
        ordered, order = scaled.sort(dim=-1, descending=True, stable=True)
        if self.top_k is not None:
            ordered, order = ordered[:, : self.top_k], order[:, : self.top_k]
        chances = ordered.softmax(dim=-1)
        if self.top_p is not None:
            before = chances.cumsum(dim=-1) - chances
            chances = chances.where(before < self.top_p, 0.0)
        return order.gather(-1, _invert(chances, uniforms)[:, None]).squeeze(-1)


def generate(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seeds: Sequence[SupportsIndex] | SupportsIndex = 0,
    stop_ids: Iterable[int] = (),
    watch: Watch | None = None,
    return_logprobs: bool = False,
    batch: int = 32,
) -> list[Generation]:
    """Continue prompts.

    Args:
        model: put into evaluation mode meanwhile.
        prompts: token ids, at least one each; the same prompt several times is read once.
        max_new_tokens: most tokens of a continuation, >= 0. It also ends where the model's max_length is
            reached.
        temperature, top_k, top_p: see `Sampling`.
        seeds: one for each row; or a single one, from which row i's is `seeds.derive(seed, "row", i)`.
        stop_ids: tokens that end a row.
        watch: sees every token; for stop strings and for showing text while it comes.
        return_logprobs: also return the log-probability of every token.
        batch: rows at a time; only speed and memory depend on it.

    Returns:
        One for each prompt, in their order.

    Raises:
        DataError: for an empty prompt, one that leaves no room, or settings out of range.
    """
    sampling = Sampling(temperature, top_k, top_p)
    if max_new_tokens < 0 or batch < 1:
        raise DataError(f"max_new_tokens is {max_new_tokens} and batch {batch}; at least 0 and 1")
    longest = model.config.max_length
    for row, prompt in enumerate(prompts):
        if not 1 <= len(prompt) <= longest:
            raise DataError(
                f"prompt {row} has {len(prompt)} tokens; it must have 1 to {longest} (the model's max_length)"
            )
    if isinstance(seeds, Sequence):
        if len(seeds) != len(prompts):
            raise DataError(
                f"{len(seeds)} seeds for {len(prompts)} prompts; give one for each, or a single one"
            )
        own = list(seeds)
    else:
        own = [seeding.derive(seeds, "row", row) for row in range(len(prompts))]
    rows = [
        _Row(number, list(prompt), seeding.generator(seed, "token"))
        for number, (prompt, seed) in enumerate(zip(prompts, own, strict=True))
    ]
    stops = frozenset(stop_ids)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            # Rows of like length together: less padding.
            waiting = sorted(rows, key=lambda row: len(row.prompt))
            for start in range(0, len(waiting), batch):
                _continue(model, waiting[start : start + batch], max_new_tokens, sampling, stops, watch)
    finally:
        model.train(was_training)
    return [Generation(row.ids, row.logprobs if return_logprobs else None, row.stopped) for row in rows]


class _Row:
    def __init__(self, number: int, prompt: list[int], generator: np.random.Generator) -> None:
        self.number, self.prompt, self.generator = number, prompt, generator
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.stopped = False

    def take(self, token: int, logprob: float, stops: frozenset[int], watch: Watch | None) -> None:
        if token in stops:
            self.stopped = True
            return
        self.ids.append(token)
        self.logprobs.append(logprob)
        if watch is not None and watch(self.number, self.ids):
            self.stopped = True


def _continue(
    model: Decoder,
    rows: list[_Row],
    max_new_tokens: int,
    sampling: Sampling,
    stops: frozenset[int],
    watch: Watch | None,
) -> None:
    longest = model.config.max_length
    room = min(longest, max(len(row.prompt) for row in rows) + max_new_tokens)
    device = model.head_weight().device
    distinct = {tuple(row.prompt): i for i, row in enumerate(_first_of_each(rows))}
    lengths = [len(prompt) for prompt in distinct]
    padded = torch.zeros(len(distinct), max(lengths), dtype=torch.long)
    for i, prompt in enumerate(distinct):
        padded[i, : len(prompt)] = torch.tensor(prompt)
    cache = model.new_cache(len(distinct), room)
    hidden = model.hidden(padded.to(device), cache=cache, valid=lengths)
    last = hidden[torch.arange(len(distinct), device=device), torch.tensor(lengths, device=device) - 1]
    copies = [distinct[tuple(row.prompt)] for row in rows]
    if copies != list(range(len(distinct))):
        cache, last = cache.select(copies), last[torch.tensor(copies, device=device)]

    places = list(range(len(rows)))  # which row of the cache belongs to which row
    while True:
        logits = (last @ model.head_weight().t()).float()
        uniforms = torch.tensor([rows[p].generator.random() for p in places], dtype=torch.float64)
        tokens = sampling.draw(logits, uniforms.to(device))
        logprobs = logits.log_softmax(dim=-1).gather(-1, tokens[:, None]).squeeze(-1)
        going = []
        for at, (token, logprob) in enumerate(zip(tokens.tolist(), logprobs.tolist(), strict=True)):
            row = rows[places[at]]
            if len(row.ids) < max_new_tokens:
                row.take(token, logprob, stops, watch)
            ended = row.stopped or len(row.ids) >= max_new_tokens
            if not ended and cache.lengths[at] < longest:
                going.append(at)
        if not going:
            return
        if len(going) < len(places):
            cache, tokens = cache.select(going), tokens[torch.tensor(going, device=device)]
            places = [places[at] for at in going]
        last = model.hidden(tokens[:, None], cache=cache)[:, 0]


def _first_of_each(rows: list[_Row]) -> Iterator[_Row]:
    seen: set[tuple[int, ...]] = set()
    for row in rows:
        if tuple(row.prompt) not in seen:
            seen.add(tuple(row.prompt))
            yield row


def _invert(chances: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """The first token up to which more than a share u of the probability lies; never one of none."""
    reached = chances.cumsum(dim=-1)
    aim = uniforms[:, None] * reached[:, -1:]
    found = torch.searchsorted(reached, aim, right=True).squeeze(-1)
    # u < 1, but u times the total can round up to it.
    last = (chances > 0).long().mul_(torch.arange(1, chances.shape[-1] + 1, device=chances.device)).amax(
        -1
    ) - 1
    return torch.minimum(found, last)
