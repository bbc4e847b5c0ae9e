"""What is sent back: the API's objects."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from posterhall.lm.protocol import Floats, Sample, Scored

_FINISH = {"stop": "stop", "length": "length", "filter": "content_filter"}

Object = dict[str, Any]


def error(message: str, *, status: int, param: str | None = None, code: str | None = None) -> Object:
    """The body of a refusal."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def models(names: Mapping[str, Object]) -> Object:
    """The list of models, by name with their further facts."""
    return {"object": "list", "data": [model(name, facts) for name, facts in names.items()]}


def model(name: str, facts: Object) -> Object:
    """One model."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "posterhall", **facts}


def head(kind: str, name: str) -> Object:
    """What a reply of a kind begins with, and each chunk of a stream repeats."""
    prefix = "chatcmpl" if kind.startswith("chat") else "cmpl"
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": name,
    }


def usage(samples: Iterable[Sequence[Sample]], read: Iterable[Scored] = ()) -> Object:
    """Tokens of a reply: each prompt's once, whatever the number of its samples.

    Args:
        samples: those of each prompt.
        read: prompts that were only read.
    """
    groups = [list(each) for each in samples]
    given = sum(each[0].tokens_in for each in groups if each) + sum(len(each.tokens) for each in read)
    drawn = [sample for each in groups for sample in each]
    made = sum(each.tokens_out for each in drawn)
    found: Object = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
    if any(each and each[0].tokens_cached for each in groups):
        cached = sum(each[0].tokens_cached for each in groups if each)
        found["prompt_tokens_details"] = {"cached_tokens": cached}
    if any(each.tokens_hidden for each in drawn):
        hidden = sum(each.tokens_hidden for each in drawn)
        found["completion_tokens_details"] = {"reasoning_tokens": hidden}
    return found


def own_usage(sample: Sample, samples: Sequence[Sample]) -> Object:
    """What a choice says of its own tokens where it is one of several, whose sum alone the API tells."""
    return {"usage": {"completion_tokens": sample.tokens_out}} if len(samples) > 1 else {}


def finish(sample: Sample) -> str:
    """Why a sample ended, in the API's word."""
    return _FINISH[sample.finish_reason]


def chat_logprobs(tokens: Sequence[str], logprobs: Sequence[float]) -> Object:
    """Log-probabilities of a chat's tokens."""
    return {
        "content": [
            {
                "token": token,
                "logprob": finite(logprob),
                "bytes": list(token.encode("utf-8", "surrogatepass")),
                "top_logprobs": [],
            }
            for token, logprob in zip(tokens, logprobs, strict=True)
        ],
        "refusal": None,
    }


def completion_logprobs(
    tokens: Sequence[str],
    logprobs: Sequence[float],
    offsets: Sequence[int],
    best: Sequence[Mapping[str, float] | None] | None = None,
) -> Object:
    """Log-probabilities of a completion's tokens."""
    return {
        "tokens": list(tokens),
        "token_logprobs": [finite(each) for each in logprobs],
        "top_logprobs": None if best is None else list(best),
        "text_offset": list(offsets),
    }


def best_of(scored: Scored) -> list[Mapping[str, float] | None]:
    """The most probable token in each place of a text, and the text's own."""
    if scored.best is None:
        return [None] * len(scored.tokens)
    return [
        {favoured: finite(highest)} | ({token: finite(own)} if own < highest else {})
        for token, own, (favoured, highest) in zip(scored.tokens, scored.logprobs, scored.best, strict=True)
    ]


def offsets(text: str, tokens: Sequence[str], start: int = 0) -> list[int]:
    """Where in a text each token begins, counted in characters from `start`.

    Several tokens can be parts of one character, and read as U+FFFD each: they begin where it does.
    """
    found = []
    at = 0
    split = False  # whether the tokens just before are parts of a character
    for token in tokens:
        if "\ufffd" in token:
            split = True
        elif split:
            at = max(at, text.find(token, at))
            split = False
        found.append(start + at)
        if not split:
            at += len(token)
    return found


def finite(logprob: float) -> float:
    """JSON has no infinity; the API's clients know -9999 for what cannot be."""
    return max(logprob, -9999.0)


def embeddings(vectors: Floats, name: str, tokens: int, *, as_base64: bool) -> Object:
    """Vectors, as numbers or as the base64 of their float32 in little-endian order."""
    rows = vectors.astype("<f4")
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(row.tobytes()).decode() if as_base64 else row.tolist(),
        }
        for index, row in enumerate(np.atleast_2d(rows))
    ]
    return {
        "object": "list",
        "data": data,
        "model": name,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
