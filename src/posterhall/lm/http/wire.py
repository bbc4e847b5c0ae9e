"""The JSON of the OpenAI API, read with tolerance: what servers really send, and nothing that is no reply."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from posterhall.lm.protocol import Finish, Floats, Request, Sample, cut

_FINISH: Mapping[str, Finish] = {
    "length": "length",
    "max_tokens": "length",
    "content_filter": "filter",
    "safety": "filter",
    "refusal": "filter",
}
"""Everything else (stop, eos, tool_calls, nothing at all) is an end by the model's own choice."""
TOKEN_BYTES = 4
"""UTF-8 bytes of a token, about, where nobody counts them."""
ROUNDING = 1e-3
"""A log-probability may be above 0 by this much, in low precision."""


class Malformed(ValueError):
    """A reply with status 200 that is none."""


@dataclass(frozen=True)
class Problem:
    """What a server says of an error."""

    message: str
    code: str = ""
    param: str = ""
    """The parameter at fault, if the server names one apart."""
    status: int | None = None
    """A status inside the body, of gateways that answer 200 to everything."""


def problem(payload: Any) -> Problem:
    """Read an error in any of the forms in use.

    OpenAI's ``{"error": {"message", "code", "param"}}``, plain ``{"error": "..."}``, vLLM's ``{"message"}``
    and FastAPI's ``{"detail"}``.
    """
    if not isinstance(payload, Mapping):
        return Problem(str(payload)[:300])
    error = payload.get("error") or payload
    if not isinstance(error, Mapping):
        return Problem(str(error))
    detail = error.get("message") or error.get("detail") or error.get("error")
    param = error.get("param")
    if isinstance(detail, list):  # FastAPI: one entry a field that is wrong
        entries = [each for each in detail if isinstance(each, Mapping)]
        places = [str(each.get("loc", [""])[-1]) for each in entries if each.get("loc")]
        param = param or (places[0] if places else "")
        detail = "; ".join(
            f"{place}: {each.get('msg', '')}" for place, each in zip(places, entries, strict=False)
        )
    code = error.get("code")
    number = code if isinstance(code, int) else error.get("status")
    status = number if isinstance(number, int) and 300 <= number < 600 else None
    return Problem(str(detail or error), str(code or error.get("type") or ""), str(param or ""), status)


def estimated(text: str) -> int:
    """About how many tokens a text has, >= 1 unless it is empty."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // TOKEN_BYTES)


def prompt_text(request: Request) -> str:
    """All that a prompt says, to estimate its length by."""
    prompt = request.prompt
    return prompt if isinstance(prompt, str) else "\n".join(each.content for each in prompt)


# -- replies ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reply:
    """What came of one request."""

    samples: list[Sample]
    logprobs: bool
    """Whether every sample had the log-probabilities that were wanted."""


def read_samples(payload: Any, request: Request, count: int) -> Reply:
    """The choices of a reply to `request`, in the order of their index: 1 to `count`.

    Raises:
        Malformed: if there is no choice with a text.
    """
    if not isinstance(payload, Mapping):
        raise Malformed("it is no object")
    choices = payload.get("choices")
    if not isinstance(choices, list) or not choices:
        raise Malformed("it has no choices")
    if not all(isinstance(each, Mapping) for each in choices):
        raise Malformed("its choices are no objects")
    if len(choices) > 1:
        choices = _ordered(choices)[:count]
    drawn = [_text(each) for each in choices]
    tokens = [
        _logprobs(each.get("logprobs"), text) if request.logprobs else None
        for each, (text, _) in zip(choices, drawn, strict=True)
    ]
    usage = payload.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    counts, guessed_out = _shares(usage, choices, [text for text, _ in drawn], tokens)
    count_in = _count(usage.get("prompt_tokens"))
    guessed = guessed_out or count_in is None
    count_in = estimated(prompt_text(request)) if count_in is None else count_in
    cached = _detail(usage, "prompt_tokens_details", "cached_tokens") or _count(
        usage.get("prompt_cache_hit_tokens")
    )
    hidden = _detail(usage, "completion_tokens_details", "reasoning_tokens")
    samples = []
    for number, (text, finish) in enumerate(drawn):
        said, own = text, tokens[number]
        if request.stop:
            said, stopped = cut(text, request.stop)
            if stopped:  # a server that leaves the stop text in, or was not given it
                finish = "stop"
                own = _first(own, len(said))
        samples.append(
            Sample(
                text=said,
                finish_reason=finish,
                tokens_in=count_in,
                tokens_out=counts[number],
                tokens=own[0] if own else None,
                logprobs=own[1] if own else None,
                tokens_cached=min(cached or 0, count_in),
                tokens_hidden=min(_share(hidden or 0, number, len(drawn)), counts[number]),
                estimated=guessed,
            )
        )
    return Reply(samples, logprobs=not request.logprobs or all(each is not None for each in tokens))


def _ordered(choices: list[Any]) -> list[Any]:
    """By index where the indices make sense (servers send choices as they finish), else as they came."""
    indices = [each.get("index") for each in choices]
    if all(isinstance(each, int) for each in indices) and len(set(indices)) == len(indices):
        return sorted(choices, key=lambda each: int(each["index"]))
    return choices


def _text(choice: Mapping[str, Any]) -> tuple[str, Finish]:
    """A choice's text and how it ended. A reply of reasoning or tool calls alone has an empty text."""
    finish: Finish = _FINISH.get(str(choice.get("finish_reason")).lower(), "stop")
    message = choice.get("message")
    if isinstance(message, Mapping):
        content = message.get("content")
        if content is None and message.get("refusal"):
            return str(message["refusal"]), "filter"
        if isinstance(content, list):
            content = "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
        if content is None:
            content = ""
    else:
        content = choice.get("text")
    if not isinstance(content, str):
        raise Malformed("a choice has no text")
    return content, finish


