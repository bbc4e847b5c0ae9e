"""What clients may send, and what is made of it. Whatever would be silently ignored is refused."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from posterhall.errors import DataError
from posterhall.lm.protocol import LM, Message, Request

CHAT_TOKENS = 4096
"""Most tokens of a chat reply if nothing is said; a model's own context may end it sooner."""
COMPLETION_TOKENS = 16
"""Of a completion; the API's default."""
MOST_SAMPLES = 256
"""Samples of one request."""
MOST_INPUTS = 2048
"""Prompts or texts of one request, as at OpenAI."""

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_HARMLESS = frozenset(
    ("user", "store", "metadata", "service_tier", "prompt_cache_key", "prompt_cache_retention", "verbosity",
     "safety_identifier", "parallel_tool_calls", "reasoning_effort")
)  # fmt: skip
"""Parameters that do not change what is to be said by a model without those features."""
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (0, None),
    "frequency_penalty": (0, None),
    "logit_bias": ({}, None),
    "top_logprobs": (0, None),
    "suffix": ("", None),
    "tools": ([], None),
    "functions": ([], None),
    "tool_choice": ("none", "auto", None),
    "function_call": ("none", "auto", None),
    "modalities": (["text"], None),
    "audio": (None,),
    "prediction": (None,),
    "web_search_options": (None,),
}
"""Parameters of features that are not here, and the values with which they ask for nothing."""
_SHARED = ("model", "n", "temperature", "top_p", "stop", "seed", "stream", "stream_options", "logprobs",
           "max_tokens", "best_of", "response_format")  # fmt: skip


