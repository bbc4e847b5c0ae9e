"""What stands around a model and is itself one: the base of cache, meter and log."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar

from posterhall.errors import PosterhallError
from posterhall.lm.flow import caller, gather
from posterhall.lm.protocol import LM, Floats, Request, Sample, Scored

T = TypeVar("T")
R = TypeVar("R")

WIDTH = 64
"""Requests of one call that are under way at once, unless told otherwise."""

Item = tuple[str, Sequence[str]]
"""A prompt and its continuations, to be scored."""


class BudgetExceeded(PosterhallError):
    """Nothing more may be spent. What had been asked before was answered and kept.

    Args:
        said: the message, or what gives it: then it tells what was spent when it is looked at, with what was
            under way when the budget ended.
        limit: which limit: calls, tokens, cost or seconds.

    Attributes:
        limit: the same.
    """

    def __init__(self, said: str | Callable[[], str], *, limit: str) -> None:
        super().__init__(said)
        self._said = said
        self.limit = limit

    def __str__(self) -> str:
        return self._said if isinstance(self._said, str) else self._said()


class Wrapper(LM):
    """A model around another one, which it asks request by request.

    Each request of a call goes its own way, `width` of them at once, so that a reply is dealt with (stored,
    counted) as soon as it comes; the model within batches what is asked at the same time, or limits it.

    Args:
        inner: the model that is asked.
        width: requests of one call under way at once, >= 1.
    """

    def __init__(self, inner: LM, *, width: int = WIDTH) -> None:
        self.inner = inner
        self.width = width
        self.name = inner.name
        self.parameters = inner.parameters
        self.source = inner.source
        self.enforces_schema = inner.enforces_schema

    def fingerprint(self) -> str:
        return self.inner.fingerprint()

    def record(self) -> dict[str, Any]:
        return self.inner.record()

    def count(self, texts: Sequence[str]) -> list[int] | None:
        return self.inner.count(texts)

    async def agenerate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        if len(requests) == 1:
            return [await self.generate_one(requests[0])]
        return await spend(self.generate_one, requests, width=self.width)

    async def ascore(self, items: Sequence[Item]) -> list[list[Scored]]:
        if len(items) == 1:
            return [await self.score_one(items[0])]
        return await spend(self.score_one, items, width=self.width)

    async def aembed(self, texts: Sequence[str]) -> Floats:
        return await self.inner.aembed(texts)

    async def aclose(self) -> None:
        await self.inner.aclose()

    async def generate_one(self, request: Request) -> list[Sample]:
        """The samples of one request."""
        [samples] = await self.inner.agenerate([request])
        return samples

    async def score_one(self, item: Item) -> list[Scored]:
        """The scores of one item."""
        [scored] = await self.inner.ascore([item])
        return scored


@contextlib.contextmanager
def one_caller() -> Iterator[None]:
    """Let a backend know that what is asked within the block comes from one caller: see `flow.caller`."""
    if caller.get() is not None:
        yield
        return
    token = caller.set(object())
    try:
        yield
    finally:
        caller.reset(token)


async def spend(work: Callable[[T], Awaitable[R]], items: Sequence[T], *, width: int) -> list[R]:
    """All results in the order of their items, `width` at once.

    When a budget ends, what is under way is waited for before that is said: it is paid for already.

    Raises:
        BudgetExceeded: after the last of what was under way.
        Exception: what `work` raises otherwise, first; the work under way is cancelled.
    """
    ended: list[BudgetExceeded] = []

    async def one(item: T) -> R | None:
        if not ended:
            try:
                return await work(item)
            except BudgetExceeded as error:
                ended.append(error)
        return None

    with one_caller():
        found = await gather(one, items, width=max(1, min(width, len(items))))
    if ended:
        raise ended[0]
    return found  # type: ignore[return-value]  # None stands only for what was not asked
