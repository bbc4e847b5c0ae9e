"""Equal texts: found by a 128-bit hash, and compared letter by letter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from posterhall import devices, seeds
from posterhall.curation.dedup import _text_kernels as kernels
from posterhall.curation.dedup.passes import Here, Passes, Record, Step, Watch
from posterhall.curation.dedup.result import Duplicates, Keep, equal_heads, survivors
from posterhall.curation.dedup.spool import Budget, Spool
from posterhall.curation.dedup.texts import Batch, Texts, alphabet, batches, in_threads, within
from posterhall.errors import DataError


@dataclass(frozen=True)
class Exact:
    """How equal texts are found."""

    normalise: bool = False
    """Texts are equal that differ in case, punctuation and white space only."""
    keep: Keep = "first"
    """Which of equal texts stays: the first, the longest (before normalising), or the best by a score."""
    seed: int = 0
    """Of the hash function."""
    memory: int | None = None
    """Bytes that hashes and compared texts may take in memory; the rest goes to a temporary file."""
    threads: int | None = None
    """Threads, >= 1; all usable cores if empty."""

    def __post_init__(self) -> None:
        for name in ("memory", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DataError(f"{name} is {value}; it must be at least 1")


def exact_duplicates(
    texts: Texts | Passes,
    settings: Exact | None = None,
    *,
    scores: NDArray[np.float64] | None = None,
    watch: Watch | None = None,
) -> Duplicates:
    """Find equal texts (empty ones too) and say which stay.

    Memory: 40 bytes a text, and one of each set of equal texts while they are compared; the rest goes to disk
    past ``settings.memory``. Texts given as a function are gone through three times where any are equal.

    Args:
        texts: a list, an Arrow array, a function that returns batches of Arrow arrays; or `Mapped` files,
            of which those texts are compared here that have equal hashes.
        settings: the defaults if None.
        scores: one a text, for ``keep="best"``.
        watch: told stage (``hash``, ``compare``) and bytes; `Mapped` has its own.

    Raises:
        DataError: for what is not text.
    """
    settings = settings or Exact()
    watch = watch or (lambda stage, done: None)
    with Budget(settings.memory) as budget:
        passes = texts if isinstance(texts, Passes) else Here(texts, watch)
        return _Finder(settings, budget, watch).run(passes, scores)


@dataclass(frozen=True)
class Hashing(Step):
    """``hashes`` (n, 2) uint64 of texts as they are compared, ``lengths`` (n,) int64 in characters."""

    stage: ClassVar[str] = "hash"
    settings: Exact

    @cached_property
    def seed(self) -> np.uint64:
        """Of the hash function."""
        return seeds.generator(self.settings.seed, "dedup", "exact").integers(0, 2**64, dtype=np.uint64)

    def compared(self, batch: Batch) -> Batch:
        """A batch as it is compared."""
        return alphabet(True).batch(batch) if self.settings.normalise else batch

    def __call__(self, batch: Batch) -> Record:
        threads = self.settings.threads or devices.cores()
        clean = self.compared(batch)
        hashes, lengths = np.empty((len(batch), 2), np.uint64), np.empty(len(batch), np.int64)
        work = [
            partial(kernels.digest_all, clean.data, clean.offsets[a : b + 1], self.seed, hashes[a:b])
            for a, b in clean.parts(threads)
        ]
        work.append(partial(kernels.characters_all, batch.data, batch.offsets, lengths))
        in_threads(work, threads)
        return {"hashes": hashes, "lengths": lengths}


class _Finder:
    """One run."""

    def __init__(self, settings: Exact, budget: Budget, watch: Watch) -> None:
        self.settings = settings
        self.hashing = Hashing(settings)
        self.budget = budget
        self.watch = watch

    def run(self, passes: Passes, scores: NDArray[np.float64] | None) -> Duplicates:
        """Hash, group, compare, choose."""
        hashes, lengths = Spool(self.budget, np.uint64, 2), Spool(self.budget, np.int64)
        for _, found in passes.run(self.hashing):
            hashes.append(found["hashes"])
            lengths.append(found["lengths"])
        head = equal_heads(hashes.array())
        hashes.close()
        self._compare(passes.texts, head)
        n = head.size
        kept = survivors(head, self.settings.keep, lengths.array(), scores)
        copies = np.flatnonzero(head != np.arange(n))
        match = np.full(n, -1, np.int64)
        firsts, where = np.unique(head[copies], return_index=True)
        match[firsts] = copies[where]
        match[copies] = head[copies]
        gone = kept != np.arange(n)
        return Duplicates(
            keep=~gone,
            kept=kept,
            match=match,
            similarity=(match >= 0).astype(np.float64),
            similarity_kept=gone.astype(np.float64),
            facts={"documents": n, "bytes": passes.bytes, "bytes_on_disk": self.budget.on_disk},
        )

    def _batches(self, texts: Texts) -> Iterator[Batch]:
        """Batches as they are compared."""
        return map(self.hashing.compared, batches(texts))

    def _compare(self, texts: Texts, head: NDArray[np.int64]) -> None:
        """Compare each text with the first of its hash; those that differ are grouped anew, in ``head``."""
        left = np.flatnonzero(head != np.arange(head.size))
        while left.size:
            differs = np.zeros(head.size, np.bool_)
            wanted = np.unique(head[left])
            bodies, sizes = Spool(self.budget, np.uint8), [np.zeros(1, np.int64)]
            for batch in self._batches(texts):
                chosen = within(wanted, batch)
                body, ends = (
                    np.empty(kernels.bytes_of(batch.offsets, chosen), np.uint8),
                    np.empty_like(chosen),
                )
                kernels.copy_out(batch.data, batch.offsets, chosen, body, ends)
                bodies.append(body)
                sizes.append(np.diff(ends, prepend=0))
            starts = np.cumsum(np.concatenate(sizes))
            data = bodies.array()
            done = 0
            for batch in self._batches(texts):
                chosen = within(left, batch)
                row = np.searchsorted(wanted, head[chosen + batch.first])
                unequal = np.empty(chosen.size, np.bool_)
                kernels.unequal(batch.data, batch.offsets, chosen, data, starts, row, unequal)
                differs[chosen[unequal] + batch.first] = True
                done += batch.bytes
                self.watch("compare", done)
            bodies.close()
            left = np.flatnonzero(differs)
            # Those of one hash that are not the first text: again compared with the first of them.
            _, first, group = np.unique(head[left], return_index=True, return_inverse=True)
            head[left] = left[first][group]
            left = left[head[left] != left]
