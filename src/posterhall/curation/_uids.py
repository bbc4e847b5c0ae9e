"""Names of items: given ones, or hashes of their text, made unique."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from posterhall.curation import _uid_kernels as kernels

_FIRST_PLACES = 1 << 12


def digests(strings: Any) -> NDArray[np.uint8]:
    """128-bit BLAKE2b of each string of an Arrow array, shape (n, 16); null counts as empty.

    A cryptographic hash, so that nobody can write two texts that pass for one.
    """
    offsets, data = buffers(strings)
    view = data.data
    bounds = offsets.tolist()
    joined = b"".join(
        hashlib.blake2b(view[a:b], digest_size=16).digest() for a, b in itertools.pairwise(bounds)
    )
    return np.frombuffer(joined, np.uint8).reshape(-1, 16)


def buffers(strings: Any) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Offsets (n + 1,) int64 and bytes (B,) uint8 of an Arrow array of strings, without copying the bytes."""
    if isinstance(strings, pa.ChunkedArray):
        strings = strings.combine_chunks()
    if strings.type != pa.large_string():
        strings = strings.cast(pa.large_string())
    if strings.null_count:
        strings = strings.fill_null("")
    _, offsets, data = strings.buffers()
    if len(strings) == 0 or offsets is None:
        return np.zeros(len(strings) + 1, np.int64), np.zeros(0, np.uint8)
    places = np.frombuffer(offsets, np.int64)[strings.offset : strings.offset + len(strings) + 1]
    content = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    return places, content


class Numbering:
    """Counts 128-bit keys as they stream by: about 50 bytes of memory a distinct key."""

    def __init__(self) -> None:
        self._table = np.zeros((_FIRST_PLACES, 2), np.uint64)
        self._counts = np.zeros(_FIRST_PLACES, np.int64)
        self.distinct = 0

    def seen_before(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """How often each of the keys (n, 16) came before it, in all calls together."""
        pairs = np.ascontiguousarray(keys).view(np.uint64)
        while 2 * (self.distinct + len(pairs)) > len(self._counts):
            self._grow()
        out = np.empty(len(pairs), np.int64)
        self.distinct += int(kernels.number(self._table, self._counts, pairs, out))
        return out

    def _grow(self) -> None:
        table = np.zeros((2 * len(self._counts), 2), np.uint64)
        counts = np.zeros(len(table), np.int64)
        kernels.rehash(self._table, self._counts, table, counts)
        self._table, self._counts = table, counts


class Namer:
    """Gives every row of a pool its uid, batch by batch.

    A row without a name gets the 128-bit hash of its text as 32 hexadecimal digits: the same text has the
    same uid in every pool and order. A uid that came before gets "#2", "#3" and so on.
    """

    def __init__(self) -> None:
        self._numbering = Numbering()

    def name(self, given: Any, texts: Any) -> Any:
        """Unique uids.

        Args:
            given: Arrow strings, null where there is no name, or None if there is none at all.
            texts: Arrow strings.
        """
        if given is None or given.null_count:
            keys = digests(texts)
            digits = keys.tobytes().hex()
            names = [digits[i : i + 32] for i in range(0, len(digits), 32)]
            if given is not None:
                names = [
                    new if old is None else old for old, new in zip(given.to_pylist(), names, strict=True)
                ]
                keys = digests(pa.array(names, pa.large_string()))
        else:
            names, keys = given.to_pylist(), digests(given)
        before = self._numbering.seen_before(keys)
        for i in np.flatnonzero(before).tolist():
            names[i] = self._numbered(names[i], int(before[i]) + 1)
        return pa.array(names, pa.string())

    def _numbered(self, name: str, number: int) -> str:
        """The first of name#number, name#(number + 1), ... that did not come before."""
        while True:
            found = f"{name}#{number}"
            if self._numbering.seen_before(digests(pa.array([found], pa.large_string())))[0] == 0:
                return found
            number += 1
