"""What can be set about a connection to a server."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from posterhall.errors import DataError

TextMode = Literal["auto", "completions", "chat"]


@dataclass(frozen=True)
class HttpSettings:
    """How a server is asked. The defaults suit a server of one's own as well as a paid one."""

    api_key_env: str | None = None
    """Environment variable that holds the key. None: OPENAI_API_KEY where it is set, and only over https or
    to this machine."""
    concurrency: int | None = None
    """Requests under way at once, >= 1. None adapts: it starts at 20, grows while that does not make replies
    slower, and is halved when the server refuses (429, 503)."""
    requests_per_minute: float | None = None
    """Requests started in a minute, > 0; None for no limit."""
    tokens_per_minute: float | None = None
    """Tokens of prompts and replies in a minute, > 0; None for no limit. Estimated when a request is sent
    (4 bytes a token, and max_tokens), put right when the server has said how many they were."""
    timeout: float = 600.0
    """Seconds that one try may take, > 0; a long reply comes in one piece."""
    connect_timeout: float = 10.0
    """Seconds that making a connection may take, > 0."""
    retries: int = 8
    """Further tries after a failure that may pass, >= 0."""
    deadline: float = 1800.0
    """Seconds for all tries of a request and the waits between them, > 0."""
    largest_reply: int = 64 << 20
    """Bytes of a reply, after decompression, >= 1024; a longer one is not read."""
    text: TextMode = "auto"
    """Where a prompt that is text goes: completions continue it; chat has it as one message of the user;
    auto: to completions where the server has them, else to chat."""
    fan_out: bool = False
    """One request a sample, each with a seed of its own, even where the server can give n at once. Then
    sample i is the same whatever else is asked for; it costs the prompt once a sample."""
    extra: str = ""
    """A JSON object, added to the body of every request: '{"reasoning_effort": "low"}'. No keys in here."""
    seed: int = 0
    """Of the random waits between tries; it does not change replies."""

    def __post_init__(self) -> None:
        if self.concurrency is not None and self.concurrency < 1:
            raise DataError(f"concurrency is {self.concurrency}; it must be at least 1 (None adapts it)")
        for name in ("timeout", "connect_timeout", "deadline"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise DataError(f"{name} is {value}; it must be a number of seconds above 0")
        for name in ("requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise DataError(f"{name} is {value}; it must be above 0 (None for no limit)")
        if self.retries < 0:
            raise DataError(f"retries is {self.retries}; it must be at least 0")
        if self.largest_reply < 1024:
            raise DataError(f"largest_reply is {self.largest_reply}; it must be at least 1024 bytes")
        if self.text not in get_args(TextMode):
            raise DataError(f"text is {self.text!r}; allowed are {', '.join(get_args(TextMode))}")
        self.extra_body()

    def extra_body(self) -> dict[str, Any]:
        """`extra`, read."""
        if not self.extra.strip():
            return {}
        try:
            value = json.loads(self.extra)
        except (ValueError, RecursionError) as error:
            raise DataError(f"extra is not JSON ({error}): {self.extra[:200]!r}") from None
        if not isinstance(value, dict):
            raise DataError(f"""extra must be a JSON object, as '{{"top_k": 40}}': {self.extra[:200]!r}""")
        if taken := value.keys() & {"model", "messages", "prompt", "n", "stream", "input", "echo"}:
            raise DataError(f"extra must leave {', '.join(sorted(taken))} alone: the request decides them")
        return value
