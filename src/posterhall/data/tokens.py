"""A text as one long file of token ids: built once in bounded memory, read by memory map.

Documents follow each other in the stream with the end-of-text token before, between and after them
(``| a | b |``), so that every token of every text is predicted from something, and so is each end. Where a
tokeniser has different tokens for beginning and end, each document is ``bos text eos``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.data.documents import Document
from posterhall.data.tokenizer import Tokenizer
from posterhall.errors import DataError
from posterhall.runs import write_atomic
from posterhall.seeds import generator

_TOKENS, _OFFSETS, _BYTES, _FACTS = "tokens.bin", "offsets.bin", "bytes.bin", "tokens.json"
_BATCH_CHARACTERS = 1 << 20
_FEW_DOCUMENTS = 20
"""With fewer, whole documents cannot make up a held-out share."""


@dataclass(frozen=True)
class Tokens:
    """A stream of token ids."""

    ids: NDArray[Any]
    """The stream, (length,) uint16 or uint32."""
    offsets: NDArray[np.int64]
    """Where each document's inputs start: its beginning token, or the end of the one before, (documents,)."""
    document_bytes: NDArray[np.int64]
    """Bytes of UTF-8 of each document, (documents,)."""
    lead: int = 0
    """1 if an end of text stands before the first document, so that all of the stream is shifted by it."""
    bos_id: int | None = None
    """Beginning of a document, if that is not also the end of the one before."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def text_bytes(self) -> int:
        """Bytes of UTF-8 of all documents."""
        return int(self.document_bytes.sum())


def from_texts(texts: Iterable[str], tokenizer: Tokenizer) -> Tokens:
    """The stream of texts in memory."""
    encoded = list(_encoded(texts, tokenizer))
    if not encoded:
        raise DataError("no text given")
    ids, ends, sizes = (np.concatenate(parts) for parts in zip(*_shifted(encoded), strict=True))
    head = _head(tokenizer)
    offsets = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    return Tokens(np.concatenate([head, ids]), offsets, sizes, len(head), _own_bos(tokenizer))


def build(documents: Iterable[Document], tokenizer: Tokenizer, directory: Path) -> Tokens:
    """Write the stream of documents into a new directory, and open it.

    Raises:
        DataError: if there is no document.
    """
    directory.mkdir(parents=True)
    head = _head(tokenizer)
    length = count = begin = 0
    with (
        open(directory / _TOKENS, "wb") as stream,
        open(directory / _OFFSETS, "wb") as offsets,
        open(directory / _BYTES, "wb") as sizes,
    ):
        stream.write(head.tobytes())
        for ids, ends, bytes_ in _shifted(_encoded((document.text for document in documents), tokenizer)):
            ids.tofile(stream)
            bytes_.tofile(sizes)
            length += len(ids)
            if len(ends):
                np.concatenate([[begin], ends[:-1]]).astype(np.int64).tofile(offsets)
                begin = int(ends[-1])
                count += len(ends)
    if count == 0:
        raise DataError("the text is empty: no document in it has a letter")
    _describe(directory, head.dtype, count, length + len(head), len(head), _own_bos(tokenizer))
    return load(directory)


def load(directory: Path) -> Tokens:
    """Open what `build` wrote.

    Raises:
        DataError: if it is damaged.
    """
    try:
        facts = json.loads((directory / _FACTS).read_bytes())
        shapes = {_TOKENS: facts["length"], _OFFSETS: facts["documents"], _BYTES: facts["documents"]}
        kinds = {_TOKENS: np.dtype(facts["dtype"]), _OFFSETS: np.dtype("<i8"), _BYTES: np.dtype("<i8")}
        for name, length in shapes.items():
            if (directory / name).stat().st_size != length * kinds[name].itemsize:
                raise ValueError(f"{name} has not the size of {length:,} items")
        maps = {name: np.memmap(directory / name, kinds[name], "r", shape=(n,)) for name, n in shapes.items()}
        return Tokens(
            maps[_TOKENS],
            np.asarray(maps[_OFFSETS]),
            np.asarray(maps[_BYTES]),
            facts["lead"],
            facts["bos_id"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{directory}: damaged token files ({error}); delete the directory") from None


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other processes from building in the same cache; the lock dies with its process."""
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def cached(cache: Path, key: str, make: Callable[[Path], object]) -> Path:
    """The directory `key` in a cache, made by ``make(directory)`` if it is not there.

    Several processes may ask at once: one makes it, the others wait. What a killed one left is made anew.
    """
    directory = cache / key
    with locked(cache):
        if not directory.exists():
            part = cache / f"{key}.part"
            shutil.rmtree(part, ignore_errors=True)
            make(part)
            part.rename(directory)
    return directory


def hold_out(
    tokens: Tokens, fraction: float, tokenizer: Tokenizer, directory: Path, *, seed: int
) -> tuple[Tokens, Tokens]:
    """Divide a stream in a part to train on and a held-out part.

    Whole documents are held out, drawn at random; of fewer than twenty documents, the end of the stream.

    Args:
        tokens: the stream.
        fraction: share to hold out, of documents or of tokens, between 0 and 1.
        tokenizer: the one that made the stream.
        directory: where to write the parts, if the stream has to be copied.

    Returns:
        The part to train on, and the held-out part.
    """
    documents = len(tokens.offsets)
    if documents < _FEW_DOCUMENTS:
        return cut(tokens, len(tokens) - max(2, round(fraction * len(tokens))), tokenizer)
    held = np.zeros(documents, bool)
    count = min(max(1, round(fraction * documents)), documents - 1)
    held[generator(seed, "hold out").permutation(documents)[:count]] = True
    for name, chosen in (("train", ~held), ("held", held)):
        cached(directory, name, partial(_copy, tokens, chosen))
    return load(directory / "train"), load(directory / "held")


