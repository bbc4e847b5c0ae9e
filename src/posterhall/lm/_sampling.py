"""Samples of many requests at once, each ended at its stop texts as soon as they appear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from posterhall.errors import DataError
from posterhall.lm import _tokens
from posterhall.lm.protocol import NEXT_TURN, Request, Sample, cut, shown, transcript
from posterhall.models.generate import Generation
from posterhall.models.generate import generate as continue_rows
from posterhall.seeds import derive

if TYPE_CHECKING:
    from posterhall.data.tokenizer import Tokenizer
    from posterhall.models.decoder import Decoder

LARGEST_BATCH = 64
"""Rows decoded at once."""


@dataclass
class _Row:
    """One sample to be drawn."""

    request: Request
    ids: list[int]
    stop: tuple[str, ...]
    seed: int

    @property
    def tail(self) -> int:
        """Tokens at the end in which a stop text that has just been completed lies; each has a byte."""
        return max((len(each.encode("utf-8", "surrogatepass")) for each in self.stop), default=0) + 1


def generate(
    model: Decoder, tokenizer: Tokenizer, requests: Sequence[Request], *, cache_bytes: int
) -> list[list[Sample]]:
    """Draw the samples of each request; see `LM.agenerate`."""
    rows = [row for each in _prompts(model, tokenizer, requests) for row in each]
    samples: list[Sample | None] = [None] * len(rows)
    alike: dict[tuple[int, float, float], list[int]] = {}
    for number, row in enumerate(rows):
        how = (row.request.max_tokens, row.request.temperature, row.request.top_p)
        alike.setdefault(how, []).append(number)
    room = _tokens.tokens_in(model, cache_bytes)
    for (max_tokens, temperature, top_p), numbers in alike.items():
        group = [rows[number] for number in numbers]
        length = min(max(len(row.ids) for row in group) + max_tokens, model.config.max_length)

        def ended(at: int, ids: list[int], group: list[_Row] = group) -> bool:
            stop = group[at].stop
            return bool(stop) and cut(tokenizer.decode(ids[-group[at].tail :]), stop)[1]

        generations = continue_rows(
            model,
            [row.ids for row in group],
            max_new_tokens=max_tokens,
            temperature=temperature,
            top_p=None if top_p == 1.0 else top_p,
            seeds=[row.seed for row in group],
            stop_ids=() if tokenizer.eos_id is None else (tokenizer.eos_id,),
            watch=ended,
            return_logprobs=True,
            batch=max(1, min(LARGEST_BATCH, room // length)),
        )
        for number, row, generation in zip(numbers, group, generations, strict=True):
            samples[number] = _sample(tokenizer, row, generation)
    drawn = iter(each for each in samples if each is not None)
    return [[next(drawn) for _ in range(request.n)] for request in requests]


def _prompts(model: Decoder, tokenizer: Tokenizer, requests: Sequence[Request]) -> list[list[_Row]]:
    """The rows of each request, checked against the model's context."""
    start = _tokens.beginning(tokenizer)
    texts = [transcript(each.prompt) for each in requests]
    rows = []
    for request, own in zip(requests, tokenizer.encode_batch(texts), strict=True):
        ids = start + own.tolist()
        if not ids:
            raise DataError(
                "the prompt is empty, and the tokeniser has no token that begins a text; give one"
            )
        if len(ids) > model.config.max_length:
            raise DataError(
                f"the prompt has {len(ids)} tokens, and the model's context is {model.config.max_length}; "
                f"shorten it (fewer examples) {shown(request.prompt)}"
            )
        stop = request.stop if isinstance(request.prompt, str) else (*request.stop, NEXT_TURN)
        seed = request.seed or 0
        rows.append([_Row(request, ids, stop, derive(seed, "sample", i)) for i in range(request.n)])
    return rows


def _sample(tokenizer: Tokenizer, row: _Row, generation: Generation) -> Sample:
    text, stopped = cut(tokenizer.decode(generation.ids), row.stop)
    tokens = logprobs = None
    if row.request.logprobs and generation.logprobs is not None:
        kept = len(generation.ids)
        if stopped:  # the tokens that begin before the stop text
            kept = next(k for k in range(kept) if len(tokenizer.decode(generation.ids[:k])) >= len(text))
        tokens = _tokens.texts(tokenizer, generation.ids[:kept])
        logprobs = tuple(min(each, 0.0) for each in generation.logprobs[:kept])
    return Sample(
        text=text,
        finish_reason="stop" if stopped or generation.stopped else "length",
        tokens_in=len(row.ids),
        tokens_out=len(generation.ids),
        tokens=tokens,
        logprobs=logprobs,
    )
