"""All shards of a model within reach of this process, and whole matrices cut up and put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.embeddings.parameter_server.memory import Block, Lock
from posterhall.embeddings.parameter_server.placement import Placement, Table
from posterhall.embeddings.parameter_server.shards import STALENESS_LIMIT, Matrix, Rule, Shard
from posterhall.embeddings.parameter_server.transport import LocalTransport


def shard_tables(tables: Sequence[Table], placements: Sequence[Placement], shard: int) -> list[Table]:
    """A shard's part of each table."""
    return [
        Table(table.name, int(placement.sizes()[shard]), table.width)
        for table, placement in zip(tables, placements, strict=True)
    ]


class Server:
    """Shards in private or shared memory.

    Args:
        tables: the parameters.
        placements: one a table, all with the same number of shards.
        rule: update rule.
        slots: workers that may ever push, restarted ones counted anew.
        blocks: memory of each shard; None is private.
        locks: of each shard; None is thread locks.
    """

    def __init__(
        self,
        tables: Sequence[Table],
        placements: Sequence[Placement],
        rule: Rule,
        *,
        slots: int,
        blocks: Sequence[Block] | None = None,
        locks: Sequence[Lock] | None = None,
    ) -> None:
        self.tables, self.placements, self.rule = tuple(tables), tuple(placements), rule
        self.shards = [
            Shard(
                shard_tables(tables, placements, i),
                rule,
                slots=slots,
                block=blocks[i] if blocks is not None else None,
                lock=locks[i] if locks is not None else None,
            )
            for i in range(placements[0].shards)
        ]

    def transport(self) -> LocalTransport:
        """A way for a worker to reach the shards."""
        return LocalTransport(self.shards)

    def assign(self, values: Sequence[Matrix]) -> None:
        """Set all parameters; for each table float32 (rows, width)."""
        for i, shard in enumerate(self.shards):
            shard.assign([v[p.rows_of(i)] for v, p in zip(values, self.placements, strict=True)])

    def values(self) -> list[Matrix]:
        """A copy of all parameters; for each table float32 (rows, width)."""
        return join([shard.values() for shard in self.shards], self.tables, self.placements)

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything the shards keep, under names `shard/array`."""
        return name_states([shard.state() for shard in self.shards])

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from `state`."""
        for i, shard in enumerate(self.shards):
            shard.restore(state_of(state, i))

    def staleness(self) -> NDArray[np.int64]:
        """Pushes by staleness, over all shards, int64 (1024,)."""
        return sum((s.staleness() for s in self.shards), np.zeros(STALENESS_LIMIT + 1, np.int64))

    def counts(self) -> dict[str, int]:
        """Pushes applied, repeats ignored, pushes refused and rows clipped, over all shards."""
        return add_counts([shard.counts() for shard in self.shards])


def join(
    parts: Sequence[Sequence[Matrix]], tables: Sequence[Table], placements: Sequence[Placement]
) -> list[Matrix]:
    """Whole tables from the shards' parts."""
    whole = [np.empty((table.rows, table.width), np.float32) for table in tables]
    for shard, values in enumerate(parts):
        for matrix, part, placement in zip(whole, values, placements, strict=True):
            matrix[placement.rows_of(shard)] = part
    return whole


def name_states(states: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """States of shards under one roof."""
    return {f"{i}/{name}": array for i, state in enumerate(states) for name, array in state.items()}


def state_of(state: Mapping[str, NDArray[Any]], shard: int) -> dict[str, NDArray[Any]]:
    """One shard's part of `name_states`."""
    prefix = f"{shard}/"
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}


def add_counts(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Sums by name."""
    return {name: sum(each[name] for each in counts) for name in counts[0]}
