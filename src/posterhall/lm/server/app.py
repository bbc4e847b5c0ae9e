"""The application: from HTTP requests to a model and back."""

from __future__ import annotations

import asyncio
import hmac
import json
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from posterhall.errors import DataError, UsageError, did_you_mean
from posterhall.lm.protocol import LM, Piece, Request, Sample, Scored
from posterhall.lm.server import bodies, replies
from posterhall.lm.server.bodies import Asked, Refused
from posterhall.lm.server.replies import Object

MOST_BYTES = 16 << 20
"""Of a request's body."""
_PIECES = 256
"""Pieces of a stream that wait for a slow client; then the others wait for it too."""


@dataclass(frozen=True)
class Served:
    """The models by the names under which they are asked for, and who may ask."""

    models: Mapping[str, LM]
    token: str | None = None

    def find(self, name: str) -> LM:
        """The model of a name.

        Raises:
            Refused: if there is none.
        """
        if name in self.models:
            return self.models[name]
        raise Refused(
            f"The model '{name}' does not exist; there is {', '.join(self.models)}."
            f"{did_you_mean(name, self.models)}",
            status=404,
            param="model",
            code="model_not_found",
        )


_SERVED: web.AppKey[Served] = web.AppKey("served", Served)


def application(models: Mapping[str, LM], *, token: str | None = None) -> web.Application:
    """The server's application.

    Args:
        models: by the names that clients give.
        token: what clients must send as bearer token; None lets everybody in.
    """
    app = web.Application(middlewares=[_guard], client_max_size=MOST_BYTES)
    app[_SERVED] = Served(dict(models), token)
    app.router.add_get("/health", _health)
    app.router.add_get("/v1/models", _list)
    app.router.add_get("/v1/models/{name:.+}", _show)
    app.router.add_post("/v1/chat/completions", _chat)
    app.router.add_post("/v1/completions", _complete)
    app.router.add_post("/v1/embeddings", _embed)
    return app


@web.middleware
async def _guard(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Lets in whoever may come in, and puts every failure into the API's form."""
    try:
        _admit(request)
        return await handler(request)
    except Refused as refused:
        return _refusal(refused)
    except DataError as refused:
        code = "context_length_exceeded" if "context" in str(refused) else None
        return _refusal(Refused(_sentence(refused), code=code))
    except UsageError as refused:  # what this model cannot do
        return _refusal(Refused(_sentence(refused), code="unsupported"))
    except web.HTTPRequestEntityTooLarge:
        return _refusal(Refused(f"The body is larger than {MOST_BYTES >> 20} MB.", status=413))
    except web.HTTPMethodNotAllowed as refused:
        allowed = ", ".join(sorted(refused.allowed_methods))
        return _refusal(
            Refused(f"{request.method} is not allowed for {request.path}; use {allowed}.", status=405)
        )
    except web.HTTPNotFound:
        return _refusal(Refused(f"There is nothing at {request.path}; the API is below /v1.", status=404))
    except (asyncio.CancelledError, ConnectionError, web.HTTPException):
        raise
    except Exception as error:
        print(f"error: {request.method} {request.path}: {type(error).__name__}: {error}", file=sys.stderr)
        return _refusal(Refused("The model failed; the server's log says why.", status=500))


def _admit(request: web.Request) -> None:
    token = request.app[_SERVED].token
    if token is not None and request.path != "/health":
        given = request.headers.get("Authorization", "")
        kind, _, secret = given.partition(" ")
        known = hmac.compare_digest(secret.strip().encode(), token.encode())
        if kind.lower() != "bearer" or not known:
            raise Refused(
                "Incorrect API key provided; send the server's token as 'Authorization: Bearer TOKEN'.",
                status=401,
                code="invalid_api_key",
            )
    # A page in a browser can send other types to any address without asking.
    if request.method == "POST" and request.content_type != "application/json":
        raise Refused(
            f"Content-Type is {request.content_type}; send application/json.",
            status=415,
        )


def _refusal(refused: Refused) -> web.Response:
    body = replies.error(str(refused), status=refused.status, param=refused.param, code=refused.code)
    headers = {"WWW-Authenticate": "Bearer"} if refused.status == 401 else None
    return web.json_response(body, status=refused.status, headers=headers)


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].upper() + text[1:]


# -- what is asked ----------------------------------------------------------------------------------


async def _health(request: web.Request) -> web.Response:
    return web.json_response({"status": "ok", "models": list(request.app[_SERVED].models)})


async def _list(request: web.Request) -> web.Response:
    served = request.app[_SERVED].models
    return web.json_response(replies.models({name: _facts(lm) for name, lm in served.items()}))


