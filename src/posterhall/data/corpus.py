"""A corpus, whatever it comes as: counted into a vocabulary and encoded as integer ids.

Three readings of "corpus" are accepted everywhere a `Source` is asked for:

- a path or a list of paths, plain or gzipped text, read in blocks in bounded memory;
- an iterable of lines (strings), or of sentences (iterables of hashable items: words, or ids of anything
  that comes in sequences); a generator is consumed once, so count and encode it with `read`;
- a one-dimensional numpy integer array in which a negative value ends a sentence.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posterhall.data._counting import Counted, TooManyDistinct, intern, uncountable
from posterhall.data._source import Corpus, Source
from posterhall.data._table import WordTable
from posterhall.data.encoded import Encoded, TokenWriter
from posterhall.data.sources import EncodingErrors
from posterhall.data.vocabulary import Vocabulary, prune
from posterhall.errors import DataError, UsageError

__all__ = ["Corpus", "Encoded", "Source", "count", "encode", "read"]

MAX_DISTINCT = 20_000_000
_ITEM_BLOCK = 1 << 18  # tokens of an in-memory corpus that are handed on at a time


def _vocabulary(
    counted: Counted,
    *,
    min_count: int,
    max_vocabulary: int | None,
    keep: Collection[Any],
    drop: Collection[Any],
) -> tuple[Vocabulary, NDArray[np.int64]]:
    """The vocabulary and the raw id of each of its items."""
    for name, given in (("keep", keep), ("drop", drop)):
        if isinstance(given, str):
            raise UsageError(f"{name} is one string, {given!r}; give a collection of words")
    if counted.tokens == 0:
        raise DataError("the corpus is empty: it holds no word")
    if counted.counts.size == 1:
        word = counted.items(np.zeros(1, np.int64))[0]
        raise DataError(
            f"the corpus has one distinct word, {word!r}; there is nothing to learn from a single word"
        )
    kept = counted.find(keep)
    chosen = prune(
        counted.counts,
        min_count=min_count,
        max_vocabulary=max_vocabulary,
        keep=np.array([i for i in kept if i >= 0], np.int64),
        drop=np.array([i for i in counted.find(drop) if i >= 0], np.int64),
    )
    if chosen.size < 2:
        top = np.argsort(-counted.counts, kind="stable")[:2]
        most = ", ".join(
            f"{word!r} {n:,}"
            for word, n in zip(counted.items(top), counted.counts[top].tolist(), strict=True)
        )
        raise DataError(
            f"{chosen.size or 'none'} of {counted.counts.size:,} distinct words remain with min_count "
            f"{min_count}{f', max_vocabulary {max_vocabulary}' if max_vocabulary else ''} and {len(drop)} "
            f"dropped; a vocabulary needs two (most frequent: {most}). Lower min_count or use more text."
        )
    vocabulary = Vocabulary(
        counted.items(chosen),
        counted.counts[chosen],
        raw_tokens=counted.tokens,
        raw_distinct=counted.counts.size,
        approximate=counted.approximate,
        unseen=tuple(word for word, i in zip(keep, kept, strict=True) if i < 0),
    )
    return vocabulary, chosen


def count(
    source: Source,
    *,
    min_count: int = 5,
    max_vocabulary: int | None = None,
    keep: Collection[Any] = (),
    drop: Collection[Any] = (),
    threads: int = 1,
    max_distinct: int = MAX_DISTINCT,
    encoding_errors: EncodingErrors = "strict",
) -> Vocabulary:
    """Count a corpus into a vocabulary, most frequent first, ties by first appearance.

    Args:
        source: see the module's docstring.
        min_count: rarer items are left out (5: Mikolov et al. 2013b, §4).
        max_vocabulary: at most so many items, the most frequent.
        keep: items that stay however rare; those the corpus does not hold are listed in ``unseen``.
        drop: items that go in any case (stop words).
        threads: scanning threads for text; the result is the same for any number.
        max_distinct: text only: when more distinct words than this are held, the rarest are given up, first
            those seen once, then twice... (word2vec does so above 21 M). Counts become lower bounds, and the
            vocabulary says so in ``approximate``.
        encoding_errors: see `Corpus`.

    Raises:
        DataError: for unreadable or invalid text, an empty corpus, or fewer than two remaining words.
        UsageError: for arguments out of range.
    """
    corpus = Corpus.of(source, encoding_errors=encoding_errors)
    counted = intern(corpus, writer=None, threads=threads, max_distinct=max_distinct)
    return _vocabulary(counted, min_count=min_count, max_vocabulary=max_vocabulary, keep=keep, drop=drop)[0]


def read(
    source: Source,
    *,
    min_count: int = 5,
    max_vocabulary: int | None = None,
    keep: Collection[Any] = (),
    drop: Collection[Any] = (),
    threads: int = 1,
    max_distinct: int = MAX_DISTINCT,
    encoding_errors: EncodingErrors = "strict",
    chunk_words: int = 10_000,
    spill: Path | None = None,
) -> tuple[Vocabulary, Encoded]:
    """Count and encode in one pass over the source: `count`, then `encode`, with the same result.

    The way for generators, and the faster one for files. Arguments and errors: see `count` and `encode`.
    """
    corpus = Corpus.of(source, encoding_errors=encoding_errors)
    writer = TokenWriter(spill=spill)
    try:
        counted = intern(corpus, writer=writer, threads=threads, max_distinct=max_distinct)
    except TooManyDistinct:
        if corpus.one_shot:
            raise DataError(
                f"the generator holds more than {max_distinct:,} distinct words; raise max_distinct, or "
                "write it to a file"
            ) from None
        vocabulary = count(
            corpus, min_count=min_count, max_vocabulary=max_vocabulary, keep=keep, drop=drop, threads=threads,
            max_distinct=max_distinct,
        )  # fmt: skip
        return vocabulary, encode(corpus, vocabulary, chunk_words=chunk_words, spill=spill, threads=threads)
    vocabulary, chosen = _vocabulary(
        counted, min_count=min_count, max_vocabulary=max_vocabulary, keep=keep, drop=drop
    )
    mapping = np.full(counted.counts.size, -1, np.int32)
    mapping[chosen] = np.arange(chosen.size, dtype=np.int32)
    writer.remap(mapping)
    return vocabulary, writer.finish(chunk_words=chunk_words, vocabulary_digest=vocabulary.digest())


def encode(
    source: Source,
    vocabulary: Vocabulary,
    *,
    chunk_words: int = 10_000,
    spill: Path | None = None,
    threads: int = 1,
    encoding_errors: EncodingErrors = "strict",
) -> Encoded:
    """Encode a corpus with a vocabulary; other items are dropped, as the word2vec tool does.

    Args:
        source: see the module's docstring.
        vocabulary: gives the ids.
        chunk_words: a chunk closes at the first sentence end at or after so many words, and at the latest
            at twice as many (an over-long sentence is cut there).
        spill: directory for streams over 64 MB; None is the system's temporary directory.
        threads: scanning threads for text; the result is the same for any number.
        encoding_errors: see `Corpus`; words that are not UTF-8 are not in any vocabulary, so ``strict``
            drops them here.

    Raises:
        DataError: for unreadable text, or if no word of the corpus is in the vocabulary.
        UsageError: if ``chunk_words`` or ``threads`` is below 1.
    """
    corpus = Corpus.of(source, encoding_errors=encoding_errors)
    writer = TokenWriter(spill=spill)
    if corpus.is_text:
        _encode_text(corpus, vocabulary, writer, threads)
    elif corpus.ids is not None:
        _encode_ids(corpus, corpus.ids, vocabulary, writer)
    else:
        _encode_items(corpus, vocabulary, writer)
    encoded = writer.finish(chunk_words=chunk_words, vocabulary_digest=vocabulary.digest())
    if encoded.words == 0:
        some = ", ".join(repr(item) for item in itertools.islice(vocabulary.items, 3))
        raise DataError(
            f"no word of the corpus is in the vocabulary ({len(vocabulary):,} words: {some}...); is it the "
            "vocabulary of another corpus, or is the corpus empty?"
        )
    return encoded


def _encode_text(corpus: Corpus, vocabulary: Vocabulary, writer: TokenWriter, threads: int) -> None:
    if not vocabulary.is_text:
        raise DataError("the vocabulary holds items that are not text, the corpus is text; count this corpus")
    table = WordTable.of(
        (word.encode("utf-8", "surrogatepass") for word in vocabulary.items), len(vocabulary)
    )
    for block, scanned in corpus.scan(table, insert=False, ids=True, threads=threads):
        writer.append(scanned.ids)
        if block.last:
            writer.end_sentence()


def _encode_items(corpus: Corpus, vocabulary: Vocabulary, writer: TokenWriter) -> None:
    get = vocabulary.index.get
    held: list[int] = []
    for sentence in corpus.items():
        try:
            held.extend(i for i in map(get, sentence) if i is not None)
        except TypeError as error:
            raise uncountable(sentence, error) from None
        held.append(-1)
        if len(held) >= _ITEM_BLOCK:
            writer.append(_collapsed(held))
            held = []
    writer.append(_collapsed(held))


def _collapsed(tokens: ArrayLike) -> NDArray[np.int32]:
    """Without the ends of empty sentences; a leading -1 stays (see `TokenWriter.append`)."""
    stream = np.asarray(tokens, np.int32)
    repeated = np.zeros(stream.size, bool)
    repeated[1:] = (stream[1:] < 0) & (stream[:-1] < 0)
    return stream[~repeated]


def _encode_ids(
    corpus: Corpus, ids: NDArray[np.integer[Any]], vocabulary: Vocabulary, writer: TokenWriter
) -> None:
    stream = ids.astype(np.int64)
    values, inverse = np.unique(stream, return_inverse=True)
    known = values >= 0
    mapping = np.full(values.size, -2, np.int64)
    mapping[~known] = -1
    mapping[known] = [vocabulary.index.get(item, -2) for item in corpus.names_of(values[known])]
    tokens = mapping[inverse]
    writer.append(_collapsed(tokens[tokens > -2]))
