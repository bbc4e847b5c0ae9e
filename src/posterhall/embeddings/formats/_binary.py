"""word2vec binary: header `V d`, then word, space and d little-endian float32 a word.

The C tool writes a newline after each vector, gensim does not; both are read.
"""

from __future__ import annotations

from typing import IO

import numpy as np

from posterhall.embeddings._search import FloatMatrix
from posterhall.embeddings.formats._kernels import parse_records
from posterhall.embeddings.formats._source import Duplicates, EncodingErrors, Rows, Source
from posterhall.embeddings.formats._text import check_room, parse_header
from posterhall.embeddings.vectors import WordVectors
from posterhall.errors import DataError

_WRITE_ROWS = 4096


def read_binary(
    source: Source,
    *,
    limit: int | None,
    encoding_errors: EncodingErrors,
    duplicates: Duplicates,
    allow_nonfinite: bool,
) -> WordVectors:
    """Read the format that the C tool writes with ``-binary 1``, and gensim."""
    promised, dimensions = parse_header(source, source.line())
    check_room(source, promised, dimensions, promised * (4 * dimensions + 2))
    rows = Rows(source.path, min(promised, limit or promised), dimensions, sure=not source.gzipped)
    words = np.empty(0, np.uint8)
    while rows.grow():
        if words.size < source.buffer.size:
            words = np.empty(source.buffer.size, np.uint8)
        first = rows.count
        upto, row, written = parse_records(
            source.buffer, source.start, source.end, rows.matrix.view(np.uint8), first, words
        )
        text = words[:written].tobytes()
        if b"  " in text or text.startswith(b" "):
            empty = first + (0 if text.startswith(b" ") else text[: text.index(b"  ") + 1].count(b" "))
            raise DataError(
                f"{source.path}: row {empty + 1:,} has no word before its vector, near byte "
                f"{source.consumed:,}; the header's {dimensions:,} dimensions are probably wrong"
            )
        rows.extend(text, b" ", encoding_errors)
        source.take(upto)
        if not allow_nonfinite:
            rows.check_finite(first, row)
        if row == first:
            if source.finished:
                raise DataError(
                    f"{source.path}: the file ends in row {row + 1:,} of the {promised:,} that its header "
                    f"promises, {source.end - source.start:,} bytes into it; it is cut short or its header "
                    "is wrong"
                )
            source.fill()
    if limit is None and not source.only_blank_left():
        raise DataError(
            f"{source.path}: data follows the {promised:,} words of {dimensions:,} dimensions that the "
            f"header promises (byte {source.consumed:,}); the header is wrong, or read with limit={promised}"
        )
    return rows.vectors(duplicates=duplicates, allow_nonfinite=allow_nonfinite)


def write_binary(file: IO[bytes], words: list[bytes], matrix: FloatMatrix, *, newline: bool) -> None:
    """Write the binary format, with the C tool's newline after each vector or without (gensim)."""
    file.write(b"%d %d\n" % matrix.shape)
    width = 4 * matrix.shape[1]
    tail = b"\n" if newline else b""
    for start in range(0, len(words), _WRITE_ROWS):
        block = np.ascontiguousarray(matrix[start : start + _WRITE_ROWS], dtype="<f4").tobytes()
        file.write(
            b"".join(
                b"%b %b%b" % (word, block[i * width : (i + 1) * width], tail)
                for i, word in enumerate(words[start : start + _WRITE_ROWS])
            )
        )
