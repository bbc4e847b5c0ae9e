"""Texts as the kernels see them: batches of UTF-8 bytes and offsets, and what counts as a word."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from posterhall.curation.dedup import _text_kernels as kernels
from posterhall.errors import DataError

Texts: TypeAlias = Sequence[str] | Callable[[], Iterable[Any]] | Any  # Any: Arrow's arrays
"""Texts in memory, or a function that gives them batch by batch, from the start at each call."""

_BATCH = 16_384  # texts handed on at a time, of those in memory
_BATCH_BYTES = 1 << 24


@dataclass(frozen=True)
class Batch:
    """Some texts: number i of them is ``data[offsets[i] : offsets[i + 1]]``, valid UTF-8.

    Attributes:
        first: the number of the first one among all texts.
        data: (bytes,) uint8, not to be written to.
        offsets: (n + 1,) int64.
    """

    first: int
    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return self.offsets.size - 1

    @property
    def bytes(self) -> int:
        """Bytes of text."""
        return int(self.offsets[-1] - self.offsets[0])

    def parts(self, count: int) -> list[tuple[int, int]]:
        """Ranges of texts, about ``count``, of about equal bytes; none is empty."""
        marks = self.offsets[0] + np.linspace(0, self.bytes, count + 1)
        cuts = np.unique(np.concatenate([[0], np.searchsorted(self.offsets, marks[1:-1]), [len(self)]]))
        return [(int(a), int(b)) for a, b in itertools.pairwise(cuts)]


def batches(texts: Texts) -> Iterator[Batch]:
    """Go through texts; Arrow's buffers are used as they are, without a copy. A null is an empty text.

    Raises:
        DataError: for what is not text, or can be gone through only once.
    """
    first = 0
    for array in _arrays(texts):
        batch = _batch(array, first)
        if len(batch):
            yield batch
            first += len(batch)


def _arrays(texts: Texts) -> Iterator[pa.Array]:
    if callable(texts):
        for given in texts():
            yield from given.chunks if isinstance(given, pa.ChunkedArray) else [given]
    elif isinstance(texts, pa.ChunkedArray):
        yield from texts.chunks
    elif isinstance(texts, pa.Array):
        yield texts
    elif isinstance(texts, Sequence) and not isinstance(texts, str | bytes):
        yield from _converted(texts)
    else:
        raise DataError(
            f"texts cannot be a {type(texts).__name__}; give a list of text, an Arrow array, or a function "
            "that returns batches of Arrow arrays (they are gone through more than once)"
        )


def _converted(texts: Sequence[str]) -> Iterator[pa.Array]:
    at = 0
    while at < len(texts):
        end, size = at, 0
        while end < len(texts) and end - at < _BATCH and size < _BATCH_BYTES:
            if not isinstance(texts[end], str):
                raise DataError(f"item {end} is {type(texts[end]).__name__}, not text")
            size += len(texts[end])
            end += 1
        try:
            yield pa.array(texts[at:end], pa.large_string())
        except UnicodeEncodeError as error:
            raise DataError(
                f"one of the texts {at} to {end - 1} is not Unicode: {error.reason}; replace lone surrogates"
            ) from None
        at = end


def _batch(array: pa.Array, first: int) -> Batch:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_null(array.type):
        array = array.cast(pa.large_string())
    if array.null_count:
        array = array.fill_null("")
    if pa.types.is_string_view(array.type):
        array = array.cast(pa.large_string())
    if pa.types.is_string(array.type):
        kind: np.dtype[Any] = np.dtype(np.int32)
    elif pa.types.is_large_string(array.type):
        kind = np.dtype(np.int64)
    else:
        raise DataError(f"a column of {array.type} is not text; choose one of strings")
    if not len(array):
        return Batch(first, np.empty(0, np.uint8), np.zeros(1, np.int64))
    _, places, body = array.buffers()
    offsets = np.frombuffer(places, kind, len(array) + 1, array.offset * kind.itemsize).astype(np.int64)
    data = np.frombuffer(body, np.uint8) if body is not None and body.size else np.empty(0, np.uint8)
    return Batch(first, data, offsets)


@dataclass(frozen=True)
class Alphabet:
    """What a word is, as tables for the kernels."""

    folded: NDArray[np.uint32]
    alone: NDArray[np.uint8]

    def normalise(self, text: str) -> str:
        """A text as it is compared."""
        data = np.frombuffer(text.encode(), np.uint8)
        out = np.empty(kernels.room(data.size), np.uint8)
        return out[: kernels.normalise(data, 0, data.size, self.folded, self.alone, out)].tobytes().decode()

    def batch(self, batch: Batch) -> Batch:
        """A batch, normalised, in memory of its own."""
        out = np.empty(kernels.room(batch.bytes), np.uint8)
        offsets = np.zeros(len(batch) + 1, np.int64)
        kernels.normalise_all(batch.data, batch.offsets, self.folded, self.alone, out, offsets[1:])
        data = out[: offsets[-1]].copy()
        data.flags.writeable = False  # as Arrow's: kernels are compiled once
        return Batch(batch.first, data, offsets)


@functools.cache
def alphabet(normalise: bool) -> Alphabet:
    """How texts are cut into words.

    Args:
        normalise: case is folded and everything but letters, digits and marks separates words; Chinese and
            Japanese characters are words of their own. Otherwise only white space separates words, and they
            stay as they are (a text's words are those of ``text.split()``).
    """
    import unicodedata

    codes = range(kernels.TABLE)
    folded = np.arange(kernels.TABLE, dtype=np.uint32)
    alone = np.zeros(kernels.TABLE + 1, np.uint8)
    if not normalise:
        folded[[c for c in codes if chr(c).isspace()]] = 0
        return Alphabet(folded, alone)
    for c in codes:
        letter = chr(c)
        if unicodedata.category(letter)[0] not in "LNM":
            folded[c] = 0
        elif len(lower := letter.lower()) == 1:
            folded[c] = ord(lower)
    for low, high in _ALONE:
        alone[low:high] = 1
    alone[-1] = 1
    return Alphabet(folded, alone)


# Kana, and the ideographs below U+20000: scripts without spaces whose characters carry meaning.
_ALONE = ((0x3040, 0x3100), (0x31F0, 0x3200), (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00))


def in_threads(jobs: Sequence[Callable[[], Any]], threads: int) -> list[Any]:
    """Results of calls, made at the same time; kernels release the GIL."""
    if threads == 1 or len(jobs) <= 1:
        return [job() for job in jobs]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads, thread_name_prefix="posterhall-dedup") as pool:
        return list(pool.map(lambda job: job(), jobs))


def within(numbers: NDArray[np.int64], batch: Batch) -> NDArray[np.int64]:
    """Those of ascending numbers that are in a batch, counted from its first."""
    low, high = np.searchsorted(numbers, [batch.first, batch.first + len(batch)])
    return numbers[low:high] - batch.first
