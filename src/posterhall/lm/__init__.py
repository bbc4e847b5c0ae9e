"""One face for every language model: generate, score, embed.

    from posterhall import lm

    model = lm.connect("runs/tiny")
    [[sample]] = model.generate([lm.Request("Once upon a time", max_tokens=20)])
    yes, no = model.score("Is the sky blue? Answer:", [" yes", " no"])

Everything above this room speaks to models through `LM` alone. Backends: a checkpoint on this machine
(`local`), answers written down beforehand (`scripted`), and one that needs no model (`echo`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posterhall.lm.connection import connect
    from posterhall.lm.echo import EchoLM
    from posterhall.lm.local import LocalLM
    from posterhall.lm.protocol import LM, Message, Request, Sample, Scored, Unsupported
    from posterhall.lm.scripted import ScriptedLM

__all__ = [
    "LM",
    "EchoLM",
    "LocalLM",
    "Message",
    "Request",
    "Sample",
    "Scored",
    "ScriptedLM",
    "Unsupported",
    "connect",
]

_PLACES = {
    "LM": "protocol",
    "EchoLM": "echo",
    "LocalLM": "local",
    "Message": "protocol",
    "Request": "protocol",
    "Sample": "protocol",
    "Scored": "protocol",
    "ScriptedLM": "scripted",
    "Unsupported": "protocol",
    "connect": "connection",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'posterhall.lm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