Tokens = tuple[tuple[str, ...], tuple[float, ...]]


def _logprobs(value: Any, text: str) -> Tokens | None:
    """Tokens and log-probabilities in either API's form; None where there are none that make sense."""
    if not isinstance(value, Mapping):
        return None
    content = value.get("content")
    if isinstance(content, list):
        entries = [each for each in content if isinstance(each, Mapping)]
        tokens = [each.get("token") for each in entries]
        numbers = [each.get("logprob") for each in entries]
    else:
        tokens, numbers = value.get("tokens") or [], value.get("token_logprobs") or []
    if len(tokens) != len(numbers) or (text and not tokens):
        return None
    logprobs = [logprob(each) for each in numbers]
    if any(each is None for each in logprobs):
        return None
    return tuple(map(str, tokens)), tuple(each for each in logprobs if each is not None)


def logprob(value: Any) -> float | None:
    """A log-probability, <= 0 (-inf is one); None for what is none: null, NaN, a positive number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if math.isnan(value) or value > ROUNDING:
        return None
    return min(float(value), 0.0)


def _first(tokens: Tokens | None, length: int) -> Tokens | None:
    """The tokens that begin before so many characters."""
    if tokens is None:
        return None
    at = kept = 0
    for each in tokens[0]:
        if at >= length:
            break
        at += len(each)
        kept += 1
    return tokens[0][:kept], tokens[1][:kept]


def read_vectors(payload: Any, count: int) -> Floats:
    """Embeddings in the order of their index, shape (count, d).

    Raises:
        Malformed: if there are not so many vectors of numbers, all of one length.
    """
    data = payload.get("data") if isinstance(payload, Mapping) else None
    if (
        not isinstance(data, list)
        or len(data) != count
        or not all(isinstance(each, Mapping) for each in data)
    ):
        raise Malformed(f"it does not have {count} embeddings")
    try:
        vectors = np.array([each["embedding"] for each in _ordered(data)], dtype=np.float32)
    except (KeyError, TypeError, ValueError):
        raise Malformed("its embeddings are not lists of numbers of one length") from None
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise Malformed("its embeddings are not lists of finite numbers")
    return vectors


def read_models(payload: Any) -> list[str]:
    """Names of models."""
    data = payload.get("data") if isinstance(payload, Mapping) else None
    if not isinstance(data, list):
        raise Malformed("it has no list of models")
    return [str(each["id"]) for each in data if isinstance(each, Mapping) and "id" in each]


# -- how many tokens --------------------------------------------------------------------------------


def _shares(
    usage: Mapping[str, Any],
    choices: Sequence[Mapping[str, Any]],
    texts: Sequence[str],
    tokens: Sequence[Tokens | None],
) -> tuple[list[int], bool]:
    """Tokens of each choice, and whether they are guessed.

    Servers count the choices of a request together. Where a choice has a count of its own (as ours), or
    log-probabilities, that is taken; else the sum is shared out by length, so that it stays the sum.
    """
    total = _count(usage.get("completion_tokens"))
    if len(choices) == 1 and total is not None:
        return [total], False
    own = [_count(_get(each.get("usage"), "completion_tokens")) for each in choices]
    if None not in own:
        return [each for each in own if each is not None], False
    if total is None:
        counted = [len(each[0]) if each else None for each in tokens]
        return [
            estimated(text) if each is None else each for text, each in zip(texts, counted, strict=True)
        ], None in counted
    weights = [
        len(each[0]) if each else len(text.encode("utf-8", "surrogatepass"))
        for text, each in zip(texts, tokens, strict=True)
    ]
    if not sum(weights):
        weights = [1] * len(weights)
    ends, so_far = [0], 0
    for each in weights:
        so_far += each
        ends.append(round(total * so_far / sum(weights)))
    return [b - a for a, b in itertools.pairwise(ends)], False


def _share(total: int, number: int, count: int) -> int:
    """An equal part of a total, such that the parts add up to it."""
    return total * (number + 1) // count - total * number // count


def _detail(usage: Mapping[str, Any], group: str, name: str) -> int | None:
    return _count(_get(usage.get(group), name))


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None


def _count(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
