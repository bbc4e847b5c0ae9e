"""Bytes of a vector file, plain or gzip, through one moving window; and the rows read so far."""

from __future__ import annotations

import gzip
import os
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from posterhall.embeddings._search import FloatMatrix
from posterhall.embeddings.vectors import WordVectors
from posterhall.errors import DataError

EncodingErrors = Literal["strict", "replace", "ignore", "surrogateescape"]
Duplicates = Literal["first", "error"]

_WINDOW = 8 << 20
_LONGEST_RECORD = 64 << 20
# No deflate stream expands further than this (a run of one byte).
_GZIP_RATIO = 1032


def open_file(path: Path) -> IO[bytes]:
    """Open for reading, with what is wrong said as a DataError."""
    if path.is_dir():
        raise DataError(f"{path} is a directory; give a file of vectors")
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; give a file of vectors") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


class Source:
    """A window over the file's (uncompressed) bytes that moves forward and keeps its unread rest.

    Attributes:
        path: the file.
        gzipped: whether it is compressed.
        most: upper bound of its uncompressed bytes, known before anything is read.
        buffer: uint8; the unread bytes are buffer[start:end].
        finished: the window holds the file's last byte.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        raw = open_file(path)
        size = os.fstat(raw.fileno()).st_size
        self.gzipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        self._raw = raw
        self._file: Any = gzip.GzipFile(fileobj=raw, mode="rb") if self.gzipped else raw
        self.most = size * _GZIP_RATIO if self.gzipped else size
        # One spare byte: a parser may need a newline after the last line.
        self.buffer = np.empty(min(_WINDOW, max(self.most, 4096)) + 1, np.uint8)
        self.start = self.end = self.consumed = 0
        self.finished = False

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._raw.close()

    def fill(self) -> None:
        """Move the unread rest to the front and read on; a full window grows.

        Raises:
            DataError: on damaged compression, or a record longer than 64 MB.
        """
        rest = self.end - self.start
        if rest and self.start:
            self.buffer[:rest] = self.buffer[self.start : self.end].copy()
        elif rest >= self.buffer.size - 1:
            if self.buffer.size > _LONGEST_RECORD:
                raise DataError(
                    f"{self.path}: no end of the record that starts at byte {self.consumed:,} within 64 MB; "
                    "this is not a file of word vectors"
                )
            self.buffer = np.concatenate([self.buffer, np.empty(self.buffer.size, np.uint8)])
        self.start, self.end = 0, rest
        while self.end < self.buffer.size - 1 and not self.finished:
            try:
                count = self._file.readinto(self.buffer.data[self.end : -1])
            except (OSError, EOFError, zlib.error) as error:
                raise DataError(
                    f"{self.path}: the file cannot be read past byte {self.consumed + self.end:,} "
                    f"({str(error) or type(error).__name__}); it is damaged or cut short, fetch it again"
                ) from error
            self.end += count
            self.finished = count == 0

    def take(self, upto: int) -> None:
        """Mark the window's bytes before `upto` as read."""
        self.consumed += upto - self.start
        self.start = upto

    def line(self) -> bytes:
        """Read one line, without its newline (the last may lack one)."""
        searched = 0
        while True:
            found = np.flatnonzero(self.buffer[self.start + searched : self.end] == 10)
            if found.size:
                end = self.start + searched + int(found[0])
                line = self.buffer[self.start : end].tobytes()
                self.take(end + 1)
                return line
            if self.finished:
                line = self.buffer[self.start : self.end].tobytes()
                self.take(self.end)
                return line
            searched = self.end - self.start
            self.fill()

    def only_blank_left(self) -> bool:
        """Whether nothing but white space follows."""
        while True:
            if self.buffer[self.start : self.end].tobytes().strip():
                return False
            if self.finished:
                return True
            self.take(self.end)
            self.fill()


