"""Any server that speaks the OpenAI HTTP API, as an `LM`.

    from posterhall import lm

    with lm.connect("http://localhost:8000/v1#qwen", concurrency=64) as model:
        replies = model.generate([lm.Request(question) for question in questions])

A request goes through four hands: `backend` decides what to send and adds up what comes back, `gate` says
how many are under way at once, `limits` how many a minute, `client` sends it and tries again where that makes
sense. `wire` alone knows what the JSON looks like; `capabilities` remembers what a server cannot do.
"""

from __future__ import annotations

from posterhall.lm.http.address import Address
from posterhall.lm.http.backend import HttpLM
from posterhall.lm.http.client import ServerError
from posterhall.lm.http.settings import HttpSettings

__all__ = ["Address", "HttpLM", "HttpSettings", "ServerError"]
