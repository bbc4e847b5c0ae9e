"""Numbering and counting the distinct items of a corpus, whatever it comes as."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.data import _kernels as kernels
from posterhall.data._source import Corpus
from posterhall.data._table import InvalidText, WordTable
from posterhall.data.encoded import TokenWriter
from posterhall.errors import DataError

_ITEM_BLOCK = 1 << 18  # tokens of an in-memory corpus that are handed on at a time


@dataclass
class Counted:
    """Every distinct item, numbered in order of first appearance.

    Attributes:
        counts: occurrences, (N,).
        items: gives the items of numbers.
        find: gives the numbers of items, -1 where the corpus does not hold one.
        tokens: sum of counts.
        approximate: see `count`.
    """

    counts: NDArray[np.int64]
    items: Callable[[NDArray[np.int64]], list[Any]]
    find: Callable[[Iterable[Any]], list[int]]
    tokens: int
    approximate: bool = False


class TooManyDistinct(Exception):
    """Ids cannot be handed out while rare words are being dropped."""


def intern(corpus: Corpus, *, writer: TokenWriter | None, threads: int, max_distinct: int) -> Counted:
    """Number and count every distinct item; their stream goes to ``writer`` if there is one."""
    if corpus.is_text:
        return _count_text(corpus, writer, threads, max_distinct)
    if corpus.ids is not None:
        return _count_ids(corpus, corpus.ids, writer)
    return _count_items(corpus, writer)


def _count_text(corpus: Corpus, writer: TokenWriter | None, threads: int, max_distinct: int) -> Counted:
    table = WordTable()
    tokens = floor = 0
    for block, scanned in corpus.scan(table, insert=True, ids=writer is not None, threads=threads):
        tokens += scanned.tokens
        if writer is not None:
            writer.append(scanned.ids)
            if block.last:
                writer.end_sentence()
        while len(table) > max_distinct:
            if writer is not None:
                raise TooManyDistinct
            floor += 1  # as the word2vec tool does: ever more frequent words are given up
            table.drop_rare(floor)
    try:
        table.check_text()
    except InvalidText as error:
        raise corpus.invalid(error.word) from None
    return Counted(table.counts, table.texts, table.find, tokens, approximate=floor > 0)


def uncountable(sentence: list[Any], error: TypeError) -> DataError:
    return DataError(f"a sentence holds an item that cannot be counted ({error}): {str(sentence)[:60]}")


class _Interner(dict[Any, int]):
    """Gives each new key the next number."""

    def __missing__(self, key: Any) -> int:
        number = self[key] = len(self)
        return number


def _count_items(corpus: Corpus, writer: TokenWriter | None) -> Counted:
    interner = _Interner()
    number = interner.__getitem__
    counts = np.zeros(0, np.int64)
    held = array("i")
    tokens = 0

    def flush() -> None:
        nonlocal counts, held, tokens
        block = np.frombuffer(held, np.int32) if held else np.empty(0, np.int32)
        words = block[block >= 0]
        tokens += words.size
        grown = np.bincount(words, minlength=len(interner)).astype(np.int64)
        grown[: counts.size] += counts
        counts = grown
        if writer is not None:
            writer.append(block)
        held = array("i")

    for sentence in corpus.items():
        try:
            held.extend(map(number, sentence))
        except TypeError as error:
            raise uncountable(sentence, error) from None
        if sentence:
            held.append(-1)
        if len(held) >= _ITEM_BLOCK:
            flush()
    flush()
    items = list(interner)
    return Counted(
        counts,
        lambda ids: [items[i] for i in ids.tolist()],
        lambda wanted: [interner.get(item, -1) for item in wanted],
        tokens,
    )


def _count_ids(corpus: Corpus, ids: NDArray[np.integer[Any]], writer: TokenWriter | None) -> Counted:
    stream = ids.astype(np.int64)
    words = stream >= 0
    values, first, inverse, counts = np.unique(
        stream[words], return_index=True, return_inverse=True, return_counts=True
    )
    order = np.argsort(first)
    items = corpus.names_of(values[order])
    if writer is not None:
        rank = np.empty(order.size, np.int32)
        rank[order] = np.arange(order.size, dtype=np.int32)
        raw = np.full(stream.size, -1, np.int32)
        raw[words] = rank[inverse]
        writer.append(kernels.remap_all(raw, np.arange(order.size, dtype=np.int32)))
    index = {item: i for i, item in enumerate(items)}
    if len(index) != len(items):
        raise DataError("two numbers of the corpus have the same name; names must be distinct")
    return Counted(
        counts[order].astype(np.int64),
        lambda chosen: [items[i] for i in chosen.tolist()],
        lambda wanted: [index.get(item, -1) for item in wanted],
        int(words.sum()),
    )
