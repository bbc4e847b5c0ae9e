"""From the name of a model to the model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from posterhall.errors import DataError
from posterhall.lm.protocol import LM

ALLOWED = (
    "a directory of a model or of a training run, an id on the Hugging Face hub (owner/name), scripted:FILE, "
    "or echo"
)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def connect(spec: str | Path, **options: Any) -> LM:
    """The model that `spec` names, ready to be asked.

    Args:
        spec: the directory of a Llama-architecture checkpoint, of a run that trained one, or its id on the
            Hugging Face hub; ``scripted:FILE``: answers from a file, see `ScriptedLM`; or ``echo``.
        options: for a model on this machine, those of `LocalLM.load`: dtype, device, cache_bytes.

    Raises:
        DataError: if nothing of that name can be found.
        MissingExtra: if torch is needed and missing.
    """
    text = str(spec)
    kind, colon, rest = text.partition(":")
    path = Path(spec)
    if options and (text == "echo" or (colon and kind == "scripted")):
        raise DataError(f"{text}: takes no options, and was given {', '.join(options)}")
    if text == "echo":
        from posterhall.lm.echo import EchoLM

        return EchoLM()
    if kind == "scripted" and colon:
        from posterhall.lm.scripted import ScriptedLM

        if not rest:
            raise DataError(f"{text}: names no file; write scripted:answers.jsonl")
        return ScriptedLM(Path(rest))
    if (text and path.is_dir()) or (_HUB_ID.fullmatch(text) and not path.exists()):
        from posterhall.lm.local import LocalLM

        return LocalLM.load(text, **options)
    what = "is a file" if text and path.exists() else "is no directory here"
    raise DataError(f"model {text!r} {what}; allowed are {ALLOWED}")
