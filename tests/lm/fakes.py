"""A model that tells what it was asked, and can be made slow, random or failing."""

from __future__ import annotations

import asyncio

import numpy as np

from posterhall.lm import LM, Sample, Scored
from posterhall.seeds import generator


class Counting(LM):
    """Answers each sample by a word that follows from prompt, seed and number; without seed, from chance.

    Attributes:
        asked: (prompt, first, n) of each request.
        under_way: requests at this moment; `most`: at most at any moment.
    """

    def __init__(self, *, name="counting", pause=0.0, fail=None):
        self.name = name
        self.asked = []
        self.pause = pause
        self.fail = fail or (lambda request: None)
        self.under_way = self.most = 0
        self.drawn = 0

    async def agenerate(self, requests):
        found = []
        for request in requests:
            self.asked.append((request.prompt, request.first, request.n))
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            try:
                await asyncio.sleep(self.pause)
                error = self.fail(request)
                if error is not None:
                    raise error
                found.append([self._sample(request, request.first + i) for i in range(request.n)])
            finally:
                self.under_way -= 1
        return found

    async def ascore(self, items):
        for prompt, continuations in items:
            self.asked.append((prompt, tuple(continuations)))
        return [
            [Scored(each, (each,), (-float(len(each)),), is_greedy=False) for each in continuations]
            for _, continuations in items
        ]

    async def aembed(self, texts):
        self.asked.append(tuple(texts))
        return np.array([[len(each), 1] for each in texts], dtype=np.float32).reshape(len(texts), 2)

    def _sample(self, request, number):
        self.drawn += 1
        seed = self.drawn if request.seed is None else request.seed
        word = generator(seed, self.name, str(request.prompt), number).integers(1_000_000)
        text = f"{request.prompt}/{number}/{word}"
        return Sample(text, "stop", tokens_in=10, tokens_out=3, tokens_cached=4)
