"""`HttpLM`: a model behind an OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np

from posterhall.config import digest
from posterhall.errors import DataError, did_you_mean
from posterhall.lm import flow
from posterhall.lm.http import wire
from posterhall.lm.http.address import DEFAULT_KEY, Address
from posterhall.lm.http.bodies import CHAT, COMPLETIONS, body
from posterhall.lm.http.capabilities import Capabilities, is_too_long
from posterhall.lm.http.client import Client, Refused
from posterhall.lm.http.scoring import NoScores, read_scored, scoring_body
from posterhall.lm.http.settings import HttpSettings
from posterhall.lm.protocol import LM, Floats, Request, Sample, Scored, Unsupported, shown

EMBEDDED_AT_ONCE = 64
"""Texts of one request for embeddings."""
LESSONS = 16
"""Refusals that one request may learn from before it is given up: there are fewer parameters."""
_log = logging.getLogger("posterhall.lm")


class HttpLM(LM):
    """A model of a server that speaks the OpenAI API: a hosted one, vLLM, SGLang, llama.cpp, Ollama, ours.

    Any number of requests may be given at once; as many as the settings allow are under way, from a pool of
    connections. Callers that ask at the same time take turns. What a server cannot do is found out from its
    answers, done in another way where there is one, and written down in `capabilities`.

    A seeded request for n samples uses the server's own `n`: sample i then is what the server makes of it.
    With `fan_out` (or where a server gives fewer than n) each is asked for by itself, sample i with a seed
    that follows from the request's and i.

    Args:
        address: ``http://HOST/v1#MODEL``, or an `Address`.
        settings: how to ask.
        clock: seconds, monotonic; sleep: waits so many. For tests.

    Attributes:
        capabilities: what has been found out so far.

    Raises:
        DataError: for an address that is none, or a key's variable that is not set. On being asked: for a
            prompt that does not fit, a model, key or address that the server does not know.
        ServerError: on being asked, if there was no usable reply in spite of all tries.
    """

    def __init__(
        self,
        address: str | Address,
        settings: HttpSettings | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.address = address if isinstance(address, Address) else Address.parse(address)
        self.settings = settings or HttpSettings()
        self._key = self.address.key(self.settings.api_key_env)
        self._client = Client(self.address, self.settings, self._key, clock=clock, sleep=sleep)
        self._start()

    def _start(self) -> None:
        self.name = str(self.address)
        self.capabilities = Capabilities()
        self._extra = self.settings.extra_body()
        self._finding: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
            weakref.WeakKeyDictionary()
        )
        self._requests = self._tokens_in = self._tokens_out = 0
        how = {name: getattr(self.settings, name) for name in ("text", "fan_out", "extra")}
        self._fingerprint = f"http:{self.address.identity}:{digest(how)[:16]}"

    def with_model(self, model: str) -> HttpLM:
        """Another model of the same server, within the same limits and over the same connections."""
        other = object.__new__(HttpLM)
        other.address = Address(self.address.base, model, self.address.query)
        other.settings, other._key, other._client = self.settings, self._key, self._client
        other._start()
        return other

    def fingerprint(self) -> str:
        """Server, model, and those settings on which replies depend."""
        return self._fingerprint

    def record(self) -> dict[str, Any]:
        """For a run's record: where and how was really asked, and what it took.

        Tokens are those that the server counts: where n samples take n requests, n times the prompt.
        """
        return {
            "base_url": self._client.address.base,
            "model": self.address.model,
            "capabilities": self.capabilities.as_dict(),
            "requests": self._requests,
            "tokens_in": self._tokens_in,
            "tokens_out": self._tokens_out,
            "tries": self._client.tries,
            "failures": dict(self._client.failures),
            "concurrency": self._client.limit.now,
        }

    async def aclose(self) -> None:
        await self._client.aclose()

    # -- generation -----------------------------------------------------------------------------------

    async def agenerate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        caller = flow.caller.get() or object()
        if len(requests) == 1:
            return [await self._draw(requests[0], requests[0].first, requests[0].n, caller)]

        async def samples(request: Request) -> list[Sample]:
            return await self._draw(request, request.first, request.n, caller)

        return await flow.gather(samples, requests, width=self._width(len(requests)))

    def _width(self, count: int) -> int:
        return max(1, min(count, self._client.limit.largest))

    async def _draw(self, request: Request, first: int, count: int, caller: object) -> list[Sample]:
        """Samples `first` to `first + count - 1`, in as many requests as the server needs for that."""
        most = 1 if self.settings.fan_out else self.capabilities.most_choices or count
        if most < count:
            parts = [(at, min(most, first + count - at)) for at in range(first, first + count, most)]

            async def part(which: tuple[int, int]) -> list[Sample]:
                return await self._draw(request, *which, caller)

            drawn = await flow.gather(part, parts, width=self._width(len(parts)))
            return [sample for each in drawn for sample in each]
        samples = await self._ask(request, first, count, caller)
        if count > 1:
            self._learn_choices(len(samples), count)
        if len(samples) < count:
            samples += await self._draw(request, first + len(samples), count - len(samples), caller)
        return samples

    def _learn_choices(self, given: int, wanted: int) -> None:
        can = self.capabilities
        if can.n is not None:
            return  # one that has given all it was asked for may fail to now and then
        can.n = given > 1
        if given < wanted:
            can.most_choices = given
            _log.warning(
                "%s gives %d of %d choices; the others are asked for apart", self.name, given, wanted
            )

    async def _ask(self, request: Request, first: int, count: int, caller: object) -> list[Sample]:
        if isinstance(request.prompt, str) and self.settings.text == "auto":
            if self.capabilities.completions is None:
                # One finds out for all that wait: else each would be turned away once.
                lock = self._finding.setdefault(asyncio.get_running_loop(), asyncio.Lock())
                async with lock:
                    if self.capabilities.completions is None:
                        return await self._ask_there(request, COMPLETIONS, first, count, caller)
            path = COMPLETIONS if self.capabilities.completions else CHAT
        elif isinstance(request.prompt, str) and self.settings.text == "completions":
            path = COMPLETIONS
        else:
            path = CHAT
        return await self._ask_there(request, path, first, count, caller)

    async def _ask_there(
        self, request: Request, path: str, first: int, count: int, caller: object
    ) -> list[Sample]:
        """The samples of one reply, 1 to `count`; parameters that the server refuses are left out."""
        can = self.capabilities
        expected = wire.estimated(wire.prompt_text(request)) + count * request.max_tokens

        def read(payload: Any) -> wire.Reply:
            return wire.read_samples(payload, request, count)

        for _ in range(LESSONS):
            sent = self._body(request, path, first, count)
            try:
                reply = await self._client.ask(
                    path, json.dumps(sent).encode(), read, caller=caller, tokens=expected, used=_used
                )
            except Refused as refused:
                if is_too_long(refused.why):
                    raise DataError(self._too_long(request, refused)) from None
                if path == COMPLETIONS and self.settings.text == "auto" and _is_for_chat(refused):
                    can.completions, path = False, CHAT
                    continue
                if self._body(request, path, first, count) != sent:
                    continue  # another request has learned meanwhile
                learned = can.learn(refused.why, sent) if refused.status in (400, 404, 422, 501) else None
                if learned is None:
                    raise await self._explained(refused) from None
                _log.warning("%s: %s (%s)", self.name, learned, refused.why.message)
                if path == COMPLETIONS:
                    can.completions = True  # it is there, if it has something against a parameter
                if can.most_choices is not None and can.most_choices < count:
                    return await self._draw(request, first, count, caller)
                continue
            if path == COMPLETIONS:
                can.completions = True
            if "seed" in sent:
                can.seed = True
            if "logprobs" in sent and can.logprobs is None:
                can.logprobs = reply.logprobs
            self._requests += 1
            self._tokens_in += reply.samples[0].tokens_in
            self._tokens_out += sum(each.tokens_out for each in reply.samples)
            return reply.samples
        raise DataError(f"{self.name}: the server refuses every form of the request {shown(request.prompt)}")

    def _body(self, request: Request, path: str, first: int, count: int) -> dict[str, Any]:
        return body(
            request,
            path,
            first=first,
            count=count,
            model=self.address.model,
            can=self.capabilities,
            extra=self._extra,
        )

    # -- scoring and embedding ------------------------------------------------------------------------

    async def ascore(self, items: Sequence[tuple[str, Sequence[str]]]) -> list[list[Scored]]:
        pairs = [(prompt, each) for prompt, continuations in items for each in continuations]
        if any(not each for _, each in pairs):
            raise DataError("a continuation is empty; there is nothing to score")
        if not pairs:
            return [[] for _ in items]
        caller = flow.caller.get() or object()

        async def one(pair: tuple[str, str]) -> Scored:
            return await self._score(*pair, caller)

        scored = iter(await flow.gather(one, pairs, width=self._width(len(pairs))))
        return [[next(scored) for _ in continuations] for _, continuations in items]

    async def _score(self, prompt: str, continuation: str, caller: object) -> Scored:
        text = prompt + continuation

        def read(payload: Any) -> Scored:
            return read_scored(payload, prompt, continuation)

        if self.capabilities.score is not False:
            for new_tokens in (0, 1):  # some must generate
                sent = scoring_body(text, model=self.address.model, new_tokens=new_tokens, extra=self._extra)
                try:
                    scored = await self._client.ask(
                        COMPLETIONS,
                        json.dumps(sent).encode(),
                        read,
                        caller=caller,
                        tokens=wire.estimated(text),
                    )
                except NoScores:
                    break
                except Refused as refused:
                    if is_too_long(refused.why):
                        raise DataError(self._too_long(Request(text), refused)) from None
                    if refused.status in (401, 403, 429) or _lacks_model(refused):
                        raise await self._explained(refused) from None
                    if "max_tokens" not in refused.why.message + refused.why.param:
                        break
                else:
                    self.capabilities.score = True
                    self._requests += 1
                    return scored
            self.capabilities.score = self.capabilities.score or False
        raise Unsupported(
            f"{self.name} does not tell the probability of a given text (/completions with echo and "
            "logprobs); use a local model, posterhall serve or vLLM"
        )

    async def aembed(self, texts: Sequence[str]) -> Floats:
        if not texts:
            return np.zeros((0, 0), dtype=np.float32)
        caller = flow.caller.get() or object()
        parts = [texts[i : i + EMBEDDED_AT_ONCE] for i in range(0, len(texts), EMBEDDED_AT_ONCE)]

        async def embed(part: Sequence[str]) -> Floats:
            sent = {"model": self.address.model, "input": list(part), "encoding_format": "float"}
            try:
                return await self._client.ask(
                    "/embeddings",
                    json.dumps(sent).encode(),
                    lambda payload: wire.read_vectors(payload, len(part)),
                    caller=caller,
                    tokens=sum(map(wire.estimated, part)),
                )
            except Refused as refused:
                missing = refused.status in (404, 405, 501) and not _lacks_model(refused)
                if missing or "embed" in refused.why.message:
                    self.capabilities.embed = False
                    raise Unsupported(
                        f"{self.name} cannot embed texts: {refused.why.message}; name a model that can"
                    ) from None
                raise await self._explained(refused) from None

        vectors = await flow.gather(embed, parts, width=self._width(len(parts)))
        self.capabilities.embed = True
        self._requests += len(parts)
        if len(sizes := {each.shape[1] for each in vectors}) > 1:
            raise DataError(f"{self.name}: its embeddings are of different lengths: {sorted(sizes)}")
        return np.concatenate(vectors)

    # -- what went wrong ------------------------------------------------------------------------------

    async def amodels(self) -> list[str]:
        """Names of the models that the server says it has."""
        try:
            return await self._client.ask("/models", None, wire.read_models)
        except Refused as refused:
            raise await self._explained(refused) from None

    def _too_long(self, request: Request, refused: Refused) -> str:
        text = wire.prompt_text(request)
        return (
            f"the prompt is too long for {self.name}: {len(text):,} letters, about "
            f"{wire.estimated(text):,} tokens, and max_tokens is {request.max_tokens:,}. The server says: "
            f"{refused.why.message}. Shorten it (fewer examples) {shown(request.prompt)}"
        )

    async def _explained(self, refused: Refused) -> DataError:
        """A refusal in terms of what can be done about it."""
        why, where = refused.why.message, f"{self.name} answers {refused.status}"
        if refused.why.code == "insufficient_quota":
            return DataError(f"{where}: {why}. Its account has no quota left; waiting does not help")
        if refused.status in (401, 403):
            variable = self.settings.api_key_env or DEFAULT_KEY
            if self._key is not None:
                return DataError(f"{where}: it does not accept the key in {variable}: {why}")
            return DataError(
                f"{where}: it wants a key: {why}. Set the environment variable {DEFAULT_KEY}, or name the "
                f"one that holds the key with api_key_env ({DEFAULT_KEY} is sent over https or to this "
                "machine only)"
            )
        if _lacks_model(refused):
            try:
                names = await self._client.ask("/models", None, wire.read_models)
            except Exception:  # it is about the first error
                names = []
            has = f" It has: {', '.join(names[:20])}." if names else ""
            return DataError(f"{where}: {why}.{did_you_mean(self.address.model, names)}{has}")
        if refused.status in (404, 405):
            base = self.address.base
            tried = ", ".join([base, *self.address.alternatives()])
            return DataError(
                f"{refused.url}: there is no API here ({refused.status}; tried {tried}). The address is what "
                "comes before /chat/completions, as http://localhost:8000/v1#MODEL"
            )
        return DataError(f"{where}: it refuses the request: {why}")


def _used(reply: wire.Reply) -> int:
    return reply.samples[0].tokens_in + sum(each.tokens_out for each in reply.samples)


def _lacks_model(refused: Refused) -> bool:
    why = refused.why
    return why.code == "model_not_found" or (
        refused.status == 404 and "model" in why.message.lower() and "completions" not in why.message
    )


def _is_for_chat(refused: Refused) -> bool:
    """Whether the server has no /completions, or not for this model."""
    if refused.status in (404, 405, 501):
        return not _lacks_model(refused)
    return refused.status == 400 and "chat" in refused.why.message.lower()
