"""Between requests and the rows of a batch; samples end at their stop texts as soon as they appear."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from posterhall.errors import DataError
from posterhall.lm import _tokens
from posterhall.lm._chat import Chat
from posterhall.lm.protocol import NEXT_TURN, Prompt, Request, Sample, cut, shown, transcript
from posterhall.models.batching import Row
from posterhall.models.sampling import Sampling
from posterhall.seeds import derive

if TYPE_CHECKING:
    from posterhall.data.tokenizer import Tokenizer
    from posterhall.models.causal import CausalModel

Flags = npt.NDArray[np.bool_]


def rows(
    model: CausalModel,
    tokenizer: Tokenizer,
    requests: Sequence[Request],
    *,
    ends: frozenset[int],
    chat: Chat | None = None,
) -> list[list[Row]]:
    """The rows of each request, one a sample.

    Args:
        model, tokenizer: of one checkpoint.
        requests: what is asked.
        ends: tokens that end a sample.
        chat: how conversations are put; None: as a transcript.

    Raises:
        DataError: for a prompt that is empty or does not fit in the model's context.
    """
    found = []
    asked = [each.prompt for each in requests]
    for request, ids in zip(requests, prompt_ids(tokenizer, asked, chat), strict=True):
        if not ids:
            raise DataError(
                "the prompt is empty, and the tokeniser has no token that begins a text; give one"
            )
        if len(ids) > model.config.max_length:
            raise DataError(
                f"the prompt has {len(ids)} tokens, and the model's context is {model.config.max_length}; "
                f"shorten it (fewer examples) {shown(request.prompt)}"
            )
        sampling = Sampling(request.temperature, None, None if request.top_p == 1.0 else request.top_p)
        watch = _watch(tokenizer, model.config.vocab_size, stops(request, chat))
        found.append(
            [
                Row(
                    ids,
                    max_new_tokens=request.max_tokens,
                    sampling=sampling,
                    seed=derive(request.seed or 0, "sample", number),
                    stop_ids=ends,
                    watch=watch,
                    wants_logprobs=request.logprobs,
                )
                for number in range(request.first, request.first + request.n)
            ]
        )
    return found


def prompt_ids(tokenizer: Tokenizer, prompts: Sequence[Prompt], chat: Chat | None) -> list[list[int]]:
    """The tokens of each prompt."""
    start = _tokens.beginning(tokenizer)
    if chat is None:
        return [
            start + own.tolist() for own in tokenizer.encode_batch([transcript(each) for each in prompts])
        ]
    plain = iter(tokenizer.encode_batch([each for each in prompts if isinstance(each, str)]))
    return [start + next(plain).tolist() if isinstance(each, str) else chat.ids(each) for each in prompts]


def stops(request: Request, chat: Chat | None) -> tuple[str, ...]:
    """The texts that end a sample; in a transcript, also what begins the next turn."""
    return request.stop if isinstance(request.prompt, str) or chat else (*request.stop, NEXT_TURN)


def sample(tokenizer: Tokenizer, request: Request, row: Row, chat: Chat | None = None) -> Sample:
    """What a row that has ended says."""
    stop = stops(request, chat)
    text, stopped = cut(tokenizer.decode(row.ids), stop)
    tokens = logprobs = None
    if request.logprobs:
        kept = len(row.ids)
        if stopped:  # the tokens that begin before the stop text
            kept = next(k for k in range(kept) if len(tokenizer.decode(row.ids[:k])) >= len(text))
        tokens = _tokens.texts(tokenizer, row.ids[:kept])
        logprobs = tuple(min(each, 0.0) for each in row.logprobs[:kept])
    return Sample(
        text=text,
        finish_reason="stop" if stopped or row.stopped else "length",
        tokens_in=len(row.prompt),
        tokens_out=len(row.ids),
        tokens=tokens,
        logprobs=logprobs,
    )


def _watch(tokenizer: Tokenizer, size: int, stop: Sequence[str]) -> Callable[[Row], bool] | None:
    """Whether a stop text has just been completed.

    Most tokens cannot complete one; only for those that can is text made of the last few.
    """
    if not stop:
        return None
    # Tokens at the end in which a text that has just been completed lies; each has a byte.
    tail = max(len(each.encode("utf-8", "surrogatepass")) for each in stop) + 1
    ending = _completing(tokenizer, size, frozenset(each[-1] for each in stop))

    def watch(row: Row) -> bool:
        return bool(ending[row.ids[-1]]) and cut(tokenizer.decode(row.ids[-tail:]), stop)[1]

    return watch


@functools.lru_cache(maxsize=32)
def _completing(tokenizer: Tokenizer, size: int, last: frozenset[str]) -> Flags:
    """Which tokens may bring one of these characters: have it in them, or a part of a character.

    What a token is by itself may lack a space that it has among others, so all may bring one of those.
    """
    if " " in last:
        return np.ones(size, dtype=np.bool_)
    texts = _alone(tokenizer, size)
    return np.array(["\ufffd" in text or not last.isdisjoint(text) for text in texts], dtype=np.bool_)


@functools.lru_cache(maxsize=4)
def _alone(tokenizer: Tokenizer, size: int) -> tuple[str, ...]:
    return _tokens.texts(tokenizer, range(size))
