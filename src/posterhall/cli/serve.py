"""`posterhall serve`: models as an OpenAI-compatible server."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posterhall.cli.output import Quiet, Sets, Threads
from posterhall.errors import UsageError

if TYPE_CHECKING:
    from posterhall.lm.protocol import LM

_NAMED = re.compile(r"([\w.:/-]+)=(.+)")
_WITH_SCHEME = re.compile(r"echo$|https?://|scripted:|replay:", re.IGNORECASE)


def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]MODEL...",
            help="Directory of a model or a run, owner/name on the hub, http://HOST/v1#NAME, replay:LOG, "
            "scripted:FILE, or echo; tot:MODEL answers by searching with it.",
        ),
    ],
    host: Annotated[str, typer.Option("--host", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="0 takes a free one.")] = 8000,
    token_env: Annotated[
        str | None,
        typer.Option(
            "--token-env", metavar="NAME", help="Environment variable with the token that clients must send."
        ),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let other machines in without a token.")
    ] = False,
    max_batch: Annotated[
        int | None, typer.Option("--max-batch", min=1, help="Samples decoded at once [128].")
    ] = None,
    cache_bytes: Annotated[
        int | None,
        typer.Option("--cache-bytes", min=1, help="Memory for keys and values of a model [536870912]."),
    ] = None,
    prefix_bytes: Annotated[
        int | None,
        typer.Option("--prefix-bytes", min=0, help="Memory for beginnings of recent prompts [134217728]."),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="As cpu, cuda or cuda:1.")] = "cpu",
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="float32, bfloat16 or float16 [that of the files].")
    ] = None,
    draft: Annotated[
        str | None,
        typer.Option(
            "--draft", metavar="MODEL", help="A smaller model with the same tokenizer, which drafts for all."
        ),
    ] = None,
    task: Annotated[
        str, typer.Option("--task", metavar="TASK|FILE", help="What tot: models search on.")
    ] = "game24",
    sets: Sets = None,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Serve models to any OpenAI-compatible client, until Ctrl-C.

    Clients share batches: what they ask at the same time is decoded together. --set changes settings of
    the search of tot: models, as breadth=3.
    """
    from posterhall import devices
    from posterhall.lm.server.running import is_loopback
    from posterhall.lm.server.running import serve as run

    token = _token(token_env)
    if token is None and not insecure and not is_loopback(host):
        raise UsageError(
            f"--host {host} lets other machines in; give --token-env NAME (a variable with the token that "
            "they must send), or --insecure if anybody may use the model"
        )
    devices.limit_threads(threads or devices.cores())
    options = {
        "batch": max_batch,
        "cache_bytes": cache_bytes,
        "prefix_bytes": prefix_bytes,
        "device": device,
        "dtype": dtype,
        "draft": draft,
    }
    served = _connect(
        models, {name: value for name, value in options.items() if value is not None}, task, sets
    )

    def started(address: str) -> None:
        if not quiet:
            print(f"serving {', '.join(served)} at {address} (Ctrl-C ends it)", file=sys.stderr, flush=True)

    run(served, host=host, port=port, token=token, started=started)


def _token(variable: str | None) -> str | None:
    if variable is None:
        return None
    token = os.environ.get(variable, "").strip()
    if not token:
        raise UsageError(f"--token-env names {variable}, which is not set; export {variable}=... first")
    return token


def _connect(
    models: Sequence[str], options: Mapping[str, Any], task: str, sets: Sequence[str] | None
) -> dict[str, LM]:
    """The models by name; one that is named several times (itself, and to search with) is loaded once."""
    loaded: dict[str, LM] = {}

    def plain(address: str) -> LM:
        from posterhall.lm import connect

        if address not in loaded:
            loaded[address] = connect(address, **({} if _WITH_SCHEME.match(address) else options))
        return loaded[address]

    served: dict[str, LM] = {}
    for text in models:
        named = None if Path(text).exists() else _NAMED.fullmatch(text)
        address = named[2] if named else text
        prefix = next((each for each in COMPOSED if address.startswith(each)), "")
        rest = address.removeprefix(prefix)
        if prefix and not rest:
            raise UsageError(f"{text}: names no model; write {prefix}MODEL")
        name = named[1] if named else prefix + _name(rest)
        if name in served:
            raise UsageError(
                f"two models are called {name}; write another name before one, as {name}2={text}"
            )
        lm = plain(rest)
        served[name] = COMPOSED[prefix](lm, name, task, list(sets or ())) if prefix else lm
    return served


def _name(address: str) -> str:
    """What a model is called if nobody says: a path by its end, a server by its model, others as they are."""
    if Path(address).is_dir():
        return Path(address).resolve().name
    _, _, model = address.partition("#")
    return model or address


def _search(lm: LM, name: str, task: str, sets: Sequence[str]) -> LM:
    from posterhall import config
    from posterhall.search import tasks
    from posterhall.search.served import SearchLM
    from posterhall.search.settings import SearchSettings

    return SearchLM(tasks.load(task), lm, config.resolve(SearchSettings, sets=sets, environ={}), name=name)


COMPOSED: dict[str, Callable[[LM, str, str, Sequence[str]], LM]] = {"tot:": _search}
"""What stands before a model's address: made of the model, the name, and the options --task and --set."""
