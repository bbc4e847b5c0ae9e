"""Reading and writing word vectors in other people's formats.

==================  ============================================================================
``word2vec-binary``  header `V d`; word, space, d float32 (the C tool, gensim); `.bin`
``word2vec-text``    header `V d`; a line a word (the C tool, gensim, fastText's `.vec`); `.txt`
``glove``            a line a word, no header; `.glove`
``fasttext``         `word2vec-text` with a space before each newline; `.vec`
``safetensors``      one file, can be memory-mapped; needs the extra `train`; `.safetensors`
==================  ============================================================================

All but safetensors may be compressed (`.gz`). Reading finds the format from the content. Pickles
(gensim's `.model` and `.kv`, torch's `.pt`) are refused: opening one runs the code in it.
"""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, Literal, get_args

import numpy as np
import numpy.typing as npt

from posterhall.embeddings._search import FloatMatrix
from posterhall.embeddings.formats._source import Duplicates, EncodingErrors, Source, open_file
from posterhall.embeddings.formats._text import NUMBER, Numbers, first_line
from posterhall.embeddings.vectors import WordVectors
from posterhall.errors import DataError, did_you_mean
from posterhall.runs import atomic_file

Format = Literal["word2vec-binary", "word2vec-text", "glove", "fasttext", "safetensors"]
OnSpace = Literal["error", "underscore"]

FORMATS: tuple[Format, ...] = get_args(Format)
_EXTENSIONS: dict[str, Format] = {
    ".bin": "word2vec-binary",
    ".txt": "word2vec-text",
    ".w2v": "word2vec-text",
    ".vec": "fasttext",
    ".glove": "glove",
    ".safetensors": "safetensors",
}
# Bytes that end a word in one of the formats, or in another reader of them.
_BREAKS = re.compile("[ \t\n\r\x0b\x0c]")
_SAFE_WAY = "in gensim, save with KeyedVectors.save_word2vec_format(..., binary=True) and read that"
_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (b"\x80", f"a pickle (gensim's .model or .kv), which runs code when opened; {_SAFE_WAY}"),
    (
        b"PK\x03\x04",
        "a zip archive (torch's .pt, numpy's .npz, a download); unpack it, or export text vectors",
    ),
    (b"\x93NUMPY", f"a numpy array without words (perhaps beside a gensim file); {_SAFE_WAY}"),
    (b"\xba\x16\x4f\x2f", "a fastText model; use the .vec file beside it"),
    (b"\x89HDF", "an HDF5 file; export word2vec text or binary from what wrote it"),
    (b"PAR1\x15", "a Parquet file; word vectors are read from word2vec, GloVe or safetensors files"),
)
# Protocol 0 and 1 pickles are text: a global, a dictionary, a list or a mark first.
_OLD_PICKLE = re.compile(
    rb"c(copy_?reg|numpy|gensim|__builtin__|builtins)[\w.]*\n|\([dl]p\d+\n|\(i\w+\n|[}\]]q\x00"
)
# Bytes below the space that text does not hold, and floats nearly always do.
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")


def load(
    path: str | os.PathLike[str],
    *,
    format: Format | None = None,
    limit: int | None = None,
    mmap: bool = False,
    counts: str | os.PathLike[str] | None = None,
    encoding_errors: EncodingErrors = "strict",
    duplicates: Duplicates = "first",
    allow_nonfinite: bool = False,
) -> WordVectors:
    """Read word vectors.

    Args:
        path: the file, plain or gzip.
        format: one of `FORMATS`; found from the content if not given.
        limit: read only the first rows (the most frequent words, in files of trainers).
        mmap: leave the matrix in the file (safetensors only) and read what is asked about; NaN is then
            looked for when the vectors' lengths are first needed.
        counts: a vocabulary file of lines `word count`, as the C tool's ``-save-vocab`` writes.
        encoding_errors: what to do with words that are not UTF-8 (the C tool cuts long ones anywhere);
            ``surrogateescape`` keeps the bytes and writes them again.
        duplicates: ``first`` keeps the first row of a repeated word and warns; ``error`` refuses.
        allow_nonfinite: accept NaN and infinite values; the cosine of such words with anything is 0.

    Raises:
        DataError: on anything that is not a sound file of vectors, naming file and line or byte. What a
            header promises is checked against the file's size before memory is taken.
        MissingExtra: for safetensors without the extra `train`.
    """
    path = Path(path)
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}; read at least 1 word")
    format = detect(path) if format is None else format_of(path, format)
    if mmap and format != "safetensors":
        raise DataError(
            f"{path} is {format}, whose rows lie at uneven places and cannot be memory-mapped; convert it "
            "once with `posterhall embed convert FILE FILE.safetensors`"
        )
    if format == "safetensors":
        vectors = _read_tensors_file(path, mmap, limit, encoding_errors, duplicates, allow_nonfinite)
    else:
        from posterhall.embeddings.formats._binary import read_binary
        from posterhall.embeddings.formats._text import read_text

        with Source(path) as source:
            source.fill()
            if source.finished and source.start == source.end:
                raise DataError(f"{path} is empty; give a file with at least one vector")
            if format == "word2vec-binary":
                vectors = read_binary(
                    source,
                    limit=limit,
                    encoding_errors=encoding_errors,
                    duplicates=duplicates,
                    allow_nonfinite=allow_nonfinite,
                )
            else:
                vectors = read_text(
                    source,
                    header=format != "glove",
                    limit=limit,
                    encoding_errors=encoding_errors,
                    duplicates=duplicates,
                    allow_nonfinite=allow_nonfinite,
                )
    if counts is None:
        return vectors
    return WordVectors(
        vectors.words,
        vectors.matrix,
        _counts_for(vectors, Path(counts), encoding_errors),
        allow_nonfinite=allow_nonfinite,
    )


