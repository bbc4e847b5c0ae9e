"""Which shard holds which row of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from posterhall.errors import DataError

Kind = Literal["dealt", "hash", "range"]


@dataclass(frozen=True)
class Table:
    """A matrix of parameters: word vectors, or a dense layer with one row an output unit.

    Attributes:
        name: unique within a server.
        rows: number of rows, >= 1.
        width: float32 values in a row, >= 1.
    """

    name: str
    rows: int
    width: int

    @property
    def bytes(self) -> int:
        """Size of the values."""
        return 4 * self.rows * self.width


@dataclass(frozen=True)
class Placement:
    """A table's rows dealt to shards.

    Attributes:
        shard_of: int16 (rows,).
        local_of: int32 (rows,), the row's number within its shard.
        shards: number of shards.
    """

    shard_of: NDArray[np.int16]
    local_of: NDArray[np.int32]
    shards: int

    @classmethod
    def of(cls, shard_of: NDArray[np.int16], shards: int) -> Placement:
        """Number the rows of each shard in row order."""
        local_of = np.empty(len(shard_of), np.int32)
        for shard in range(shards):
            mine = shard_of == shard
            local_of[mine] = np.arange(int(mine.sum()), dtype=np.int32)
        return cls(shard_of, local_of, shards)

    @classmethod
    def make(
        cls,
        rows: int,
        shards: int,
        *,
        load: NDArray[np.floating] | NDArray[np.integer] | None = None,
        kind: Kind = "dealt",
    ) -> Placement:
        """Place rows.

        Args:
            rows: number of rows.
            shards: number of shards, 1 to 1024.
            load: how often each row is asked for, (rows,); None means equally often.
            kind: `dealt` sorts rows by load and deals them to and fro (0 1 2 2 1 0 ...), so that the
                frequent words do not gather on one shard; `hash` ignores the load; `range` cuts the
                table into runs, which puts all frequent words on the first shard (for comparison).

        Raises:
            DataError: for a number of shards out of range.
        """
        if not 1 <= shards <= 1024:
            raise DataError(f"shards is {shards}; it must be 1 to 1024")
        number = np.arange(rows, dtype=np.int64)
        if kind == "dealt":
            order = number if load is None else np.argsort(-np.asarray(load, np.float64), kind="stable")
            turn = number % (2 * shards)
            shard_of = np.empty(rows, np.int16)
            shard_of[order] = np.minimum(turn, 2 * shards - 1 - turn)
        elif kind == "hash":
            z = (number.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            shard_of = ((z >> np.uint64(33)) % np.uint64(shards)).astype(np.int16)
        else:
            shard_of = (number * shards // max(rows, 1)).astype(np.int16)
        return cls.of(shard_of, shards)

    def rows_of(self, shard: int) -> NDArray[np.int64]:
        """The table's rows that a shard holds, ascending, int64; its local order."""
        return np.flatnonzero(self.shard_of == shard)

    def sizes(self) -> NDArray[np.int64]:
        """Rows of each shard, int64 (shards,)."""
        return np.bincount(self.shard_of, minlength=self.shards)

    def imbalance(self, load: NDArray[np.floating] | NDArray[np.integer]) -> float:
        """Load of the busiest shard over the mean load: 1 is perfect, `shards` the worst."""
        per_shard = np.bincount(self.shard_of, weights=load, minlength=self.shards)
        return float(per_shard.max() / per_shard.mean())
