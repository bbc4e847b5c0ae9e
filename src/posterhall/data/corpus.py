"""A corpus, whatever it comes as: counted into a vocabulary and encoded as integer ids.

Three readings of "corpus" are accepted everywhere a `Source` is asked for:

- a path or a list of paths, plain or gzipped text, read in blocks in bounded memory;
- an iterable of lines (strings), or of sentences (iterables of hashable items: words, or ids of anything
  that comes in sequences); a generator is consumed once, so count and encode it with `read`;
- a one-dimensional numpy integer array in which a negative value ends a sentence.
"""

from __future__ import annotations

import itertools
from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posterhall.data import _kernels as kernels
from posterhall.data import sources
from posterhall.data._table import InvalidText, Scanned, Unreadable, WordTable
from posterhall.data.encoded import Encoded, TokenWriter
from posterhall.data.sources import Block, EncodingErrors
from posterhall.data.vocabulary import Vocabulary, prune
from posterhall.errors import DataError, UsageError

__all__ = ["Corpus", "Encoded", "Source", "count", "encode", "read"]

Source = Any  # Corpus | path | paths | lines | sentences | integer array; checked by Corpus

MAX_DISTINCT = 20_000_000
_ITEM_BLOCK = 1 << 18  # tokens of an in-memory corpus that are handed on at a time