async def _show(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    return web.json_response(replies.model(name, _facts(request.app[_SERVED].find(name))))


def _facts(lm: LM) -> Object:
    return {} if lm.parameters is None else {"parameters": lm.parameters}


async def _chat(request: web.Request) -> web.StreamResponse:
    served = request.app[_SERVED]
    asked = bodies.read_chat(bodies.read_json(await request.read()), served.find)
    lm = served.find(asked.model)
    if asked.stream:
        return await _stream(request, lm, asked, _ChatChunks(asked))
    [samples] = await lm.agenerate(asked.requests)
    reply = replies.head("chat.completion", asked.model)
    reply["choices"] = [
        {
            "index": index,
            "message": {"role": "assistant", "content": each.text, "refusal": None},
            "logprobs": replies.chat_logprobs(*_tokens(each)) if asked.logprobs else None,
            "finish_reason": replies.finish(each),
            **replies.own_usage(each, samples),
        }
        for index, each in enumerate(samples)
    ]
    reply["usage"] = replies.usage([samples])
    return web.json_response(reply)


async def _complete(request: web.Request) -> web.StreamResponse:
    served = request.app[_SERVED]
    asked = bodies.read_completion(bodies.read_json(await request.read()), served.find)
    lm = served.find(asked.model)
    if asked.stream and asked.requests:
        return await _stream(request, lm, asked, _TextChunks(asked))
    wants_read = asked.echo and (asked.logprobs or not asked.requests)
    read, drawn = await asyncio.gather(
        lm.aread(asked.prompts) if wants_read else _nothing(),
        lm.agenerate(asked.requests) if asked.requests else _nothing(),
    )
    choices: list[Object] = []
    for number, prompt in enumerate(asked.prompts):
        own = read[number] if read else None
        if not drawn:
            logprobs = _completion_logprobs(asked, prompt, own, None)
            choices.append(_choice(len(choices), prompt, logprobs, "length"))
            continue
        for sample in drawn[number]:
            text = prompt + sample.text if asked.echo else sample.text
            logprobs = _completion_logprobs(asked, prompt if asked.echo else "", own, sample)
            choice = _choice(len(choices), text, logprobs, replies.finish(sample))
            choices.append(choice | replies.own_usage(sample, drawn[number]))
    reply = replies.head("text_completion", asked.model)
    reply["choices"] = choices
    reply["usage"] = replies.usage(drawn, () if drawn else read)
    return web.json_response(reply)


async def _embed(request: web.Request) -> web.Response:
    served = request.app[_SERVED]
    asked = bodies.read_embedding(bodies.read_json(await request.read()))
    lm = served.find(asked.model)
    vectors = await lm.aembed(asked.texts)
    if asked.dimensions not in (None, vectors.shape[1]):
        raise Refused(
            f"'dimensions' is {asked.dimensions}; this model's vectors have {vectors.shape[1]}.",
            param="dimensions",
        )
    # Without a tokeniser at hand: 4 bytes a token.
    counts = lm.count(asked.texts) or [-(-len(each.encode()) // 4) for each in asked.texts]
    return web.json_response(replies.embeddings(vectors, asked.model, sum(counts), as_base64=asked.base64))


async def _nothing() -> list[Any]:
    return []


def _choice(index: int, text: str, logprobs: Object | None, finish: str | None) -> Object:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}


def _completion_logprobs(
    asked: Asked, prompt: str, read: Scored | None, sample: Sample | None
) -> Object | None:
    """Of the prompt's tokens if it was read, and then of the sample's."""
    if not asked.logprobs:
        return None
    tokens: list[str] = []
    logprobs: list[float] = []
    places: list[int] = []
    best: list[Mapping[str, float] | None] = []
    if read is not None:
        tokens += read.tokens
        logprobs += read.logprobs
        places += replies.offsets(prompt, read.tokens)
        best += replies.best_of(read)
    if sample is not None:
        own, chances = _tokens(sample)
        tokens += own
        logprobs += chances
        places += replies.offsets(sample.text, own, len(prompt))
        best += [None] * len(own)
    known = asked.best and any(each is not None for each in best)
    return replies.completion_logprobs(tokens, logprobs, places, best if known else None)


def _tokens(sample: Sample) -> tuple[Sequence[str], Sequence[float]]:
    """A sample's tokens and log-probabilities.

    Raises:
        Refused: if the model does not tell them.
    """
    if sample.tokens is None or sample.logprobs is None:
        raise Refused(
            "Unsupported parameter: 'logprobs' is not supported with this model; leave it out.",
            param="logprobs",
            code="unsupported_parameter",
        )
    return sample.tokens, sample.logprobs


# -- streams ----------------------------------------------------------------------------------------


class _ChatChunks:
    """Pieces as chunks of a chat."""

    def __init__(self, asked: Asked) -> None:
        self.head = replies.head("chat.completion.chunk", asked.model)
        self._asked = asked

    def first(self, index: int, _: str) -> Object:
        """What a choice begins with."""
        delta = {"role": "assistant", "content": "", "refusal": None}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def piece(self, index: int, piece: Piece) -> Object:
        """What a piece says."""
        logprobs = None
        if self._asked.logprobs and piece.tokens:
            logprobs = replies.chat_logprobs(piece.tokens, piece.logprobs or ())
        return {"index": index, "delta": {"content": piece.text}, "logprobs": logprobs, "finish_reason": None}

    def last(self, index: int, sample: Sample) -> Object:
        """What a choice ends with."""
        return {"index": index, "delta": {}, "logprobs": None, "finish_reason": replies.finish(sample)}


class _TextChunks:
    """Pieces as chunks of a completion."""

    def __init__(self, asked: Asked) -> None:
        self.head = replies.head("text_completion", asked.model)
        self._asked = asked
        self._said: dict[int, int] = {}

    def first(self, index: int, prompt: str) -> Object | None:
        """The prompt, if it is to be echoed."""
        self._said[index] = len(prompt) if self._asked.echo else 0
        return _choice(index, prompt, None, None) if self._asked.echo else None

    def piece(self, index: int, piece: Piece) -> Object:
        """What a piece says."""
        logprobs = None
        if self._asked.logprobs and piece.tokens:
            places = replies.offsets(piece.text, piece.tokens, self._said[index])
            logprobs = replies.completion_logprobs(piece.tokens, piece.logprobs or (), places)
        self._said[index] += len(piece.text)
        return _choice(index, piece.text, logprobs, None)

    def last(self, index: int, sample: Sample) -> Object:
        """What a choice ends with."""
        return _choice(index, "", None, replies.finish(sample))


async def _stream(
    request: web.Request, lm: LM, asked: Asked, chunks: _ChatChunks | _TextChunks
) -> web.StreamResponse:
    """Send pieces as server-sent events while they come. What fails before the first is a plain refusal."""
    samples: list[list[Sample]] = [[] for _ in asked.requests]
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})

    async def send(choice: Object | None, **more: Object) -> None:
        if choice is not None or more:
            usage = {"usage": None} if asked.include_usage else {}
            event = {**chunks.head, "choices": [] if choice is None else [choice], **usage, **more}
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")

    async with aclosing(_merged([lm.astream(each) for each in asked.requests])) as pieces:
        try:
            async for number, piece in pieces:
                if asked.logprobs and piece.sample is not None:
                    _tokens(piece.sample)
                if not response.prepared:
                    await response.prepare(request)
                    for at, each in enumerate(asked.requests):
                        for i in range(each.n):
                            await send(chunks.first(_index(asked, at, i), _text(each)))
                index = _index(asked, number, piece.index)
                if piece.text or piece.tokens:
                    await send(chunks.piece(index, piece))
                if piece.sample is not None:
                    samples[number].append(piece.sample)
                    await send(chunks.last(index, piece.sample))
            if asked.include_usage:
                await send(None, usage=replies.usage(samples))
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as error:
            if not response.prepared:
                raise
            print(f"error: {request.path}: {type(error).__name__}: {error}", file=sys.stderr)
            refusal = replies.error("The model failed; the server's log says why.", status=500)
            await response.write(b"data: " + json.dumps(refusal).encode() + b"\n\n")
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response


def _index(asked: Asked, number: int, sample: int) -> int:
    return sum(each.n for each in asked.requests[:number]) + sample


def _text(request: Request) -> str:
    return request.prompt if isinstance(request.prompt, str) else ""


async def _merged(streams: Sequence[AsyncGenerator[Piece, None]]) -> AsyncGenerator[tuple[int, Piece], None]:
    """Pieces of several streams as they come, each with its stream's number."""
    news: asyncio.Queue[tuple[int, Piece] | Exception | None] = asyncio.Queue(_PIECES)

    async def follow(number: int, stream: AsyncGenerator[Piece, None]) -> None:
        try:
            async with aclosing(stream):
                async for piece in stream:
                    await news.put((number, piece))
        except Exception as error:
            await news.put(error)
        else:
            await news.put(None)

    tasks = [asyncio.create_task(follow(number, each)) for number, each in enumerate(streams)]
    try:
        going = len(tasks)
        while going:
            told = await news.get()
            if isinstance(told, Exception):
                raise told
            if told is None:
                going -= 1
            else:
                yield told
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
