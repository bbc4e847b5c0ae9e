"""One face for every language model: generate, score, embed.

    from posterhall import lm

    model = lm.connect("runs/tiny")
    [[sample]] = model.generate([lm.Request("Once upon a time", max_tokens=20)])
    yes, no = model.score("Is the sky blue? Answer:", [" yes", " no"])

Everything above this room speaks to models through `LM` alone. Backends: a checkpoint on this machine
(`local`), a server (`http`), what was recorded (`replay`), answers written down beforehand (`scripted`), and
one that needs no model (`echo`). `stack.connect` puts around any of them what an application wants:

    from posterhall.lm import Budget, stack

    model = stack.connect("http://localhost:8000/v1#qwen", cache=True, budget=Budget(cost=5))
    with model.meter.scope() as tally:
        model.generate(requests)
    print(tally.usage.tokens_out, model.usage.cost)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from posterhall import lazy

if TYPE_CHECKING:
    from posterhall.lm.cached import Cached
    from posterhall.lm.connection import connect
    from posterhall.lm.echo import EchoLM
    from posterhall.lm.http import HttpLM, HttpSettings, ServerError
    from posterhall.lm.local import LocalLM
    from posterhall.lm.metered import Budget, Meter, Metered, Usage
    from posterhall.lm.protocol import LM, Message, Request, Sample, Scored, Unsupported
    from posterhall.lm.recorded import Log, Recorded
    from posterhall.lm.replay import ReplayLM
    from posterhall.lm.scripted import ScriptedLM
    from posterhall.lm.stack import Connected
    from posterhall.lm.store import Store
    from posterhall.lm.wrapping import BudgetExceeded, Wrapper

__all__ = [
    "LM",
    "Budget",
    "BudgetExceeded",
    "Cached",
    "Connected",
    "EchoLM",
    "HttpLM",
    "HttpSettings",
    "LocalLM",
    "Log",
    "Message",
    "Meter",
    "Metered",
    "Recorded",
    "ReplayLM",
    "Request",
    "Sample",
    "Scored",
    "ScriptedLM",
    "ServerError",
    "Store",
    "Unsupported",
    "Usage",
    "Wrapper",
    "connect",
]

_PLACES = {
    "LM": "protocol",
    "Budget": "metered",
    "BudgetExceeded": "wrapping",
    "Cached": "cached",
    "Connected": "stack",
    "EchoLM": "echo",
    "HttpLM": "http",
    "HttpSettings": "http",
    "LocalLM": "local",
    "Log": "recorded",
    "Message": "protocol",
    "Meter": "metered",
    "Metered": "metered",
    "Recorded": "recorded",
    "ReplayLM": "replay",
    "Request": "protocol",
    "Sample": "protocol",
    "Scored": "protocol",
    "ScriptedLM": "scripted",
    "ServerError": "http",
    "Store": "store",
    "Unsupported": "protocol",
    "Usage": "metered",
    "Wrapper": "wrapping",
    "connect": "connection",
}

__getattr__, __dir__ = lazy.attributes(__name__, names=_PLACES)
