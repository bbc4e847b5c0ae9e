"""Log-probabilities of continuations, with what they share computed once.

Prompts of one call often begin alike (a description and the same examples): that lead is read once, for
all. Each prompt's rest is read once, into a cache, from which its continuations go on. Continuations that
differ only in their last token (letters) share even that step: one position gives the probability of all.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from posterhall.errors import DataError
from posterhall.extras import torch
from posterhall.lm import _tokens
from posterhall.lm.protocol import Scored, shown

if TYPE_CHECKING:
    from posterhall.data.tokenizer import Tokenizer
    from posterhall.models.cache import Cache
    from posterhall.models.causal import CausalModel

SHORTEST_LEAD = 8
"""Tokens in common for which a pass of its own is worth it."""
LOGITS = 1 << 22
"""Logits computed at once: 16 MB in float32."""


@dataclass
class _Continuation:
    """Tokens after an item's prefix. Those from `first` on are scored."""

    text: str
    ids: list[int]
    first: int
    logprobs: list[float] = field(default_factory=list)
    best: list[tuple[int, float]] = field(default_factory=list)
    greedy: bool = True


@dataclass
class Item:
    """A prompt's tokens up to where all its continuations still agree, and the continuations."""

    prefix: list[int]
    continuations: list[_Continuation]

    @property
    def feeds(self) -> dict[tuple[int, ...], list[_Continuation]]:
        """Token rows to be read after all of the prefix but its last token, each with whom it serves."""
        rows: dict[tuple[int, ...], list[_Continuation]] = {}
        for each in self.continuations:
            rows.setdefault((self.prefix[-1], *each.ids[:-1]), []).append(each)
        return rows

    @property
    def longest_feed(self) -> int:
        return max(len(each.ids) for each in self.continuations)


def passes(items: Sequence[Item], *, model: CausalModel, cache_bytes: int) -> Iterator[None]:
    """Score items, whose results stay with them, a batch with each `next`."""
    asked = [each for each in items if each.continuations]
    lead = _common([each.prefix[:-1] for each in asked])
    if len(asked) < 2 or lead < SHORTEST_LEAD:
        lead = 0
    room = _tokens.tokens_in(model, cache_bytes)
    shared: Cache | None = None
    if lead:
        shared = model.new_cache(1, _length(model, asked))
        model.hidden(_tokens.padded(model, [asked[0].prefix[:lead]]), cache=shared)
    for batch in _batches(asked, model, room, shared.max_length if shared else 0):
        _score_batch(model, batch, lead, shared, room)
        yield


def results(tokenizer: Tokenizer, items: Sequence[Item], *, best: bool = False) -> list[list[Scored]]:
    """What was found: for each item, in order, one a continuation.

    With `best`, also the most probable token in each place. A continuation's tokens are those of prompt and
    continuation that are not the prompt's own; where the two merge into one token, it is scored whole.
    """
    return [
        [
            Scored(
                each.text,
                _tokens.texts(tokenizer, each.ids[each.first :]),
                tuple(each.logprobs),
                is_greedy=each.greedy,
                best=_named(tokenizer, each.best) if best else None,
            )
            for each in item.continuations
        ]
        for item in items
    ]


def _named(tokenizer: Tokenizer, best: Sequence[tuple[int, float]]) -> tuple[tuple[str, float], ...]:
    texts = _tokens.texts(tokenizer, [token for token, _ in best])
    return tuple((text, logprob) for text, (_, logprob) in zip(texts, best, strict=True))


def read(model: CausalModel, tokenizer: Tokenizer, items: Sequence[tuple[str, Sequence[str]]]) -> list[Item]:
    """Texts to tokens, and checked against the model's context.

    Raises:
        DataError: for a continuation without a token, or one that does not fit.
    """
    start = _tokens.beginning(tokenizer)
    texts = [prompt for prompt, _ in items]
    texts += [prompt + each for prompt, continuations in items for each in continuations]
    ids = iter([each.tolist() for each in tokenizer.encode_batch(texts)])
    prompts = list(itertools.islice(ids, len(items)))
    found = []
    for prompt, (text, continuations) in zip(prompts, items, strict=True):
        whole = list(itertools.islice(ids, len(continuations)))
        agreed = [_common([prompt, each]) for each in whole]
        shared = min(agreed, default=len(prompt))
        prefix = start + prompt[:shared]
        item = Item(prefix, [])
        for said, each, same in zip(continuations, whole, agreed, strict=True):
            if len(each) <= same:
                raise DataError(
                    f"the continuation {said!r} adds no token to the prompt {shown(text)}; give a text "
                    "that is not empty"
                )
            if not prefix:
                raise DataError(
                    f"the prompt {shown(text)} leaves no token before the continuation {said!r}, and the "
                    "tokeniser has none that begins a text; give a longer prompt"
                )
            item.continuations.append(_Continuation(said, each[shared:], same - shared))
            # The last token is only predicted, never read.
            size = len(start) + len(each) - 1
            if size > model.config.max_length:
                raise DataError(
                    f"prompt and continuation have {size + 1} tokens, and the model's context is "
                    f"{model.config.max_length}; shorten the prompt (fewer examples) {shown(text)}"
                )
        found.append(item)
    return found


