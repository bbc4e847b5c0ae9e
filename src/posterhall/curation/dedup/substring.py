"""Passages that documents share: who has them, where they are, and which documents or passages go.

The rule of Muennighoff et al. 2023 (appendix N; Lee et al. 2022): documents that share a span of 100
characters. They drop every such document (``keep="none"``); here one may also keep the first, or cut the
spans out. Spans are counted in characters, and never begin or end inside one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from posterhall import devices, seeds
from posterhall.curation.dedup import _suffix_kernels as kernels
from posterhall.curation.dedup import _window_kernels as windows
from posterhall.curation.dedup.passes import Here, Passes, Record, Step, Watch
from posterhall.curation.dedup.spool import Budget, Spool
from posterhall.curation.dedup.suffixes import suffix_array
from posterhall.curation.dedup.texts import Batch, Texts, batches, in_threads
from posterhall.errors import DataError, UsageError

BYTES_EACH = 14
"""Memory that sorting the suffixes of a text takes at its peak, in bytes a byte of text (below 2 GiB)."""

_SEEN = 1 << 18  # hashes remembered, of sets of documents that share something


@dataclass(frozen=True)
class Substring:
    """How shared passages are found, and what is done about them."""

    length: int = 100
    """Characters from which a passage counts, >= 1 (Muennighoff et al. 2023: 100)."""
    keep: Literal["none", "first"] = "none"
    """none: every document that shares a passage goes (the paper); first: the first of those stays."""
    search: Literal["sampled", "suffix-array"] = "sampled"
    """sampled: suffixes are sorted only where sampled hashes say that something is shared; suffix-array: all
    are, in memory. The answer is the same."""
    memory: int | None = None
    """Bytes for the work; half of what is free if empty. More goes to a temporary file (sampled), or is
    refused (suffix-array)."""
    seed: int = 0
    """Of the hash function by which windows are sampled; the answer does not depend on it."""
    threads: int | None = None
    """Threads, >= 1; all usable cores if empty."""

    def __post_init__(self) -> None:
        if self.length < 1:
            raise DataError(f"length is {self.length}; a passage has at least 1 character")
        for name in ("memory", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DataError(f"{name} is {value}; it must be at least 1")


@dataclass(frozen=True)
class SharedSpans:
    """Documents that share passages. Places are counted in characters.

    Attributes:
        keep: (n,) whether the document stays.
        match: (n,) of one that goes, the first document that it shares a passage with (of those kept, with
            ``keep="first"``); -1 for one that stays.
        spans: rows (document, start, stop): all that is also in another document.
        repeats: rows (document, start, stop): all that is also in an earlier document.
        facts: what was done: documents, bytes, bytes sorted, and so on.
    """

    keep: NDArray[np.bool_]
    match: NDArray[np.int64]
    spans: NDArray[np.int64]
    repeats: NDArray[np.int64]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def dropped(self) -> NDArray[np.int64]:
        """Numbers of the documents that go."""
        return np.flatnonzero(~self.keep)

    def cut(self, document: int, text: str, keep: Literal["none", "first"] = "first") -> str:
        """A document's text without the passages it shares (``first``: without those in earlier ones)."""
        rows = self.repeats if keep == "first" else self.spans
        low, high = np.searchsorted(rows[:, 0], [document, document + 1])
        parts, at = [], 0
        for _, start, stop in rows[low:high].tolist():
            parts.append(text[at:start])
            at = stop
        return "".join([*parts, text[at:]])

    def table(self, uids: pa.Array | Sequence[str] | None = None) -> pa.Table:
        """A row for each span: uid, start, stop, and whether an earlier document has some of it."""
        document = self.spans[:, 0]
        at = np.searchsorted(_keys(self.repeats), _keys(self.spans))
        after = np.append(_keys(self.repeats), np.iinfo(np.int64).max)[at]
        stops = (document << 40) + self.spans[:, 2]
        return pa.table(
            {
                "uid": document if uids is None else pa.array(uids).take(pa.array(document)),
                "start": self.spans[:, 1],
                "stop": self.spans[:, 2],
                "repeat": after < stops,
            }
        )


