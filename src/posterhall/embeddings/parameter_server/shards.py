"""A shard of the parameter server: some rows of every table, and the rule that pushes change them by.

The same code serves every backend: called under a thread lock, from several processes on shared memory
under a record lock, inside a Ray actor, and by the simulator. What differs is the memory and the lock.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from posterhall import simd
from posterhall.embeddings.parameter_server import _kernels
from posterhall.embeddings.parameter_server.memory import ArraySpec, Block, Lock
from posterhall.embeddings.parameter_server.placement import Table
from posterhall.errors import DataError

Matrix = NDArray[np.float32]
Rows = NDArray[np.int32]

STALENESS_LIMIT = 1023
"""Staleness is counted exactly below this; the last bin holds the rest."""

PUSH_WINDOW = 64
"""Push numbers that a shard remembers of each worker, so that a repeated push is applied once."""

_OF_WORKERS = ("applied", "newest", "window")
"""Arrays with an entry a worker; they end with the workers."""

_PUSHES, _REPEATS, _REFUSED, _CLIPPED = range(4)


def stored_length(width: int) -> int:
    """Floats that a shard gives a row: whole vectors, so that no vector crosses a cache line.

    Rows so short that the padding would cost more than a quarter stay as they are.
    """
    padded = simd.padded(width)
    return padded if 4 * padded <= 5 * width else width


class PoisonedPush(DataError):
    """A push held NaN, an infinity, a row that is not the shard's or a row twice; none of it applied."""


@dataclass(frozen=True)
class Rule:
    """How the server applies a push.

    Attributes:
        name: `sgd` adds the worker's difference, `w += delta`. `adagrad` divides by the root of the
            summed squares of each parameter's gradients, `w += gamma g / sqrt(sum g^2)` with
            `g = delta / rate` (Dean et al. 2012, section 4.1).
        gamma: Adagrad's scale, the size of a parameter's first step.
        epsilon: added to the sum of squares; the paper has none, 1e-20 only avoids 0 / 0.
        clip: longest row of a difference, in parameter units; 0 is off.
    """

    name: Literal["sgd", "adagrad"] = "sgd"
    gamma: float = 0.05
    epsilon: float = 1e-20
    clip: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in ("sgd", "adagrad"):
            raise DataError(f"rule is {self.name!r}; it must be sgd or adagrad")
        if not 0 < self.gamma < float("inf"):
            raise DataError(f"gamma is {self.gamma}; Adagrad's scale is above 0")
        if self.epsilon < 0 or self.clip < 0:
            raise DataError(f"epsilon is {self.epsilon} and clip {self.clip}; neither is below 0")


@dataclass(frozen=True)
class Push:
    """A worker's difference of some rows.

    Attributes:
        worker: slot of the worker, 0 .. slots - 1.
        number: 1, 2, 3, ... per worker; a retry repeats the number.
        seen: what `Shard.pull` returned for the copy that the difference was made on.
        rate: learning rate at which the difference was made, > 0.
        rows: for each table the shard's own row numbers, int32 (n,), none twice.
        deltas: for each table float32 (n, width).
        bases: where given, the difference is deltas - bases, for each table float32 (n, at least width):
            spares a worker in the same memory the subtraction. The bases are rows as pulled.
    """

    worker: int
    number: int
    seen: int
    rate: float
    rows: Sequence[Rows]
    deltas: Sequence[Matrix]
    bases: Sequence[Matrix] | None = None


@dataclass(frozen=True)
class Receipt:
    """What became of a push: applied or a repeat, and how many pushes of others came between."""

    applied: bool
    staleness: int


