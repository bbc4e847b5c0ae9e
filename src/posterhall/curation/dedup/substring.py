"""Passages that documents share: who has them, where they are, and which documents or passages go.

The rule of Muennighoff et al. 2023 (appendix N; Lee et al. 2022): documents that share a span of 100
characters. They drop every such document (``keep="none"``); here one may also keep the first, or cut the
spans out. Spans are counted in characters, and never begin or end inside one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from posterhall import devices, seeds
from posterhall.curation.dedup import _suffix_kernels as kernels
from posterhall.curation.dedup import _window_kernels as windows
from posterhall.curation.dedup.spool import Budget, Spool
from posterhall.curation.dedup.suffixes import suffix_array
from posterhall.curation.dedup.texts import Batch, Texts, batches, in_threads
from posterhall.errors import DataError

Watch = Callable[[str, int], None]
"""Called with a stage (``sample``, ``gather``, ``sort``) and the bytes of text done in it."""

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
    texts: Texts, settings: Substring | None = None, *, watch: Watch | None = None
) -> SharedSpans:
    """Find passages of ``length`` characters and more that occur in several documents.

    A passage that a document repeats within itself does not count.

    With ``search="sampled"`` texts given as a function are gone through twice, a batch at a time, and memory
    is bounded by ``memory``, apart from 16 bytes a document, 48 a span found, and about eight times the bytes
    of one batch: the windows of a text are told apart by their least hash, and sorted in as many parts as it
    takes. (A passage that very many documents share is in one part, which takes 14 bytes for each byte of
    its occurrences.)

    Args:
        texts: a list, an Arrow array, or a function that returns batches of Arrow arrays.
        settings: the defaults if None.
        watch: told the progress.

    Raises:
        DataError: for what is not text, or if all of it does not fit in memory with ``suffix-array``.
    """
    settings = settings or Substring()
    limit = settings.memory if settings.memory is not None else devices.memory() // 2
    with Budget(limit if settings.search == "sampled" else None) as budget:
        return _Finder(settings, budget, limit, watch or (lambda stage, done: None)).run(texts)


class _Finder:
    """One run: what was found in the parts sorted so far."""

    def __init__(self, settings: Substring, budget: Budget, limit: int, watch: Watch) -> None:
        self.settings = settings
        self.budget = budget
        self.limit = limit
        self.watch = watch
        self.threads = settings.threads or devices.cores()
        drawn = seeds.generator(settings.seed, "dedup", "windows")
        self.hashing = (
            settings.length,
            # Shorter parts sort out less (with a half, a quarter of ordinary text is sorted, not 2 %), longer
            # ones take more samples: 2 of every length - part + 2 characters.
            max(1, settings.length * 3 // 4),
            drawn.integers(0, 2**64, dtype=np.uint64),
        )
        self.documents = 0
        self.bytes = 0
        self.sorted = 0
        self.parts = 1
        self.seen = np.zeros(_SEEN, np.uint64)
        self.members: list[NDArray[np.int64]] = []
        self.ends: list[NDArray[np.int64]] = []
        self.used = 0
        self.found: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = ([], [])

    def run(self, texts: Texts) -> SharedSpans:
        """Find what is shared, then decide who stays."""
        if self.settings.search == "suffix-array":
            self._everything(texts)
        else:
            self._sampled(texts)
        match = np.full(self.documents, -1, np.int64)
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
                "documents": self.documents,
                "bytes": self.bytes,
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

    def _everything(self, texts: Texts) -> None:
        pieces, rows = Spool(self.budget, np.uint8), Spool(self.budget, np.int64, 3)
        for batch in batches(texts):
            self._count(batch)
            piece, row = _pieces(
                batch, batch.offsets[:-1], batch.offsets[1:], np.arange(len(batch)), np.zeros(len(batch))
            )
            pieces.append(piece)
            rows.append(row)
            if self.bytes * BYTES_EACH > self.limit:
                raise DataError(
                    f"sorting all suffixes of {self.bytes:,} bytes of text and more takes {BYTES_EACH} times "
                    f"as much memory, and {self.limit:,} bytes may be used; take search=sampled"
                )
        self._compare(pieces.array(), rows.array())

    def _sampled(self, texts: Texts) -> None:
        hot, count = self._hot(texts)
        if not hot.size:
            return
        # A stretch around one hot hash: the windows it is least of, of which half the parts' number is usual.
        size = 4 * count * self.settings.length
        self.parts = max(1, -(-min(size, 2 * self.bytes) * BYTES_EACH // self.limit))
        bits = np.zeros(1 << max(3, int(2 * hot.size).bit_length()), np.uint8)
        windows.fill_filter(hot, bits)
        pieces = [Spool(self.budget, np.uint8) for _ in range(self.parts)]
        rows = [Spool(self.budget, np.int64, 3) for _ in range(self.parts)]
        done = 0
        for batch in batches(texts):
            if batch.first + len(batch) > self.documents:
                raise DataError("the texts changed while they were read: there are more than at first")
            work = partial(windows.stretches, batch.data, batch.offsets)
            jobs = [
                partial(work, *each, *self.hashing, hot, bits, self.parts)
                for each in batch.parts(4 * self.threads)
            ]
            found = np.concatenate(in_threads(jobs, self.threads))
            for part in np.unique(found[:, 4]).tolist():
                some = found[found[:, 4] == part]
                piece, row = _pieces(batch, some[:, 1], some[:, 2], some[:, 0], some[:, 3])
                pieces[part].append(piece)
                rows[part].append(row)
            done += batch.bytes
            self.watch("gather", done)
        for piece_spool, row_spool in zip(pieces, rows, strict=True):
            self._compare(piece_spool.array(), row_spool.array())
            piece_spool.close()
            row_spool.close()

    def _hot(self, texts: Texts) -> tuple[NDArray[np.uint64], int]:
        """Least hashes of windows that come up in several documents, ascending, and how often they do."""
        spools = [(Spool(self.budget, np.uint64), Spool(self.budget, np.int64)) for _ in range(_RANGES)]
        for batch in batches(texts):
            self._count(batch)
            work = partial(windows.samples, batch.data, batch.offsets)
            jobs = [partial(work, *each, *self.hashing) for each in batch.parts(4 * self.threads)]
            for hashes, numbers in in_threads(jobs, self.threads):
                which = hashes >> np.uint64(64 - _RANGE_BITS)
                order = np.argsort(which, kind="stable")
                cuts = np.searchsorted(which[order], np.arange(1, _RANGES))
                for spool, some in zip(spools, np.split(order, cuts), strict=True):
                    spool[0].append(hashes[some])
                    spool[1].append(numbers[some] + batch.first)
            self.watch("sample", self.bytes)

        def several(spool: tuple[Spool, Spool]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
            hashes, numbers = spool[0].array(), spool[1].array()
            found: tuple[NDArray[np.uint64], NDArray[np.int64]]
            found = windows.in_several(hashes, numbers, np.argsort(hashes))
            return found

        found = in_threads([partial(several, spool) for spool in spools], self.threads)
        for pair in spools:
            for each in pair:
                each.close()
        return np.concatenate([h for h, _ in found]), int(sum(c.sum() for _, c in found))

    def _count(self, batch: Batch) -> None:
        self.documents += len(batch)
        self.bytes += batch.bytes


_RANGE_BITS = 4
_RANGES = 1 << _RANGE_BITS
"""Parts in which sampled hashes are sorted: each of them is held in memory at a time."""


def _pieces(
    batch: Batch, begins: NDArray[Any], ends: NDArray[Any], texts: NDArray[Any], characters: NDArray[Any]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Stretches of a batch as `_Finder._compare` takes them."""
    row = np.empty((begins.size, 3), np.int64)
    row[:, 0] = texts + batch.first
    row[:, 1] = characters
    row[:, 2] = ends - begins + 1
    out = np.empty(int(row[:, 2].sum()), np.uint8)
    begins, ends = np.ascontiguousarray(begins), np.ascontiguousarray(ends)
    windows.gather(batch.data, begins, ends, kernels.SEPARATOR, out)
    return out, row


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