def _common(rows: Sequence[list[int]]) -> int:
    """Length of the longest beginning that all rows share."""
    if not rows:
        return 0
    low, high = min(rows), max(rows)  # in order, the first and the last differ soonest
    for i, (a, b) in enumerate(zip(low, high, strict=False)):
        if a != b:
            return i
    return min(len(low), len(high))


def _batches(items: Sequence[Item], model: CausalModel, room: int, length: int) -> Iterator[list[Item]]:
    """Items of like length together, within the model's context and `room` tokens of cache.

    A row of cache has the items' own length, or `length` where that is more.
    """
    batch: list[Item] = []
    prefix = feed = 0
    for item in sorted(items, key=lambda each: (len(each.prefix), each.longest_feed)):
        longer, wider = max(prefix, len(item.prefix)), max(feed, item.longest_feed)
        size = longer + wider
        if batch and (size - 1 > model.config.max_length or (len(batch) + 1) * max(size, length) > room):
            yield batch
            batch, longer, wider = [], len(item.prefix), item.longest_feed
        batch.append(item)
        prefix, feed = longer, wider
    if batch:
        yield batch


def _length(model: CausalModel, items: Sequence[Item]) -> int:
    """Tokens of a cache with room for all items, padded to each other."""
    longest = max(len(each.prefix) for each in items) + max(each.longest_feed for each in items)
    return min(model.config.max_length, longest)


def _score_batch(
    model: CausalModel, items: Sequence[Item], lead: int, shared: Cache | None, room: int
) -> None:
    """Read the items' prefixes into a cache, then their continuations after it."""
    rests = [item.prefix[lead:-1] for item in items]
    length = _length(model, items) if shared is None else shared.max_length
    cache = model.new_cache(len(items), length) if shared is None else shared.select([0] * len(items))
    if any(rests):
        valid = [len(each) for each in rests]
        model.hidden(_tokens.padded(model, rests), cache=cache, valid=valid)
    rows = [(i, feed, served) for i, item in enumerate(items) for feed, served in item.feeds.items()]
    rows.sort(key=lambda row: len(row[1]))
    step = max(1, room // length)
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        feeds = [list(feed) for _, feed, _ in part]
        # With one row an item the cache itself will do: nothing comes after.
        own = len(rows) == len(items) and len(part) == len(rows)
        where = [i for i, _, _ in part]
        continued = cache if own and where == list(range(len(items))) else cache.select(where)
        hidden = model.hidden(
            _tokens.padded(model, feeds), cache=continued, valid=[len(each) for each in feeds]
        )
        _read_off(model, hidden, [served for _, _, served in part])


def _read_off(model: CausalModel, hidden: torch.Tensor, served: Sequence[Sequence[_Continuation]]) -> None:
    """Take the log-probabilities of the continuations from the states of their rows, (R, T, D)."""
    places: dict[tuple[int, int], int] = {}
    wanted: list[tuple[_Continuation, int, int]] = []
    for row, continuations in enumerate(served):
        for each in continuations:
            for step in range(each.first, len(each.ids)):
                place = places.setdefault((row, step), len(places))
                wanted.append((each, place, each.ids[step]))
    index = torch.tensor(list(places), device=hidden.device)
    states = hidden[index[:, 0], index[:, 1]]
    device = hidden.device
    at = torch.tensor([place for _, place, _ in wanted], device=device)
    labels = torch.tensor([label for _, _, label in wanted], device=device)
    size = max(1, LOGITS // model.config.vocab_size)
    logprobs = torch.empty(len(wanted), dtype=torch.float32, device=device)
    highest = torch.empty(len(states), dtype=torch.float32, device=device)
    favoured = torch.empty(len(states), dtype=torch.long, device=device)
    for start in range(0, len(states), size):
        logits = model.logits(states[start : start + size])
        normaliser = logits.logsumexp(-1)
        most = logits.max(-1)
        highest[start : start + size] = most.values - normaliser
        favoured[start : start + size] = most.indices
        chosen = ((at >= start) & (at < start + size)).nonzero()[:, 0]
        rows = at[chosen] - start
        logprobs[chosen] = logits[rows, labels[chosen]] - normaliser[rows]
    best = list(zip(favoured.tolist(), highest.clamp_(max=0.0).tolist(), strict=True))
    for (each, place, _), logprob in zip(wanted, logprobs.tolist(), strict=True):
        each.logprobs.append(min(logprob, 0.0))
        each.best.append(best[place])
        each.greedy = each.greedy and each.logprobs[-1] >= best[place][1]