def _read_tensors_file(
    path: Path,
    mmap: bool,
    limit: int | None,
    encoding_errors: EncodingErrors,
    duplicates: Duplicates,
    allow_nonfinite: bool,
) -> WordVectors:
    from posterhall.embeddings.formats._tensors import read_tensors

    return read_tensors(
        path,
        mmap=mmap,
        limit=limit,
        encoding_errors=encoding_errors,
        duplicates=duplicates,
        allow_nonfinite=allow_nonfinite,
    )


def detect(path: str | os.PathLike[str]) -> Format:
    """The format of a file, from its first bytes.

    Raises:
        DataError: if it is none of `FORMATS`; for pickles and other known files with what to do instead.
    """
    path = Path(path)
    with open_file(path) as file:
        head = file.read(64)
    if not head:
        raise DataError(f"{path} is empty; give a file with at least one vector")
    if path.suffix == ".usearch":
        raise DataError(
            f"{path} is an index for queries only; convert or evaluate the vectors it was made from"
        )
    _refuse_foreign(path, head)
    if _looks_safetensors(head):
        return "safetensors"
    with Source(path) as source:
        source.fill()
        window = source.buffer[source.start : source.end]
        _refuse_foreign(path, window[:64].tobytes())
        line = first_line(source)
        if not re.fullmatch(rb"\s*[+-]?\d+\s+[+-]?\d+\s*", line):
            fields = line.split()
            if len(fields) > 1 and NUMBER.fullmatch(fields[-1]):
                return "glove"
            shown = line[:40].decode("utf-8", "backslashreplace")
            raise DataError(
                f"{path} starts with '{shown}', which begins none of the known formats: "
                f"{', '.join(FORMATS)}. Name it with format (--from) if it is one of them"
            )
        source.line()
        return "word2vec-text" if _looks_like_text(source, line) else "word2vec-binary"


def _refuse_foreign(path: Path, head: bytes) -> None:
    for magic, what in _FOREIGN:
        if head.startswith(magic):
            raise DataError(f"{path} is {what}")
    if _OLD_PICKLE.match(head):
        raise DataError(f"{path} is {_FOREIGN[0][1]}")


def _looks_safetensors(head: bytes) -> bool:
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32


def _looks_like_text(source: Source, header: bytes) -> bool:
    """Whether lines of text, not binary records, follow the header."""
    first_line(source)  # fills the window
    window = source.buffer[source.start : min(source.end, source.start + (1 << 20))].tobytes()
    dimensions = int(header.split()[1][:9])
    rows = [line.split() for line in window.split(b"\n", 4)[:3] if line]
    # A vector's bytes may happen to read as a number and a newline, but not three times.
    if rows and all(
        len(row) - 1 == dimensions and all(NUMBER.fullmatch(field) for field in row[1:]) for row in rows
    ):
        return True
    # Neither is sound: say what is wrong in the terms of what it looks like.
    return source.path.suffix != ".bin" and not _CONTROL.search(window[:1024])


def save(
    vectors: WordVectors,
    path: str | os.PathLike[str],
    *,
    format: Format | None = None,
    newline: bool = True,
    numbers: Numbers = "shortest",
    on_space: OnSpace = "error",
    encoding_errors: EncodingErrors = "strict",
) -> None:
    """Write word vectors; the file appears whole or not at all.

    Args:
        vectors: what to write, in its order.
        path: the file; a name ending in `.gz` is compressed.
        format: one of `FORMATS`; from the name's ending if not given (`.bin`, `.txt`, `.vec`, `.glove`,
            `.safetensors`).
        newline: word2vec binary: end each vector with a newline as the C tool does. False writes the
            very bytes that gensim writes.
        numbers: text: ``shortest`` reads back as the same float32 (gensim writes these); ``original`` has
            six decimals and a space before each newline, as the C tool, and loses precision.
        on_space: a word that holds white space cannot be written to text or binary: ``error`` refuses,
            ``underscore`` replaces it.
        encoding_errors: ``surrogateescape`` writes back bytes that were read so.

    Raises:
        DataError: on an unknown format, a word that the format cannot hold, or NaN (text cannot be read
            back elsewhere).
        MissingExtra: for safetensors without the extra `train`.
    """
    path = Path(path)
    compressed = path.suffix == ".gz"
    format = format_of(path, format)
    if format == "safetensors":
        from posterhall.embeddings.formats._tensors import write_tensors

        if compressed:
            raise DataError(f"{path}: safetensors is not compressed here; it could not be memory-mapped")
        encoded = _encoded(vectors.words, encoding_errors)
        write_tensors(path, encoded, vectors.matrix, vectors.counts)
        return
    words = _encoded(_writable(vectors.words, on_space, format), encoding_errors)
    _check_finite(vectors, path)
    writer = _writer(format, words, vectors.matrix, newline, numbers)
    with atomic_file(path) as file:
        if compressed:
            # No name and no time inside: equal vectors give equal files.
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=6) as squeezed:
                writer(squeezed)  # type: ignore[arg-type]
        else:
            writer(file)


