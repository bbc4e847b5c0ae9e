"""Text vectors: word2vec's with a header, GloVe's without, fastText's `.vec`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from posterhall.embeddings._search import FloatMatrix
from posterhall.embeddings.formats._kernels import CROWDED, DONE, parse_lines
from posterhall.embeddings.formats._source import Duplicates, EncodingErrors, Rows, Source
from posterhall.embeddings.vectors import WordVectors
from posterhall.errors import DataError

Numbers = Literal["shortest", "original"]

NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE)
_SEPARATORS = re.compile(rb"[ \t]+")
_WRITE_ROWS = 4096


def parse_header(source: Source, line: bytes) -> tuple[int, int]:
    """Words and dimensions of the first line `V d` of the word2vec formats.

    Raises:
        DataError: if it is not two positive whole numbers.
    """
    fields = line.split()
    shown = line[:60].decode("utf-8", "backslashreplace")
    if len(fields) != 2 or not all(re.fullmatch(rb"[+-]?\d+", field) for field in fields):
        raise DataError(
            f"{source.path}:1: the header is '{shown}'; the word2vec formats start with two whole numbers, "
            "words and dimensions. Without a header this may be GloVe text: name format 'glove'"
        )
    if any(len(field) > 20 for field in fields):
        raise DataError(f"{source.path}:1: the header '{shown}' promises more than any file can hold")
    count, dimensions = (int(field) for field in fields)
    if count < 1 or dimensions < 1:
        raise DataError(
            f"{source.path}:1: the header promises {count:,} words of {dimensions:,} dimensions; both "
            "must be at least 1"
        )
    return count, dimensions


def check_room(source: Source, count: int, dimensions: int, least: int) -> None:
    """DataError if the file cannot hold what its header promises; nothing was allocated yet."""
    left = source.most - source.consumed
    if least > left:
        size = f"has {left:,} after it"
        if source.gzipped:
            size = f"can hold {left:,} at most (gzip)"
        raise DataError(
            f"{source.path}: the header promises {count:,} words of {dimensions:,} dimensions, at least "
            f"{least:,} bytes, but the file {size}; it is cut short or its header is wrong"
        )


def read_text(
    source: Source,
    *,
    header: bool,
    limit: int | None,
    encoding_errors: EncodingErrors,
    duplicates: Duplicates,
    allow_nonfinite: bool,
) -> WordVectors:
    """Read lines `word number ... number`, with or without the header line `V d`.

    A word may hold spaces only in files without a header (GloVe's 840B vectors have such words), and only
    if its last part is not a number.
    """
    if header:
        promised, dimensions = parse_header(source, source.line())
        check_room(source, promised, dimensions, promised * (2 * dimensions + 2) - 1)
    else:
        promised, dimensions = None, _first_line_dimensions(source)
    wanted = limit if promised is None else min(promised, limit or promised)
    rows = Rows(source.path, wanted, dimensions, sure=promised is not None and not source.gzipped)
    reader = _Lines(source, rows, 2 if header else 1, encoding_errors, spaces=not header)
    while True:
        first = rows.count
        if not reader.block():
            break
        if not allow_nonfinite:
            rows.check_finite(first, rows.count)
    if promised is not None and rows.count < (wanted or 0):
        raise DataError(
            f"{source.path}: the header promises {promised:,} words but the file ends after {rows.count:,}; "
            "it is cut short or its header is wrong"
        )
    if limit is None and promised is not None and not source.only_blank_left():
        raise DataError(
            f"{source.path}: the header promises {promised:,} words but more lines follow, the first of them "
            f"line {reader.line_number:,}; correct the header or read with limit={promised}"
        )
    return rows.vectors(duplicates=duplicates, allow_nonfinite=allow_nonfinite)


def _first_line_dimensions(source: Source) -> int:
    """d of a file without a header: the numbers that end its first line (the source is not moved)."""
    line = first_line(source)
    fields = _SEPARATORS.split(line.rstrip(b" \t\r"))
    numbers = 0
    while numbers < len(fields) - 1 and NUMBER.fullmatch(fields[-1 - numbers]):
        numbers += 1
    if numbers == 0:
        shown = line[:60].decode("utf-8", "backslashreplace")
        raise DataError(f"{source.path}:1: '{shown}' is not a word followed by numbers")
    return numbers


def first_line(source: Source) -> bytes:
    """The next line, without moving the source."""
    while True:
        window = source.buffer[source.start : source.end].tobytes()
        end = window.find(b"\n")
        if end >= 0 or source.finished:
            return window if end < 0 else window[:end]
        source.fill()


class _Lines:
    """Feeds the window's lines to the parser and judges those that it could not parse."""

    def __init__(
        self, source: Source, rows: Rows, line_number: int, errors: EncodingErrors, *, spaces: bool
    ) -> None:
        self.source = source
        self.rows = rows
        self.line_number = line_number
        self.errors: EncodingErrors = errors
        self.spaces = spaces
        dimensions = rows.matrix.shape[1]
        self.words = np.empty(0, np.uint8)
        self.slow = np.empty((max(4 * dimensions, 4096), 4), np.int64)

    def block(self) -> bool:
        """Parse the complete lines of the window, refilling it; False at the end of the file or limit."""
        source, rows = self.source, self.rows
        if not rows.grow():
            return False
        window = source.buffer[source.start : source.end]
        newlines = np.flatnonzero(window == 10)
        while not newlines.size:
            if source.finished:
                if source.start == source.end:
                    return False
                source.buffer[source.end] = 10  # the file's last line lacks its newline
                source.end += 1
            else:
                source.fill()
            window = source.buffer[source.start : source.end]
            newlines = np.flatnonzero(window == 10)
        end = source.start + int(newlines[-1]) + 1
        if self.words.size < source.buffer.size:
            self.words = np.empty(source.buffer.size, np.uint8)
        while source.start < end and rows.grow():
            status, upto, row, written, waiting = parse_lines(
                source.buffer, source.start, end, rows.matrix, rows.count, self.words, self.slow
            )
            self._exactly(self.slow[:waiting])
            self.line_number += row - rows.count
            rows.extend(self.words[:written].tobytes(), b"\n", self.errors)
            source.take(upto)
            if status not in (DONE, CROWDED) and not self._irregular():
                return False
        return True

    def _exactly(self, tokens: npt.NDArray[np.int64]) -> None:
        """Parse the tokens that the fast parser left, as Python does."""
        for row, column, start, end in tokens.tolist():
            token = self.source.buffer[start:end].tobytes()
            if not NUMBER.fullmatch(token):
                line = self.line_number + row - self.rows.count
                place = f"{self.source.path}:{line}"
                raise DataError(_not_a_number(place, column, token, self.rows.matrix.shape[1]))
            with np.errstate(over="ignore"):
                self.rows.matrix[row, column] = np.float32(float(token))

    def _irregular(self) -> bool:
        """Judge the next line: False if only blank lines are left, True if it could be read after all."""
        source, dimensions = self.source, self.rows.matrix.shape[1]
        line = source.line().rstrip(b" \t\r")
        place = f"{source.path}:{self.line_number}"
        if not line:
            if source.only_blank_left():
                return False
            raise DataError(f"{place}: the line is empty; every line needs a word and {dimensions} numbers")
        fields = _SEPARATORS.split(line)
        if not fields[0]:
            raise DataError(f"{place}: the line starts with white space where its word should be")
        if len(fields) - 1 < dimensions:
            raise DataError(
                f"{place}: {len(fields) - 1} values after the word; every line needs {dimensions}"
                + (" (the file may be cut short)" if source.finished and source.only_blank_left() else "")
            )
        numbers = fields[-dimensions:]
        if len(fields) - 1 > dimensions and (not self.spaces or NUMBER.fullmatch(fields[-dimensions - 1])):
            raise DataError(
                f"{place}: {len(fields) - 1} values after the word; every line needs {dimensions}"
            )
        for column, token in enumerate(numbers):
            if not NUMBER.fullmatch(token):
                raise DataError(_not_a_number(place, column, token, dimensions))
        with np.errstate(over="ignore"):
            self.rows.matrix[self.rows.count] = np.array([float(token) for token in numbers])
        word = b" ".join(fields[:-dimensions])
        self.rows.extend(word + b"\n", b"\n", self.errors)
        self.line_number += 1
        return True


def _not_a_number(place: str, column: int, token: bytes, dimensions: int) -> str:
    shown = token[:40].decode("utf-8", "backslashreplace")
    return f"{place}: value {column + 1} is '{shown}'; every line needs a word and {dimensions} numbers"


def write_text(
    file: IO[bytes],
    words: list[bytes],
    matrix: FloatMatrix,
    *,
    header: bool,
    numbers: Numbers,
    trailing_space: bool,
) -> None:
    """Write lines `word number ... number`.

    With numbers ``shortest`` each is the shortest decimal that reads back as the same float32, in the
    notation of numpy (and so of gensim); with ``original`` it has six decimals, which loses precision.
    """
    if header:
        file.write(b"%d %d\n" % matrix.shape)
    block = _original_lines if numbers == "original" else _shortest_lines
    tail = b" " if trailing_space else b""
    for start in range(0, len(words), _WRITE_ROWS):
        for piece in block(words[start : start + _WRITE_ROWS], matrix[start : start + _WRITE_ROWS], tail):
            file.write(piece)


def _original_lines(words: list[bytes], matrix: FloatMatrix, tail: bytes) -> Iterator[bytes]:
    template = b" ".join([b"%f"] * matrix.shape[1])
    for word, row in zip(words, matrix.tolist(), strict=True):
        yield word + b" " + template % tuple(row) + tail + b"\n"


def _shortest_lines(words: list[bytes], matrix: FloatMatrix, tail: bytes) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    count, dimensions = matrix.shape
    flat = matrix.ravel()
    digits = pc.cast(pa.array(flat), pa.string()).cast(pa.binary())
    # Arrow prints the same digits as numpy but whole, tiny and huge numbers in another notation.
    size = np.abs(flat)
    with np.errstate(invalid="ignore"):
        other = ~((size > 1.01e-4) & (size < 1e5)) | (flat == np.rint(flat))
    if other.any():
        printed = [str(value).encode() for value in flat[other]]
        digits = pc.replace_with_mask(digits, pa.array(other), pa.array(printed, pa.binary()))
    offsets = pa.array(np.arange(0, count * dimensions + 1, dimensions, dtype=np.int32))
    rows = pc.binary_join(pa.ListArray.from_arrays(offsets, digits), b" ")
    lines = pc.binary_join_element_wise(pa.array(words, pa.binary()), rows, b" ")
    ends = pa.array(np.array([0, count], np.int32))
    yield pc.binary_join(pa.ListArray.from_arrays(ends, lines), tail + b"\n")[0].as_buffer()
    yield tail + b"\n"
