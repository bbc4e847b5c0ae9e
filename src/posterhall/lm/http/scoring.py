"""Log-probabilities of given texts, from servers that repeat a prompt with them (``echo``)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from posterhall.errors import DataError
from posterhall.lm.http.wire import Malformed, logprob
from posterhall.lm.protocol import Scored, shown

SAME = 1e-6
"""Two log-probabilities nearer than this are one."""


class NoScores(Exception):
    """A proper reply that says nothing about the text given."""


def scoring_body(text: str, *, model: str, new_tokens: int, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Ask /completions for a text's own log-probabilities."""
    return {
        "model": model,
        "prompt": text,
        "max_tokens": new_tokens,
        "temperature": 0.0,
        "echo": True,
        "logprobs": 1,
        **extra,
    }


def read_scored(payload: Any, prompt: str, continuation: str) -> Scored:
    """The continuation's tokens and their log-probabilities.

    Raises:
        Malformed: if it is no reply.
        NoScores: if the server did not repeat the prompt, or gave no log-probabilities for it.
        DataError: if the first token is to be scored and nothing stands before it.
    """
    choices = payload.get("choices") if isinstance(payload, Mapping) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        raise Malformed("it has no choices")
    given = choices[0].get("logprobs")
    if not isinstance(given, Mapping):
        raise NoScores
    tokens, numbers = given.get("tokens"), given.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(numbers, list) or len(tokens) != len(numbers):
        raise NoScores
    own = _of_continuation(list(map(str, tokens)), given.get("text_offset"), prompt, continuation)
    best = given.get("top_logprobs")
    best = best if isinstance(best, list) and len(best) == len(tokens) else [None] * len(tokens)
    logprobs: list[float] = []
    greedy = True
    for i in own:
        if i == 0 and numbers[0] is None:
            raise DataError(
                f"the prompt {shown(prompt)} leaves no token before the continuation {continuation!r}, and "
                "the server has none that begins a text; give a longer prompt"
            )
        value = logprob(numbers[i])
        if value is None:
            raise NoScores
        logprobs.append(value)
        rivals = [each for each in map(logprob, _values(best[i])) if each is not None]
        greedy = greedy and bool(rivals) and value >= max(rivals) - SAME
    return Scored(continuation, tuple(str(tokens[i]) for i in own), tuple(logprobs), is_greedy=greedy)


def _values(value: Any) -> Sequence[Any]:
    return list(value.values()) if isinstance(value, Mapping) else []


def _of_continuation(tokens: list[str], offsets: Any, prompt: str, continuation: str) -> range:
    """Which tokens are the continuation's: those that reach beyond the prompt, and begin in the text."""
    text = prompt + continuation
    joined = "".join(tokens)
    at = joined.find(text)  # there may be a token before it that begins a text
    if at >= 0:
        begins = [each - at for each in itertools.accumulate(map(len, tokens), initial=0)][:-1]
    elif (
        isinstance(offsets, list)
        and len(offsets) == len(tokens)
        and all(isinstance(each, int) for each in offsets)
        and offsets == sorted(offsets)
        and offsets[-1:] >= [len(prompt)]
    ):
        begins = offsets  # tokens that are parts of a character do not add up to the text
    else:
        raise NoScores
    ends = [*begins[1:], begins[-1] + len(tokens[-1])] if begins else []
    # A part of a character takes no room of its own until the character's end: such a token begins
    # where its character does.
    own = [
        i
        for i, (begin, end) in enumerate(zip(begins, ends, strict=True))
        if begin < len(text) and (end > len(prompt) or begin >= len(prompt)) and tokens[i]
    ]
    if not own:
        raise NoScores
    return range(own[0], own[-1] + 1)
