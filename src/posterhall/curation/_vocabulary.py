"""The words of an n-gram model as a table that kernels look into."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.curation import _ngram_kernels as kernels
from posterhall.curation._characters import kinds, lower_cases
from posterhall.curation._uids import buffers
from posterhall.errors import DataError

SPECIALS = ("<unk>", "<s>", "</s>")
UNITS = {"words": kernels.WORDS, "whitespace": kernels.WHITESPACE}


class Words:
    """Numbers of words, those of `SPECIALS` first.

    Args:
        words: UTF-8, the special ones first; None for these alone.
    """

    def __init__(self, words: Sequence[bytes] | None = None) -> None:
        given = [each.encode() for each in SPECIALS] if words is None else list(words)
        self._seed = np.uint64(int.from_bytes(os.urandom(8), "little"))  # nobody can make words collide
        self.count = len(given)
        self._starts = np.zeros(self.count + 1, np.int64)
        np.cumsum([len(each) for each in given], out=self._starts[1:])
        self._arena = np.frombuffer(b"".join(given), np.uint8).copy()
        self._hashes = np.zeros(self.count, np.uint64)
        self._enter()

    def bytes(self) -> list[bytes]:
        """All words."""
        arena = self._arena[: self._starts[self.count]].tobytes()
        bounds = self._starts[: self.count + 1].tolist()
        return [arena[a:b] for a, b in itertools.pairwise(bounds)]

    def cut(self, texts: Any, unit: str, *, grow: bool) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Numbers of the words of documents, and where each document ends; see the kernel.

        Args:
            texts: Arrow strings, (n,).
            unit: words or whitespace.
            grow: enter new words.
        """
        offsets, text = buffers(texts)
        documents = len(offsets) - 1
        ids = np.empty(int(offsets[-1] - offsets[0]) + documents, np.int32)
        ends = np.zeros(documents, np.int64)
        done = filled = 0
        while done < documents:
            done, self.count, filled = kernels.cut(
                text, offsets, done, UNITS[unit], kinds(), lower_cases(), self._slots, self._hashes,
                self._starts, self._arena, self.count, grow, self._seed, ids, ends, filled,
            )  # fmt: skip
            if done < documents:
                self._make_room(int(offsets[done + 1] - offsets[done]))
        return ids[:filled].copy(), ends

    def _make_room(self, more: int) -> None:
        """Room for a document of so many bytes, and as much again as there is."""
        count = self.count
        capacity = 2 * count + more
        used = int(self._starts[count])
        self._hashes = np.concatenate([self._hashes[:count], np.zeros(capacity - count, np.uint64)])
        self._starts = np.concatenate([self._starts[: count + 1], np.zeros(capacity - count, np.int64)])
        self._arena = np.concatenate([self._arena[:used], np.zeros(used + 2 * more, np.uint8)])
        self._enter(2 * capacity)

    def _enter(self, least: int = 0) -> None:
        size = 1 << max(2 * self.count, least, 16).bit_length()
        self._slots = np.full(size, -1, np.int32)
        kernels.enter(self._slots, self._hashes, self._starts, self._arena, self.count, self._seed)


def pruned(words: Words, ids: NDArray[np.int32], min_count: int) -> tuple[Words, NDArray[np.int32]]:
    """The words that occur often enough, most frequent first, and the text in their numbers.

    Raises:
        DataError: if no word is left.
    """
    counts = np.bincount(ids, minlength=words.count)
    own = np.arange(kernels.SPECIAL, words.count)
    own = own[counts[own] >= min_count]
    if own.size == 0:
        raise DataError(
            f"no word occurs {min_count} times or more; give more text to train on, or a lower min_count"
        )
    own = own[np.argsort(-counts[own], kind="stable")]
    order = np.concatenate([np.arange(kernels.SPECIAL), own])
    new = np.zeros(words.count, np.int32)  # <unk>
    new[order] = np.arange(len(order))
    every = words.bytes()
    return Words([every[i] for i in order.tolist()]), new[ids]