class Corpus:
    """A source of sentences, told apart once.

    Args:
        source: see the module's docstring.
        names: for an integer array: ``names[i]`` is the item with the number i (default: the integers).
        encoding_errors: what to do with bytes that are not UTF-8: ``strict`` raises, naming the place;
            ``replace`` puts U+FFFD, ``ignore`` leaves them out.
        block_bytes: text read at a time, for each thread; at least 16. Results do not depend on it.

    Attributes:
        paths: the files, or None.
        one_shot: a generator, which can be gone through once only.

    Raises:
        DataError: if the source is none of the accepted kinds.
        UsageError: for an unknown ``encoding_errors``.
    """

    def __init__(
        self,
        source: Source,
        *,
        names: Sequence[Any] | None = None,
        encoding_errors: EncodingErrors = "strict",
        block_bytes: int = sources.BLOCK_BYTES,
    ) -> None:
        if encoding_errors not in ("strict", "replace", "ignore"):
            raise UsageError(
                f"encoding_errors is {encoding_errors!r}; allowed are strict, replace and ignore"
            )
        if block_bytes < 16:
            raise UsageError(f"block_bytes is {block_bytes}; it must be at least 16")
        self._block_bytes = block_bytes
        self.encoding_errors: EncodingErrors = encoding_errors
        self.paths: tuple[Path, ...] | None = None
        self._lines: Iterable[str] | None = None
        self._sentences: Iterable[Iterable[Any]] | None = None
        self._ids: NDArray[np.integer[Any]] | None = None
        self._names = names
        self._used = False
        self.one_shot = False
        if names is not None and not isinstance(source, np.ndarray):
            raise UsageError("names belong to a corpus given as an integer array")
        if isinstance(source, str | PathLike):
            self.paths = (Path(source),)
        elif isinstance(source, np.ndarray) and source.ndim == 1:
            if source.dtype.kind not in "iu":
                raise DataError(
                    f"an array of {source.dtype} is no corpus; give integers, negative at sentence ends"
                )
            self._ids = source
        elif (
            isinstance(source, list | tuple) and source and all(isinstance(s, str | PathLike) for s in source)
        ):
            self.paths = tuple(Path(s) for s in source)
        elif isinstance(source, Iterable) and not isinstance(source, bytes | dict):
            self._look_inside(source)
        else:
            raise DataError(
                f"a corpus cannot be a {type(source).__name__}; give a path, paths, an iterable of sentences "
                "or an integer array"
            )

    @classmethod
    def of(cls, source: Source, *, encoding_errors: EncodingErrors = "strict") -> Corpus:
        """``source`` itself if it is a Corpus already (with its own ``encoding_errors``)."""
        return source if isinstance(source, Corpus) else cls(source, encoding_errors=encoding_errors)

    def _look_inside(self, source: Iterable[Any]) -> None:
        iterator = iter(source)
        self.one_shot = iterator is source
        first = list(itertools.islice(iterator, 1))
        whole = itertools.chain(first, iterator) if self.one_shot else source
        if first and isinstance(first[0], str):
            self._lines = whole
        else:
            self._sentences = whole

    def _blocks(self) -> Iterator[Block]:
        if self.paths is not None:
            for number, path in enumerate(self.paths):
                yield from sources.file_blocks(path, number, size=self._block_bytes)
        else:
            yield from sources.line_blocks(
                self._once(cast("Iterable[str]", self._lines)), size=self._block_bytes
            )

    def _once(self, iterable: Iterable[Any]) -> Iterable[Any]:
        if self.one_shot:
            if self._used:
                raise DataError(
                    "this generator of sentences was consumed before; count and encode it in one go with "
                    "posterhall.data.corpus.read, or give a list or a path"
                )
            self._used = True
        return iterable

    @property
    def ids(self) -> NDArray[np.integer[Any]] | None:
        """The integer array, if the corpus is one."""
        return self._ids

    def names_of(self, ids: NDArray[np.int64]) -> list[Any]:
        """Items of an integer array's numbers.

        Raises:
            DataError: for a number without a name.
        """
        if self._names is None:
            return list(ids.tolist())
        if ids.size and int(ids.max()) >= len(self._names):
            raise DataError(
                f"the corpus holds the number {int(ids.max())} but there are only {len(self._names)} names"
            )
        return [self._names[i] for i in ids.tolist()]

    @property
    def is_text(self) -> bool:
        """Whether it is read as bytes (files and lines), not as items."""
        return self.paths is not None or self._lines is not None

    def scan(
        self, table: WordTable, *, insert: bool, ids: bool, threads: int = 1
    ) -> Iterator[tuple[Block, Scanned]]:
        """Tokenise a text corpus block by block, in order; the result does not depend on ``threads``."""
        lines = 0
        source = 0
        for block, result in _in_order(self._cleaned(), table, insert=insert, ids=ids, threads=threads):
            if block.source != source:
                source, lines = block.source, 0
            if isinstance(result, Unreadable):
                raise self._unreadable(block, result, lines)
            lines += result.lines
            yield block, result

    def _cleaned(self) -> Iterator[Block]:
        for block in self._blocks():
            yield (
                block if self.encoding_errors == "strict" else sources.sanitised(block, self.encoding_errors)
            )

    def _unreadable(self, block: Block, error: Unreadable, lines: int) -> DataError:
        if self.paths is not None:
            where = sources.place(self.paths[block.source], block.offset + error.offset)
        else:
            where = f"sentence {lines + error.lines + 1:,}"
        if error.nul:
            return DataError(
                f"{where}: a NUL byte. Is this a binary file, or UTF-16? Convert it with iconv -t utf-8."
            )
        return sources.too_long(where)

    def invalid(self, word: bytes) -> DataError:
        """The error for a word that is not UTF-8, naming its first place."""
        try:
            word.decode()
            byte = 0
        except UnicodeDecodeError as error:
            byte = error.start
        found = sources.find_word(self.paths or (), word)
        where = f"{found[0]}, line {found[1]:,} (byte {found[2] + byte:,})" if found else "the corpus"
        return DataError(
            f"{where}: {word[:40]!r} is not UTF-8. Convert the file (iconv), or read it with "
            'encoding_errors="replace" or "ignore" (--encoding-errors replace).'
        )

    def items(self) -> Iterator[list[Any]]:
        """Sentences of a corpus in memory as lists of items.

        Raises:
            DataError: if a sentence is not an iterable of hashable items.
        """
        for number, sentence in enumerate(self._once(cast("Iterable[Iterable[Any]]", self._sentences)), 1):
            if isinstance(sentence, np.ndarray):
                yield sentence.tolist()
            elif isinstance(sentence, Iterable) and not isinstance(sentence, str | bytes):
                yield list(sentence)
            else:
                raise DataError(
                    f"sentence {number} is {type(sentence).__name__} ({str(sentence)[:40]!r}); a corpus in "
                    "memory is an iterable of sentences, each a sequence of words"
                )


