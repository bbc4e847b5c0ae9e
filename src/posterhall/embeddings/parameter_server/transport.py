"""How a worker's pulls and pushes reach the shards."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from posterhall.embeddings.parameter_server.shards import Matrix, Push, Receipt, Rows, Shard
from posterhall.errors import PosterhallError


@dataclass(frozen=True)
class Wanted:
    """Rows of every table asked of one shard, and where to put them.

    Attributes:
        rows: for each table the shard's own row numbers, int32 (n,).
        into, twins: for each table float32 (n, at least width), C-contiguous; both are filled alike.
    """

    rows: Sequence[Rows]
    into: Sequence[Matrix]
    twins: Sequence[Matrix]

    @property
    def empty(self) -> bool:
        """Whether nothing is asked."""
        return not any(len(rows) for rows in self.rows)


class Transport(Protocol):
    """The one interface between workers and shards.

    Lists have one entry a shard. A shard of which nothing is wanted or to which nothing goes (None) is
    not spoken to.
    """

    @property
    def borrows(self) -> bool:
        """Whether `push` is done with the arrays when it returns, and takes `Push.bases`."""

    def pull(self, worker: int, wanted: Sequence[Wanted]) -> list[int]:
        """Fill `into` and `twins`; returns each shard's `Push.seen` (0 where nothing was asked)."""

    def push(self, pushes: Sequence[Push | None], done: Callable[[], None]) -> None:
        """Have the pushes applied, then call `done`. May return before that."""

    def flush(self) -> None:
        """Return when everything pushed so far was applied."""


class LocalTransport:
    """Shards in this process's reach: its own memory, or memory shared with other processes.

    The shard's code runs in the worker, under the shard's lock: no message, no copy, and back-pressure
    by construction, since a worker waits while another pushes to the same shard.
    """

    borrows = True

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = tuple(shards)

    def pull(self, worker: int, wanted: Sequence[Wanted]) -> list[int]:
        """See `Transport`."""
        return [
            0 if part.empty else shard.pull(worker, part.rows, part.into, part.twins)
            for shard, part in zip(self._shards, wanted, strict=True)
        ]

    def push(self, pushes: Sequence[Push | None], done: Callable[[], None]) -> None:
        """See `Transport`; returns when all are applied."""
        for shard, push in zip(self._shards, pushes, strict=True):
            if push is not None:
                shard.push(push)
        done()

    def flush(self) -> None:
        """See `Transport`."""


class BackgroundTransport:
    """Sends pushes from a thread, so that training goes on meanwhile (Dean et al. 2012, section 4.1).

    A worker that outruns its shards waits once `limit` pushes are queued. Pulls overtake queued pushes,
    so the copy may lack the worker's own last ones.

    Args:
        inner: the transport that does it.
        limit: pushes that may wait, >= 1.
    """

    borrows = False

    def __init__(self, inner: Transport, limit: int) -> None:
        self._inner = inner
        self._queue: queue.Queue[tuple[Sequence[Push | None], Callable[[], None]] | None]
        self._queue = queue.Queue(maxsize=limit)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._send, name="pushes", daemon=True)
        self._thread.start()

    def _send(self) -> None:
        while (task := self._queue.get()) is not None:
            try:
                if self._error is None:  # after a failure only drain, so that nobody waits for ever
                    self._inner.push(*task)
                    self._inner.flush()
            except BaseException as error:
                self._error = error
            finally:
                self._queue.task_done()
        self._queue.task_done()

    def _raise(self) -> None:
        if self._error is not None:
            raise PosterhallError(f"a push in the background failed: {self._error}") from self._error

    def pull(self, worker: int, wanted: Sequence[Wanted]) -> list[int]:
        """See `Transport`."""
        self._raise()
        return self._inner.pull(worker, wanted)

    def push(self, pushes: Sequence[Push | None], done: Callable[[], None]) -> None:
        """See `Transport`; waits while the queue is full."""
        self._raise()
        self._queue.put((pushes, done))

    def flush(self) -> None:
        """See `Transport`."""
        self._queue.join()
        self._raise()

    def close(self) -> None:
        """Send what is queued and end the thread."""
        self._queue.put(None)
        self._thread.join()


class RetryingTransport:
    """Repeats a pull or push that timed out; the shards' windows of push numbers make that safe.

    Args:
        inner: the transport; raises TimeoutError.
        attempts: how often to try in all, >= 1.
    """

    def __init__(self, inner: Transport, attempts: int) -> None:
        self._inner, self._attempts = inner, attempts
        self.borrows = inner.borrows

    def _again(self, what: str, call: Callable[[], list[int] | None]) -> list[int] | None:
        for attempt in range(self._attempts):
            try:
                return call()
            except TimeoutError:
                if attempt == self._attempts - 1:
                    raise PosterhallError(
                        f"a {what} timed out {self._attempts} times; a shard is gone or overloaded"
                    ) from None
        raise AssertionError("unreachable")

    def pull(self, worker: int, wanted: Sequence[Wanted]) -> list[int]:
        """See `Transport`."""
        return self._again("pull", lambda: self._inner.pull(worker, wanted)) or []

    def push(self, pushes: Sequence[Push | None], done: Callable[[], None]) -> None:
        """See `Transport`."""
        self._again("push", lambda: self._inner.push(pushes, _nothing))
        done()

    def flush(self) -> None:
        """See `Transport`."""
        self._inner.flush()


def _nothing() -> None:
    pass


def to_half(delta: Matrix) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """A difference in 16 bits: each row divided by its largest magnitude, float16, and that magnitude.

    The scale keeps small differences out of float16's subnormal range (below 6e-5). NaN and infinities
    stay what they are, so that the shard refuses them.
    """
    scale = np.abs(delta).max(axis=1, keepdims=True, initial=0.0)
    with np.errstate(invalid="ignore"):  # inf / inf
        half = np.divide(delta, scale, out=np.zeros_like(delta), where=scale != 0)
    return half.astype(np.float16), scale.astype(np.float32)


def from_half(half: NDArray[np.float16], scale: NDArray[np.float32]) -> Matrix:
    """Undo `to_half`, up to a relative 2^-11 of each row's largest value."""
    with np.errstate(invalid="ignore"):
        return half.astype(np.float32) * scale


__all__ = [
    "BackgroundTransport",
    "LocalTransport",
    "Receipt",
    "RetryingTransport",
    "Transport",
    "Wanted",
    "from_half",
    "to_half",
]
