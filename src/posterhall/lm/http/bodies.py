"""What is sent: a request as the body of /chat/completions or /completions, in terms the server takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from posterhall.errors import DataError
from posterhall.lm.http.capabilities import Capabilities
from posterhall.lm.protocol import Request
from posterhall.seeds import derive

CHAT = "/chat/completions"
COMPLETIONS = "/completions"


def body(
    request: Request,
    path: str,
    *,
    first: int,
    count: int,
    model: str,
    can: Capabilities,
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """Ask for `count` samples of a request, the first of which has the number `first`."""
    sent: dict[str, Any] = {"model": model}
    if path == COMPLETIONS:
        sent["prompt"] = request.prompt
        sent["max_tokens"] = request.max_tokens
    else:
        sent["messages"] = (
            [{"role": "user", "content": request.prompt}]
            if isinstance(request.prompt, str)
            else [{"role": each.role, "content": each.content} for each in request.prompt]
        )
        sent[can.length_name] = request.max_tokens
    if can.temperature is not False:
        sent["temperature"] = request.temperature
    if request.top_p != 1.0 and can.top_p is not False:
        sent["top_p"] = request.top_p
    if count > 1:
        sent["n"] = count
    if request.seed is not None and can.seed is not False:
        sent["seed"] = sample_seed(request.seed, first)
    if stop := request.stop if can.stops is None else request.stop[: can.stops]:
        sent["stop"] = list(stop)
    if request.logprobs and can.logprobs is not False:
        sent["logprobs"] = 1 if path == COMPLETIONS else True
    if request.schema is not None and can.schema != "none":
        sent["response_format"] = _format(request.schema, strict=can.schema == "strict")
    return {**sent, **extra}


def sample_seed(seed: int, number: int) -> int:
    """Of the sample (or of the samples from it on) with that number: the given one for the first.

    31 bits: some servers hold a seed in 32, with a sign.
    """
    return seed if number == 0 else derive(seed, "lm", "sample", number) >> 32


def _format(schema: str, *, strict: bool) -> dict[str, Any]:
    try:
        value = json.loads(schema)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the schema is not JSON ({error}): {schema[:200]!r}") from None
    described: dict[str, Any] = {"name": "reply", "schema": value}
    if strict:
        described["strict"] = True
    return {"type": "json_schema", "json_schema": described}
