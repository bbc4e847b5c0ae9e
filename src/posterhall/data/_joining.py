"""Joining phrases: the rules of one pass, and all passes of a fitted model over text or sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.data import _phrase_kernels as kernels
from posterhall.data._kernels import PADDING
from posterhall.data._table import Unreadable, WordTable
from posterhall.data.corpus import Corpus
from posterhall.errors import DataError

_SLICE = 1 << 17  # tokens of a corpus in memory that are transformed at a time


@dataclass(frozen=True)
class Phrase:
    """A phrase that was found.

    Attributes:
        count: how often its parts stood side by side.
        score: by the scorer.
        parts: first part, connectors if any, last part; a part may be a phrase of an earlier pass.
        level: the pass that found it, from 1.
    """

    count: int
    score: float
    parts: tuple[str, ...]
    level: int


class Rules:
    """The candidates that one pass joins, over some numbering of items."""

    def __init__(
        self,
        codes: NDArray[np.int32],
        ranks: int,
        runs: NDArray[np.int32],
        keys: NDArray[np.uint64],
        items: NDArray[np.int32],
    ) -> None:
        self.codes = codes
        self.ranks = ranks
        self.runs = runs
        size = 16
        while size < 2 * keys.size:
            size *= 2
        self.keys = np.zeros(size, np.uint64)
        self.items = np.zeros(size, np.int32)
        kernels.put(keys, items, self.keys, self.items)

    def join(
        self, items: NDArray[np.int32], index: NDArray[np.int64], joined: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], int]:
        """The items after the pass, the token each begins with, and the first that may yet change."""
        out = np.empty(items.size, np.int32)
        out_index = np.empty(items.size + 1, np.int64)
        n, pending = kernels.join(
            items, index, self.codes, self.ranks, self.runs, self.keys, self.items, out, out_index, joined
        )
        return out[:n], out_index[: n + 1], pending


class Joiner:
    """Fitted phrases made ready for joining, over a numbering of the words they are made of."""

    def __init__(self, passes: list[list[Phrase]], delimiter: str) -> None:
        numbers: dict[str, int] = {}
        for level in passes:
            for phrase in level:
                for item in (*phrase.parts, delimiter.join(phrase.parts)):
                    numbers.setdefault(item, len(numbers))
        self.numbers = numbers
        self.delimiter = delimiter
        self.table = WordTable.of((name.encode() for name in numbers), len(numbers))
        self.rules = [self._rules(level) for level in passes]

    def _rules(self, level: list[Phrase]) -> Rules:
        ranks: dict[str, int] = {}
        connectors: dict[str, int] = {}
        for phrase in level:
            for word in (phrase.parts[0], phrase.parts[-1]):
                ranks.setdefault(word, len(ranks))
            for word in phrase.parts[1:-1]:
                connectors.setdefault(word, len(connectors))
        both = sorted(set(ranks) & set(connectors))
        if both:
            raise DataError(
                f"{both[0]!r} is a connector in one phrase and the end of another of the same pass"
            )
        codes = np.full(len(self.numbers), -1, np.int32)
        for word, rank in ranks.items():
            codes[self.numbers[word]] = rank
        for word, c in connectors.items():
            codes[self.numbers[word]] = -2 - c
        trie: dict[tuple[int, int], int] = {}
        keys, items = [], []
        for phrase in level:
            run = 0
            for word in phrase.parts[1:-1]:
                run = trie.setdefault((run, connectors[word]), len(trie) + 1)
            keys.append(
                (run * len(ranks) + ranks[phrase.parts[0]]) * len(ranks) + ranks[phrase.parts[-1]] + 1
            )
            items.append(self.numbers[self.delimiter.join(phrase.parts)])
        runs = np.zeros((len(trie) + 1, max(1, len(connectors))), np.int32)
        for (run, c), following in trie.items():
            runs[run, c] = following
        return Rules(codes, len(ranks), runs, np.array(keys, np.uint64), np.array(items, np.int32))

    def joins(self, ids: NDArray[np.int32], *, final: bool) -> tuple[NDArray[np.bool_], int]:
        """Which tokens join the one before them, and the first whose fate depends on what follows.

        Passes can be taken up again at that token as at a beginning: an undecided item is one that might
        begin a phrase, and no pass remembers anything from before such an item.
        """
        joined = np.zeros(ids.size, np.bool_)
        cut = ids.size
        items, index = ids, np.arange(ids.size + 1)
        for rules in self.rules:
            begins = index
            items, index, pending = rules.join(items, index, joined)
            if not final and pending < begins.size - 1:
                cut = int(begins[pending])
                known = int(np.searchsorted(index[:-1], cut))
                items, index = items[:known], index[: known + 1]
        return joined, cut

    def text(self, corpus: Corpus, tally: list[int]) -> Iterator[bytes]:
        delimiter = np.frombuffer(self.delimiter.encode(), np.uint8)
        carry = b""
        fresh = True
        lines = 0
        for block in corpus.blocks():
            raw = carry + block.text[: block.end].tobytes()
            final = block.last
            text = np.frombuffer(raw + b" " * PADDING, np.uint8)
            try:
                scanned = self.table.scan(text, len(raw), insert=False, ids=True, spans=True)
            except Unreadable as error:
                error.offset -= len(carry)
                raise corpus.unreadable(block, error, lines) from None
            lines += scanned.lines
            joined, cut = self.joins(scanned.ids, final=final)
            end = len(raw) if cut == scanned.ids.size else int(scanned.spans[cut - 1, 1]) if cut else 0
            out = np.empty(end * (1 + delimiter.size) + 1, np.uint8)
            n, fresh = kernels.emit(
                text, end, scanned.spans[:cut], scanned.ids[:cut], joined, fresh, delimiter, out
            )
            written = scanned.ids[:cut] != -1
            tally[0] += int(written.sum())
            tally[1] += int((written & ~joined[:cut]).sum())
            yield out[:n].tobytes()
            carry = raw[end:]
            if final and not fresh and corpus.paths is not None and block.source < len(corpus.paths) - 1:
                yield b"\n"  # the next file begins a sentence
                fresh = True

    def sentences(self, sentences: Iterable[list[Any]]) -> Iterator[list[str]]:
        held: list[list[Any]] = []
        size = 0
        for sentence in sentences:
            held.append(sentence)
            size += len(sentence) + 1
            if size >= _SLICE:
                yield from self._sentences(held)
                held, size = [], 0
        yield from self._sentences(held)

    def _sentences(self, held: list[list[Any]]) -> Iterator[list[str]]:
        ids: list[int] = []
        for sentence in held:
            ids.extend(self.numbers.get(word, -2) if isinstance(word, str) else -2 for word in sentence)
            ids.append(-1)
        joined, _ = self.joins(np.array(ids, np.int32), final=True)
        flags = iter(joined.tolist())
        for sentence in held:
            out: list[str] = []
            for word in sentence:
                if next(flags):
                    out[-1] += self.delimiter + word
                else:
                    out.append(word)
            next(flags)  # of the sentence's end
            yield out
