"""A corpus as integer ids, cut into chunks, in memory or in a file that is read piece by piece."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from posterhall.data import _kernels as kernels
from posterhall.errors import DataError, UsageError

MEMORY_BYTES = 64 << 20
_BLOCK = 1 << 20  # tokens read at a time when the whole stream is walked


class Encoded:
    """The corpus as a stream of int32 ids in which -1 ends a sentence, cut into chunks.

    Every sentence that kept a word ends with -1, the last one too; sentences that kept none are gone.
    A chunk ends at a sentence end, except inside a sentence longer than twice the chunk size, which is
    cut there: a reader of chunks treats the end of a chunk as the end of a sentence.

    Streams over 64 MB lie in a file without a name, which the system removes when it is closed, however
    the process ends. It is read, never mapped: mapped pages would count as the process's memory.

    Attributes:
        chunks: offsets into the stream, (C + 1,) int64; chunk i is ``[chunks[i], chunks[i + 1])``.
        tokens_total: length of the stream, separators included.
        words: tokens in the vocabulary, separators not included.
    """

    def __init__(
        self, tokens: NDArray[np.int32] | int, chunks: NDArray[np.int64], words: int, vocabulary_digest: str
    ) -> None:
        self._tokens = tokens
        self.chunks = chunks
        self.tokens_total = int(chunks[-1])
        self.words = words
        self._vocabulary_digest = vocabulary_digest

    def __len__(self) -> int:
        """Number of chunks."""
        return len(self.chunks) - 1

    def __repr__(self) -> str:
        place = "file" if isinstance(self._tokens, int) else "memory"
        return f"Encoded({self.words:,} words, {len(self):,} chunks, in {place})"

    @property
    def stream(self) -> NDArray[np.int32] | int:
        """The tokens in memory, int32, or the descriptor of the file that holds them from its start."""
        return self._tokens

    def read(self, i: int) -> NDArray[np.int32]:
        """Tokens of chunk ``i``: int32, contiguous, the caller's own. Safe from several threads.

        Raises:
            IndexError: if there is no chunk ``i``.
        """
        if not 0 <= i < len(self):
            raise IndexError(f"chunk {i} of {len(self)}")
        return self._between(int(self.chunks[i]), int(self.chunks[i + 1]))

    def _between(self, first: int, last: int) -> NDArray[np.int32]:
        if not isinstance(self._tokens, int):
            return self._tokens[first:last].copy()
        tokens = np.empty(last - first, np.int32)
        view = memoryview(tokens.data).cast("B")
        done = 0
        while done < len(view):
            got = os.preadv(self._tokens, [view[done:]], first * 4 + done)
            if got == 0:
                raise DataError("the file of the encoded corpus was cut short; encode the corpus again")
            done += got
        return tokens

    def blocks(self) -> Iterator[NDArray[np.int32]]:
        """The whole stream in order, a few megabytes at a time, without regard to chunks."""
        for first in range(0, self.tokens_total, _BLOCK):
            yield self._between(first, min(first + _BLOCK, self.tokens_total))

    def sentences(self) -> Iterator[NDArray[np.int32]]:
        """Ids of each sentence, whole and without the -1 (a sentence over several chunks is joined)."""
        parts: list[NDArray[np.int32]] = []
        for block in self.blocks():
            ends = np.flatnonzero(block < 0)
            first = 0
            for end in ends.tolist():
                parts.append(block[first:end])
                yield parts[0] if len(parts) == 1 else np.concatenate(parts)
                parts = []
                first = end + 1
            if first < block.size:
                parts.append(block[first:])

    @cached_property
    def digest(self) -> str:
        """sha256 of the token stream and of the vocabulary (computed on first use)."""
        state = hashlib.sha256(self._vocabulary_digest.encode())
        for block in self.blocks():
            state.update(block.astype("<i4", copy=False).data)
        return state.hexdigest()

    def close(self) -> None:
        """Give the file back; a corpus in memory needs no closing."""
        if isinstance(self._tokens, int) and self._tokens >= 0:
            os.close(self._tokens)
            self._tokens = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_tokens"):
            self.close()


class TokenWriter:
    """Collects a token stream, first in memory, past `MEMORY_BYTES` in a nameless file.

    Args:
        spill: directory for the file; None is the system's temporary directory.
        memory_bytes: stream size from which the file is used.
    """

    def __init__(self, *, spill: Path | None = None, memory_bytes: int | None = None) -> None:
        self._spill = spill
        limit = MEMORY_BYTES if memory_bytes is None else memory_bytes
        # Pages never written are never resident, so the whole allowance is reserved at once.
        self._memory: NDArray[np.int32] | None = np.empty(max(limit // 4, 1), np.int32)
        self._file = -1
        self._open = False
        self.size = 0

    def append(self, tokens: NDArray[np.int32]) -> None:
        """Add tokens that follow the rules of `_kernels.scan` (a leading -1 may close nothing)."""
        if tokens.size and tokens[0] < 0 and not self._open:
            tokens = tokens[1:]
        if not tokens.size:
            return
        self._open = bool(tokens[-1] >= 0)
        if self._memory is not None:
            if self.size + tokens.size <= self._memory.size:
                self._memory[self.size : self.size + tokens.size] = tokens
                self.size += tokens.size
                return
            self._to_file()
        self._write(tokens, self.size)
        self.size += tokens.size

    def end_sentence(self) -> None:
        """Close the sentence if one is open."""
        if self._open:
            self.append(np.array([-1], np.int32))

    def _to_file(self) -> None:
        try:
            with tempfile.TemporaryFile(dir=self._spill) as file:
                self._file = os.dup(file.fileno())
        except OSError as error:
            raise DataError(
                f"no room for the encoded corpus in {self._spill or tempfile.gettempdir()}: {error}"
            ) from None
        memory, self._memory = self._memory, None
        if memory is not None:
            self._write(memory[: self.size], 0)

    def _write(self, tokens: NDArray[np.int32], at: int) -> None:
        view = memoryview(np.ascontiguousarray(tokens).data).cast("B")
        done = 0
        try:
            while done < len(view):
                done += os.pwrite(self._file, view[done:], at * 4 + done)
        except OSError as error:
            raise DataError(
                f"the encoded corpus does not fit into {self._spill or tempfile.gettempdir()} "
                f"({error.strerror}); name a directory with more room (spill=)"
            ) from None

    def _read(self, first: int, last: int) -> NDArray[np.int32]:
        if self._memory is not None:
            return self._memory[first:last].copy()
        return np.frombuffer(os.pread(self._file, (last - first) * 4, first * 4), np.int32).copy()

    def remap(self, ids: NDArray[np.int32]) -> None:
        """Replace every id t by ``ids[t]``, dropping the negative, in place."""
        is_open = False
        done = 0
        for first in range(0, self.size, _BLOCK):
            block = self._read(first, min(first + _BLOCK, self.size))
            n, is_open = kernels.remap(block, ids, block, is_open)
            # What is written never overtakes what is read: the stream only gets shorter.
            if self._memory is not None:
                self._memory[done : done + n] = block[:n]
            else:
                self._write(block[:n], done)
            done += n
        self.size = done
        self._open = is_open

    def finish(self, *, chunk_words: int, vocabulary_digest: str) -> Encoded:
        """Cut the stream into chunks and hand it over; the writer is used up.

        Raises:
            UsageError: if ``chunk_words`` is below 1.
        """
        if chunk_words < 1:
            raise UsageError(f"chunk_words is {chunk_words}; it must be at least 1")
        self.end_sentence()
        cuts: list[NDArray[np.int64]] = [np.zeros(1, np.int64)]
        held = words = 0
        room = np.empty(_BLOCK // chunk_words + 2, np.int64)
        for first in range(0, self.size, _BLOCK):
            block = self._read(first, min(first + _BLOCK, self.size))
            n, held, seen = kernels.cut(block, first, held, chunk_words, room)
            cuts.append(room[:n].copy())
            words += seen
        if held:
            cuts.append(np.array([self.size], np.int64))
        chunks = np.concatenate(cuts)
        tokens: NDArray[np.int32] | int = self._file
        if self._memory is not None:
            tokens = self._memory[: self.size]
            if self.size * 2 < self._memory.size:
                tokens = tokens.copy()
            self._memory = None
        else:
            os.ftruncate(self._file, self.size * 4)
            self._file = -1
        return Encoded(tokens, chunks, words, vocabulary_digest)

    def __del__(self) -> None:
        if getattr(self, "_file", -1) >= 0:
            os.close(self._file)
