"""How many requests are under way at once, and whose turn it is."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

START = 20
"""Requests at once that an adaptive limit begins with."""
LARGEST = 256
"""Requests at once that an adaptive limit goes up to."""
SLOWER = 2.0
"""An adaptive limit stops growing where replies take this many times as long as they took at best."""
REFUSED_SHARE = 0.1
"""Share of refusals above which the limit is halved: a server that refuses one in fifty is well used."""
REFUSED_LEAST = 3
"""Refusals below which a share is no evidence."""


class Limit:
    """Requests under way at once: fixed, or found out.

    Additive increase, multiplicative decrease, as in TCP: doubled a window (as many replies as the limit)
    until the first evidence against it, then a tenth a window; halved when more than a tenth of the replies
    are refusals. A refusal of what was sent before the last cut does not count: it says nothing about the
    new limit. It does not grow while fewer are asked than it allows, nor where replies get slower.
    """

    def __init__(self, fixed: int | None = None) -> None:
        self.adaptive = fixed is None
        self.now = START if fixed is None else fixed
        self.largest = LARGEST if fixed is None else fixed
        self._doubling = True
        self._best = float("inf")
        self._cut_at = float("-inf")
        self._refused = self._replies = 0
        self._seconds = 0.0
        self._full = False

    def replied(self, seconds: float, *, full: bool) -> None:
        """A request was answered after so long, with the gate `full` or not."""
        if not self.adaptive:
            return
        self._replies += 1
        self._seconds += seconds
        self._full |= full
        if self._replies < self.now:
            return
        mean = self._seconds / self._replies
        self._best = min(self._best * 1.005, mean)  # forgets slowly, for replies that get longer
        if mean > SLOWER * self._best:
            self._doubling = False
        elif self._full and self._refused <= REFUSED_SHARE * self._replies:
            grown = 2 * self.now if self._doubling else self.now + max(1, self.now // 10)
            self.now = min(self.largest, grown)
        self._new_window()

    def refused(self, sent_at: float, now: float) -> None:
        """The server had too much to do for a request sent at that time (clock seconds)."""
        if not self.adaptive or sent_at < self._cut_at:
            return
        self._refused += 1
        if self._refused >= REFUSED_LEAST and self._refused > REFUSED_SHARE * (self._refused + self._replies):
            self.now = max(1, self.now // 2)
            self._cut_at = now
            self._doubling = False
            self._new_window()

    def _new_window(self) -> None:
        self._refused = self._replies = 0
        self._seconds = 0.0
        self._full = False


class Gate:
    """Lets as many in as the limit says; those who wait take turns by caller, so that none starves.

    A caller with a thousand requests and one with two get every other place. For one event loop.
    """

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.inside = 0
        self._waiting: OrderedDict[object, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def full(self) -> bool:
        """Whether nobody else would be let in."""
        return self.inside >= self.limit.now

    async def enter(self, caller: object) -> None:
        """Wait for a place; `leave` gives it back."""
        if not self._waiting and self.inside < self.limit.now:
            self.inside += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # let in and cancelled at the same moment
                self.leave()
            else:
                self._forget(caller, turn)
            raise

    def leave(self) -> None:
        """Give a place back."""
        self.inside -= 1
        while self._waiting and self.inside < self.limit.now:
            caller, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            if turns:
                self._waiting[caller] = turns  # to the end of the line of callers
            if not turn.done():
                self.inside += 1
                turn.set_result(None)

    def _forget(self, caller: object, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.get(caller)
        if turns is not None and turn in turns:
            turns.remove(turn)
            if not turns:
                del self._waiting[caller]
