"""Equal texts: found by a 128-bit hash, and compared letter by letter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from posterhall import devices, seeds
from posterhall.curation.dedup import _text_kernels as kernels
from posterhall.curation.dedup.result import Duplicates, Keep, equal_heads, survivors
from posterhall.curation.dedup.spool import Budget, Spool
from posterhall.curation.dedup.texts import Batch, Texts, alphabet, batches, in_threads
from posterhall.errors import DataError

Watch = Callable[[str, int], None]
"""Called with a stage (``hash``, ``compare``) and the bytes of text done in it."""


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
    texts: Texts,
    settings: Exact | None = None,
    *,
    scores: NDArray[np.float64] | None = None,
    watch: Watch | None = None,
) -> Duplicates:
    """Find equal texts (empty ones too) and say which stay.

    Memory: 40 bytes a text, and one of each set of equal texts while they are compared; the rest goes to disk
    past ``settings.memory``. Texts given as a function are gone through three times where any are equal.

    Args:
        texts: a list, an Arrow array, or a function that returns batches of Arrow arrays.
        settings: the defaults if None.
        scores: one a text, for ``keep="best"``.
        watch: told the progress.

    Raises:
        DataError: for what is not text.
    """
    settings = settings or Exact()
    with Budget(settings.memory) as budget:
        return _Finder(settings, budget, watch or (lambda stage, done: None)).run(texts, scores)


class _Finder:
    """One run."""

    def __init__(self, settings: Exact, budget: Budget, watch: Watch) -> None:
        self.settings = settings
        self.budget = budget
        self.watch = watch
        self.threads = settings.threads or devices.cores()
        self.seed = seeds.generator(settings.seed, "dedup", "exact").integers(0, 2**64, dtype=np.uint64)

    def run(self, texts: Texts, scores: NDArray[np.float64] | None) -> Duplicates:
        """Hash, group, compare, choose."""
        hashes, lengths = Spool(self.budget, np.uint64, 2), Spool(self.budget, np.int64)
        done = 0
        for raw, batch in self._batches(texts):
            found, length = np.empty((len(batch), 2), np.uint64), np.empty(len(batch), np.int64)
            work = [
                partial(kernels.digest_all, batch.data, batch.offsets[a : b + 1], self.seed, found[a:b])
                for a, b in batch.parts(self.threads)
            ]
            work.append(partial(kernels.characters_all, raw.data, raw.offsets, length))
            in_threads(work, self.threads)
            hashes.append(found)
            lengths.append(length)
            done += raw.bytes
            self.watch("hash", done)
        head = equal_heads(hashes.array())
        hashes.close()
        self._compare(texts, head)
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
            facts={"documents": n, "bytes": done, "bytes_on_disk": self.budget.on_disk},
        )

    def _batches(self, texts: Texts) -> Iterator[tuple[Batch, Batch]]:
        """Batches as they come, and as they are compared."""
        letters = alphabet(True) if self.settings.normalise else None
        for batch in batches(texts):
            yield batch, letters.batch(batch) if letters is not None else batch

    def _compare(self, texts: Texts, head: NDArray[np.int64]) -> None:
        """Compare each text with the first of its hash; those that differ are grouped anew, in ``head``."""
        left = np.flatnonzero(head != np.arange(head.size))
        while left.size:
            differs = np.zeros(head.size, np.bool_)
            wanted = np.unique(head[left])
            bodies, sizes = Spool(self.budget, np.uint8), [np.zeros(1, np.int64)]
            for _, batch in self._batches(texts):
                chosen = _within(wanted, batch)
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
            for _, batch in self._batches(texts):
                chosen = _within(left, batch)
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


def _within(numbers: NDArray[np.int64], batch: Batch) -> NDArray[np.int64]:
    """Those of ascending numbers that are in a batch, counted from its first."""
    low, high = np.searchsorted(numbers, [batch.first, batch.first + len(batch)])
    return numbers[low:high] - batch.first
