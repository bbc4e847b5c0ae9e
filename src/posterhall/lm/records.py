"""Requests and answers as JSON, and what identifies them: shared by the cache, the log and its replay."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from posterhall.lm.protocol import Floats, Message, Prompt, Request, Sample, Scored

VERSION = 1
"""Of what identifies a request; another one lets go of everything stored under the old."""

# `json.dumps` makes an encoder for each call that is not plain.
compact = json.JSONEncoder(separators=(",", ":")).encode
"""A value as JSON without spaces, in ASCII: half of a surrogate pair is no obstacle then."""
_readable = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def request_key(request: Request) -> bytes:
    """What a request asks for, but for the model and which samples: SHA-256 (32 bytes) of canonical JSON.

    Sample i of two requests with the same key is the same thing asked.
    """
    return _digest(
        [
            "generate",
            VERSION,
            _prompt(request.prompt),
            request.max_tokens,
            float(request.temperature),
            float(request.top_p),
            request.stop,
            request.seed,
            request.logprobs,
            request.schema,
        ]
    )


def score_key(prompt: str, continuation: str) -> bytes:
    """What scoring one continuation asks for; see `request_key`."""
    return _digest(["score", VERSION, prompt, continuation])


def embed_key(text: str) -> bytes:
    """What embedding a text asks for; see `request_key`."""
    return _digest(["embed", VERSION, text])


def under(key: bytes, fingerprint: str) -> bytes:
    """A key together with the model that is asked."""
    return hashlib.sha256(fingerprint.encode("utf-8", "surrogatepass") + b"\0" + key).digest()


def _digest(parts: list[Any]) -> bytes:
    return hashlib.sha256(compact(parts).encode("ascii")).digest()


def _prompt(prompt: Prompt) -> Any:
    return prompt if isinstance(prompt, str) else [[each.role, each.content] for each in prompt]


# -- as JSON ----------------------------------------------------------------------------------------


def request_json(request: Request) -> dict[str, Any]:
    """A request; what is as by default is left out."""
    prompt = request.prompt
    if not isinstance(prompt, str):
        turns = [{"role": each.role, "content": each.content} for each in prompt]
        found: dict[str, Any] = {"messages": turns}
    else:
        found = {"prompt": prompt}
    found |= {"max_tokens": request.max_tokens, "temperature": request.temperature}
    for name, usual in _USUAL.items():
        if getattr(request, name) != usual:
            found[name] = getattr(request, name)
    return found


_USUAL: dict[str, Any] = {
    "top_p": 1.0,
    "stop": (),
    "seed": None,
    "n": 1,
    "first": 0,
    "logprobs": False,
    "schema": None,
}


def prompt_of(value: Mapping[str, Any]) -> Prompt:
    """The prompt of a request in JSON."""
    if "messages" in value:
        return tuple(Message(each["role"], each["content"]) for each in value["messages"])
    return str(value["prompt"])


def sample_json(sample: Sample) -> dict[str, Any]:
    """A sample; what is as by default is left out."""
    found: dict[str, Any] = {
        "text": sample.text,
        "finish_reason": sample.finish_reason,
        "tokens_in": sample.tokens_in,
        "tokens_out": sample.tokens_out,
    }
    if sample.tokens is not None:
        found["tokens"] = sample.tokens
    if sample.logprobs is not None:
        found["logprobs"] = numbers_json(sample.logprobs)
    for name in ("tokens_cached", "tokens_hidden", "estimated"):
        if getattr(sample, name):
            found[name] = getattr(sample, name)
    return found


def sample_from(value: Mapping[str, Any]) -> Sample:
    """The sample that `sample_json` gave.

    Raises:
        KeyError, TypeError, ValueError: if it is none.
    """
    tokens, logprobs = value.get("tokens"), value.get("logprobs")
    return Sample(
        text=str(value["text"]),
        finish_reason=value["finish_reason"],
        tokens_in=int(value["tokens_in"]),
        tokens_out=int(value["tokens_out"]),
        tokens=None if tokens is None else tuple(tokens),
        logprobs=None if logprobs is None else numbers_from(logprobs),
        tokens_cached=value.get("tokens_cached", 0),
        tokens_hidden=value.get("tokens_hidden", 0),
        estimated=value.get("estimated", False),
    )


def scored_json(scored: Scored) -> dict[str, Any]:
    """A scored continuation."""
    return {
        "continuation": scored.continuation,
        "tokens": scored.tokens,
        "logprobs": numbers_json(scored.logprobs),
        "is_greedy": scored.is_greedy,
    }


def scored_from(value: Mapping[str, Any]) -> Scored:
    """The scored continuation that `scored_json` gave; see `sample_from` for what is raised."""
    return Scored(
        continuation=str(value["continuation"]),
        tokens=tuple(value["tokens"]),
        logprobs=numbers_from(value["logprobs"]),
        is_greedy=bool(value["is_greedy"]),
    )


def vector_json(vector: Floats) -> str:
    """A vector as base64 of its float32, little-endian."""
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode("ascii")


def vector_from(value: str) -> Floats:
    """The vector that `vector_json` gave."""
    return np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4").astype(np.float32)


def numbers_json(logprobs: Sequence[float]) -> list[float | None]:
    """Log-probabilities; minus infinity, which JSON lacks, is null."""
    return [each if math.isfinite(each) else None for each in logprobs]


def numbers_from(values: Sequence[float | None]) -> tuple[float, ...]:
    """The log-probabilities that `numbers_json` gave."""
    return tuple(-math.inf if each is None else float(each) for each in values)


def line(value: Any) -> bytes:
    """A value as one line of JSON, in UTF-8."""
    try:
        return (_readable(value) + "\n").encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return (compact(value) + "\n").encode()