class Refused(Exception):
    """A request that cannot be done as it stands.

    Attributes:
        status: HTTP status.
        param: the parameter at fault, if it is one.
        code: for programs.
    """

    def __init__(
        self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code


@dataclass(frozen=True)
class Asked:
    """A request for text, of either kind."""

    model: str
    requests: tuple[Request, ...]
    """One a prompt; empty if nothing is to be generated."""
    prompts: tuple[str, ...] = ()
    """Of completions."""
    echo: bool = False
    """Whether replies begin with the prompt."""
    logprobs: bool = False
    best: bool = False
    """Whether the most probable token is wanted beside each."""
    stream: bool = False
    include_usage: bool = False
    """Whether a stream ends with the usage."""


def read_json(raw: bytes) -> dict[str, Any]:
    """A body as an object.

    Raises:
        Refused: if it is none.
    """
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Refused(f"The body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise Refused(f"The body is JSON, but not an object: {str(body)[:80]}")
    return body


def read_chat(body: Mapping[str, Any], find: Callable[[str], LM]) -> Asked:
    """A body of /chat/completions."""
    _only(body, {*_SHARED, "messages", "max_completion_tokens"})
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused("'messages' must be a list of one or more messages.", param="messages")
    prompt = tuple(_message(each, at) for at, each in enumerate(messages))
    limit = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    logprobs = _boolean(body, "logprobs")
    lm = find(_name(body))
    request = _request(body, lm, prompt, _whole(body, limit, 1) or CHAT_TOKENS, logprobs=logprobs)
    stream, usage = _streaming(body)
    return Asked(_name(body), (request,), logprobs=logprobs, stream=stream, include_usage=usage)


def read_completion(body: Mapping[str, Any], find: Callable[[str], LM]) -> Asked:
    """A body of /completions."""
    _only(body, {*_SHARED, "prompt", "echo"})
    prompts = _texts(body, "prompt")
    echo = _boolean(body, "echo")
    logprobs = _whole(body, "logprobs", 0)
    if logprobs is not None and logprobs > 1:
        raise Refused(
            f"'logprobs' is {logprobs}; 0 (the tokens' own) and 1 (beside them the most probable ones, "
            "of a prompt that is echoed) can be had.",
            param="logprobs",
        )
    tokens = _whole(body, "max_tokens", 0)
    tokens = COMPLETION_TOKENS if tokens is None else tokens
    stream, usage = _streaming(body)
    if tokens == 0 and not echo:
        raise Refused(
            "'max_tokens' is 0; without 'echo' there is nothing to say then. Give at least 1.",
            param="max_tokens",
        )
    if stream and echo and logprobs is not None:
        raise Refused("'echo' with 'logprobs' cannot be streamed; set 'stream' to false.", param="stream")
    wanted = logprobs is not None
    lm = find(_name(body))
    requests = tuple(_request(body, lm, each, max(tokens, 1), logprobs=wanted) for each in prompts)
    return Asked(
        _name(body),
        requests if tokens else (),
        prompts=prompts,
        echo=echo,
        logprobs=wanted,
        best=bool(logprobs),
        stream=stream,
        include_usage=usage,
    )


@dataclass(frozen=True)
class Embedded:
    """A request for vectors."""

    model: str
    texts: tuple[str, ...]
    base64: bool
    dimensions: int | None


def read_embedding(body: Mapping[str, Any]) -> Embedded:
    """A body of /embeddings."""
    _only(body, {"model", "input", "encoding_format", "dimensions"})
    form = body.get("encoding_format") or "float"
    if form not in ("float", "base64"):
        raise Refused(
            f"'encoding_format' is {form!r}; allowed are float and base64.", param="encoding_format"
        )
    texts = _texts(body, "input")
    if not all(texts):
        raise Refused("'input' has an empty text; there is nothing to embed.", param="input")
    return Embedded(_name(body), texts, form == "base64", _whole(body, "dimensions", 1))


def _request(body: Mapping[str, Any], lm: LM, prompt: Any, tokens: int, *, logprobs: bool) -> Request:
    samples = _whole(body, "n", 1) or 1
    if samples > MOST_SAMPLES:
        raise Refused(f"'n' is {samples}; at most {MOST_SAMPLES} samples can be had at once.", param="n")
    best_of = _whole(body, "best_of", 1)
    if best_of not in (None, samples):
        raise Refused(
            f"'best_of' is {best_of} and 'n' {samples}; only as many as 'n' are drawn.", param="best_of"
        )
    temperature = _number(body, "temperature")
    top_p = _number(body, "top_p")
    seed = _whole(body, "seed", None)
    try:
        return Request(
            prompt,
            max_tokens=tokens,
            temperature=1.0 if temperature is None else temperature,
            top_p=1.0 if top_p is None else top_p,
            stop=_stop(body),
            # Whoever gives no seed wants another reply each time.
            seed=secrets.randbits(31) if seed is None else seed,
            n=samples,
            logprobs=logprobs,
            schema=_schema(body, lm),
        )
    except DataError as error:
        raise Refused(str(error)) from None


def _only(body: Mapping[str, Any], known: set[str]) -> None:
    for name, value in body.items():
        if name in known or name in _HARMLESS:
            continue
        if name in _NEUTRAL:
            if value not in _NEUTRAL[name]:
                raise Refused(
                    f"Unsupported parameter: '{name}' is not supported with this model; leave it out.",
                    param=name,
                    code="unsupported_parameter",
                )
            continue
        raise Refused(f"Unrecognized request argument supplied: {name}", param=name, code="unknown_parameter")


def _name(body: Mapping[str, Any]) -> str:
    name = body.get("model")
    if not isinstance(name, str) or not name:
        raise Refused("You must provide a model parameter.", param="model")
    return name


def _message(value: Any, at: int) -> Message:
    place = f"messages[{at}]"
    if not isinstance(value, dict):
        raise Refused(f"'{place}' must be an object with a role and a content.", param=place)
    role = value.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise Refused(f"'{place}.role' is {role!r}; allowed are {', '.join(_ROLES)}.", param=f"{place}.role")
    content = value.get("content")
    if isinstance(content, list):
        parts = [
            each.get("text") if isinstance(each, dict) and each.get("type") == "text" else None
            for each in content
        ]
        if not all(isinstance(each, str) for each in parts):
            raise Refused(
                f"'{place}.content' has a part that is not text; only text can be read.",
                param=f"{place}.content",
            )
        content = "".join(str(each) for each in parts)
    if not isinstance(content, str) or value.get("tool_calls"):
        raise Refused(f"'{place}.content' must be text.", param=f"{place}.content")
    return Message(_ROLES[role], content)  # type: ignore[arg-type]


def _texts(body: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = body.get(name)
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(each, str) for each in texts):
        _not_texts(name, texts)
    if len(texts) > MOST_INPUTS:
        raise Refused(f"'{name}' has {len(texts)} texts; at most {MOST_INPUTS} are allowed.", param=name)
    return tuple(texts)


def _not_texts(name: str, value: Any) -> NoReturn:
    tokens = isinstance(value, list) and any(isinstance(each, int | list) for each in value)
    why = " Numbers of tokens are not understood." if tokens else ""
    raise Refused(f"'{name}' must be a text or a list of texts.{why}", param=name)


def _stop(body: Mapping[str, Any]) -> tuple[str, ...]:
    value = body.get("stop")
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(each, str) and each for each in stops):
        raise Refused("'stop' must be a text or a list of texts, none of them empty.", param="stop")
    return tuple(stops)


def _schema(body: Mapping[str, Any], lm: LM) -> str | None:
    value = body.get("response_format")
    if value is None or value == {"type": "text"}:
        return None
    kind = value.get("type") if isinstance(value, dict) else value
    described = value.get("json_schema") if isinstance(value, dict) else None
    if kind == "json_schema" and lm.enforces_schema:
        schema = described.get("schema") if isinstance(described, dict) else None
        if not isinstance(schema, dict):
            raise Refused("'response_format.json_schema.schema' must be a schema.", param="response_format")
        return json.dumps(schema)
    raise Refused(
        f"'response_format' of type {kind!r} is not supported with this model: it cannot be held to a form. "
        "Ask for it in words, and check the reply.",
        param="response_format",
        code="unsupported_value",
    )


def _streaming(body: Mapping[str, Any]) -> tuple[bool, bool]:
    stream = _boolean(body, "stream")
    options = body.get("stream_options")
    if options is None:
        return stream, False
    if not isinstance(options, dict) or not stream:
        raise Refused("'stream_options' must be an object, and goes with 'stream'.", param="stream_options")
    return stream, bool(options.get("include_usage"))


def _boolean(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise Refused(f"'{name}' is {_short(value)}; it must be true or false.", param=name)
    return bool(value)


def _whole(body: Mapping[str, Any], name: str, least: int | None) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or (least is not None and value < least):
        bound = "" if least is None else f", at least {least}"
        raise Refused(f"'{name}' is {_short(value)}; it must be a whole number{bound}.", param=name)
    return value


def _number(body: Mapping[str, Any], name: str) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Refused(f"'{name}' is {_short(value)}; it must be a number.", param=name)
    return float(value)


def _short(value: Any) -> str:
    return json.dumps(value)[:60]
