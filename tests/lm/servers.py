"""Servers on this machine, in threads of their own, that answer as the OpenAI API does, or get it wrong.

    with serving(EchoAnswers()) as server:
        lm = HttpLM(f"{server.base}#echo")

What a server answers is a function of the request's JSON alone, so that results can be compared; faults
come between. Log-probabilities are those of `EchoLM`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from posterhall.lm import EchoLM, Message, Request

Answer = Callable[[str, dict[str, Any]], "web.Response | dict[str, Any]"]
Fault = Callable[[int, str, dict[str, Any]], "web.Response | float | None"]


@dataclass
class Server:
    """One that runs."""

    base: str = ""
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """(path, JSON) of each request, in order of arrival."""
    headers: list[dict[str, str]] = field(default_factory=list)
    most_at_once: int = 0
    paths: Counter[str] = field(default_factory=Counter)


@contextlib.contextmanager
def serving(
    answer: Answer, *, latency: float = 0.0, fault: Fault | None = None, prefix: str = "/v1"
) -> Iterator[Server]:
    """Serve `answer` below `prefix`.

    Args:
        answer: (path, JSON) to a response, or to the JSON of one with status 200.
        latency: seconds before each answer.
        fault: (number of the request, path, JSON) to what is answered instead, or to seconds of delay.
        prefix: where the API is; elsewhere is a web page's 404.
    """
    server = Server()
    inside = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal inside
        path = request.path.removeprefix(prefix)
        sent = await request.json() if request.method == "POST" else {}
        number = len(server.asked)
        server.asked.append((path, sent))
        server.headers.append(dict(request.headers))
        server.paths[path] += 1
        inside += 1
        server.most_at_once = max(server.most_at_once, inside)
        try:
            if latency:
                await asyncio.sleep(latency)
            wrong = fault(number, path, sent) if fault is not None else None
            if isinstance(wrong, web.Response):
                return wrong
            if wrong:
                await asyncio.sleep(wrong)
            answered = answer(path, sent)
            if isinstance(answered, web.Response):
                return answered
            return web.Response(text=json.dumps(answered), content_type="application/json")
        finally:
            inside -= 1

    async def nowhere(_: web.Request) -> web.Response:
        return web.Response(status=404, text="<html>not found</html>", content_type="text/html")

    ready = threading.Event()
    loop = asyncio.new_event_loop()

    def run() -> None:
        asyncio.set_event_loop(loop)
        app = web.Application(client_max_size=1 << 28)
        app.router.add_route("*", prefix + "/{rest:.*}", handle)
        app.router.add_route("*", "/{rest:.*}", nowhere)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        loop.run_until_complete(site.start())
        port = runner.addresses[0][1]
        server.base = f"http://127.0.0.1:{port}{prefix}"
        ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        left = asyncio.all_tasks(loop)  # of clients that have gone away
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


def error(status: int, message: str, **more: Any) -> web.Response:
    """An error as OpenAI words it."""
    headers = more.pop("headers", None)
    body = json.dumps({"error": {"message": message, "type": "invalid_request_error", **more}})
    return web.Response(status=status, text=body, content_type="application/json", headers=headers)


@dataclass
class EchoAnswers:
    """`EchoLM` behind the API: every endpoint, every parameter that is not switched off.

    Attributes:
        gives_n: whether more than one choice is given.
        refuses: parameters that get a 400.
        drops: parts of a reply that are missing: usage, logprobs.
        chat_only: whether /completions is missing.
    """

    gives_n: bool = True
    refuses: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()
    chat_only: bool = False
    models: tuple[str, ...] = ("echo",)
    _lm: EchoLM = field(default_factory=EchoLM)

    def __call__(self, path: str, sent: dict[str, Any]) -> web.Response | dict[str, Any]:
        if path == "/models":
            return {"object": "list", "data": [{"id": each, "object": "model"} for each in self.models]}
        if path not in ("/chat/completions", "/completions", "/embeddings"):
            return error(404, "no such place")
        if self.chat_only and path != "/chat/completions":
            return web.json_response({"detail": "Not Found"}, status=404)
        if sent["model"] not in self.models:
            return error(404, f"The model `{sent['model']}` does not exist", code="model_not_found")
        for name in self.refuses:
            if name in sent:
                return error(400, f"Unsupported parameter: '{name}' is not supported with this model.")
        if path == "/embeddings":
            vectors = self._lm.embed(sent["input"])
            data = [{"index": i, "embedding": each.tolist()} for i, each in enumerate(vectors)]
            return {"data": data[::-1], "usage": {"prompt_tokens": 1}}
        if sent.get("echo"):
            return self._echo(sent)
        return self._generated(path, sent)

    def _generated(self, path: str, sent: dict[str, Any]) -> dict[str, Any]:
        chat = path == "/chat/completions"
        if chat:
            turns = [Message(each["role"], each["content"]) for each in sent["messages"]]
            alone = len(turns) == 1 and turns[0].role == "user"
            prompt = turns[0].content if alone else tuple(turns)
        else:
            prompt = sent["prompt"]
        stop = sent.get("stop") or []
        request = Request(
            prompt,
            max_tokens=sent.get("max_tokens") or sent.get("max_completion_tokens") or 16,
            stop=tuple([stop] if isinstance(stop, str) else stop),
            n=sent.get("n", 1) if self.gives_n else 1,
            logprobs=bool(sent.get("logprobs")),
        )
        [samples] = self._lm.generate([request])
        choices = []
        for index, each in enumerate(samples):
            choice: dict[str, Any] = {"index": index, "finish_reason": each.finish_reason}
            choice |= (
                {"message": {"role": "assistant", "content": each.text}} if chat else {"text": each.text}
            )
            if each.logprobs is not None and each.tokens is not None and "logprobs" not in self.drops:
                entries = zip(each.tokens, each.logprobs, strict=True)
                choice["logprobs"] = (
                    {"content": [{"token": token, "logprob": value} for token, value in entries]}
                    if chat
                    else {"tokens": each.tokens, "token_logprobs": each.logprobs}
                )
            choices.append(choice)
        reply = {"object": "chat.completion" if chat else "text_completion", "choices": choices[::-1]}
        if "usage" not in self.drops:
            reply["usage"] = {
                "prompt_tokens": samples[0].tokens_in,
                "completion_tokens": sum(each.tokens_out for each in samples),
                "prompt_tokens_details": {"cached_tokens": 1},
            }
        return reply

    def _echo(self, sent: dict[str, Any]) -> dict[str, Any]:
        [scored] = self._lm.score("", [sent["prompt"]])
        logprobs = {
            "tokens": scored.tokens,
            "token_logprobs": scored.logprobs,
            "top_logprobs": [{"e": scored.logprobs[0] + 0.5} for _ in scored.tokens],
        }
        return {"choices": [{"index": 0, "text": sent["prompt"], "logprobs": logprobs}]}


def ask(text: Any = "The sea is deep", **more: Any) -> Request:
    """A short request."""
    return Request(text, **{"max_tokens": 6, **more})


def talk(text: str = "The sea is deep", **more: Any) -> Request:
    """The same as a message."""
    return ask((Message("user", text),), **more)


def said(text: str) -> dict[str, Any]:
    """A chat reply with this text, whatever was asked."""
    return {
        "choices": [{"message": {"content": text}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1},
    }