def _in_order(
    blocks: Iterator[Block], table: WordTable, *, insert: bool, ids: bool, threads: int
) -> Iterator[tuple[Block, Scanned | Unreadable]]:
    """Scan blocks, several at a time, and hand on the results in the order of the text.

    With threads, each block is counted into a table of its own, and these are merged in order: ids come
    out in order of first appearance exactly as from one thread.
    """
    if threads < 1:
        raise UsageError(f"threads is {threads}; it must be at least 1")
    if threads == 1:
        for block in blocks:
            yield block, _scan(table, block, insert=insert, ids=ids)
        return
    spare: deque[WordTable] = deque()
    waiting: deque[tuple[Block, WordTable, Future[Scanned | Unreadable]]] = deque()

    def settle() -> tuple[Block, Scanned | Unreadable]:
        block, local, future = waiting.popleft()
        result = future.result()
        if insert and isinstance(result, Scanned):
            mapping = table.merge(local)
            result.ids = kernels.remap_all(result.ids, mapping)
            local.clear()
            spare.append(local)
        return block, result

    with ThreadPoolExecutor(threads, thread_name_prefix="posterhall-scan") as pool:
        for block in blocks:
            local = (spare.popleft() if spare else WordTable()) if insert else table
            waiting.append((block, local, pool.submit(_scan, local, block, insert=insert, ids=ids)))
            if len(waiting) > threads:
                yield settle()
        while waiting:
            yield settle()


def _scan(table: WordTable, block: Block, *, insert: bool, ids: bool) -> Scanned | Unreadable:
    try:
        return table.scan(block.text, block.end, insert=insert, ids=ids)
    except Unreadable as error:
        return error


@dataclass
class _Counted:
    """Every distinct item in order of first appearance, as raw ids."""

    counts: NDArray[np.int64]
    items: Callable[[NDArray[np.int64]], list[Any]]
    find: Callable[[Iterable[Any]], list[int]]  # raw ids, -1 where unseen
    tokens: int
    approximate: bool = False


class _TooManyDistinct(Exception):
    """Ids cannot be handed out while rare words are being dropped."""


def _count(corpus: Corpus, *, writer: TokenWriter | None, threads: int, max_distinct: int) -> _Counted:
    if corpus.is_text:
        return _count_text(corpus, writer, threads, max_distinct)
    if corpus.ids is not None:
        return _count_ids(corpus, corpus.ids, writer)
    return _count_items(corpus, writer)


def _count_text(corpus: Corpus, writer: TokenWriter | None, threads: int, max_distinct: int) -> _Counted:
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
                raise _TooManyDistinct
            floor += 1  # as the word2vec tool does: ever more frequent words are given up
            table.drop_rare(floor)
    try:
        table.check_text()
    except InvalidText as error:
        raise corpus.invalid(error.word) from None
    return _Counted(table.counts, table.texts, table.find, tokens, approximate=floor > 0)


class _Interner(dict[Any, int]):
    """Gives each new key the next number."""

    def __missing__(self, key: Any) -> int:
        number = self[key] = len(self)
        return number


def _count_items(corpus: Corpus, writer: TokenWriter | None) -> _Counted:
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
            raise DataError(
                f"a sentence holds an item that cannot be counted ({error}): {str(sentence)[:60]}"
            ) from None
        if sentence:
            held.append(-1)
        if len(held) >= _ITEM_BLOCK:
            flush()
    flush()
    items = list(interner)
    return _Counted(
        counts,
        lambda ids: [items[i] for i in ids.tolist()],
        lambda wanted: [interner.get(item, -1) for item in wanted],
        tokens,
    )


def _count_ids(corpus: Corpus, ids: NDArray[np.integer[Any]], writer: TokenWriter | None) -> _Counted:
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
    return _Counted(
        counts[order].astype(np.int64),
        lambda chosen: [items[i] for i in chosen.tolist()],
        lambda wanted: [index.get(item, -1) for item in wanted],
        int(words.sum()),
    )


def _vocabulary(
    counted: _Counted,
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
    counted = _count(corpus, writer=None, threads=threads, max_distinct=max_distinct)
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
        counted = _count(corpus, writer=writer, threads=threads, max_distinct=max_distinct)
    except _TooManyDistinct:
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
        held.extend(i for i in map(get, sentence) if i is not None)
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
