"""Nothing is asked twice: answers kept by what was asked of which model, sample by sample."""

from __future__ import annotations

import asyncio
import json
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from posterhall.errors import PosterhallError
from posterhall.lm import records
from posterhall.lm.protocol import LM, Floats, Request, Sample, Scored
from posterhall.lm.store import Store
from posterhall.lm.wrapping import WIDTH, BudgetExceeded, Item, Wrapper, spend

T = TypeVar("T")

Flights = dict[tuple[bytes, int], "asyncio.Future[Sample | BaseException | None]"]
"""Samples that somebody in this loop is asking for, by key and number."""


class Cached(Wrapper):
    """A model whose answers are kept, and asked for once.

    Each sample is kept by itself, under the model's fingerprint, everything of the request that matters and
    the sample's number: n samples stay n samples, and who asks for three and later for ten pays for seven
    more. Who asks for what somebody is asking for already, in the same process, waits for that answer.

    Args:
        inner: the model.
        store: where answers are kept; closed with the model.
        hit: told of samples that the model was not asked for.
        width: see `Wrapper`.
    """

    def __init__(
        self,
        inner: LM,
        store: Store,
        *,
        hit: Callable[[Request, Sequence[Sample]], None] | None = None,
        width: int = WIDTH,
    ) -> None:
        super().__init__(inner, width=width)
        self.store = store
        self._hit = hit
        # One table a loop: a future belongs to its loop, and hardly ever do two ask for the same.
        self._flights: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Flights] = (
            weakref.WeakKeyDictionary()
        )

    async def agenerate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        if len(requests) == 1:
            return [await self.generate_one(requests[0])]
        # What is there is found first and without tasks, so that a replay is as fast as the disk.
        found = [self._whole(request) for request in requests]
        missing = [at for at, samples in enumerate(found) if samples is None]

        async def ask(at: int) -> list[Sample]:
            return await self.generate_one(requests[at])

        for at, samples in zip(missing, await spend(ask, missing, width=self.width), strict=True):
            found[at] = samples
        return [samples for samples in found if samples is not None]

    async def generate_one(self, request: Request) -> list[Sample]:
        key = records.under(records.request_key(request), self.fingerprint())
        flights = self._flights.setdefault(asyncio.get_running_loop(), {})
        numbers = range(request.first, request.first + request.n)
        have = self._stored(key, request)
        asked: set[int] = set()
        while len(have) < request.n:
            missing = [number for number in numbers if number not in have]
            mine = [number for number in missing if (key, number) not in flights]
            for number, sample in zip(mine, await self._ask(request, key, mine, flights), strict=True):
                have[number] = sample
                asked.add(number)
            for number in missing:
                flight = flights.get((key, number))
                if number in have or flight is None:
                    continue
                answer = await asyncio.shield(flight)
                if isinstance(answer, Sample):
                    have[number] = answer
                elif answer is not None:
                    raise answer
            # What others gave up (cancelled, or out of their own budget) was perhaps kept, perhaps not.
            if len(have) < request.n:
                have |= self._stored(key, request)
        hits = [have[number] for number in numbers if number not in asked]
        if hits:
            self._tell(request, hits)
        return [have[number] for number in numbers]

    async def score_one(self, item: Item) -> list[Scored]:
        prompt, continuations = item
        model = self.fingerprint()
        keys = [records.under(records.score_key(prompt, each), model) for each in continuations]
        found = [self._answer(key, records.scored_from) for key in keys]
        missing = [at for at, scored in enumerate(found) if scored is None]
        if missing or not keys:
            scored = await super().score_one((prompt, [continuations[at] for at in missing]))
            self.store.put(
                (keys[at], 0, records.compact(records.scored_json(each)))
                for at, each in zip(missing, scored, strict=True)
            )
            for at, each in zip(missing, scored, strict=True):
                found[at] = each
        return [each for each in found if each is not None]

    async def aembed(self, texts: Sequence[str]) -> Floats:
        model = self.fingerprint()
        keys = [records.under(records.embed_key(each), model) for each in texts]
        found = [self._answer(key, records.vector_from) for key in keys]
        missing = [at for at, vector in enumerate(found) if vector is None]
        if missing or not keys:
            vectors = await self.inner.aembed([texts[at] for at in missing])
            if not keys:
                return vectors
            self.store.put(
                (keys[at], 0, records.compact(records.vector_json(vector)))
                for at, vector in zip(missing, vectors, strict=True)
            )
            for at, vector in zip(missing, vectors, strict=True):
                found[at] = vector
        return np.stack([each for each in found if each is not None])

    async def aclose(self) -> None:
        await super().aclose()
        self.store.close()

    async def _ask(self, request: Request, key: bytes, numbers: list[int], flights: Flights) -> list[Sample]:
        """Samples of these numbers from the model, kept before they are given out."""
        if not numbers:
            return []
        loop = asyncio.get_running_loop()
        mine = {number: loop.create_future() for number in numbers}
        flights.update({(key, number): future for number, future in mine.items()})
        told: BaseException | None = None
        try:
            for first, n in _runs(numbers):
                samples = await super().generate_one(replace(request, first=first, n=n))
                rows = [
                    (key, first + i, records.compact(records.sample_json(each)))
                    for i, each in enumerate(samples)
                ]
                self.store.put(rows)
                for i, sample in enumerate(samples):
                    mine[first + i].set_result(sample)
            return [mine[number].result() for number in numbers]
        except Exception as error:
            # The budget may be that of this part of the work alone; others try by themselves.
            told = None if isinstance(error, BudgetExceeded) else error
            raise
        finally:
            for number, future in mine.items():
                del flights[key, number]
                if not future.done():
                    future.set_result(told)

    def _whole(self, request: Request) -> list[Sample] | None:
        """All samples of a request, if they are there."""
        key = records.under(records.request_key(request), self.fingerprint())
        have = self._stored(key, request)
        if len(have) < request.n:
            return None
        samples = [have[number] for number in range(request.first, request.first + request.n)]
        self._tell(request, samples)
        return samples

    def _stored(self, key: bytes, request: Request) -> dict[int, Sample]:
        rows = self.store.get(key, request.first, request.n)
        return {number: self._read(value, records.sample_from) for number, value in rows.items()}

    def _answer(self, key: bytes, read: Callable[..., T]) -> T | None:
        row = self.store.get(key, 0, 1)
        return self._read(row[0], read) if row else None

    def _read(self, value: str, read: Callable[..., T]) -> T:
        try:
            return read(json.loads(value))
        except (KeyError, TypeError, ValueError, RecursionError):
            raise PosterhallError(
                f"{self.store.path}: an answer in it cannot be read: {value[:80]!r}; "
                "clear it with `posterhall lm cache --clear`"
            ) from None

    def _tell(self, request: Request, samples: Sequence[Sample]) -> None:
        if self._hit is not None:
            self._hit(request, samples)


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    """Ascending numbers as (first, how many) of each unbroken run."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number == runs[-1][0] + runs[-1][1]:
            runs[-1] = runs[-1][0], runs[-1][1] + 1
        else:
            runs.append((number, 1))
    return runs
