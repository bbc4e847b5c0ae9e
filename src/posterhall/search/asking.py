"""How a search asks its model: by the round, nothing twice, all of it counted."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from posterhall.lm.metered import Budget, Meter, Tally, Usage, usage_of, usage_read
from posterhall.lm.prices import Price
from posterhall.lm.protocol import LM, Request, Sample, Scored, transcript
from posterhall.lm.wrapping import BudgetExceeded
from posterhall.search.protocol import Ask
from posterhall.search.settings import SearchSettings
from posterhall.seeds import derive


class Asker:
    """Asks the model for one problem.

    A round of questions goes out together. The seed of each follows from the search's seed, what it is for
    and the prompt: so a question is the same whoever asks it and when, a second one of the same kind is
    answered from memory, and a cache around the model answers those of other problems.

    Attributes:
        truncated: replies that ended at their most tokens, or were withheld.
    """

    def __init__(
        self,
        lm: LM,
        settings: SearchSettings,
        *,
        price: Price | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lm = lm
        self.truncated = 0
        self._settings = settings
        self._price = price
        self._replies: dict[Request, list[Sample]] = {}
        self._scores: dict[tuple[str, tuple[str, ...]], list[Scored]] = {}
        # A meter of what is asked, answered by a cache or not: another one than that of what is paid.
        self._meter = Meter(
            Budget(
                tokens=settings.problem_tokens, cost=settings.problem_cost, seconds=settings.problem_seconds
            ),
            clock=clock,
        )
        self._tally: Tally = self._meter.total
        self._tally.label = "problem"

    @property
    def usage(self) -> Usage:
        """What was asked for until now: of equal questions the first."""
        return self._tally.usage

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return self._tally.seconds

    async def generate(self, role: str, asks: Sequence[Ask], n: int) -> list[list[Sample]]:
        """A round of questions: for each, in order, n replies.

        Args:
            role: what they are for, as "propose"; equal questions for different things are different.
            asks: the questions.
            n: replies to each.

        Raises:
            BudgetExceeded: if no more may be asked; nothing of the round is asked then.
        """
        requests = [self._request(role, ask, n) for ask in asks]
        new = list(dict.fromkeys(each for each in requests if each not in self._replies))
        if new:
            self._begin(len(new))
            replies = await self.lm.agenerate(new)
            self._replies.update(zip(new, replies, strict=True))
            self._count(replies)
        return [self._replies[request] for request in requests]

    async def score(self, items: Sequence[tuple[str, tuple[str, ...]]]) -> list[list[Scored]]:
        """A round of continuations to be scored."""
        new = list(dict.fromkeys(each for each in items if each not in self._scores))
        if new:
            self._begin(len(new))
            for item, scored in zip(new, await self.lm.ascore(new), strict=True):
                self._scores[item] = scored
                self._meter.spend(usage_read([item[0], *item[1]], self._price))
        return [self._scores[item] for item in items]

    def _count(self, replies: Sequence[list[Sample]]) -> None:
        """Count what a round cost, at once: it may be hundreds of replies."""
        each = [usage_of(samples, self._price) for samples in replies]
        costs = [usage.cost for usage in each if usage.cost is not None]
        self._meter.spend(
            Usage(
                samples=sum(usage.samples for usage in each),
                tokens_in=sum(usage.tokens_in for usage in each),
                tokens_cached=sum(usage.tokens_cached for usage in each),
                tokens_out=sum(usage.tokens_out for usage in each),
                tokens_hidden=sum(usage.tokens_hidden for usage in each),
                tokens_estimated=sum(usage.tokens_estimated for usage in each),
                cost=math.fsum(costs) if len(costs) == len(each) else None,
            )
        )
        for samples in replies:
            for sample in samples:
                self.truncated += sample.finish_reason != "stop"

    def _begin(self, calls: int) -> None:
        """Count a round's calls before they are made."""
        self._meter.check()
        most, spent = self._settings.problem_calls, self.usage.calls
        if most is not None and spent + calls > most:
            raise BudgetExceeded(
                f"the problem's budget of {most:,} calls does not hold a round of {calls:,} more, after "
                f"{spent:,} calls",
                limit="calls",
            )
        self._meter.spend(Usage(calls=calls))

    def _request(self, role: str, ask: Ask, n: int) -> Request:
        settings = self._settings
        return Request(
            ask.prompt,
            max_tokens=settings.max_tokens if ask.max_tokens is None else ask.max_tokens,
            temperature=settings.temperature if ask.temperature is None else ask.temperature,
            top_p=settings.top_p,
            stop=ask.stop,
            seed=derive(settings.seed, role, transcript(ask.prompt)),
            n=n,
        )
