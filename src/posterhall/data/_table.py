"""A growing table of byte words with counts: the Python side of `_kernels`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from posterhall.data import _kernels as kernels
from posterhall.errors import DataError

_T = TypeVar("_T", bound=np.generic)
_EMPTY = np.empty(0, np.int32)
_DECODE_WORDS = 65_536  # words decoded to Python strings at a time


class Unreadable(Exception):
    """A NUL byte, or a word of excessive length, at ``offset`` of the text and after ``lines`` newlines."""

    def __init__(self, offset: int, lines: int, *, nul: bool) -> None:
        super().__init__(offset, lines)
        self.offset = offset
        self.lines = lines
        self.nul = nul


class InvalidText(Exception):
    """``word`` is not valid UTF-8."""

    def __init__(self, word: bytes) -> None:
        super().__init__(word)
        self.word = word


@dataclass
class Scanned:
    """What one call of `WordTable.scan` saw."""

    tokens: int
    lines: int
    ids: NDArray[np.int32]
    spans: NDArray[np.int32]


class WordTable:
    """Distinct byte words in order of first appearance, with their counts.

    Needs about 25 bytes a word beside the word itself, times two at most for room to grow.
    """

    def __init__(self, words: int = 4096) -> None:
        self._bits = 4
        while (5 << self._bits) >> 3 < words:
            self._bits += 1
        self._keys = np.empty(1 << self._bits, np.uint64)
        self._slots = np.zeros(1 << self._bits, np.int32)
        self._starts = np.zeros(words + 1, np.int64)
        self._arena = np.empty(words * 10, np.uint8)
        self._counts = np.zeros(words, np.int64)
        self._state = np.zeros(kernels.STATE_SIZE, np.int64)

    @classmethod
    def of(cls, words: Iterable[bytes], number: int) -> WordTable:
        """The table whose ids are the positions in ``words`` (``number`` distinct ones)."""
        table = cls(max(number, 16))
        joined = b"\n".join(words) + b"\n" * kernels.PADDING
        table.scan(np.frombuffer(joined, np.uint8), len(joined) - kernels.PADDING, insert=True)
        if len(table) != number:
            raise DataError(
                f"the vocabulary holds {number} words of which {len(table)} are distinct words without white "
                "space; words cannot be empty or contain white space"
            )
        return table

    def __len__(self) -> int:
        return int(self._state[kernels.WORDS])

    @property
    def counts(self) -> NDArray[np.int64]:
        """Occurrences of each word, (N,)."""
        return self._counts[: len(self)]

    def scan(
        self,
        text: NDArray[np.uint8],
        end: int,
        *,
        insert: bool,
        ids: bool = False,
        spans: bool = False,
    ) -> Scanned:
        """Tokenise ``text[:end]``; ``text[end]`` must be white space.

        Args:
            text: bytes, (>= end + PADDING,).
            end: bytes to scan.
            insert: let unknown words enter and count every word; else unknown words are skipped.
            ids: also return the id of each word, with -1 behind each sentence (see `_kernels.scan`).
            spans: also return where each word lies, and -2 for an unknown word.

        Raises:
            Unreadable: at a NUL byte or a word of more than MAX_WORD_BYTES.
        """
        state = self._state
        local = state if insert else state.copy()  # look-ups run in several threads at once
        local[kernels.OUT] = local[kernels.TOKENS] = local[kernels.LINES] = 0
        local[kernels.OPEN] = 1
        out = np.empty(end + 1, np.int32) if ids else _EMPTY
        where = np.empty((out.size if spans else 0, 2), np.int32)
        position = 0
        while True:
            position = kernels.scan(
                text, position, end, self._keys, self._slots, self._starts, self._arena, self._counts,
                self._bits, insert, out, where, local,
            )  # fmt: skip
            status = int(local[kernels.STATUS])
            if status == kernels.GROW:
                self._grow(end)
            elif status == kernels.DONE:
                break
            else:
                raise Unreadable(position, int(local[kernels.LINES]), nul=status == kernels.NUL)
        used = out[: int(local[kernels.OUT])]
        if used.size < out.size // 2:
            used = used.copy()
        return Scanned(int(local[kernels.TOKENS]), int(local[kernels.LINES]), used, where[: used.size])

    def merge(self, other: WordTable) -> NDArray[np.int32]:
        """Add the words and counts of ``other``; returns the id here of each of its words."""
        ids = np.empty(len(other), np.int32)
        done = 0
        while done < len(other):
            done = kernels.merge(
                other._starts, other._arena, other._counts, done, len(other), self._keys, self._slots,
                self._starts, self._arena, self._counts, self._bits, ids, self._state,
            )  # fmt: skip
            if done < len(other):
                self._grow(int(other._starts[done + 1] - other._starts[done]))
        return ids

    def clear(self) -> None:
        """Forget every word, keep the memory."""
        self._slots[:] = 0
        self._state[:] = 0

    def drop_rare(self, floor: int) -> None:
        """Forget the words counted at most ``floor`` times; ids close up."""
        words, used = kernels.keep_words(self._starts, self._arena, self._counts, len(self), floor)
        self._state[kernels.WORDS] = words
        self._state[kernels.ARENA] = used
        self._slots[:] = 0
        kernels.reindex(self._starts, self._arena, words, self._keys, self._slots, self._bits)

    def find(self, words: Iterable[object]) -> list[int]:
        """Id of each word, -1 where it is not in the table (or no word at all)."""
        found = []
        for word in words:
            raw = (
                word.encode("utf-8", "surrogatepass") if isinstance(word, str) else b""
            ) + b" " * kernels.PADDING
            try:
                ids = self.scan(
                    np.frombuffer(raw, np.uint8), len(raw) - kernels.PADDING, insert=False, ids=True
                )
            except Unreadable:
                found.append(-1)
                continue
            whole = ids.ids.size == 1 and len(raw.split()[0]) == len(raw) - kernels.PADDING
            found.append(int(ids.ids[0]) if whole else -1)
        return found

    def bytes_of(self, word: int) -> bytes:
        """The bytes of one word."""
        return self._arena[self._starts[word] : self._starts[word + 1] - 1].tobytes()

    def check_text(self) -> None:
        """Raise InvalidText for the first word (by appearance) that is not UTF-8."""
        for first in range(0, len(self), _DECODE_WORDS):
            last = min(first + _DECODE_WORDS, len(self))
            raw = self._arena[self._starts[first] : self._starts[last]].tobytes()
            try:
                raw.decode()
            except UnicodeDecodeError as error:
                at = int(self._starts[first]) + error.start
                word = int(np.searchsorted(self._starts[: len(self) + 1], at, side="right")) - 1
                raise InvalidText(self.bytes_of(word)) from None

    def texts(self, words: NDArray[np.int64]) -> list[str]:
        """Strings of the given word ids, in that order; every one must be valid UTF-8."""
        found: list[str] = []
        order = np.argsort(words, kind="stable")
        wanted = words[order]
        for first in range(0, len(self), _DECODE_WORDS):
            last = min(first + _DECODE_WORDS, len(self))
            low, high = np.searchsorted(wanted, (first, last))
            if low < high:
                raw = self._arena[self._starts[first] : self._starts[last]].tobytes()
                block = raw.decode().split(" ")
                found += [block[i] for i in (wanted[low:high] - first).tolist()]
        texts = [""] * len(found)
        for position, text in zip(order.tolist(), found, strict=True):
            texts[position] = text
        return texts

    def _grow(self, needed_bytes: int) -> None:
        """Double whatever is full; ``needed_bytes`` bounds the next word."""
        words = len(self)
        if words >= min(self._counts.size, (self._slots.size * 5) >> 3):
            if words >= self._counts.size:
                size = self._counts.size * 2
                self._counts = _enlarged(self._counts, words, size)
                self._starts = _enlarged(self._starts, words + 1, size + 1)
            if words >= (self._slots.size * 5) >> 3:
                self._bits += 1
                keys = np.empty(1 << self._bits, np.uint64)
                slots = np.zeros(1 << self._bits, np.int32)
                kernels.rehash(self._keys, self._slots, keys, slots, self._bits)
                self._keys, self._slots = keys, slots
        used = int(self._state[kernels.ARENA])
        if self._arena.size - used < self._arena.size // 8:
            self._arena = _enlarged(self._arena, used, self._arena.size * 2)
        elif self._arena.size - used < needed_bytes:
            # A single word longer than what is left. Growing by the block (its bound) always suffices.
            self._arena = _enlarged(self._arena, used, self._arena.size + needed_bytes + 1)


def _enlarged(array: NDArray[_T], used: int, size: int) -> NDArray[_T]:
    larger = np.empty(size, array.dtype)
    larger[:used] = array[:used]
    return larger
