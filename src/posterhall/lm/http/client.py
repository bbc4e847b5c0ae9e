"""Sends a body until there is an answer: connections, turns, rates, and the one layer of retries."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import time
import weakref
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from posterhall.errors import DataError, PosterhallError
from posterhall.lm.http import retry
from posterhall.lm.http.address import Address, Secret
from posterhall.lm.http.gate import Gate, Limit
from posterhall.lm.http.limits import Bucket
from posterhall.lm.http.retry import Failure
from posterhall.lm.http.settings import HttpSettings
from posterhall.lm.http.wire import Malformed, Problem, problem
from posterhall.progress import duration, size

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

T = TypeVar("T")
RETRIES_UNMET = 2
"""Further tries to connect to a server that has never answered: its address is probably wrong."""
SHOWN = 300
"""Letters of a server's own words in a message."""


class ServerError(PosterhallError):
    """A server could not be reached, or gave no usable reply, however often it was tried."""


class Refused(Exception):
    """The server said no, and would again: for the backend to understand."""

    def __init__(self, status: int, why: Problem, url: str) -> None:
        self.status = status
        self.why = why
        self.url = url
        super().__init__(f"{url} answers {status}: {why.message}")


@dataclass
class _Place:
    """What belongs to one event loop."""

    session: aiohttp.ClientSession
    life: AsyncGenerator[aiohttp.ClientSession, None]
    gate: Gate


@dataclass
class _Reply:
    status: int
    headers: Any
    body: bytes