class Rows:
    """Rows and words read so far. Room for a promised number of rows is taken at once if it is proven.

    Args:
        path: the file, for messages.
        promised: rows that the header announces (already checked against the file's size), or None.
        dimensions: d.
        sure: take the promised room at once; otherwise it grows as rows arrive.
    """

    def __init__(self, path: Path, promised: int | None, dimensions: int, *, sure: bool) -> None:
        self.path = path
        self.promised = promised
        self.words: list[str] = []
        self.count = 0
        rows = promised if promised is not None and sure else min(promised or 65_536, 65_536)
        self.matrix: FloatMatrix = self._room(rows, dimensions)

    def _room(self, rows: int, dimensions: int) -> FloatMatrix:
        from posterhall.devices import memory

        need = rows * dimensions * 4
        if need > memory():
            raise DataError(
                f"{self.path}: {rows:,} vectors of {dimensions:,} dimensions need {need / 1e9:.1f} GB and "
                f"{memory() / 1e9:.1f} GB are free; read fewer with limit, or a safetensors file with mmap"
            )
        return np.empty((rows, dimensions), np.float32)

    def grow(self) -> bool:
        """Make room beyond the present rows; False if all that was promised is here."""
        if self.count < len(self.matrix):
            return True
        if self.promised is not None and self.count >= self.promised:
            return False
        wanted = 2 * len(self.matrix)
        rows = wanted if self.promised is None else min(wanted, self.promised)
        larger = self._room(rows, self.matrix.shape[1])
        larger[: self.count] = self.matrix[: self.count]
        self.matrix = larger
        return True

    def extend(self, text: bytes, separator: bytes, errors: EncodingErrors) -> None:
        """Add words, each followed by `separator`."""
        if not text:
            return
        try:
            joined = text.decode("utf-8", errors)
        except UnicodeDecodeError as error:
            row = self.count + text.count(separator, 0, error.start)
            word = text.split(separator)[row - self.count]
            raise DataError(
                f"{self.path}: the word of row {row + 1:,}, {word[:60]!r}, is not UTF-8; read it with "
                "encoding_errors 'replace', 'ignore' or 'surrogateescape' (which writes the same bytes again)"
            ) from None
        self.words += joined.split(separator.decode())[:-1]
        self.count = len(self.words)

    def check_finite(self, first: int, last: int) -> None:
        """DataError naming the first word among rows `first` to `last` that holds NaN or infinity."""
        block = self.matrix[first:last]
        if np.isfinite(block).all():
            return
        row = first + int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0])
        raise DataError(
            f"{self.path}: the vector of '{self.words[row]}' (row {row + 1:,}) holds NaN or infinity; "
            "train again with a lower rate, or read with allow_nonfinite, which gives such words a "
            "cosine of 0"
        )

    def vectors(self, *, duplicates: Duplicates, allow_nonfinite: bool) -> WordVectors:
        """What was read, as vectors."""
        return assemble(
            self.path,
            self.words,
            self.matrix[: self.count],
            duplicates=duplicates,
            allow_nonfinite=allow_nonfinite,
        )


def assemble(
    path: Path,
    words: Sequence[str],
    matrix: FloatMatrix,
    *,
    counts: npt.NDArray[np.int64] | None = None,
    duplicates: Duplicates,
    allow_nonfinite: bool,
) -> WordVectors:
    """Vectors of unique words: of a word that occurs twice the first row is kept, as everywhere."""
    if not words:
        raise DataError(f"{path} holds no vectors; give a file with at least one")
    if len(set(words)) < len(words):
        first: dict[str, int] = {}
        for row, word in enumerate(words):
            first.setdefault(word, row)
        repeated = next(word for row, word in enumerate(words) if first[word] != row)
        message = f"{path}: {len(words) - len(first):,} words occur more than once, first '{repeated}'"
        if duplicates == "error":
            raise DataError(f"{message}; read with duplicates 'first' to keep the first row of each")
        warnings.warn(f"{message}; kept the first row of each", UserWarning, stacklevel=4)
        keep = np.fromiter(first.values(), np.int64, len(first))
        words, matrix = list(first), matrix[keep]
        counts = None if counts is None else counts[keep]
    return WordVectors(words, matrix, counts, allow_nonfinite=allow_nonfinite)
