"""From the name of a model to the model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from posterhall.errors import DataError
from posterhall.lm.protocol import LM, wait

ALLOWED = (
    "a directory of a model or of a training run, an id on the Hugging Face hub (owner/name), "
    "http://HOST/v1#NAME, replay:LOG, scripted:FILE, or echo"
)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SERVER = re.compile(r"https?://", re.IGNORECASE)


def connect(spec: str | Path, **options: Any) -> LM:
    """The model that `spec` names, ready to be asked.

    Args:
        spec: the directory of a checkpoint (of Llama's architecture, or with transformers of any), of a run
            that trained one, or its id on the Hugging Face hub; ``http://HOST/v1#NAME``: a model of an
            OpenAI-compatible server (without ``#NAME``: the only one it has); ``replay:LOG`` or
            ``replay:LOG#NAME``: what was recorded, see `ReplayLM`; ``scripted:FILE``: answers from a file,
            see `ScriptedLM`; or ``echo``.
        options: for a model on this machine, those of `LocalLM.load`: dtype, device, cache_bytes, draft (a
            smaller checkpoint with the same tokeniser, which drafts). For a server, ``model`` (instead of
            #NAME) and those of `HttpSettings`: concurrency, api_key_env, requests_per_minute, timeout and
            so on.

    Raises:
        DataError: if nothing of that name can be found.
        MissingExtra: if torch is needed and missing.
        ServerError: if a server has to be asked which model it has, and cannot be reached.
    """
    text = str(spec)
    if _SERVER.match(text):
        return _server(text, **options)
    kind, colon, rest = text.partition(":")
    path = Path(spec)
    if options and (text == "echo" or (colon and kind in ("scripted", "replay"))):
        raise DataError(f"{text}: takes no options, and was given {', '.join(options)}")
    if text == "echo":
        from posterhall.lm.echo import EchoLM

        return EchoLM()
    if kind == "scripted" and colon:
        from posterhall.lm.scripted import ScriptedLM

        if not rest:
            raise DataError(f"{text}: names no file; write scripted:answers.jsonl")
        return ScriptedLM(Path(rest))
    if kind == "replay" and colon:
        from posterhall.lm.replay import ReplayLM

        place, _, name = rest.partition("#")
        if not place:
            raise DataError(f"{text}: names no file; write replay:calls.jsonl")
        return ReplayLM(Path(place), model=name or None)
    if (text and path.is_dir()) or (_HUB_ID.fullmatch(text) and not path.exists()):
        from posterhall.lm.local import LocalLM

        return LocalLM.load(text, **options)
    what = "is a file" if text and path.exists() else "is no directory here"
    raise DataError(f"model {text!r} {what}; allowed are {ALLOWED}")


def _server(text: str, *, model: str | None = None, **options: Any) -> LM:
    from posterhall.config import resolve
    from posterhall.lm.http import Address, HttpLM, HttpSettings

    lm = HttpLM(Address.parse(text, model=model), resolve(HttpSettings, flags=options, environ={}))
    if lm.address.model:
        return lm
    try:
        names = wait(lm.amodels())
    except BaseException:
        lm.close()
        raise
    if len(names) != 1:
        lm.close()
        has = f"has several models: {', '.join(names[:20])}" if names else "names no model"
        raise DataError(f"{lm.name} {has}; say which, as {lm.address.base}#{names[0] if names else 'NAME'}")
    return lm.with_model(names[0])