class Shard:
    """Rows of every table with their version counter.

    Args:
        tables: the shard's part of each table.
        rule: update rule.
        slots: workers that may ever push, restarted ones counted anew.
        block: memory made from `specs` with the same arguments; None is private memory.
        lock: held while a push is applied; None is a thread lock.

    Raises:
        DataError: for fewer than one slot.
    """

    def __init__(
        self,
        tables: Sequence[Table],
        rule: Rule,
        *,
        slots: int,
        block: Block | None = None,
        lock: Lock | None = None,
    ) -> None:
        if slots < 1:
            raise DataError(f"slots is {slots}; a shard serves at least one worker")
        self.tables = tuple(tables)
        self.rule = rule
        self._block = block if block is not None else Block(self.specs(tables, rule, slots=slots))
        self._lock = lock if lock is not None else threading.Lock()
        self._values: list[Matrix] = [self._block[f"values/{t.name}"] for t in self.tables]
        adaptive = rule.name == "adagrad"
        self._squares: list[Matrix] = [self._block[f"squares/{t.name}"] for t in self.tables if adaptive]
        self._version = self._block["version"]
        self._applied = self._block["applied"]
        self._newest = self._block["newest"]
        self._window = self._block["window"]
        self._staleness = self._block["staleness"]
        self._counters = self._block["counters"]
        # Scratch of this process: which rows a push has named so far.
        self._stamps = [np.zeros(t.rows, np.int64) for t in self.tables]
        self._stamp = 0

    @staticmethod
    def specs(tables: Sequence[Table], rule: Rule, *, slots: int) -> list[ArraySpec]:
        """The arrays that a shard keeps."""
        found = [ArraySpec(f"values/{t.name}", "<f4", (t.rows, stored_length(t.width))) for t in tables]
        if rule.name == "adagrad":
            found += [ArraySpec(f"squares/{t.name}", "<f4", (t.rows, t.width)) for t in tables]
        return [
            *found,
            ArraySpec("version", "<i8", (1,)),
            ArraySpec("applied", "<i8", (slots,)),
            ArraySpec("newest", "<i8", (slots,)),
            ArraySpec("window", "<u8", (slots,)),
            ArraySpec("staleness", "<i8", (STALENESS_LIMIT + 1,)),
            ArraySpec("counters", "<i8", (4,)),
        ]

    @property
    def version(self) -> int:
        """Pushes applied so far."""
        return int(self._version[0])

    def pull(self, worker: int, rows: Sequence[Rows], into: Sequence[Matrix], twins: Sequence[Matrix]) -> int:
        """Copy rows of every table; returns how many pushes of other workers they hold.

        Takes no lock: a push that lands meanwhile may show in some rows and not in others, as between
        shards (Dean et al. 2012, section 4.1, find that harmless). The count is read first, so the
        staleness reported is never too small.

        Args:
            worker: slot of the worker that asks.
            rows: for each table the shard's own row numbers, int32 (n,).
            into: for each table float32 (n, stride), C-contiguous, stride at least the width.
            twins: of the same shape: a worker trains one copy and keeps the other to tell the difference.

        Raises:
            DataError: for a row that the shard does not hold.
        """
        seen = int(self._version[0] - self._applied[worker])
        for table, values, wanted, to, twin in zip(self.tables, self._values, rows, into, twins, strict=True):
            bad = _kernels.largest_row(wanted, table.rows)
            if bad >= 0:
                raise DataError(
                    f"row {int(wanted[bad])} of '{table.name}': the shard holds {table.rows} rows"
                )
            flat = (to.reshape(-1), twin.reshape(-1), to.shape[1])
            _kernels.gather(values.reshape(-1), values.shape[1], wanted, *flat)
        return seen

    def push(self, push: Push) -> Receipt:
        """Apply a difference, once.

        Returns:
            `applied` is false where this number of this worker was applied before, or is older than the
            last 64 and therefore not known to be new.

        Raises:
            PoisonedPush: if anything in it is not acceptable; nothing of it is applied then.
        """
        if not 0 <= push.worker < len(self._newest):
            raise PoisonedPush(f"push of worker {push.worker}; the server has {len(self._newest)} slots")
        if not 0 < push.rate < float("inf"):
            raise PoisonedPush(f"push at rate {push.rate}; a learning rate is above 0")
        with self._lock:
            self._inspect(push)
            if not self._is_new(push):
                self._counters[_REPEATS] += 1
                return Receipt(False, 0)
            for i in range(len(self.tables)):
                self._apply(i, push)
            staleness = max(int(self._version[0] - self._applied[push.worker]) - push.seen, 0)
            self._staleness[min(staleness, STALENESS_LIMIT)] += 1
            self._version[0] += 1
            self._applied[push.worker] += 1
            self._counters[_PUSHES] += 1
            return Receipt(True, staleness)

    def _apply(self, i: int, push: Push) -> None:
        """Apply the push to table i."""
        rows, delta, values, width = push.rows[i], push.deltas[i], self._values[i], self.tables[i].width
        if push.bases is not None:
            if self.rule.name == "sgd" and not self.rule.clip:
                flat = (delta.reshape(-1), push.bases[i].reshape(-1), delta.shape[1])
                _kernels.add_progress(values.reshape(-1), values.shape[1], rows, *flat)
                return
            delta = delta[:, :width] - push.bases[i][:, :width]
        if self.rule.clip:
            delta = delta.copy()
            self._counters[_CLIPPED] += _kernels.clip_rows(delta, self.rule.clip)
        if self.rule.name == "sgd":
            _kernels.add_rows(values, rows, delta)
        else:
            gamma, epsilon = np.float32(self.rule.gamma), np.float32(self.rule.epsilon)
            inverse = np.float32(1.0 / push.rate)
            _kernels.adagrad_rows(values, self._squares[i], rows, delta, inverse, gamma, epsilon)

    def _inspect(self, push: Push) -> None:
        if len(push.rows) != len(self.tables) or len(push.deltas) != len(self.tables):
            raise PoisonedPush(f"push of {len(push.rows)} tables; the shard has {len(self.tables)}")
        self._stamp += 1
        for i, (table, stamps) in enumerate(zip(self.tables, self._stamps, strict=True)):
            rows, delta = push.rows[i], push.deltas[i]
            width = delta.shape[1] if push.bases is not None else table.width
            if delta.shape != (len(rows), width) or width < table.width or delta.dtype != np.float32:
                self._refuse(push, table, f"has shape {delta.shape}, {delta.dtype}, for {len(rows)} rows")
            verdict, at = _kernels.inspect(rows, table.rows, delta.view(np.uint32), stamps, self._stamp)
            if verdict == _kernels.OUT_OF_RANGE:
                self._refuse(push, table, f"names row {int(rows[at])} of {table.rows}")
            if verdict == _kernels.NOT_FINITE:
                self._refuse(push, table, f"holds NaN or infinity in row {int(rows[at])} (diverged?)")
            if verdict == _kernels.REPEATED:
                self._refuse(push, table, f"names row {int(rows[at])} twice; sum them (`coalesce`)")

    def _refuse(self, push: Push, table: Table, why: str) -> None:
        self._counters[_REFUSED] += 1
        raise PoisonedPush(
            f"push {push.number} of worker {push.worker}: '{table.name}' {why}. Nothing applied."
        )

    def _is_new(self, push: Push) -> bool:
        """Enter the number into the worker's window; false if it is there already or too old."""
        behind = int(self._newest[push.worker]) - push.number
        window = int(self._window[push.worker])
        if behind >= PUSH_WINDOW or (behind >= 0 and window >> behind & 1):
            return False
        if behind < 0:
            window = (window << min(-behind, PUSH_WINDOW) | 1) & (2**PUSH_WINDOW - 1)
            self._newest[push.worker] = push.number
        else:
            window |= 1 << behind
        self._window[push.worker] = window
        return True

    def assign(self, values: Sequence[Matrix]) -> None:
        """Set every row of every table (initial parameters); float32 (rows, width) each."""
        with self._lock:
            for table, mine, given in zip(self.tables, self._values, values, strict=True):
                mine[:, : table.width] = given

    def values(self) -> list[Matrix]:
        """A copy of every table's rows."""
        with self._lock:
            return [v[:, : t.width].copy() for t, v in zip(self.tables, self._values, strict=True)]

    def state(self) -> dict[str, NDArray[Any]]:
        """A consistent copy of what outlasts the workers: values, squares, version, statistics."""
        with self._lock:
            return {name: self._block[name].copy() for name in self._lasting()}

    def _lasting(self) -> list[str]:
        return [spec.name for spec in self._block.specs if spec.name not in _OF_WORKERS]

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from `state` with new workers, whose pushes are numbered from 1 again.

        Raises:
            DataError: if an array is missing or of another shape.
        """
        with self._lock:
            for name in self._lasting():
                shape = self._block[name].shape
                if name not in state or state[name].shape != shape:
                    given = state[name].shape if name in state else "missing"
                    raise DataError(f"shard state '{name}' is {given}; it must be {shape}")
            for name in self._lasting():
                self._block[name][...] = state[name]
            for name in _OF_WORKERS:
                self._block[name][...] = 0

    def counts(self) -> dict[str, int]:
        """Pushes applied, repeats ignored, pushes refused and rows clipped."""
        names = ("pushes", "repeats", "refused", "clipped_rows")
        return dict(zip(names, map(int, self._counters), strict=True))

    def staleness(self) -> NDArray[np.int64]:
        """Pushes by how many pushes of others came between pull and push, int64 (1024,)."""
        return self._staleness.copy()


def coalesce(rows: Rows, delta: Matrix) -> tuple[Rows, Matrix]:
    """Sum the differences of rows named more than once.

    Args:
        rows: int32 (n,).
        delta: float32 (n, width).

    Returns:
        Rows ascending, int32 (m,), and their sums, float32 (m, width), m <= n.
    """
    unique, inverse = np.unique(rows, return_inverse=True)
    total = np.zeros((len(unique), delta.shape[1]), np.float32)
    np.add.at(total, inverse, delta)
    return unique.astype(np.int32), total