class Client:
    """One server, asked with one key.

    Usable from any number of event loops: each has its own connections and its own turns, all of them the
    same limits.

    Args:
        address: the server.
        settings: see there.
        key: sent as bearer token; None for none.
        clock: seconds, monotonic.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        address: Address,
        settings: HttpSettings,
        key: Secret | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.address = address
        self.settings = settings
        self.limit = Limit(settings.concurrency)
        self.failures: Counter[str] = Counter()
        self.tries = 0
        self._key = key
        self._proxy = address.proxy()
        self._clock, self._sleep = clock, sleep
        self._waits = retry.Waits(settings.seed)
        self._places: dict[asyncio.AbstractEventLoop, _Place] = {}
        self._urls: dict[str, URL] = {}
        self._answered = False
        now = clock()
        self._requests = Bucket(settings.requests_per_minute, now) if settings.requests_per_minute else None
        self._tokens = Bucket(settings.tokens_per_minute, now) if settings.tokens_per_minute else None
        _clients.add(self)
        weakref.finalize(self, _let_go, self._places).atexit = False

    async def ask(
        self,
        path: str,
        body: bytes | None,
        read: Callable[[Any], T],
        *,
        caller: object = None,
        tokens: int = 0,
        used: Callable[[T], int] | None = None,
    ) -> T:
        """Post a body (get, if there is none) and read the reply.

        Args:
            path: of the endpoint, as ``/chat/completions``.
            body: JSON.
            read: makes the result from the reply's JSON; raises `Malformed` for what is no reply.
            caller: whose turn it takes.
            tokens: how many it will probably cost.
            used: how many it did cost.

        Raises:
            Refused: the server says no.
            ServerError: no usable reply.
            DataError: the address leads elsewhere (a redirect).
        """
        began = self._clock()
        again = 0
        while True:
            again += 1
            place = await self._here()
            await place.gate.enter(caller)
            try:
                await self._take(tokens)
                sent = self._clock()
                outcome = await self._try(place, path, body, read)
                now = self._clock()
                if isinstance(outcome, Failure):
                    if self._tokens is not None:
                        self._tokens.put_back(tokens, now)
                    if outcome.overloaded:
                        self.limit.refused(sent, now)
                else:
                    self.limit.replied(now - sent, full=place.gate.full)
                    if self._tokens is not None and used is not None:
                        self._tokens.put_back(tokens - used(outcome[0]), now)
                    return outcome[0]
            finally:
                place.gate.leave()
            self.failures[outcome.kind] += 1
            wait = self._waits.before(again, outcome)
            left = self.settings.deadline - (now - began)
            most = self.settings.retries
            if outcome.kind == "connection" and not self._answered:
                most = min(most, RETRIES_UNMET)
            if again > most or wait > left:
                raise self._given_up(outcome, again, wait, now - began, path) from None
            await self._sleep(wait)

    async def aclose(self) -> None:
        """Close the connections of all loops that still run."""
        places = dict(self._places)
        self._places.clear()
        here = asyncio.get_running_loop()
        for loop, place in places.items():
            if loop is here:
                await place.life.aclose()
            elif loop.is_running():
                closing = asyncio.run_coroutine_threadsafe(_close(place), loop)
                await asyncio.wrap_future(closing)

    # -- one try --------------------------------------------------------------------------------------

    async def _try(
        self, place: _Place, path: str, body: bytes | None, read: Callable[[Any], T]
    ) -> Failure | tuple[T]:
        """The result, as a tuple of one; or why there is none and it may help to try again."""
        import aiohttp

        self.tries += 1
        try:
            reply = await self._send(place, self.address.url(path), body)
            if not self._answered and _leads_nowhere(reply):
                reply = await self._elsewhere(place, path, body) or reply
        except aiohttp.ConnectionTimeoutError:
            waited = duration(self.settings.connect_timeout)
            return Failure("connection", f"no connection within {waited}")
        except TimeoutError:
            return Failure("time-out", f"no reply within {duration(self.settings.timeout)}")
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
            raise DataError(
                f"{self.address.base}: the connection is not secure: {self._clean(str(error))}. Certificates "
                "are always checked; for one of your own set SSL_CERT_FILE to the authority's file"
            ) from None
        except aiohttp.InvalidURL as error:
            raise DataError(f"{self.address.base} is no address: {self._clean(str(error))}") from None
        except aiohttp.ClientConnectorError as error:
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.os_error)
            return Failure("connection", self._clean(f"cannot connect: {why}"))
        except (aiohttp.ClientError, OSError) as error:
            return Failure("connection", self._clean(str(error) or type(error).__name__))
        except _TooLong as error:
            raise ServerError(
                f"{self.address.url(path)}: the reply is longer than {size(self.settings.largest_reply)} "
                f"({error}); ask for fewer tokens or samples, or set largest_reply"
            ) from None
        if reply.status == 200:
            return self._read(reply, read)
        return self._refusal(reply, path)

    def _read(self, reply: _Reply, read: Callable[[Any], T]) -> Failure | tuple[T]:
        try:
            payload = json.loads(reply.body)
        except (ValueError, RecursionError):
            what = "HTML" if _is_html(reply) else "no JSON, or only a part of it"
            return Failure("malformed", f"200 with {what}: {self._quoted(reply.body)}")
        if isinstance(payload, dict) and payload.get("error") and not payload.get("choices"):
            # Some gateways report what happened behind them with status 200.
            why = self._cleaned(problem(payload))
            status = why.status or 500
            if not retry.may_pass(status):
                raise Refused(status, why, self.address.base)
            return Failure(str(status), why.message, overloaded=status in retry.OVERLOADED)
        try:
            result = read(payload)
        except Malformed as error:
            return Failure("malformed", f"200, but {error}: {self._quoted(reply.body)}")
        self._answered = True
        return (result,)

    def _refusal(self, reply: _Reply, path: str) -> Failure:
        status = reply.status
        url = self.address.url(path)
        if 300 <= status < 400:
            to = self._clean(reply.headers.get("Location", "elsewhere"))
            raise DataError(
                f"{url} redirects ({status}) to {to}; redirects are not followed, since the key would go "
                "along. If that is the right place, write it as the address"
            )
        try:
            payload = json.loads(reply.body)
        except (ValueError, RecursionError):
            payload = None
        why = problem(payload) if payload is not None else Problem(self._quoted(reply.body))
        why = self._cleaned(why)
        if not retry.may_pass(status) or why.code == "insufficient_quota":  # a quota is paid for, not awaited
            raise Refused(status, why, url)
        wait = retry.asked_wait(reply.headers)
        return Failure(str(status), why.message, wait, status in retry.OVERLOADED)

    async def _send(self, place: _Place, url: str, body: bytes | None) -> _Reply:
        parsed = self._urls.get(url)
        if parsed is None:
            from yarl import URL

            parsed = self._urls[url] = URL(url)
        how = place.session.get if body is None else place.session.post
        async with how(parsed, data=body, allow_redirects=False, proxy=self._proxy) as response:
            largest, length = self.settings.largest_reply, response.content_length
            if length is not None and length > largest:
                raise _TooLong(f"it says {size(length)}")
            content = response.content
            parts, read = [], 0
            while part := await content.readany():
                parts.append(part)
                read += len(part)
                if read > largest:  # it does not say beforehand, or it is compressed
                    raise _TooLong(f"{size(read)} and more")
            return _Reply(response.status, response.headers, parts[0] if len(parts) == 1 else b"".join(parts))

    async def _elsewhere(self, place: _Place, path: str, body: bytes | None) -> _Reply | None:
        """The reply from where the address may have meant, if there is one; it is used from then on."""
        given = self.address
        for base in given.alternatives():
            other = Address(base, given.model, given.query)
            reply = await self._send(place, other.url(path), body)
            if not _leads_nowhere(reply) and not 300 <= reply.status < 400:
                self.address = other
                return reply
        return None

    # -- around it ------------------------------------------------------------------------------------

    async def _take(self, tokens: int) -> None:
        now = self._clock()
        wait = max(
            self._requests.take(1, now) if self._requests is not None else 0.0,
            self._tokens.take(tokens, now) if self._tokens is not None else 0.0,
        )
        if wait > 0:
            await self._sleep(wait)

    async def _here(self) -> _Place:
        loop = asyncio.get_running_loop()
        place = self._places.get(loop)
        if place is None:
            for other in [each for each in self._places if each.is_closed()]:
                del self._places[other]
            life = _session(self.settings, self._key)
            session = await anext(life)
            place = self._places.setdefault(loop, _Place(session, life, Gate(self.limit)))
        return place

    def _given_up(
        self, failure: Failure, tries: int, wait: float, spent: float, path: str
    ) -> PosterhallError:
        where = self.address.url(path)
        many = "try" if tries == 1 else "tries"
        text = f"{where}: {failure.message or failure.kind} ({failure.kind}; {tries} {many} in "
        text += f"{duration(spent)})"
        if failure.kind == "connection":
            return ServerError(f"{text}; is the server running, and is this its address?")
        if spent + wait > self.settings.deadline:
            return ServerError(
                f"{text}; the next try would be in {duration(wait)}, beyond the deadline of "
                f"{duration(self.settings.deadline)}"
            )
        if failure.overloaded:
            return ServerError(f"{text}; ask with a lower concurrency, or set requests_per_minute")
        if failure.kind == "time-out":
            return ServerError(f"{text}; set a longer timeout, or ask for fewer tokens")
        return ServerError(text)

    def _clean(self, text: str) -> str:
        text = self._key.redact(text) if self._key is not None else text
        return text if len(text) <= SHOWN else text[:SHOWN] + "..."

    def _cleaned(self, why: Problem) -> Problem:
        return Problem(self._clean(why.message), why.code, why.param, why.status)

    def _quoted(self, body: bytes) -> str:
        return self._clean(repr(body[:SHOWN].decode("utf-8", "replace"))) if body else "an empty reply"


class _TooLong(Exception):
    """A reply that is not read to its end."""


def _is_html(reply: _Reply) -> bool:
    return "html" in reply.headers.get("Content-Type", "") or reply.body[:200].lstrip()[:1] == b"<"


def _leads_nowhere(reply: _Reply) -> bool:
    """Whether there is no API at this place: other than an API that lacks a model."""
    if reply.status == 200:
        return _is_html(reply)
    if reply.status not in (404, 405):
        return False
    try:
        payload = json.loads(reply.body)
    except (ValueError, RecursionError):
        return True
    message = problem(payload).message.lower()
    return "model" not in message


async def _session(settings: HttpSettings, key: Secret | None) -> AsyncGenerator[aiohttp.ClientSession, None]:
    """Connections for the running loop, closed by it at its end at the latest (as loops do with generators),
    also if nobody asked for it."""
    import aiohttp

    headers = {"Content-Type": "application/json", "User-Agent": "posterhall"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key.reveal()}"
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
        headers=headers,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=settings.timeout, sock_connect=settings.connect_timeout),
    ) as session:
        yield session


async def _close(place: _Place) -> None:
    await place.life.aclose()


def _let_go(places: dict[asyncio.AbstractEventLoop, _Place]) -> None:
    """Close the connections of a client that is no more, in their own loops and without waiting."""
    for loop, place in places.items():
        if loop.is_running():
            loop.call_soon_threadsafe(_begin_to_close, loop, place)


def _begin_to_close(loop: asyncio.AbstractEventLoop, place: _Place) -> None:
    loop.create_task(_close(place))


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """A program that ends without closing its models gets no complaint about open connections."""
    for client in list(_clients):
        for loop, place in client._places.items():
            if loop.is_running():
                with contextlib.suppress(Exception):
                    asyncio.run_coroutine_threadsafe(_close(place), loop).result(1.0)
