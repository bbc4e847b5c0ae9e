"""What a model's answers cost, and limits to it: counted before the money is gone."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from posterhall.errors import DataError
from posterhall.lm.prices import Price
from posterhall.lm.protocol import LM, Floats, Request, Sample, Scored
from posterhall.lm.wrapping import WIDTH, BudgetExceeded, Item, Wrapper

BYTES_A_TOKEN = 4
"""What a token is taken to be where a model does not say how many it read (scoring, embedding)."""


@dataclass(frozen=True)
class Usage:
    """What was asked and what it cost. Usages can be added and subtracted."""

    calls: int = 0
    """Requests to the model: one for all n samples of a prompt, one a prompt scored, one a list embedded."""
    failed: int = 0
    """Of them, those that ended in an error."""
    samples: int = 0
    """Texts generated."""
    tokens_in: int = 0
    """Tokens of prompts, those of a request with many samples once."""
    tokens_cached: int = 0
    """Of `tokens_in`, those that the server had at hand."""
    tokens_out: int = 0
    """Tokens generated."""
    tokens_hidden: int = 0
    """Of `tokens_out`, those of reasoning that is not shown."""
    tokens_estimated: int = 0
    """Of `tokens_in` and `tokens_out`, those that are guessed, because the model did not say."""
    cost: float | None = 0.0
    """In US dollars; None if the price of anything in it is unknown."""
    calls_saved: int = 0
    """Requests to generate that the cache answered, or that shared another's answer."""
    tokens_in_saved: int = 0
    """What those would have read."""
    tokens_out_saved: int = 0
    """What those would have generated."""
    cost_saved: float | None = 0.0
    """What those would have cost; None if a price is unknown."""

    @property
    def tokens(self) -> int:
        """Tokens read and generated."""
        return self.tokens_in + self.tokens_out

    @property
    def cost_without_cache(self) -> float | None:
        """What everything would have cost without the cache."""
        return _sum(self.cost, self.cost_saved)

    def parts(self) -> dict[str, Any]:
        """What is not nothing, by name: `Usage(**usage.parts())` is this again."""
        return {name: value for name in _FIELDS if (value := getattr(self, name)) != 0}

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(_sum(getattr(self, name), getattr(other, name)) for name in _FIELDS))  # type: ignore[arg-type]

    def __sub__(self, other: Usage) -> Usage:
        return Usage(*(_sum(getattr(self, name), getattr(other, name), -1) for name in _FIELDS))  # type: ignore[arg-type]


_FIELDS = tuple(each.name for each in dataclasses.fields(Usage))


def _sum(a: float | None, b: float | None, sign: int = 1) -> float | None:
    return None if a is None or b is None else a + sign * b


@dataclass(frozen=True)
class Budget:
    """The most that may be spent; None is no limit.

    Raises:
        DataError: for a limit that is negative or not a number.
    """

    calls: int | None = None
    """Requests, see `Usage.calls`."""
    tokens: int | None = None
    """Tokens read and generated."""
    cost: float | None = None
    """US dollars; needs a model whose price is known."""
    seconds: float | None = None
    """Seconds of wall time from the start of the meter or scope."""

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if value is not None and not 0 <= value < math.inf:
                raise DataError(f"a budget of {value} {each.name} is none; give a number of at least 0")


