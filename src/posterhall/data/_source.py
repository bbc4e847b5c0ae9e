"""Telling apart what a corpus comes as, and reading it block by block or sentence by sentence."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from os import PathLike
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from posterhall.data import _kernels as kernels
from posterhall.data import sources
from posterhall.data._table import Scanned, Unreadable, WordTable
from posterhall.data.sources import Block, EncodingErrors
from posterhall.errors import DataError, UsageError

Source = Any  # Corpus | path | paths | lines | sentences | integer array; checked by Corpus


class Corpus:
    """A source of sentences, told apart once.

    Args:
        source: see `posterhall.data.corpus`.
        names: for an integer array: ``names[i]`` is the item with the number i (default: the integers).
        encoding_errors: what to do with bytes that are not UTF-8: ``strict`` raises, naming the place;
            ``replace`` puts U+FFFD, ``ignore`` leaves them out.
        block_bytes: text read at a time, for each thread; at least 16. Results do not depend on it.

    Attributes:
        paths: the files, or None.
        one_shot: a generator, which can be gone through once only.
        on_bytes: called with the bytes of text read so far, block by block, if set.

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
        self.on_bytes: Callable[[int], None] | None = None
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
    def size(self) -> int | None:
        """Bytes of text in the files, None where that is not known (gzip, text in memory)."""
        if self.paths is None or not all(sources.is_plain(path) for path in self.paths):
            return None
        return sum(path.stat().st_size for path in self.paths)

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
        for block, result in _in_order(self.blocks(), table, insert=insert, ids=ids, threads=threads):
            if block.source != source:
                source, lines = block.source, 0
            if isinstance(result, Unreadable):
                raise self.unreadable(block, result, lines)
            lines += result.lines
            yield block, result

    def blocks(self) -> Iterator[Block]:
        """The text in blocks that end at white space, with ``encoding_errors`` dealt with."""
        done = 0
        for block in self._blocks():
            done += block.end
            if self.on_bytes is not None:
                self.on_bytes(done)
            if self.encoding_errors != "strict":
                block = sources.sanitised(block, self.encoding_errors)
            yield block

    def unreadable(self, block: Block, error: Unreadable, lines: int) -> DataError:
        """The error for a block that could not be scanned, naming the place."""
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