def _keys(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where spans begin, as one number that orders them: no text has 2**40 characters."""
    return np.asarray((rows[:, 0] << 40) + rows[:, 1])


def shared_spans(
    texts: Texts | Passes, settings: Substring | None = None, *, watch: Watch | None = None
) -> SharedSpans:
    """Find passages of ``length`` characters and more that occur in several documents.

    A passage that a document repeats within itself does not count.

    With ``search="sampled"`` texts given as a function are gone through twice, a batch at a time, and memory
    is bounded by ``memory``, apart from 16 bytes a document, 48 a span found, and about eight times the bytes
    of one batch: the windows of a text are told apart by their least hash, and sorted in as many parts as it
    takes. (A passage that very many documents share is in one part, which takes 14 bytes for each byte of
    its occurrences.)

    Args:
        texts: a list, an Arrow array, a function that returns batches of Arrow arrays; or `Mapped` files.
        settings: the defaults if None.
        watch: told stage (``sample``, ``gather``, ``sort``) and bytes; `Mapped` tells the first two.

    Raises:
        DataError: for what is not text, or if all of it does not fit in memory with ``suffix-array``.
        UsageError: for ``suffix-array`` with `Mapped` files.
    """
    settings = settings or Substring()
    limit = settings.memory if settings.memory is not None else devices.memory() // 2
    with Budget(limit if settings.search == "sampled" else None) as budget:
        watch = watch or (lambda stage, done: None)
        passes = texts if isinstance(texts, Passes) else Here(texts, watch)
        return _Finder(settings, budget, limit, watch).run(passes)


@dataclass(frozen=True)
class _Windows(Step):
    """A step that tells windows apart by their least hashes."""

    settings: Substring

    @cached_property
    def hashing(self) -> tuple[int, int, np.uint64]:
        """Characters of a window and of its parts, and the seed of the hashes."""
        length = self.settings.length
        drawn = seeds.generator(self.settings.seed, "dedup", "windows")
        # Shorter parts sort out less (with a half, a quarter of ordinary text is sorted, not 2 %), longer
        # ones take more samples: 2 of every length - part + 2 characters.
        return length, max(1, length * 3 // 4), drawn.integers(0, 2**64, dtype=np.uint64)

    def in_parts(self, kernel: Any, batch: Batch, *further: Any) -> list[Any]:
        """What a kernel gives for the parts of a batch."""
        threads = self.settings.threads or devices.cores()
        work = partial(kernel, batch.data, batch.offsets)
        jobs = [partial(work, *each, *self.hashing, *further) for each in batch.parts(4 * threads)]
        return in_threads(jobs, threads)


@dataclass(frozen=True)
class Sampling(_Windows):
    """Least hashes of windows: ``hashes`` uint64, ``texts`` int64 that each is of."""

    stage: ClassVar[str] = "sample"

    def __call__(self, batch: Batch) -> Record:
        found = self.in_parts(windows.samples, batch)
        return {
            "hashes": np.concatenate([np.empty(0, np.uint64), *(hashes for hashes, _ in found)]),
            "texts": np.concatenate([np.empty(0, np.int64), *(texts for _, texts in found)]),
        }


@dataclass(frozen=True)
class Gathering(_Windows):
    """Stretches whose windows have hot hashes: ``pieces`` uint8, one after another with a separator each,
    ``rows`` (n, 3) int64 (text, first character, bytes with the separator), ``parts`` (n,) int64, rising."""

    stage: ClassVar[str] = "gather"
    hot: NDArray[np.uint64]
    """Least hashes that come up in several texts, ascending."""
    parts: int
    """Parts of all hashes that are sorted one after the other."""

    @cached_property
    def bits(self) -> NDArray[np.uint8]:
        """What most hashes are not among, for a first look."""
        bits = np.zeros(1 << max(3, int(2 * self.hot.size).bit_length()), np.uint8)
        windows.fill_filter(self.hot, bits)
        return bits

    def __call__(self, batch: Batch) -> Record:
        found = self.in_parts(windows.stretches, batch, self.hot, self.bits, self.parts)
        rows = np.concatenate([np.empty((0, 5), np.int64), *found])
        rows = rows[np.argsort(rows[:, 4], kind="stable")]
        pieces, sizes = _pieces(batch, rows[:, 1], rows[:, 2])
        return {
            "pieces": pieces,
            "rows": np.column_stack([rows[:, 0], rows[:, 3], sizes]),
            "parts": rows[:, 4],
        }


class _Finder:
    """One run: what was found in the parts sorted so far."""

    def __init__(self, settings: Substring, budget: Budget, limit: int, watch: Watch) -> None:
        self.settings = settings
        self.budget = budget
        self.limit = limit
        self.watch = watch
        self.threads = settings.threads or devices.cores()
        self.sorted = 0
        self.parts = 1
        self.seen = np.zeros(_SEEN, np.uint64)
        self.members: list[NDArray[np.int64]] = []
        self.ends: list[NDArray[np.int64]] = []
        self.used = 0
        self.found: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = ([], [])

    def run(self, passes: Passes) -> SharedSpans:
        """Find what is shared, then decide who stays."""
        if self.settings.search == "sampled":
            documents, size = self._sampled(passes)
        elif isinstance(passes, Here):
            documents, size = self._everything(passes.texts)
        else:
            raise UsageError("search=suffix-array sorts all text in one place; take sampled for files apart")
        match = np.full(documents, -1, np.int64)
        members = np.concatenate([np.empty(0, np.int64), *self.members])
        ends = np.concatenate([np.empty(0, np.int64), *self.ends])
        if self.settings.keep == "first":
            groups = np.repeat(np.arange(ends.size), np.diff(ends, prepend=0))
            order = np.lexsort((groups, members))
            kernels.claim(members[order], groups[order], np.full(ends.size, -1, np.int64), match)
        else:
            kernels.first_other(members, ends, match)
        spans, repeats = (_merged(rows) for rows in self.found)
        return SharedSpans(
            keep=match < 0,
            match=match,
            spans=spans,
            repeats=repeats,
            facts={
                "documents": documents,
                "bytes": size,
                "bytes_sorted": self.sorted,
                "parts": self.parts,
                "shared_characters": int((spans[:, 2] - spans[:, 1]).sum()),
                "bytes_on_disk": self.budget.on_disk,
            },
        )

    def _compare(self, text: NDArray[np.uint8], rows: NDArray[np.int64]) -> None:
        """Sort the suffixes of pieces of documents, and note what several documents have.

        Args:
            text: the pieces, a separator after each.
            rows: (document, first character, bytes with the separator) of each.
        """
        if not text.size:
            return
        self.sorted += text.size
        starts = np.concatenate([[0], np.cumsum(rows[:, 2])])
        sa = suffix_array(text)
        previous = np.empty_like(sa)
        kernels.before(sa, previous)
        marks = np.empty(text.size, np.uint8)
        kernels.linked(text, starts, self.settings.length, previous, marks)
        del previous
        document = np.ascontiguousarray(rows[:, 0])
        members, ends = kernels.shared(sa, starts, document, marks, self.seen)
        del sa
        self.members.append(members)
        self.ends.append(ends + self.used)
        self.used += members.size
        for bit, into in zip((1, 2), self.found, strict=True):
            found = kernels.spans(
                text, starts, marks, bit, self.settings.length, np.ascontiguousarray(rows[:, 1])
            )
            found[:, 0] = document[found[:, 0]]
            into.append(found)
        self.watch("sort", self.sorted)

    def _everything(self, texts: Texts) -> tuple[int, int]:
        """Compare all there is: (documents, bytes)."""
        pieces, rows = Spool(self.budget, np.uint8), Spool(self.budget, np.int64, 3)
        documents = size = 0
        for batch in batches(texts):
            documents, size = batch.first + len(batch), size + batch.bytes
            if size * BYTES_EACH > self.limit:
                raise DataError(
                    f"sorting all suffixes of {size:,} bytes of text and more takes {BYTES_EACH} times "
                    f"as much memory, and {self.limit:,} bytes may be used; take search=sampled"
                )
            piece, sizes = _pieces(batch, batch.offsets[:-1], batch.offsets[1:])
            pieces.append(piece)
            numbers = np.arange(batch.first, documents)
            rows.append(np.column_stack([numbers, np.zeros_like(numbers), sizes]))
        self._compare(pieces.array(), rows.array())
        return documents, size

    def _sampled(self, passes: Passes) -> tuple[int, int]:
        """Compare what may be shared: (documents, bytes) of all."""
        hot, count = self._hot(passes)
        if not hot.size:
            return passes.documents, passes.bytes
        # A stretch around one hot hash: the windows it is least of, of which half the parts' number is usual.
        size = 4 * count * self.settings.length
        self.parts = max(1, -(-min(size, 2 * passes.bytes) * BYTES_EACH // self.limit))
        pieces = [Spool(self.budget, np.uint8) for _ in range(self.parts)]
        rows = [Spool(self.budget, np.int64, 3) for _ in range(self.parts)]
        for first, found in passes.run(Gathering(self.settings, hot, self.parts)):
            row = found["rows"] + np.array([first, 0, 0])
            ends = np.concatenate([[0], np.cumsum(row[:, 2])])
            parts, begins = np.unique(found["parts"], return_index=True)
            for part, (a, b) in zip(parts.tolist(), pairwise([*begins, len(row)]), strict=True):
                pieces[part].append(found["pieces"][ends[a] : ends[b]])
                rows[part].append(row[a:b])
        for piece_spool, row_spool in zip(pieces, rows, strict=True):
            self._compare(piece_spool.array(), row_spool.array())
            piece_spool.close()
            row_spool.close()
        return passes.documents, passes.bytes

    def _hot(self, passes: Passes) -> tuple[NDArray[np.uint64], int]:
        """Least hashes of windows that come up in several documents, ascending, and how often they do."""
        spools = [(Spool(self.budget, np.uint64), Spool(self.budget, np.int64)) for _ in range(_RANGES)]
        for first, found in passes.run(Sampling(self.settings)):
            hashes, numbers = found["hashes"], found["texts"] + first
            which = hashes >> np.uint64(64 - _RANGE_BITS)
            order = np.argsort(which, kind="stable")
            cuts = np.searchsorted(which[order], np.arange(1, _RANGES))
            for spool, some in zip(spools, np.split(order, cuts), strict=True):
                spool[0].append(hashes[some])
                spool[1].append(numbers[some])

        def several(spool: tuple[Spool, Spool]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
            hashes, numbers = spool[0].array(), spool[1].array()
            found: tuple[NDArray[np.uint64], NDArray[np.int64]]
            found = windows.in_several(hashes, numbers, np.argsort(hashes))
            return found

        several_of = in_threads([partial(several, spool) for spool in spools], self.threads)
        for pair in spools:
            for each in pair:
                each.close()
        return np.concatenate([h for h, _ in several_of]), int(sum(c.sum() for _, c in several_of))


_RANGE_BITS = 4
_RANGES = 1 << _RANGE_BITS
"""Parts in which sampled hashes are sorted: each of them is held in memory at a time."""


def _pieces(
    batch: Batch, begins: NDArray[Any], ends: NDArray[Any]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Stretches of a batch's bytes, a separator after each, and their sizes with it."""
    begins, ends = np.ascontiguousarray(begins), np.ascontiguousarray(ends)
    sizes = ends - begins + 1
    out = np.empty(int(sizes.sum()), np.uint8)
    windows.gather(batch.data, begins, ends, kernels.SEPARATOR, out)
    return out, sizes


def _merged(found: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Spans of all parts in order, those that touch as one."""
    rows = np.concatenate([np.empty((0, 3), np.int64), *found])
    rows = rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))]
    if not len(rows):
        return rows
    reach = np.maximum.accumulate((rows[:, 0] << 40) + rows[:, 2])
    fresh = np.ones(len(rows), np.bool_)
    fresh[1:] = _keys(rows)[1:] > reach[:-1]
    starts = np.flatnonzero(fresh)
    last = np.append(starts[1:], len(rows)) - 1
    return np.column_stack([rows[starts, 0], rows[starts, 1], reach[last] & ((1 << 40) - 1)])
