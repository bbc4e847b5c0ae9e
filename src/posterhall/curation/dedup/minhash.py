"""Near duplicates: MinHash sketches, bands, and the true Jaccard similarity of what they propose.

Broder 1997 (resemblance of shingle sets); Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, 3.4
(bands). Every pair that the bands propose is compared by its sets of shingles, so that no text is dropped for
a pair below the threshold; what bands miss, the S-curve tells.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property, partial
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posterhall import devices, seeds
from posterhall.curation.dedup import _lsh_kernels as lsh
from posterhall.curation.dedup import _sketch_kernels as kernels
from posterhall.curation.dedup.passes import Here, Passes, Record, Step, Watch
from posterhall.curation.dedup.result import Duplicates, Keep, equal_heads, survivors
from posterhall.curation.dedup.spool import Budget, Spool
from posterhall.curation.dedup.texts import Batch, Texts, alphabet, in_threads, within
from posterhall.errors import DataError

WINDOW = 1024
"""Texts of one bucket that each is compared with at most, so that a large bucket costs no square of it."""

_BUCKETS = 1 << 10  # gone through at a time
_REFUSED = 1 << 20  # pairs remembered that were compared in vain
_SIGMAS = 3.5  # a pair whose sketches say so many standard errors below the threshold is not compared
_ACCIDENT = 1 / 256  # chance that two unequal slots agree in their low byte


@dataclass(frozen=True)
class MinHash:
    """How near duplicates are found."""

    threshold: float = 0.8
    """Jaccard similarity of shingle sets from which two texts are duplicates, in (0, 1]."""
    ngram: int = 5
    """Words or characters in a shingle, 1 to 1,000 (5 words: Lee et al. 2022 and FineWeb)."""
    unit: Literal["word", "char"] = "word"
    """What shingles are made of. Characters suit scripts without spaces, with an ngram of 10 or so."""
    normalise: bool = True
    """Fold case and leave out punctuation; otherwise only runs of white space are equal."""
    hashes: int = 128
    """Slots of a sketch, 8 to 4,096, from which bands and rows are chosen."""
    recall: float = 0.95
    """Chance, in (0, 1), that a pair right at the threshold is found, from which they are chosen."""
    bands: int | None = None
    """Bands, >= 1; texts that agree in all rows of one band are compared. Chosen if empty."""
    rows: int | None = None
    """Slots of a band, >= 1. Chosen if empty."""
    keep: Keep = "first"
    """Which text of a cluster stays: the first, the longest, or the best by a score."""
    seed: int = 0
    """Of the hash functions."""
    memory: int | None = None
    """Bytes that sketches and compared texts may take in memory; the rest goes to a temporary file."""
    threads: int | None = None
    """Threads, >= 1; all usable cores if empty. Results do not depend on it."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise DataError(f"threshold is {self.threshold}; a Jaccard similarity lies in (0, 1]")
        if not 1 <= self.ngram <= 1000:
            raise DataError(f"ngram is {self.ngram}; it must be 1 to 1,000")
        if not 8 <= self.hashes <= 4096:
            raise DataError(f"hashes is {self.hashes}; it must be 8 to 4,096")
        if not 0 < self.recall < 1:
            raise DataError(f"recall is {self.recall}; a chance between 0 and 1")
        for name in ("bands", "rows", "memory", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DataError(f"{name} is {value}; it must be at least 1")
        if (self.bands is None) != (self.rows is None):
            raise DataError("give both bands and rows, or neither: then they follow from the threshold")
        if self.bands is not None and self.rows is not None and self.bands * self.rows > 4096:
            raise DataError(
                f"{self.bands} bands of {self.rows} rows are {self.bands * self.rows:,} hashes; 4,096 at most"
            )

    def banding(self) -> tuple[int, int]:
        """(bands, rows): those given, or the most rows with which `recall` is reached at the threshold.

        More rows propose fewer pairs in vain. Where even one row does not reach it, the rows are one.
        """
        if self.bands is not None and self.rows is not None:
            return self.bands, self.rows
        for rows in range(self.hashes, 1, -1):
            bands = self.hashes // rows
            if float(s_curve(self.threshold, bands, rows)) >= self.recall:
                return bands, rows
        return self.hashes, 1


def s_curve(jaccard: ArrayLike, bands: int, rows: int) -> NDArray[np.float64]:
    """Chance that texts of a Jaccard similarity meet in a band: 1 - (1 - J^rows)^bands."""
    inside = np.asarray(jaccard, np.float64) ** rows
    with np.errstate(divide="ignore"):  # J = 1: log 0
        return np.asarray(-np.expm1(bands * np.log1p(-inside)))


def near_duplicates(
    texts: Texts | Passes,
    settings: MinHash | None = None,
    *,
    scores: NDArray[np.float64] | None = None,
    watch: Watch | None = None,
) -> Duplicates:
    """Find near duplicates and say which texts stay.

    Two texts are duplicates if the Jaccard similarity of their shingle sets is at least the threshold; a text
    of fewer words than a shingle is one shingle. Texts without a word have no shingles: they are nobody's
    duplicates here (`exact_duplicates` finds them). Clusters are the connected parts of the pairs found.

    Memory: 8 bytes a band, 1 a slot and 64 more for each text, which is about 340 bytes at the default, and 8
    bytes for each distinct shingle of the texts that have a candidate; both on disk past ``settings.memory``.
    Texts given as a function are gone through twice, a batch at a time.

    Args:
        texts: a list, an Arrow array, a function that returns batches of Arrow arrays; or `Mapped` files.
        settings: the defaults if None.
        scores: one a text, for ``keep="best"``.
        watch: told stage (``sketch``, ``compare``) and bytes; `Mapped` has its own.

    Raises:
        DataError: for what is not text.
    """
    settings = settings or MinHash()
    with Budget(settings.memory) as budget:
        passes = texts if isinstance(texts, Passes) else Here(texts, watch)
        return _Finder(settings, budget).run(passes, scores)


@dataclass(frozen=True)
class _Hashing(Step):
    """A step that needs the hash functions of the settings."""

    settings: MinHash

    @cached_property
    def drawn(self) -> tuple[np.uint64, NDArray[np.uint64], NDArray[np.uint32], NDArray[np.uint32]]:
        """Seed and weights (ngram + 1,) of shingles, salts and factors (slots,) of the slots' own hashes."""
        bands, rows = self.settings.banding()
        random = seeds.generator(self.settings.seed, "dedup", "minhash")
        return (
            random.integers(0, 2**64, dtype=np.uint64),
            random.integers(0, 2**64, self.settings.ngram + 1, dtype=np.uint64) | np.uint64(1),
            random.integers(0, 2**32, bands * rows, dtype=np.uint32),
            random.integers(0, 2**32, bands * rows, dtype=np.uint32) | np.uint32(1),
        )

    @property
    def shingles(self) -> tuple[object, ...]:
        """What the kernels need to cut texts into hashed shingles."""
        letters = alphabet(self.settings.normalise)
        return letters.folded, letters.alone, self.settings.unit == "word", *self.drawn[:2]

    @property
    def threads(self) -> int:
        """Threads to use."""
        return self.settings.threads or devices.cores()


@dataclass(frozen=True)
class Sketching(_Hashing):
    """Sketches: ``keys`` (bands, n) uint64, ``marks`` (n, slots) uint8, ``identities`` (n, 2) uint64,
    ``lengths`` (n,) int64; see `_sketch_kernels.sketch_all`."""

    stage: ClassVar[str] = "sketch"

    def __call__(self, batch: Batch) -> Record:
        n, bands = len(batch), self.settings.banding()[0]
        _, _, salts, factors = self.drawn
        keys = np.empty((bands, n), np.uint64)
        marks = np.empty((n, salts.size), np.uint8)
        identities = np.empty((n, 2), np.uint64)
        lengths = np.empty(n, np.int64)

        def part(first: int, last: int) -> None:
            kernels.sketch_all(
                batch.data, batch.offsets, first, last, *self.shingles, salts, factors, bands, keys, marks,
                identities, lengths,
            )  # fmt: skip

        in_threads([partial(part, *each) for each in batch.parts(4 * self.threads)], self.threads)
        return {"keys": keys, "marks": marks, "identities": identities, "lengths": lengths}


@dataclass(frozen=True)
class Shingling(_Hashing):
    """The shingle sets of some texts, one after another: ``shingles`` uint64, ``sizes`` int64."""

    stage: ClassVar[str] = "compare"
    chosen: NDArray[np.int64]
    """Numbers of the texts, ascending."""

    @property
    def idle(self) -> bool:
        return not self.chosen.size

    def within(self, first: int, last: int) -> Shingling:
        low, high = np.searchsorted(self.chosen, [first, last])
        return Shingling(self.settings, self.chosen[low:high] - first)

    def __call__(self, batch: Batch) -> Record:
        chosen = within(self.chosen, batch)
        parts = [each for each in np.array_split(chosen, 4 * self.threads) if each.size]
        found = in_threads([partial(self._sets, batch, part) for part in parts], self.threads)
        return {
            "shingles": np.concatenate([np.empty(0, np.uint64), *(values for values, _ in found)]),
            "sizes": np.concatenate([np.empty(0, np.int64), *(sizes for _, sizes in found)]),
        }

    def _sets(self, batch: Batch, chosen: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        ends = np.empty(chosen.size, np.int64)
        values = kernels.shingle_sets(batch.data, batch.offsets, chosen, *self.shingles, ends)
        return values, np.diff(ends, prepend=0)


class _Finder:
    """One run: the sketches as they come, and what is made of them."""

    def __init__(self, settings: MinHash, budget: Budget) -> None:
        self.settings = settings
        self.threads = settings.threads or devices.cores()
        self.bands, self.rows = settings.banding()
        self.budget = budget
        self.keys = [Spool(budget, np.uint64) for _ in range(self.bands)]
        self.marks = Spool(budget, np.uint8, self.bands * self.rows)
        self.identities = Spool(budget, np.uint64, 2)
        self.lengths = Spool(budget, np.int64)

    def run(self, passes: Passes, scores: NDArray[np.float64] | None) -> Duplicates:
        """Sketch, propose, compare, join, choose."""
        for _, found in passes.run(Sketching(self.settings)):
            for spool, keys in zip(self.keys, found["keys"], strict=True):
                spool.append(keys)
            self.marks.append(found["marks"])
            self.identities.append(found["identities"])
            self.lengths.append(found["lengths"])
        identities = self.identities.array()
        n = len(identities)
        head = equal_heads(identities)
        # Without a word there is nothing to compare.
        head = np.where(identities.any(axis=1), head, np.arange(n))
        distinct = np.flatnonzero((head == np.arange(n)) & identities.any(axis=1))
        members, starts = self._buckets(distinct)
        marks = self.marks.array()
        least = self._least_alike()
        flags = np.zeros(n, np.bool_)
        lsh.alike_at_all(members, starts, marks, least, WINDOW, flags)
        sets, edges, row = self._sets(passes, flags)
        parent = head.copy()
        match = np.full(n, -1, np.int64)
        similarity = np.zeros(n)
        refused = np.zeros(_REFUSED, np.uint64)
        compared = 0
        for begin in range(0, starts.size - 1, _BUCKETS):  # in steps, so that an interrupt comes through
            end = min(begin + _BUCKETS, starts.size - 1)
            compared += lsh.join(
                members, starts, begin, end, marks, least, WINDOW, sets, edges, row, self.settings.threshold,
                refused, parent, match, similarity,
            )  # fmt: skip
        lsh.heads(parent)
        copies = np.flatnonzero(head != np.arange(n))
        match[copies], similarity[copies] = head[copies], 1.0
        # The first of some equal texts is found equal to its first copy.
        lone, where = np.unique(head[copies], return_index=True)
        match[lone], similarity[lone] = copies[where], 1.0
        kept = survivors(parent, self.settings.keep, self.lengths.array(), scores)
        similarity_kept = self._with_kept(head, kept, sets, edges, row)
        return Duplicates(
            keep=kept == np.arange(n),
            kept=kept,
            match=match,
            similarity=similarity,
            similarity_kept=similarity_kept,
            facts={
                "documents": n,
                "bytes": passes.bytes,
                "bands": self.bands,
                "rows": self.rows,
                "copies": int(copies.size),
                "candidates": int(flags.sum()),
                "pairs_compared": compared,
                "bytes_on_disk": self.budget.on_disk,
            },
        )

    def _buckets(self, distinct: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The buckets of all bands, each set of texts once: (members, starts)."""

        def band(spool: Spool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
            keys = spool.array()[distinct]
            order = np.argsort(keys)
            members, starts = np.empty(keys.size + 1, np.int64), np.empty(keys.size + 1, np.int64)
            count, used = lsh.runs(keys[order], order, members, starts)
            spool.close()
            return distinct[members[:used]], starts[: count + 1].copy()

        found = in_threads([partial(band, spool) for spool in self.keys], self.threads)
        members = np.concatenate([m for m, _ in found])
        shifts = np.cumsum([0, *(m.size for m, _ in found)])
        starts = np.concatenate(
            [*(s[:-1] + at for (_, s), at in zip(found, shifts, strict=False)), shifts[-1:]]
        )
        hashes = np.empty(starts.size - 1, np.uint64)
        lsh.bucket_hashes(members, starts, hashes)
        _, chosen = np.unique(hashes, return_index=True)
        chosen.sort()
        sizes = np.diff(starts)[chosen]
        new_starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        places = np.repeat(starts[:-1][chosen] - new_starts[:-1], sizes) + np.arange(new_starts[-1])
        return members[places], new_starts

    def _least_alike(self) -> int:
        """Equal marks that a pair at the threshold has, but for one time in 4,000."""
        t, slots = self.settings.threshold, self.bands * self.rows
        expected = t + (1 - t) * _ACCIDENT
        return int(np.floor(slots * expected - _SIGMAS * np.sqrt(slots * expected * (1 - expected))))

    def _sets(
        self, passes: Passes, flags: NDArray[np.bool_]
    ) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
        """Shingle sets of the flagged texts: (sets, their starts, row of each text)."""
        spool = Spool(self.budget, np.uint64)
        sizes: list[NDArray[np.int64]] = [np.zeros(1, np.int64)]
        if flags.any():
            for _, found in passes.run(Shingling(self.settings, np.flatnonzero(flags))):
                spool.append(found["shingles"])
                sizes.append(found["sizes"])
        row = np.cumsum(flags) - 1
        return spool.array(), np.cumsum(np.concatenate(sizes)), row

    def _compare(
        self,
        first: NDArray[np.int64],
        second: NDArray[np.int64],
        sets: NDArray[np.uint64],
        starts: NDArray[np.int64],
        row: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        value = np.empty(first.size)
        a, b = row[first], row[second]
        cuts = np.linspace(0, first.size, 4 * self.threads + 1).astype(int)
        ranges = [(lo, hi) for lo, hi in itertools.pairwise(cuts) if hi > lo]
        compare = partial(kernels.jaccard, sets, starts, a, b)
        in_threads([partial(compare, lo, hi, value) for lo, hi in ranges], self.threads)
        return value

    def _with_kept(
        self,
        head: NDArray[np.int64],
        kept: NDArray[np.int64],
        sets: NDArray[np.uint64],
        edges: NDArray[np.int64],
        row: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """Similarity of each dropped text with the one that stays."""
        value = np.zeros(head.size)
        gone = np.flatnonzero(kept != np.arange(head.size))
        a, b = head[gone], head[kept[gone]]
        value[gone[a == b]] = 1.0
        other = a != b
        value[gone[other]] = self._compare(a[other], b[other], sets, edges, row)
        return value
