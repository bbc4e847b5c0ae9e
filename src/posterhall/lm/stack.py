"""A model with everything around it: cache, meter, log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from posterhall.errors import UsageError
from posterhall.lm.connection import connect as connect_bare
from posterhall.lm.metered import Budget, Meter, Metered, Usage
from posterhall.lm.prices import FREE, Price, price_of, table, user_file
from posterhall.lm.protocol import LM, Request, Sample
from posterhall.lm.wrapping import WIDTH, Wrapper

CACHE = "lm-cache.sqlite"


class Connected(Wrapper):
    """A model as applications ask it: from outside to inside cache, meter, log and the model itself.

    Attributes:
        meter: counts what is spent; `meter.scope()` counts a part of the work by itself.
        bare: the model itself.
        cache: the file of the cache; None if there is none.
    """

    def __init__(self, outermost: LM, *, bare: LM, meter: Meter, cache: Path | None, width: int) -> None:
        super().__init__(outermost, width=width)
        self.bare = bare
        self.meter = meter
        self.cache = cache

    async def agenerate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        return await self.inner.agenerate(requests)  # the wrapper within fans out

    async def ascore(self, items: Sequence[tuple[str, Sequence[str]]]) -> Any:
        return await self.inner.ascore(items)

    @property
    def usage(self) -> Usage:
        """What was spent until now."""
        return self.meter.usage


def default_cache() -> Path:
    """The file of the cache that all runs of a user share."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("posterhall", appauthor=False)) / CACHE


def is_remote(address: object) -> bool:
    """Whether an address leads to a server."""
    return str(address).lower().startswith(("http://", "https://"))


def connect(
    address: str | Path | LM,
    *,
    cache: Path | str | bool | None = None,
    log: Path | str | None = None,
    hide: Sequence[str] = (),
    budget: Budget | None = None,
    meter: Meter | None = None,
    prices: Path | None = None,
    concurrency: int | None = None,
    **options: Any,
) -> Connected:
    """The model that an address names, with cache, meter, budget and log around it.

    Args:
        address: see `posterhall.lm.connect`; or a model, which is closed with what stands around it.
        cache: the file of the cache, False for none, True for `default_cache`. None: that one for a model
            on a server, none for others.
        log: a file to which each call is appended; see `posterhall.lm.recorded`.
        hide: regular expressions of what the log must not hold.
        budget: limits; when one is reached, `BudgetExceeded` is raised instead of asking for more.
        meter: counts there, several models together; its budget holds, and `budget` must not be given.
        prices: a table of prices to go before the shipped one; None means the user's own, if there is one.
        concurrency: requests under way at once; None means at most 64.
        options: see `posterhall.lm.connect`.

    Raises:
        DataError: if there is no such model, or a file cannot be used.
        UsageError: for a budget in money with a model whose price is unknown.
    """
    if meter is not None and budget is not None:
        raise UsageError("give either a meter, which has a budget, or a budget")
    if concurrency is not None and concurrency < 1:
        raise UsageError(f"concurrency is {concurrency}; at least one request is under way")
    meter = Meter(budget) if meter is None else meter
    remote = not isinstance(address, LM) and is_remote(address)
    if isinstance(address, LM):
        bare = address
    else:
        if remote and concurrency is not None:
            options["concurrency"] = concurrency
        bare = connect_bare(address, **options)
    try:
        price = _price(bare, prices, free=not remote and not isinstance(address, LM))
        if price is None and meter.total.budget.cost is not None:
            name = bare.name.rpartition("#")[2]
            raise UsageError(
                f"the price of {bare.name} is unknown, so no budget in money can be kept; add a line as "
                f"'{name}: {{input: 0.5, output: 1.5}}' to {prices or user_file()}, or limit tokens"
            )
        return _around(bare, meter, price, cache, log, hide, concurrency or WIDTH, remote)
    except BaseException:
        if not isinstance(address, LM):
            bare.close()
        raise


def _price(bare: LM, prices: Path | None, *, free: bool) -> Price | None:
    known = price_of(bare.name, table(prices))
    return FREE if known is None and free else known


def _around(
    bare: LM,
    meter: Meter,
    price: Price | None,
    cache: Path | str | bool | None,
    log: Path | str | None,
    hide: Sequence[str],
    width: int,
    remote: bool,
) -> Connected:
    hits: list[Callable[[Request, Sequence[Sample]], None]] = []
    lm = bare
    if log is not None:
        from posterhall.lm.recorded import Log, Recorded

        recorded = Recorded(lm, Log(log, hide=hide), width=width)
        hits.append(recorded.hit)
        lm = recorded
    metered = Metered(lm, meter, price=price, width=width)
    hits.append(metered.hit)
    lm = metered
    if cache is None:
        cache = remote
    place = None if cache is False else default_cache() if cache is True else Path(cache)
    if place is not None:
        from posterhall.lm.cached import Cached
        from posterhall.lm.store import Store

        def hit(request: Request, samples: Sequence[Sample]) -> None:
            for each in hits:
                each(request, samples)

        lm = Cached(lm, Store(place), hit=hit, width=width)
    return Connected(lm, bare=bare, meter=meter, cache=place, width=width)
