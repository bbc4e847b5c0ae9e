"""Where text comes from: plain and gzipped files in blocks, or lines in memory, in bounded memory.

Tokens are separated by ASCII white space (space, tab, newline, carriage return, vertical tab, form
feed) and newline ends a sentence. Unlike the word2vec tool, the newline is not a word ``</s>``.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from posterhall.data._kernels import MAX_WORD_BYTES, PADDING
from posterhall.errors import DataError

EncodingErrors = Literal["strict", "replace", "ignore"]

BLOCK_BYTES = 4 << 20
_SPACE = b" \t\n\r\v\f"
_BOM = b"\xef\xbb\xbf"


@dataclass
class Block:
    """Bytes that end at a word boundary.

    Attributes:
        text: (end + PADDING,) uint8 or more; ``text[end]`` is white space (a sentinel).
        end: bytes of the block.
        offset: where the block starts in its source (after decompression), in bytes.
        source: index of the source.
        last: whether the source ends here, and with it the sentence.
    """

    text: NDArray[np.uint8]
    end: int
    offset: int
    source: int
    last: bool


def _explain(path: Path, error: Exception, offset: int) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(
            f"{path}: no such file. (A list of strings is a list of paths; for sentences in memory give "
            "lists of words, or a generator of lines.)"
        )
    if isinstance(error, IsADirectoryError):
        return DataError(
            f"{path}: is a directory; give its files, for example sorted(Path({str(path)!r}).glob('*'))"
        )
    if isinstance(error, EOFError):
        return DataError(
            f"{path}: the gzip file is truncated after {offset:,} bytes of text; copy or download it again"
        )
    if isinstance(error, gzip.BadGzipFile | zlib.error):
        return DataError(f"{path}: not a sound gzip file after {offset:,} bytes of text ({error})")
    return DataError(f"{path}: cannot be read ({error})")


def open_text(path: Path) -> BufferedIOBase:
    """Open a plain or gzipped file for reading bytes; gzip is known by its first two bytes.

    Raises:
        DataError: if the file is missing, a directory, unreadable, or named .gz without being gzip.
    """
    try:
        file = path.open("rb")
        magic = file.peek(2)[:2]
    except OSError as error:
        raise _explain(path, error, 0) from None
    if magic == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=file, mode="rb")
    if magic and path.suffix == ".gz":
        file.close()
        raise DataError(
            f"{path}: is named .gz but is not gzip (it starts with {magic!r}); rename it if it is plain text"
        )
    return file


def is_plain(path: Path) -> bool:
    """Whether a file's size is that of its text: a regular file that is not gzipped."""
    if not path.is_file():
        return False
    with open_text(path) as file:
        return not isinstance(file, gzip.GzipFile)


def file_blocks(path: Path, source: int = 0, *, size: int = BLOCK_BYTES) -> Iterator[Block]:
    """Read a file in blocks of about ``size`` bytes that end at white space.

    Raises:
        DataError: if the file cannot be read, or a word is longer than MAX_WORD_BYTES.
    """
    carry = b""
    offset = 0  # of the block that is being filled
    with open_text(path) as file:
        while True:
            buffer = np.empty(len(carry) + size + PADDING, np.uint8)
            view = memoryview(buffer.data).cast("B")
            view[: len(carry)] = carry
            filled = len(carry)
            try:
                while filled < len(carry) + size:
                    got = file.readinto(view[filled : len(carry) + size])
                    if got == 0:
                        break
                    filled += got
            except (OSError, EOFError, zlib.error) as error:
                raise _explain(path, error, offset + filled) from None
            ended = filled < len(carry) + size
            begin = len(_BOM) if offset == 0 and bytes(view[: len(_BOM)]) == _BOM else 0
            if ended:
                buffer[filled] = 0x20
                end = filled
            else:
                end = _last_boundary(view, filled)
                if end < 0 and filled > MAX_WORD_BYTES:
                    raise too_long(place(path, offset + filled - MAX_WORD_BYTES))
                if end < 0:  # a word longer than the block: read on
                    carry = bytes(view[:filled])
                    continue
            carry = bytes(view[end:filled])
            yield Block(buffer[begin:], end - begin, offset + begin, source, ended)
            if ended:
                return
            offset += end


def _last_boundary(view: memoryview, filled: int) -> int:
    """Position just before the last white space, so that it can serve as the block's sentinel; -1 if none."""
    tail = bytes(view[max(0, filled - MAX_WORD_BYTES - 1) : filled])
    stripped = max(tail.rfind(bytes([c])) for c in _SPACE)
    return filled - len(tail) + stripped if stripped >= 0 else -1


def too_long(where: str) -> DataError:
    """The error for a word that is longer than any word."""
    return DataError(
        f"{where}: a word of more than {MAX_WORD_BYTES:,} bytes. Words are separated by ASCII white space; "
        "is this a binary file, or a script without spaces that must be segmented first?"
    )


def place(path: Path, offset: int) -> str:
    """``path, line 3 (byte 120)`` for messages."""
    return f"{path}, line {line_of(path, offset):,} (byte {offset:,})"


def line_of(path: Path, offset: int) -> int:
    """1-based line of a byte offset (after decompression)."""
    lines = 1
    with open_text(path) as file:
        while offset > 0:
            block = file.read(min(offset, BLOCK_BYTES))
            if not block:
                break
            lines += block.count(b"\n")
            offset -= len(block)
    return lines


def line_blocks(lines: Iterable[str], *, size: int = BLOCK_BYTES) -> Iterator[Block]:
    """Blocks of the given lines, each a sentence (or several, where it holds newlines).

    Raises:
        DataError: if an item is not a string, cannot be encoded (a lone surrogate).
    """
    parts: list[bytes] = []
    held = 0
    offset = 0
    for number, line in enumerate(lines, 1):
        if not isinstance(line, str):
            raise DataError(
                f"sentence {number} is {type(line).__name__}, the ones before are text; give all sentences "
                "as strings, or all as sequences of words"
            )
        try:
            raw = line.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"sentence {number}: {error.reason} at character {error.start}; it is not text"
            ) from None
        if not raw.endswith(b"\n"):  # lines of an open file bring theirs
            raw += b"\n"
        parts.append(raw)
        held += len(raw)
        if held >= size:
            yield _joined(parts, held, offset, last=False)
            offset += held
            parts, held = [], 0
    yield _joined(parts, held, offset, last=True)


def _joined(parts: list[bytes], held: int, offset: int, *, last: bool) -> Block:
    return Block(np.frombuffer(b"".join([*parts, b" " * PADDING]), np.uint8), held, offset, 0, last)


def sanitised(block: Block, errors: EncodingErrors) -> Block:
    """The block with invalid UTF-8 replaced (U+FFFD) or ignored; a block never cuts a character."""
    raw = block.text[: block.end].tobytes()
    clean = raw.decode("utf-8", errors).encode() + b" " * PADDING
    return Block(np.frombuffer(clean, np.uint8), len(clean) - PADDING, block.offset, block.source, block.last)


def find_word(paths: Sequence[Path], word: bytes) -> tuple[Path, int, int] | None:
    """First place where ``word`` stands between white space: (path, line, byte offset of its first byte)."""
    for path in paths:
        for block in file_blocks(path):
            text = block.text[: block.end].tobytes()
            at = text.find(word)
            while at >= 0:
                after = at + len(word)
                if (at == 0 or text[at - 1] in _SPACE) and (after == len(text) or text[after] in _SPACE):
                    return path, line_of(path, block.offset + at), block.offset + at
                at = text.find(word, at + 1)
    return None
