"""Staleness row by row: how often others changed a row between its pull and its push, and how far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from posterhall.embeddings.parameter_server.server import Server
from posterhall.embeddings.parameter_server.shards import Push
from posterhall.embeddings.parameter_server.transport import Wanted


@dataclass(frozen=True)
class RowReport:
    """Sums for the rows of one table, (rows,) each.

    Attributes:
        pushes: pushes that named the row, int64.
        staleness: pushes of others to the same row since the pull, summed over its pushes, int64.
        drift: distance that others moved the row since the pull, over the row's length, summed, float64.
    """

    pushes: NDArray[np.int64]
    staleness: NDArray[np.int64]
    drift: NDArray[np.float64]

    def by_decile(self, order: NDArray[np.integer], groups: int = 10) -> list[dict[str, float]]:
        """Mean staleness and drift of a push in groups of equally many rows.

        Args:
            order: rows, for example the most frequent first.
            groups: how many.
        """
        result = []
        for rows in np.array_split(order, groups):
            pushes = max(int(self.pushes[rows].sum()), 1)
            result.append(
                {
                    "rows": float(len(rows)),
                    "pushes": float(self.pushes[rows].sum()),
                    "staleness": float(self.staleness[rows].sum() / pushes),
                    "drift": float(self.drift[rows].sum() / pushes),
                }
            )
        return result


class RowObserver:
    """A transport to a server in this process that can watch every row, and weigh the pushes.

    Args:
        server: whose shards to reach.
        share: factor for every difference (1 / workers makes a mean of a round's pushes).
        watch: keep `RowReport`s.
    """

    def __init__(self, server: Server, *, share: float = 1.0, watch: bool = False) -> None:
        self._server, self._inner, self._share, self._watch = server, server.transport(), share, watch
        self.borrows = share == 1.0 and not watch
        if not watch:
            return
        rows = [[t.rows for t in shard.tables] for shard in server.shards]
        self._touched = [[np.zeros(n, np.int64) for n in part] for part in rows]
        self._own: dict[int, list[list[NDArray[np.int64]]]] = {}
        self._pulled: dict[int, list[list[tuple[NDArray[np.int64], NDArray[np.float32]]]]] = {}
        self._reports = [
            RowReport(np.zeros(t.rows, np.int64), np.zeros(t.rows, np.int64), np.zeros(t.rows))
            for t in server.tables
        ]

    def pull(self, worker: int, wanted: Sequence[Wanted]) -> list[int]:
        """See `Transport`."""
        seen = self._inner.pull(worker, wanted)
        if self._watch:
            if worker not in self._pulled:
                self._pulled[worker] = [
                    [(np.zeros(t.rows, np.int64), np.zeros((t.rows, t.width), np.float32)) for t in s.tables]
                    for s in self._server.shards
                ]
                self._own[worker] = [
                    [np.zeros(t.rows, np.int64) for t in s.tables] for s in self._server.shards
                ]
            for shard, part in enumerate(wanted):
                for table, rows in enumerate(part.rows):
                    versions, values = self._pulled[worker][shard][table]
                    versions[rows] = self._others(worker, shard, table, rows)
                    values[rows] = part.twins[table][:, : values.shape[1]]
        return seen

    def _others(self, worker: int, shard: int, table: int, rows: NDArray[np.int32]) -> NDArray[np.int64]:
        """Pushes of other workers that named each row, so far."""
        return self._touched[shard][table][rows] - self._own[worker][shard][table][rows]

    def push(self, pushes: Sequence[Push | None], done: Callable[[], None]) -> None:
        """See `Transport`."""
        if self._watch:
            for shard, push in enumerate(pushes):
                if push is not None:
                    self._note(shard, push)
        if self._share != 1.0:
            factor = np.float32(self._share)
            pushes = [
                None if push is None else replace(push, deltas=[factor * delta for delta in push.deltas])
                for push in pushes
            ]
        self._inner.push(pushes, done)

    def _note(self, shard: int, push: Push) -> None:
        current = self._server.shards[shard].values()
        for table, rows in enumerate(push.rows):
            versions, values = self._pulled[push.worker][shard][table]
            report = self._reports[table]
            whole = self._server.placements[table].rows_of(shard)[rows]
            report.pushes[whole] += 1
            report.staleness[whole] += self._others(push.worker, shard, table, rows) - versions[rows]
            moved = np.linalg.norm(current[table][rows] - values[rows], axis=1)
            length = np.linalg.norm(current[table][rows], axis=1)
            report.drift[whole] += np.divide(moved, length, out=np.zeros_like(moved), where=length > 0)
            self._touched[shard][table][rows] += 1
            self._own[push.worker][shard][table][rows] += 1

    def flush(self) -> None:
        """See `Transport`."""

    def report(self) -> list[RowReport]:
        """One report a table; none if nothing was watched."""
        return self._reports if self._watch else []
