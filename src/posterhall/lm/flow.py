"""Many awaitable pieces of work, a few at once, however many there are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
caller: ContextVar[object | None] = ContextVar("caller", default=None)
"""Who asks. A backend that many use at once takes turns by it, so that a caller with a thousand requests
does not hold up one with two. Set by who cuts a call into several (tasks inherit it); None: each call by
itself."""


async def each(
    work: Callable[[T], Awaitable[R]], items: Iterable[T], *, width: int
) -> AsyncIterator[tuple[int, R]]:
    """Results as they come, each with its item's number.

    An item is drawn when a worker is free for it, and not before its result can be kept: memory depends on
    `width`, not on the number of items, as long as results are taken and let go.

    Args:
        work: called with an item.
        items: drawn one by one, and by no two workers at once.
        width: workers, >= 1.

    Raises:
        Whatever `work` raises first; the work under way is cancelled then, as it is when the caller stops.
    """
    numbered = enumerate(items)
    done: asyncio.Queue[tuple[int, R] | BaseException | None] = asyncio.Queue(maxsize=width)

    async def worker() -> None:
        try:
            for number, item in numbered:
                await done.put((number, await work(item)))
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            await done.put(error)
            return
        await done.put(None)

    workers = [asyncio.create_task(worker()) for _ in range(width)]
    try:
        going = width
        while going:
            result = await done.get()
            if result is None:
                going -= 1
            elif isinstance(result, BaseException):
                raise result
            else:
                yield result
    finally:
        for one in workers:
            one.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def gather(work: Callable[[T], Awaitable[R]], items: Iterable[T], *, width: int) -> list[R]:
    """All results in the order of their items; see `each`."""
    found = {number: result async for number, result in each(work, items, width=width)}
    return [found[number] for number in range(len(found))]