def cut(tokens: Tokens, at: int, tokenizer: Tokenizer) -> tuple[Tokens, Tokens]:
    """A stream's first `at` tokens and the rest; a document that lies across becomes two.

    Raises:
        DataError: if fewer than two tokens would come first.
    """
    if at < 2:
        raise DataError(f"a text of {len(tokens):,} tokens is too short to be divided")
    before = tokens.offsets < at
    first, last = tokens.offsets[before], tokens.offsets[~before]
    early, late = tokens.document_bytes[before].copy(), tokens.document_bytes[~before]
    late_bytes = len(tokenizer.decode(tokens.ids[at:].tolist()).encode())
    if late_bytes > late.sum():
        last, late = np.insert(last, 0, at), np.insert(late, 0, late_bytes - late.sum())
        early[-1] -= late[0]
    return (
        Tokens(tokens.ids[:at], first, early, tokens.lead, tokens.bos_id),
        Tokens(tokens.ids[at:], last - at, late, 0, tokens.bos_id),
    )


def _copy(tokens: Tokens, chosen: NDArray[np.bool_], directory: Path) -> None:
    """Write the stream of some documents of a stream."""
    directory.mkdir(parents=True)
    begins = tokens.offsets + tokens.lead
    ends = np.append(begins[1:], len(tokens))
    with open(directory / _TOKENS, "wb") as stream:
        stream.write(tokens.ids[: tokens.lead].tobytes())
        for begin, end in zip(begins[chosen].tolist(), ends[chosen].tolist(), strict=True):
            stream.write(tokens.ids[begin:end].tobytes())
    lengths = (ends - begins)[chosen]
    np.cumsum([0, *lengths[:-1]], dtype=np.int64).tofile(directory / _OFFSETS)
    tokens.document_bytes[chosen].tofile(directory / _BYTES)
    total = int(lengths.sum()) + tokens.lead
    _describe(directory, tokens.ids.dtype, int(chosen.sum()), total, tokens.lead, tokens.bos_id)


_Encoded = tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]
"""Ids of many texts with what stands around them; where texts end in them; the bytes of those."""


def _encoded(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[_Encoded]:
    """Texts encoded about a million characters at a time, a long one in pieces."""
    dtype = _dtype(tokenizer)
    bos, eos = _own_bos(tokenizer), tokenizer.eos_id
    before = np.array([] if bos is None else [bos], dtype)
    after = np.array([] if eos is None else [eos], dtype)
    pieces: list[str] = []
    places: list[tuple[bool, bool]] = []  # whether a piece begins a text, and whether it ends it
    held = size = 0
    sizes: list[int] = []

    def encode() -> _Encoded:
        parts: list[NDArray[Any]] = []
        ends: list[int] = []
        end = 0
        for ids, (first, last) in zip(tokenizer.encode_batch(pieces), places, strict=True):
            parts += [before, ids] if first else [ids]
            end += len(ids) + first * len(before)
            if last:
                parts.append(after)
                end += len(after)
                ends.append(end)
        joined = np.concatenate(parts, dtype=dtype, casting="unsafe")  # ids are below the vocabulary's size
        result = joined, np.array(ends, np.int64), np.array(sizes, np.int64)
        for each in (pieces, places, sizes):
            each.clear()
        return result

    for text in texts:
        done = 0
        for piece in tokenizer.pieces(text, _BATCH_CHARACTERS):
            first, done = done == 0, done + len(piece)
            last = done == len(text)
            pieces.append(piece)
            places.append((first, last))
            size += len(piece) if piece.isascii() else len(piece.encode())
            if last:
                sizes.append(size)
                size = 0
            held += len(piece)
            if held >= _BATCH_CHARACTERS:
                yield encode()
                held = 0
    if pieces:
        yield encode()


def _shifted(encoded: Iterable[_Encoded]) -> Iterator[_Encoded]:
    """The same with ends counted from the start of all."""
    total = 0
    for ids, ends, sizes in encoded:
        yield ids, ends + total, sizes
        total += len(ids)


def _own_bos(tokenizer: Tokenizer) -> int | None:
    return None if tokenizer.bos_id == tokenizer.eos_id else tokenizer.bos_id


def _head(tokenizer: Tokenizer) -> NDArray[Any]:
    """What stands before the first document."""
    shared = _own_bos(tokenizer) is None and tokenizer.eos_id is not None
    return np.array([tokenizer.eos_id] if shared else [], _dtype(tokenizer))


def _dtype(tokenizer: Tokenizer) -> np.dtype[Any]:
    return np.dtype("<u2") if tokenizer.vocab_size <= 1 << 16 else np.dtype("<u4")


def _describe(
    directory: Path, dtype: np.dtype[Any], documents: int, length: int, lead: int, bos_id: int | None
) -> None:
    facts = {"dtype": dtype.str, "documents": documents, "length": length, "lead": lead, "bos_id": bos_id}
    write_atomic(directory / _FACTS, json.dumps(facts) + "\n")