class Tally:
    """What was spent in one place, and what may be: the whole of a meter, or a scope of it.

    Attributes:
        budget: its limits.
        label: what messages call it.
    """

    def __init__(self, budget: Budget, label: str, spent: Usage, clock: Callable[[], float]) -> None:
        self.budget = budget
        self.label = label
        self._sums: dict[str, Any] = {name: getattr(spent, name) for name in _FIELDS}
        self._limited = budget != Budget()
        self._clock = clock
        self._begun = clock()

    @property
    def usage(self) -> Usage:
        """What was spent until now; a value, which later spending does not change."""
        return Usage(**self._sums)

    @property
    def seconds(self) -> float:
        """Wall time since it began."""
        return self._clock() - self._begun

    def exhausted(self) -> BudgetExceeded | None:
        """What to raise instead of asking for more; None if more may be asked."""
        if not self._limited:
            return None
        budget, usage = self.budget, self.usage
        if budget.calls is not None and usage.calls >= budget.calls:
            return self._ended("calls", f"{budget.calls:,} calls")
        if budget.tokens is not None and usage.tokens >= budget.tokens:
            return self._ended("tokens", f"{budget.tokens:,} tokens")
        if budget.cost is not None:
            if usage.cost is None:
                return BudgetExceeded(
                    f"the {self.label}'s budget of {money(budget.cost)} cannot be kept: something was spent "
                    "whose price is unknown",
                    limit="cost",
                )
            if usage.cost >= budget.cost:
                return self._ended("cost", money(budget.cost))
        if budget.seconds is not None and self.seconds >= budget.seconds:
            return self._ended("seconds", f"{budget.seconds:g} seconds")
        return None

    def add(self, parts: Mapping[str, Any]) -> None:
        """Count `Usage.parts`; by its meter, which sees to it that nobody else does at the time."""
        sums = self._sums
        for name, value in parts.items():
            sums[name] = _sum(sums[name], value)

    def _ended(self, limit: str, most: str) -> BudgetExceeded:
        def said() -> str:
            usage = self.usage
            return (
                f"the {self.label}'s budget of {most} is used up: {usage.calls:,} calls, "
                f"{usage.tokens:,} tokens, {money(usage.cost)}, {self.seconds:.1f} s"
            )

        return BudgetExceeded(said, limit=limit)


def money(dollars: float | None) -> str:
    """An amount in words: $0.0042, $12.30, or that its price is unknown."""
    if dollars is None:
        return "cost unknown"
    return f"${dollars:.2f}" if dollars >= 1 or dollars == 0 else f"${dollars:.4f}"


_ONE_CALL = {"calls": 1}
_scopes: ContextVar[tuple[tuple[Meter, Tally], ...]] = ContextVar("posterhall_lm_scopes", default=())


