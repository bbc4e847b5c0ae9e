"""Every answer of a fixed length that a small language model can give, with its exact probability.

The answers are the leaves of a tree whose inner nodes are their beginnings: with V tokens and length T there
are V^T of them, and 1 + V + ... + V^(T-1) beginnings, each read once, one token after what the cache holds
of its own beginning. For ten tokens and answers of five that is 11,111 tokens for 100,000 answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from posterhall.errors import DataError
from posterhall.extras import torch

if TYPE_CHECKING:
    from posterhall.models.causal import CausalModel

MOST_ANSWERS = 1 << 24
"""To all prompts together: 128 MiB of log-probabilities."""
_ROWS = 1 << 16
"""Beginnings in a pass, about; with more, a small model gets no faster."""


def answers(vocab_size: int, length: int) -> NDArray[np.int64]:
    """(V^T, T) all answers of `length` tokens, in the order of `distribution`: the last token varies
    first."""
    return np.stack(np.unravel_index(np.arange(vocab_size**length), (vocab_size,) * length), axis=1)


def distribution(
    model: CausalModel, prompts: Sequence[Sequence[int]], length: int, *, temperature: float = 1.0
) -> NDArray[np.float64]:
    """log p of all answers of a length to each prompt.

    Args:
        model: put into evaluation mode meanwhile.
        prompts: P of them, token ids, at least one each.
        length: tokens T of an answer, >= 1; none ends it before.
        temperature: logits are divided by it, >= 0; at 0 the likeliest token alone is left (the first of
            equal ones).

    Returns:
        (P, V^T) nats, float64; every row sums to 1 to rounding.

    Raises:
        DataError: for more answers than 16,777,216, an empty prompt, or settings out of range.
    """
    if not (temperature >= 0 and math.isfinite(temperature)):
        raise DataError(f"temperature is {temperature}; it must be at least 0")
    vocabulary = model.config.vocab_size
    found = np.empty((len(prompts), _count(vocabulary, length, len(prompts))))
    for rows, levels in _walks(model, prompts, length - 1):
        total = torch.zeros((rows.stop - rows.start, 1), dtype=torch.float64)
        for states in levels:
            logits = model.logits(states).double().cpu()
            if temperature == 0:
                logs = torch.full_like(logits, -math.inf)
                logs.scatter_(-1, logits.argmax(-1, keepdim=True), 0.0)
            else:
                # In float64, so that all of them sum to 1 far closer than float32 could tell.
                logs = (logits / temperature).log_softmax(-1)
            total = (total[..., None] + logs).flatten(1)
        found[rows] = total.numpy()
    return found


def sums(
    model: CausalModel,
    prompts: Sequence[Sequence[int]],
    length: int,
    value: Callable[[torch.Tensor], torch.Tensor],
) -> NDArray[np.float64]:
    """What a function of the model's state comes to, summed over the tokens of every answer.

    So a reward model that rates token by token rates all answers.

    Args:
        model, prompts, length: as of `distribution`.
        value: of states (..., D) after a token, (...).

    Returns:
        (P, V^T) float64, in the order of `distribution`.
    """
    vocabulary = model.config.vocab_size
    found = np.empty((len(prompts), _count(vocabulary, length, len(prompts))))
    for rows, levels in _walks(model, prompts, length):
        next(levels)  # the states after the prompts
        total = torch.zeros((rows.stop - rows.start, 1), dtype=torch.float64)
        for states in levels:
            total = total.repeat_interleave(vocabulary, dim=1) + value(states).double().cpu()
        found[rows] = total.numpy()
    return found


def _walks(
    model: CausalModel, prompts: Sequence[Sequence[int]], depth: int
) -> Iterator[tuple[slice, Iterator[torch.Tensor]]]:
    """Stretches of the prompts, each with its states level by level: (p, V^k, D) for k from 0 to `depth`."""
    at_once = max(1, _ROWS // model.config.vocab_size**depth)
    was = model.training
    model.eval()
    try:
        with torch.no_grad():
            for first in range(0, len(prompts), at_once):
                rows = slice(first, min(first + at_once, len(prompts)))
                yield rows, _levels(model, prompts[rows], depth)
    finally:
        model.train(was)


def _levels(model: CausalModel, prompts: Sequence[Sequence[int]], depth: int) -> Iterator[torch.Tensor]:
    lengths = [len(each) for each in prompts]
    if not all(lengths):
        raise DataError(
            f"prompt {lengths.index(0)} is empty; it needs at least 1 token, as that of the beginning"
        )
    vocabulary, device = model.config.vocab_size, model.device
    ids = torch.zeros((len(prompts), max(lengths)), dtype=torch.long, device=device)
    for row, each in enumerate(prompts):
        ids[row, : len(each)] = torch.as_tensor(each, device=device)
    cache = model.new_cache(len(prompts), max(lengths) + depth)
    states = model.hidden(ids, cache=cache, valid=None if len(set(lengths)) == 1 else lengths)
    last = torch.tensor(lengths, device=device) - 1
    yield states[torch.arange(len(prompts), device=device), last][:, None]
    tokens = torch.arange(vocabulary, device=device)
    for _ in range(depth):
        cache = cache.select(np.repeat(np.arange(cache.batch), vocabulary).tolist())
        states = model.hidden(tokens.repeat(cache.batch // vocabulary)[:, None], cache=cache)
        yield states.view(len(prompts), -1, states.shape[-1])


def _count(vocabulary: int, length: int, prompts: int) -> int:
    if length < 1 or prompts < 1:
        raise DataError(f"{prompts} prompts and answers of {length} tokens; at least 1 of both")
    count = int(vocabulary**length)
    if count * prompts > MOST_ANSWERS:
        raise DataError(
            f"{vocabulary} tokens make {count:,} answers of {length} to each of {prompts} prompts; at most "
            f"{MOST_ANSWERS:,} can be enumerated. Shorten the answers, or estimate from samples"
        )
    return count
