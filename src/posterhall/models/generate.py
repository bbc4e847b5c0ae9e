"""Text from a decoder: prompts in, continuations out, as one call; see `posterhall.models.batching`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, SupportsIndex

from posterhall import seeds as seeding
from posterhall.errors import DataError
from posterhall.extras import torch
from posterhall.models.batching import Batch, Row
from posterhall.models.sampling import Sampling
from posterhall.models.speculative import Draft, Speculation, Speculative

if TYPE_CHECKING:
    from posterhall.models.causal import CausalModel

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


def generate(
    model: CausalModel,
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
    draft: Draft | None = None,
    counts: Speculation | None = None,
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
        draft: a small model in evaluation mode that drafts; see `posterhall.models.speculative`.
        counts: where to count what drafting comes to.

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
    stops = frozenset(stop_ids)
    rows = [
        Row(
            prompt,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            seed=seed,
            stop_ids=stops,
            watch=None if watch is None else _watching(watch, number),
            wants_logprobs=return_logprobs,
        )
        for number, (prompt, seed) in enumerate(zip(prompts, own, strict=True))
    ]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            # Rows of like length together: less padding.
            waiting = deque(sorted(rows, key=lambda row: len(row.prompt))) if max_new_tokens else deque()
            room = batch * longest
            running = (
                Batch(model, most_rows=batch, most_tokens=room)
                if draft is None
                else Speculative(model, draft, most_rows=batch, most_tokens=room, counts=counts)
            )
            while waiting or running.rows:
                joining = running.admit(waiting)
                for _ in joining:
                    waiting.popleft()
                running.join(joining)
                running.step()
    finally:
        model.train(was_training)
    return [Generation(row.ids, row.logprobs if return_logprobs else None, row.stopped) for row in rows]


def _watching(watch: Watch, number: int) -> Callable[[Row], bool]:
    return lambda row: watch(number, row.ids)