class Meter:
    """Counts what models cost and stops before a budget is exceeded; from any thread or task.

    One meter may serve several models. What a part of the work costs is told by a scope, which goes along
    with the tasks started in it::

        with meter.scope() as tally:
            await lm.agenerate(requests)
        print(tally.usage.tokens_out)

    Args:
        budget: limits to everything; a scope may have its own beside it.
        spent: what was spent before, as by a run that goes on.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        *,
        spent: Usage | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self.total = Tally(budget or Budget(), "run", spent or Usage(), clock)

    @property
    def usage(self) -> Usage:
        """What was spent until now."""
        return self.total.usage

    def spent_before(self, usage: Usage) -> None:
        """Count what was spent before, as by a run that goes on."""
        with self._lock:
            self.total.add(usage.parts())

    @contextlib.contextmanager
    def scope(self, budget: Budget | None = None, label: str = "part") -> Iterator[Tally]:
        """Count apart what is asked within the block, by whatever tasks are started there.

        Args:
            budget: limits to it; those around it hold as well.
            label: what messages call it, as "problem".
        """
        tally = Tally(budget or Budget(), label, Usage(), self._clock)
        token = _scopes.set((*_scopes.get(), (self, tally)))
        try:
            yield tally
        finally:
            _scopes.reset(token)

    def check(self) -> None:
        """Raise BudgetExceeded if nothing more may be asked here."""
        for tally in self._tallies():
            error = tally.exhausted()
            if error is not None:
                raise error

    def launch(self) -> None:
        """Count a call, before it is made.

        Raises:
            BudgetExceeded: if a budget that holds here is used up; nothing is counted then.
        """
        with self._lock:  # checked and counted in one, so that no two calls pass for the last one
            self.check()
            self._charge(_ONE_CALL)

    def fail(self) -> None:
        """Count that a call ended in an error."""
        self.spend(Usage(failed=1))

    def spend(self, usage: Usage) -> None:
        """Count what a call cost."""
        parts = usage.parts()
        with self._lock:
            self._charge(parts)

    def _charge(self, parts: Mapping[str, Any]) -> None:
        for tally in self._tallies():
            tally.add(parts)

    def _tallies(self) -> list[Tally]:
        return [self.total, *(tally for meter, tally in _scopes.get() if meter is self)]


class Metered(Wrapper):
    """Counts what a model is asked on a meter, which says when nothing more may be.

    Args:
        inner: the model.
        meter: where to count; see `Meter`.
        price: of the model; None if it is not known, and then costs are None.
        width: see `Wrapper`.
    """

    def __init__(
        self, inner: LM, meter: Meter | None = None, *, price: Price | None = None, width: int = WIDTH
    ) -> None:
        super().__init__(inner, width=width)
        self.meter = Meter() if meter is None else meter
        self.price = price

    async def generate_one(self, request: Request) -> list[Sample]:
        with self._call():
            samples = await super().generate_one(request)
        self.meter.spend(usage_of(samples, self.price))
        return samples

    async def score_one(self, item: Item) -> list[Scored]:
        with self._call():
            scored = await super().score_one(item)
        self.meter.spend(usage_read([item[0], *item[1]], self.price))
        return scored

    async def aembed(self, texts: Sequence[str]) -> Floats:
        if not texts:
            return await self.inner.aembed(texts)
        with self._call():
            vectors = await self.inner.aembed(texts)
        self.meter.spend(usage_read(texts, self.price))
        return vectors

    def hit(self, request: Request, samples: Sequence[Sample]) -> None:
        """Count samples that a cache around this had, as saved."""
        self.meter.spend(usage_saved(request, samples, self.price))

    @contextlib.contextmanager
    def _call(self) -> Iterator[None]:
        self.meter.launch()
        try:
            yield
        except BaseException:
            self.meter.fail()
            raise


def usage_of(samples: Sequence[Sample], price: Price | None) -> Usage:
    """What the samples of one request cost; the prompt counts once. Calls are not in it."""
    first = samples[0]
    out = sum(each.tokens_out for each in samples)
    cached = max(each.tokens_cached for each in samples)
    return Usage(
        samples=len(samples),
        tokens_in=first.tokens_in,
        tokens_cached=cached,
        tokens_out=out,
        tokens_hidden=sum(each.tokens_hidden for each in samples),
        tokens_estimated=(first.tokens_in if first.estimated else 0)
        + sum(each.tokens_out for each in samples if each.estimated),
        cost=None if price is None else price.cost(first.tokens_in, out, cached=cached),
    )


def usage_read(texts: Sequence[str], price: Price | None) -> Usage:
    """What it costs to have texts read (scored, embedded). The tokens are estimated from their bytes."""
    tokens = sum(-(-len(each.encode("utf-8", "surrogatepass")) // BYTES_A_TOKEN) for each in texts)
    return Usage(
        tokens_in=tokens,
        tokens_estimated=tokens,
        cost=None if price is None else price.cost(tokens, 0),
    )


def usage_saved(request: Request, samples: Sequence[Sample], price: Price | None) -> Usage:
    """What it would have cost to ask for samples that the cache had. Where only some of a request's samples
    were there, its prompt was paid for all the same."""
    whole = len(samples) == request.n
    tokens_in = samples[0].tokens_in if whole else 0
    tokens_out = sum(each.tokens_out for each in samples)
    return Usage(
        calls_saved=int(whole),
        tokens_in_saved=tokens_in,
        tokens_out_saved=tokens_out,
        cost_saved=None if price is None else price.cost(tokens_in, tokens_out),
    )
