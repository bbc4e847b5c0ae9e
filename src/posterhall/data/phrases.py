"""Phrases: adjacent words that occur together more often than chance become one token (word2phrase).

Mikolov et al. 2013b (Distributed Representations of Words and Phrases), §4 and eq. 6. What differs from
the `word2phrase` tool is stated where it does: bigrams never cross the end of a sentence, the discount
is apart from the minimum count, counts are exact whatever the size of the corpus, and written lines
begin with a word, not with a space.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Literal, Self, cast

import numpy as np
from numpy.typing import NDArray

from posterhall.data import _phrase_kernels as kernels
from posterhall.data import sources
from posterhall.data._counting import Counted, intern
from posterhall.data._joining import Joiner, Phrase, Rules
from posterhall.data.corpus import MAX_DISTINCT, Corpus, Source
from posterhall.data.encoded import Encoded, TokenWriter
from posterhall.errors import DataError, UsageError
from posterhall.runs import atomic_file, write_atomic

__all__ = ["ENGLISH_CONNECTORS", "Phrase", "Phrases", "Scorer", "score"]

Scorer = Literal["lift", "paper", "npmi", "gensim"]

ENGLISH_CONNECTORS = frozenset(
    "a an the for of with without at from to in on by and or".split()  # noqa: SIM905
)
"""Articles, prepositions and conjunctions inside English names: "bank of america", "man on the moon"."""

Watch = Callable[[str, int, int | None], None]

_DEFAULT_THRESHOLD: dict[str, float] = {"lift": 100.0, "npmi": 0.5, "gensim": 10.0}
_RUN_ROWS = 1 << 14
_RUN_CELLS = 1 << 22


def score(
    scorer: Scorer,
    pair: NDArray[np.int64],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    *,
    words: int,
    distinct: int = 0,
    discount: float = 5.0,
) -> NDArray[np.float64]:
    """How much more often two words stand together than apart; all arrays of shape (n,).

    - ``paper``: (c_ab - d) / (c_a c_b), eq. 6. It shrinks as the corpus grows, so it needs a threshold
      for each size.
    - ``lift``: the same times the number of words N, as the word2phrase code has it: how many times more
      often than if words were drawn independently.
    - ``npmi``: ln(p_ab / (p_a p_b)) / -ln p_ab, from -1 to 1 (Bouma 2009); the discount plays no part.
    - ``gensim``: ``paper`` times the number of distinct words and bigrams, gensim's default scorer.

    Args:
        scorer: one of the above.
        pair: c_ab, how often b followed a.
        first: c_a.
        second: c_b.
        words: N, running words.
        distinct: distinct words plus distinct bigrams (``gensim`` only).
        discount: d, in occurrences: pairs seen hardly more often score near 0.
    """
    c_ab, c_a, c_b = pair.astype(np.float64), first.astype(np.float64), second.astype(np.float64)
    if scorer == "npmi":
        own = -np.log(c_ab / words)
        pmi = np.log(c_ab * words / (c_a * c_b))
        # p_ab = 1 (a corpus of nothing but this pair) is perfect association, and 0 / 0 in the formula.
        return cast("NDArray[np.float64]", np.divide(pmi, own, out=np.ones_like(pmi), where=own > 0))
    plain = (c_ab - discount) / (c_a * c_b)
    if scorer == "paper":
        return plain
    return plain * (words if scorer == "lift" else distinct)


class Phrases:
    """Finds phrases in a corpus and joins them.

    Each pass counts neighbours, scores them, and joins from left to right every pair above the threshold; a
    joined pair begins no further phrase in its pass. Later passes see joined pairs as words, so that
    phrases of up to 2^passes words form.

    Args:
        min_count: rarer words and pairs take no part.
        threshold: scores above it make a phrase: one number, or one for each pass. One number is that of the
            last pass; for all scorers but npmi, the passes before have it doubled each (200, then 100: the
            tool's demonstration script). None: lift 100 (the tool's default), npmi 0.5, gensim 10.
        discount: the paper's delta, in occurrences; None: min_count, as the tool has it, so that a pair seen
            just that often scores 0.
        scorer: see `score`.
        connectors: words that may stand inside a phrase but neither begin nor end one; any number of them
            in a row. Empty, as in the tool, allows only neighbours.
        passes: 2 to 4 in the paper.
        delimiter: put between the parts; no white space.
        threads: threads for reading text; results do not depend on it.
        max_pairs: distinct pairs counted at a time (about 20 bytes each). A corpus with more is gone through
            several times, each time for a part of the pairs: counts are exact with any value.

    Attributes:
        passes_: after `fit`, the phrases of each pass, best score first. (Two may spell the same
            name: ``new_york city`` and ``new york_city``.)

    Raises:
        UsageError: for arguments out of range.
    """

    def __init__(
        self,
        *,
        min_count: int = 5,
        threshold: float | Sequence[float] | None = None,
        discount: float | None = None,
        scorer: Scorer = "lift",
        connectors: Collection[str] = (),
        passes: int = 1,
        delimiter: str = "_",
        threads: int = 1,
        max_pairs: int = 4_000_000,
    ) -> None:
        if scorer not in ("lift", "paper", "npmi", "gensim"):
            raise UsageError(f"scorer is {scorer!r}; allowed are lift, paper, npmi and gensim")
        for name, value in (("min_count", min_count), ("passes", passes), ("max_pairs", max_pairs)):
            if value < 1:
                raise UsageError(f"{name} is {value}; it must be at least 1")
        if discount is not None and not discount >= 0:
            raise UsageError(f"discount is {discount}; it must be at least 0")
        if not delimiter or delimiter != "".join(delimiter.split()):
            raise UsageError(f"delimiter is {delimiter!r}; give one or more characters, no white space")
        if isinstance(connectors, str):
            raise UsageError(f"connectors is one string, {connectors!r}; give a collection of words")
        self.min_count = min_count
        self.thresholds = _thresholds(threshold, scorer, passes)
        self.discount = float(min_count if discount is None else discount)
        self.scorer: Scorer = scorer
        self.connectors = tuple(sorted(set(connectors)))
        self.passes = passes
        self.delimiter = delimiter
        self.threads = threads
        self.max_pairs = max_pairs
        self.passes_: list[list[Phrase]]
        self._joiner: Joiner | None = None

    @property
    def phrases_(self) -> dict[str, Phrase]:
        """All phrases by name, pass by pass, best score first; a name found twice keeps its first finding."""
        found: dict[str, Phrase] = {}
        for level in self.passes_:
            for phrase in level:
                found.setdefault(self.delimiter.join(phrase.parts), phrase)
        return found

    def fit(self, source: Source, *, watch: Watch | None = None) -> Self:
        """Find the phrases of a corpus (see `posterhall.data.corpus`; a generator is consumed).

        Args:
            source: the corpus.
            watch: called with a stage (``read``, ``pass 1``...), the bytes or tokens done, and their total if
                known.

        Raises:
            DataError: for an unreadable or empty corpus, or items that are not text.
        """
        corpus = Corpus.of(source)
        writer = TokenWriter()
        _watch_bytes(corpus, "read", watch)
        counted = intern(corpus, writer=writer, threads=self.threads, max_distinct=2 * MAX_DISTINCT)
        if counted.tokens == 0:
            raise DataError("the corpus is empty: it holds no word")
        stream = writer.finish(chunk_words=1 << 30, vocabulary_digest="")
        passes: list[list[Phrase]] = []
        fitting = _Fitting(self, counted, watch)
        for level, threshold in enumerate(self.thresholds, 1):
            found, rules = fitting.find(stream, threshold, level)
            if not found:
                break
            passes.append(found)
            if level < self.passes:
                stream = fitting.joined(stream, rules)
        self.passes_ = passes
        self._joiner = None
        return self

    def transform(self, source: Source) -> Iterator[list[str]]:
        """Each sentence (of text: each line, empty ones included) with its phrases joined.

        Raises:
            UsageError: if nothing was fitted or loaded.
        """
        corpus = Corpus.of(source)
        if corpus.is_text:
            held: list[bytes] = []
            for block in self._text(corpus):
                head, *rest = block.split(b"\n")
                held.append(head)
                for line in rest:
                    yield b"".join(held).decode("utf-8", "surrogateescape").split(" ") if any(held) else []
                    held = [line]
            if any(held):
                yield b"".join(held).decode("utf-8", "surrogateescape").split(" ")
        else:
            yield from self._fitted.sentences(corpus.items())

    def write(self, source: Source, path: Path, *, watch: Watch | None = None) -> tuple[int, int]:
        """Write a text corpus with its phrases joined: line by line, single spaces, gzipped if named .gz.

        The file appears whole or not at all; ``source`` may be the same file. ``watch`` as for `fit`.

        Returns:
            (tokens read, tokens written).

        Raises:
            UsageError: if nothing was fitted or loaded.
            DataError: for unreadable text, or a corpus that is not text.
        """
        corpus = Corpus.of(source)
        if not corpus.is_text:
            raise DataError("only text is written as a file; use transform for sentences in memory")
        tally = [0, 0]
        _watch_bytes(corpus, "write", watch)
        with ExitStack() as stack:
            file = stack.enter_context(atomic_file(Path(path)))
            out: BinaryIO = file
            if Path(path).suffix == ".gz":
                packed = gzip.GzipFile(fileobj=file, mode="wb", compresslevel=6, mtime=0)
                out = cast("BinaryIO", stack.enter_context(packed))
            for block in self._text(corpus, tally):
                out.write(block)
        return tally[0], tally[1]

    def save(self, path: Path) -> None:
        """Write the phrases as lines: parts joined by spaces, count, score and pass, separated by tabs."""
        lines = [
            f"{' '.join(phrase.parts)}\t{phrase.count}\t{phrase.score!r}\t{phrase.level}\n"
            for level in self.passes_
            for phrase in level
        ]
        write_atomic(Path(path), "".join(lines).encode())

    def load(self, path: Path) -> Self:
        """Take the phrases of a file that `save` wrote, in place of fitting; ``delimiter`` must be the same.

        Raises:
            DataError: naming the line that is not of that form.
        """
        levels: list[list[Phrase]] = []
        with sources.open_text(Path(path)) as file:
            for number, line in enumerate(file, 1):
                try:
                    parts, count, value, level = line.decode().rstrip("\r\n").split("\t")
                    phrase = Phrase(int(count), float(value), tuple(parts.split(" ")), int(level))
                    if (
                        len(phrase.parts) < 2
                        or not all(phrase.parts)
                        or not 1 <= phrase.level <= len(levels) + 1
                    ):
                        raise ValueError
                except ValueError:
                    raise DataError(
                        f"{path}, line {number}: not a phrase; expected words separated by spaces, "
                        "then a tab, count, tab, score, tab, pass (1, 2, ... in order)"
                    ) from None
                if phrase.level > len(levels):
                    levels.append([])
                levels[phrase.level - 1].append(phrase)
        self.passes_ = levels
        self._joiner = None
        return self

    @property
    def _fitted(self) -> Joiner:
        if not hasattr(self, "passes_"):
            raise UsageError("there are no phrases yet: fit a corpus first, or load a file of phrases")
        if self._joiner is None:
            self._joiner = Joiner(self.passes_, self.delimiter)
        return self._joiner

    def _text(self, corpus: Corpus, tally: list[int] | None = None) -> Iterator[bytes]:
        return self._fitted.text(corpus, tally if tally is not None else [0, 0])


def _watch_bytes(corpus: Corpus, stage: str, watch: Watch | None) -> None:
    if watch is not None:
        size = corpus.size
        corpus.on_bytes = lambda done: watch(stage, done, size)


def _thresholds(given: float | Sequence[float] | None, scorer: Scorer, passes: int) -> tuple[float, ...]:
    if given is None:
        if scorer not in _DEFAULT_THRESHOLD:
            raise UsageError(
                "the paper's score depends on the size of the corpus, so it has no default threshold; give "
                "one (100 / words equals the default of lift)"
            )
        given = _DEFAULT_THRESHOLD[scorer]
    if isinstance(given, Sequence):
        if len(given) != passes:
            raise UsageError(f"{len(given)} thresholds for {passes} passes; give one, or one for each pass")
        values = tuple(float(t) for t in given)
    else:
        values = tuple(given * (1.0 if scorer == "npmi" else 2.0**later) for later in reversed(range(passes)))
    if any(math.isnan(t) for t in values):
        raise UsageError("a threshold is not a number")
    return values


class _Fitting:
    """The numbering of words and phrases that grows while passes are made."""

    def __init__(self, settings: Phrases, counted: Counted, watch: Watch | None) -> None:
        self.watch = watch
        self.stage = ""
        self.settings = settings
        self.counted = counted
        self.numbers: dict[str, int] = {}  # of phrases
        self.names: list[str] = []  # of phrases that are no words of the text
        self.words = len(counted.counts)
        self.connectors = [i for i in counted.find(settings.connectors) if i >= 0]
        self.state = np.zeros(kernels.STATE_SIZE, np.int64)
        self.state[kernels.RUNS] = 1  # row 0 is the empty sequence
        rows = max(
            1, min(_RUN_ROWS, _RUN_CELLS // max(1, len(self.connectors)), 2**60 // (self.words + 1) ** 2)
        )
        self.runs = np.zeros((rows if self.connectors else 1, max(1, len(self.connectors))), np.int32)

    def find(self, stream: Encoded, threshold: float, level: int) -> tuple[list[Phrase], Rules]:
        settings = self.settings
        self.stage = f"pass {level}"
        counts = self.counted.counts
        if level > 1:
            counts = np.zeros(self.words + len(self.names), np.int64)
            for block in stream.blocks():
                counts += np.bincount(block[block >= 0], minlength=counts.size)
        # gensim's scorer counts distinct bigrams, and so needs the rare ones too.
        eligible = counts >= (1 if settings.scorer == "gensim" else settings.min_count)
        eligible[self.connectors] = False
        ranked = np.flatnonzero(eligible)
        codes = np.full(counts.size, -1, np.int32)
        codes[ranked] = np.arange(ranked.size, dtype=np.int32)
        codes[self.connectors] = -2 - np.arange(len(self.connectors), dtype=np.int32)

        keys, pairs, distinct = self._pairs(stream, codes, ranked.size)
        rest, second = np.divmod(keys.astype(np.int64) - 1, max(1, ranked.size))
        run, first = np.divmod(rest, max(1, ranked.size))
        scores = score(
            settings.scorer,
            pairs,
            counts[ranked[first]],
            counts[ranked[second]],
            words=stream.words,
            distinct=distinct + int((counts > 0).sum()) - len(self.connectors),
            discount=settings.discount,
        )
        good = np.flatnonzero(scores > threshold)
        parts = self._parts(ranked[first[good]], run[good], ranked[second[good]])
        found = [
            Phrase(int(pairs[i]), float(scores[i]), p, level)
            for p, i in sorted(zip(parts, good.tolist(), strict=True), key=lambda x: (-scores[x[1]], x[0]))
        ]
        names = [settings.delimiter.join(p) for p in parts]
        rules = Rules(codes, ranked.size, self.runs, keys[good], self._number(names))
        return found, rules

    def _pairs(
        self, stream: Encoded, codes: NDArray[np.int32], ranks: int
    ) -> tuple[NDArray[np.uint64], NDArray[np.int64], int]:
        """Keys and counts of the candidates seen ``min_count`` times, and the number of distinct ones."""
        found: list[tuple[NDArray[np.uint64], NDArray[np.int64]]] = []
        distinct = 0
        parts = [(0, 0)]  # (mask, value) of hash bits; a part with too many pairs is halved
        while parts:
            mask, part = parts.pop()
            table = self._count_part(stream, codes, ranks, mask, part)
            if table is None:
                parts += [(2 * mask + 1, part + mask + 1), (2 * mask + 1, part)]
                continue
            keys, values = table
            distinct += int(self.state[kernels.PAIRS])
            often = np.flatnonzero(values >= self.settings.min_count)
            found.append((keys[often], values[often]))
        keys = np.concatenate([k for k, _ in found])
        order = np.argsort(keys)
        return keys[order], np.concatenate([v for _, v in found])[order], distinct

    def _count_part(
        self, stream: Encoded, codes: NDArray[np.int32], ranks: int, mask: int, part: int
    ) -> tuple[NDArray[np.uint64], NDArray[np.int64]] | None:
        state = self.state
        state[kernels.START] = -1
        state[kernels.PAIRS] = 0
        keys = np.zeros(1 << 12, np.uint64)
        values = np.zeros(1 << 12, np.int64)
        done = 0
        for block in stream.blocks():
            done += block.size
            if self.watch is not None:
                self.watch(self.stage, done, stream.tokens_total)
            at = 0
            while at < block.size:
                at = kernels.count_pairs(block, at, codes, ranks, self.runs, keys, values, mask, part, state)
                if at < block.size:
                    if state[kernels.PAIRS] >= self.settings.max_pairs and mask < 2**24:
                        return None
                    larger = np.zeros(2 * keys.size, np.uint64), np.zeros(2 * keys.size, np.int64)
                    kernels.put(keys, values, *larger)
                    keys, values = larger
        return keys, values

    def _parts(
        self, first: NDArray[np.int64], run: NDArray[np.int64], second: NDArray[np.int64]
    ) -> list[tuple[str, ...]]:
        before = {int(self.runs[r, c]): (int(r), int(c)) for r, c in np.argwhere(self.runs)}
        between: dict[int, tuple[str, ...]] = {0: ()}

        def connectors(r: int) -> tuple[str, ...]:
            backwards = []
            while r:
                r, c = before[r]
                backwards.append(self.connectors[c])
            return tuple(self._items(np.array(backwards[::-1], np.int64)))

        for r in np.unique(run).tolist():
            between[r] = connectors(r)
        return [
            (a, *between[r], b)
            for a, r, b in zip(self._items(first), run.tolist(), self._items(second), strict=True)
        ]

    def _items(self, ids: NDArray[np.int64]) -> list[str]:
        items = np.empty(ids.size, object)
        old = ids < self.words
        items[old] = self.counted.items(ids[old])
        items[~old] = [self.names[i] for i in (ids[~old] - self.words).tolist()]
        for item in items[old]:
            if not isinstance(item, str):
                raise DataError(
                    f"the item {item!r} is not text; phrases are made of words. Give the items names."
                )
        return list(items)

    def _number(self, names: list[str]) -> NDArray[np.int32]:
        """Numbers of phrases; one that is spelled like a word of the text is that word."""
        fresh = [name for name in dict.fromkeys(names) if name not in self.numbers]
        for name, word in zip(fresh, self.counted.find(fresh), strict=True):
            if word < 0:
                word = self.words + len(self.names)
                self.names.append(name)
            self.numbers[name] = word
        return np.array([self.numbers[name] for name in names], np.int32)

    def joined(self, stream: Encoded, rules: Rules) -> Encoded:
        """The stream after a pass."""
        writer = TokenWriter()
        carry = np.empty(0, np.int32)
        for block in stream.blocks():
            items = np.concatenate([carry, block])
            out, index, pending = rules.join(items, np.arange(items.size + 1), np.zeros(items.size, np.bool_))
            writer.append(out[: np.searchsorted(index[:-1], pending)])
            carry = items[pending:]
        # A stream ends with a sentence, so nothing is left undecided.
        return writer.finish(chunk_words=1 << 30, vocabulary_digest="")
