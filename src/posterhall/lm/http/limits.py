"""How much a minute: token buckets that may be overdrawn, so that estimates can be put right afterwards."""

from __future__ import annotations

import threading


class Bucket:
    """An allowance that fills up steadily and holds one second's worth.

    What is taken is taken at once, also where it is not there yet; the answer is how long to wait before
    using it. Whoever comes later waits behind, so the rate holds however many take at the same time.

    Args:
        per_minute: what flows in, > 0.
        start: clock seconds now.
    """

    def __init__(self, per_minute: float, start: float) -> None:
        self._rate = per_minute / 60.0
        self._room = max(1.0, self._rate)
        self._level = self._room
        self._at = start
        self._lock = threading.Lock()  # event loops of several threads may share a server

    def take(self, amount: float, now: float) -> float:
        """Take an amount; seconds to wait before it is ours."""
        with self._lock:
            self._flow(now)
            before = self._level
            self._level -= amount
            # What is larger than the bucket waits for a full one, and leaves it in debt.
            lacking = min(amount, self._room) - before
            return max(0.0, lacking / self._rate)

    def put_back(self, amount: float, now: float) -> None:
        """Give back what was taken and not used; a negative amount takes what was used beyond that."""
        with self._lock:
            self._flow(now)
            self._level = min(self._room, self._level + amount)

    def _flow(self, now: float) -> None:
        self._level = min(self._room, self._level + max(0.0, now - self._at) * self._rate)
        self._at = max(self._at, now)
