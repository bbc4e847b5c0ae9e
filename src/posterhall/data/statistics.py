"""What a corpus holds, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from posterhall.data._counting import intern
from posterhall.data.corpus import MAX_DISTINCT, Corpus, Source
from posterhall.data.encoded import TokenWriter
from posterhall.errors import DataError

MIN_COUNTS = (1, 2, 5, 10, 50, 100, 1000)


@dataclass(frozen=True)
class Left:
    """What a minimum count leaves.

    Attributes:
        vocabulary: distinct words.
        words: running words.
    """

    vocabulary: int
    words: int


@dataclass(frozen=True)
class CorpusStatistics:
    """Numbers of a corpus.

    Attributes:
        bytes: of text, decompressed; 0 for a corpus of items.
        sentences: those with a word.
        longest_sentence: in words.
        words: running words.
        distinct: distinct words.
        min_counts: what each of `MIN_COUNTS` would leave.
    """

    bytes: int
    sentences: int
    longest_sentence: int
    words: int
    distinct: int
    min_counts: dict[int, Left]


def describe(source: Source, *, threads: int = 1) -> CorpusStatistics:
    """Go through a corpus once; see `posterhall.data.corpus` for what it may be.

    Raises:
        DataError: for unreadable or invalid text, or an empty corpus.
    """
    corpus = Corpus.of(source)
    size = 0
    shown = corpus.on_bytes

    def note(done: int) -> None:
        nonlocal size
        size = done
        if shown is not None:
            shown(done)

    corpus.on_bytes = note
    writer = TokenWriter()
    counted = intern(corpus, writer=writer, threads=threads, max_distinct=2 * MAX_DISTINCT)
    if counted.tokens == 0:
        raise DataError("the corpus is empty: it holds no word")
    stream = writer.finish(chunk_words=1 << 30, vocabulary_digest="")
    sentences = longest = before = 0
    for block in stream.blocks():
        ends = np.flatnonzero(block < 0)
        sentences += ends.size
        if ends.size:
            inner = int(np.diff(ends).max()) - 1 if ends.size > 1 else 0
            longest = max(longest, before + int(ends[0]), inner)
            before = block.size - 1 - int(ends[-1])
        else:
            before += block.size
    kept = {floor: counted.counts[counted.counts >= floor] for floor in MIN_COUNTS}
    return CorpusStatistics(
        bytes=size,
        sentences=sentences,
        longest_sentence=longest,
        words=counted.tokens,
        distinct=counted.counts.size,
        min_counts={floor: Left(counts.size, int(counts.sum())) for floor, counts in kept.items()},
    )
