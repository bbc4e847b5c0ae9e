"""One reply for what many problems ask."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any

from posterhall.lm.protocol import LM, Request, Sample, Scored
from posterhall.lm.wrapping import WIDTH, Item, Wrapper, spend

MOST = 1 << 16
"""Replies held in memory; of some kB each."""


class Shared(Wrapper):
    """A model that is asked once for what the problems of a job have in common.

    Equal requests have equal seeds here, so they may have the same reply. Who asks for what is being asked
    for waits for that reply. In memory and for one event loop; what a cache does between jobs and processes
    is another matter, but that is slower by far, and not everybody has one.

    Args:
        inner: the model.
        most: replies held, those least recently used forgotten; what is forgotten is asked for again.
        width: see `Wrapper`.
    """

    def __init__(self, inner: LM, *, most: int = MOST, width: int = WIDTH) -> None:
        super().__init__(inner, width=width)
        self.most = most
        self._held: OrderedDict[Hashable, list[Any]] = OrderedDict()
        self._asking: dict[Hashable, asyncio.Event] = {}

    async def agenerate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        found = [self._hit(each) for each in requests]
        missing = [each for each, reply in zip(requests, found, strict=True) if reply is None]
        if len(missing) == 1:
            replies = iter([await self.generate_one(missing[0])])
        else:
            replies = iter(await spend(self.generate_one, missing, width=self.width) if missing else [])
        return [next(replies) if reply is None else reply for reply in found]

    async def generate_one(self, request: Request) -> list[Sample]:
        return await self._once(request, lambda: super(Shared, self).generate_one(request))

    async def score_one(self, item: Item) -> list[Scored]:
        key = (item[0], tuple(item[1]))
        return await self._once(key, lambda: super(Shared, self).score_one(item))

    def _hit(self, key: Hashable) -> list[Any] | None:
        reply = self._held.get(key)
        if reply is not None:
            self._held.move_to_end(key)
        return reply

    async def _once(self, key: Hashable, ask: Callable[[], Awaitable[list[Any]]]) -> list[Any]:
        while (reply := self._hit(key)) is None:
            asking = self._asking.get(key)
            if asking is not None:
                await asking.wait()  # whoever asks may be cancelled, or out of budget; then the next one does
                continue
            asking = self._asking[key] = asyncio.Event()
            try:
                self._held[key] = await ask()
                if len(self._held) > self.most:
                    self._held.popitem(last=False)
            finally:
                del self._asking[key]
                asking.set()
        return reply