def format_of(path: str | os.PathLike[str], format: str | None = None) -> Format:
    """The format to write: the one named, or by the file's ending.

    Raises:
        DataError: if there is no such format, or the ending names none.
    """
    if format is not None:
        if format not in FORMATS:
            raise DataError(
                f"format '{format}' is not known; choose one of {', '.join(FORMATS)}."
                + did_you_mean(format, FORMATS)
            )
        return format
    path = Path(path)
    ending = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if ending not in _EXTENSIONS:
        raise DataError(
            f"the ending of {path.name} names no format; use {', '.join(_EXTENSIONS)} (with .gz or without) "
            f"or name one of {', '.join(FORMATS)} (--to)"
        )
    return _EXTENSIONS[ending]


def _writer(
    format: Format, words: list[bytes], matrix: FloatMatrix, newline: bool, numbers: Numbers
) -> Callable[[IO[bytes]], None]:
    if format == "word2vec-binary":
        from posterhall.embeddings.formats._binary import write_binary

        return lambda file: write_binary(file, words, matrix, newline=newline)
    if numbers not in get_args(Numbers):
        raise DataError(f"numbers '{numbers}' is not known; choose one of {', '.join(get_args(Numbers))}")
    from posterhall.embeddings.formats._text import write_text

    trailing = format == "fasttext" or numbers == "original"
    return lambda file: write_text(
        file, words, matrix, header=format != "glove", numbers=numbers, trailing_space=trailing
    )


def _writable(words: tuple[str, ...], on_space: OnSpace, format: str) -> tuple[str, ...]:
    """The words as a format of space-separated fields can hold them."""
    joined = "".join(words)
    if "" not in words and not _BREAKS.search(joined):
        return words
    if "" in words:
        raise DataError(f"a word is empty and cannot be written as {format}; drop it, or write safetensors")
    broken = next(word for word in words if _BREAKS.search(word))
    if on_space != "underscore":
        raise DataError(
            f"the word {broken!r} holds white space, which ends a word in {format}; write safetensors, or "
            "replace it with on_space 'underscore' (--on-space underscore)"
        )
    replaced = tuple(_BREAKS.sub("_", word) for word in words)
    if len(set(replaced)) < len(replaced):
        seen: set[str] = set()
        twice = next(word for word in replaced if word in seen or seen.add(word))  # type: ignore[func-returns-value]
        raise DataError(
            f"with underscores for white space '{twice}' would occur twice; rename one of the two words"
        )
    return replaced


def _encoded(words: tuple[str, ...], errors: EncodingErrors) -> list[bytes]:
    try:
        return [word.encode("utf-8", errors) for word in words]
    except UnicodeEncodeError as error:
        raise DataError(
            f"the word {error.object[:60]!r} holds bytes that are not UTF-8; write with encoding_errors "
            "'surrogateescape' to keep them, or 'replace'"
        ) from None


def _check_finite(vectors: WordVectors, path: Path) -> None:
    for start in range(0, len(vectors), 65_536):
        good = np.isfinite(vectors.matrix[start : start + 65_536]).all(axis=1)
        if not good.all():
            row = start + int(np.flatnonzero(~good)[0])
            raise DataError(
                f"the vector of '{vectors.words[row]}' (row {row + 1:,}) holds NaN or infinity; "
                f"{path.name} was not written, since other readers fail on it (safetensors can hold it)"
            )


def _counts_for(vectors: WordVectors, path: Path, errors: EncodingErrors) -> npt.NDArray[np.int64]:
    """Counts of a vocabulary file, in the order of the vectors' rows."""
    table: dict[str, int] = {}
    with open_file(path) as file:
        for number, line in enumerate(file, 1):
            fields = line.split()
            if not fields:
                continue
            if len(fields) != 2 or not re.fullmatch(rb"\d{1,18}", fields[1]):
                shown = line[:60].decode("utf-8", "backslashreplace").strip()
                raise DataError(f"{path}:{number}: '{shown}' is not a word and a whole number")
            try:
                table.setdefault(fields[0].decode("utf-8", errors), int(fields[1]))
            except UnicodeDecodeError:
                raise DataError(
                    f"{path}:{number}: the word {fields[0][:60]!r} is not UTF-8; read with encoding_errors "
                    "'replace' or 'surrogateescape'"
                ) from None
    missing = next((word for word in vectors.words if word not in table), None)
    if missing is not None:
        raise DataError(f"{path} has no count for '{missing}'; give the vocabulary of the same training")
    return np.fromiter((table[word] for word in vectors.words), np.int64, len(vectors))
