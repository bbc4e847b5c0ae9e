"""The distinct items of a corpus with their counts; an item's position is its id."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posterhall.errors import DataError, UsageError, did_you_mean
from posterhall.runs import write_atomic

_SPACE = " \t\n\r\v\f"


class Vocabulary:
    """Distinct items with counts, most frequent first, ties in order of first appearance.

    Immutable. Items are words, or any hashable ids (of videos, products...) where the corpus is made of
    those. After `extend` the first ids keep their positions, so the order by count then holds only
    within each part.

    Attributes:
        items: the items; the index is the id.
        counts: occurrences, (V,) int64, read-only.
        total: sum of counts.
        raw_tokens: tokens seen before any pruning.
        raw_distinct: distinct items before any pruning (a lower bound if ``approximate``).
        approximate: rare words were dropped while counting, so counts are lower bounds.
        unseen: words asked to be kept that the corpus does not hold.
    """

    def __init__(
        self,
        items: Sequence[Any],
        counts: ArrayLike,
        *,
        raw_tokens: int | None = None,
        raw_distinct: int | None = None,
        approximate: bool = False,
        unseen: tuple[Any, ...] = (),
    ) -> None:
        self.items = items
        self.counts: NDArray[np.int64] = np.array(counts, dtype=np.int64)
        if self.counts.shape != (len(items),):
            raise UsageError(
                f"{len(items)} items but counts of shape {self.counts.shape}; give one count an item"
            )
        if len(items) and int(self.counts.min()) < 0:
            i = int(self.counts.argmin())
            raise DataError(f"the count of {items[i]!r} is {int(self.counts[i])}; counts cannot be negative")
        self.counts.setflags(write=False)
        self.total = int(self.counts.sum())
        self.raw_tokens = self.total if raw_tokens is None else raw_tokens
        self.raw_distinct = len(items) if raw_distinct is None else raw_distinct
        self.approximate = approximate
        self.unseen = unseen

    @classmethod
    def from_counts(cls, counts: Mapping[Any, int] | Iterable[tuple[Any, int]]) -> Vocabulary:
        """From item counts, in any order; ties keep the order given.

        Raises:
            DataError: for a negative count or an item given twice.
        """
        pairs = list(counts.items() if isinstance(counts, Mapping) else counts)
        numbers = np.array([n for _, n in pairs], dtype=np.int64)
        order = np.argsort(-numbers, kind="stable")
        vocabulary = cls([pairs[i][0] for i in order.tolist()], numbers[order])
        vocabulary.index  # noqa: B018 - raises for an item given twice
        return vocabulary

    @cached_property
    def index(self) -> Mapping[Any, int]:
        """Id of each item (built on first use)."""
        index: dict[Hashable, int] = {item: i for i, item in enumerate(self.items)}
        if len(index) != len(self.items):
            first = next(i for i, item in enumerate(self.items) if index[item] != i)
            raise DataError(f"{self.items[first]!r} is in the vocabulary twice; each item has one id")
        return index

    @cached_property
    def is_text(self) -> bool:
        """Whether every item is a string."""
        return all(type(item) is str for item in self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)

    def __contains__(self, item: object) -> bool:
        return item in self.index

    def __repr__(self) -> str:
        return f"Vocabulary({len(self):,} items, {self.total:,} tokens)"

    def id_of(self, item: Any) -> int:
        """Id of an item.

        Raises:
            DataError: if it is not in the vocabulary; names the nearest words.
        """
        found = self.index.get(item)
        if found is None:
            near = (
                did_you_mean(item, self.items)
                if isinstance(item, str) and len(self) < 200_000 and self.is_text
                else ""
            )
            raise DataError(f"{item!r} is not in the vocabulary ({len(self):,} words).{near}")
        return found

    def digest(self) -> str:
        """sha256 of items and counts. Items other than str and int enter by their ``repr``."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        state = hashlib.sha256()
        for first in range(0, len(self), 65_536):
            block = [
                f"s{item}"
                if type(item) is str
                else f"i{item}"
                if isinstance(item, int | np.integer)
                else f"r{item!r}"
                for item in self.items[first : first + 65_536]
            ]
            # Lengths first: no choice of items can imitate another vocabulary.
            raw = [text.encode("utf-8", "surrogatepass") for text in block]
            state.update(np.array([len(r) for r in raw], "<i8").tobytes())
            state.update(b"".join(raw))
        state.update(self.counts.astype("<i8").tobytes())
        return state.hexdigest()

    def extend(self, other: Vocabulary | Mapping[Any, int], *, min_count: int = 1) -> Vocabulary:
        """A grown vocabulary: ids stay, counts add up, new items follow by falling count.

        Args:
            other: counts of the new text; count it with ``min_count=1``, so that known items add up
                even where the new text has few of them.
            min_count: new items need at least this count in ``other``.

        Returns:
            The grown vocabulary; ``items[:len(self)]`` are the old ones.
        """
        if not isinstance(other, Vocabulary):
            other = Vocabulary.from_counts(other)
        counts = self.counts.copy()
        fresh: list[tuple[Any, int]] = []
        index = self.index
        for item, n in zip(other.items, other.counts.tolist(), strict=True):
            at = index.get(item)
            if at is not None:
                counts[at] += n
            elif n >= min_count:
                fresh.append((item, n))
        fresh.sort(key=lambda pair: -pair[1])
        return Vocabulary(
            [*self.items, *(item for item, _ in fresh)],
            np.concatenate([counts, np.array([n for _, n in fresh], dtype=np.int64)]),
            raw_tokens=self.raw_tokens + other.raw_tokens,
            raw_distinct=max(self.raw_distinct, len(self) + len(fresh)),
            approximate=self.approximate or other.approximate,
        )

    def select(self, ids: ArrayLike) -> Vocabulary:
        """The items of the given old ids, in that order, as a new vocabulary with the same raw totals."""
        chosen = np.asarray(ids, dtype=np.int64)
        return Vocabulary(
            [self.items[i] for i in chosen.tolist()],
            self.counts[chosen],
            raw_tokens=self.raw_tokens,
            raw_distinct=self.raw_distinct,
            approximate=self.approximate,
        )

    def save(self, path: Path) -> None:
        """Write ``word count`` lines, as the word2vec tool's ``-save-vocab`` does; integers become text.

        Raises:
            DataError: if an item is empty, holds white space, or is neither text nor an integer.
        """
        lines = []
        for item, n in zip(self.items, self.counts.tolist(), strict=True):
            if not isinstance(item, str | int | np.integer) or isinstance(item, bool):
                raise DataError(
                    f"{path}: the item {item!r} is neither text nor an integer; it cannot be a word"
                )
            text = str(item)
            if not text or any(c in text for c in _SPACE):
                raise DataError(
                    f"{path}: the word {text!r} is empty or holds white space; the format separates by it"
                )
            lines.append(f"{text} {n}\n")
        write_atomic(Path(path), "".join(lines).encode("utf-8", "surrogatepass"))

    @classmethod
    def load(cls, path: Path, *, drop: Collection[str] = ()) -> Vocabulary:
        """Read ``word count`` lines (word2vec's ``-save-vocab``); ids follow the lines.

        The tool counts newlines as the word ``</s>``; where a text has none it writes ``</s> 0``, and that
        line is left out. Give ``drop={"</s>"}`` to leave it out always.

        Raises:
            DataError: naming the line that is not a word, a space and a count, or repeats a word.
        """
        path = Path(path)
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        items: list[str] = []
        counts: list[int] = []
        seen: dict[str, int] = {}
        for number, line in enumerate(raw.split(b"\n"), 1):
            fields = line.split()
            if not fields:
                continue
            try:
                word, count = fields[0].decode(), int(fields[1])
                if len(fields) != 2 or count < 0 or count >= 2**63:
                    raise ValueError
            except (ValueError, IndexError):
                shown = line[:60].decode("utf-8", "replace")
                raise DataError(
                    f"{path}, line {number}: {shown!r} is not a word, a space and a whole count >= 0"
                ) from None
            if word in drop or (word == "</s>" and count == 0):
                continue
            if word in seen:
                raise DataError(
                    f"{path}, line {number}: {word!r} was already on line {seen[word]}; remove one"
                )
            seen[word] = number
            items.append(word)
            counts.append(count)
        if not items:
            raise DataError(f"{path}: holds no words; expected lines of a word, a space and a count")
        return cls(items, counts)


def prune(
    counts: NDArray[np.int64],
    *,
    min_count: int,
    max_vocabulary: int | None,
    keep: NDArray[np.int64],
    drop: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Ids that stay, most frequent first, ties by id (that is, by first appearance).

    Args:
        counts: occurrences, (N,).
        min_count: items below it go, unless in ``keep``.
        max_vocabulary: at most so many stay; the ones in ``keep`` always do.
        keep: ids that stay whatever their count.
        drop: ids that go whatever else holds.

    Raises:
        UsageError: if ``min_count`` or ``max_vocabulary`` is below 1, or more items must be kept than may.
    """
    if min_count < 1:
        raise UsageError(f"min_count is {min_count}; it must be at least 1")
    if max_vocabulary is not None and max_vocabulary < 1:
        raise UsageError(f"max_vocabulary is {max_vocabulary}; it must be at least 1")
    stays = counts >= min_count
    stays[keep] = True
    stays[drop] = False
    chosen = np.flatnonzero(stays)
    chosen = chosen[np.argsort(-counts[chosen], kind="stable")]
    if max_vocabulary is not None and chosen.size > max_vocabulary:
        kept = np.isin(chosen, np.setdiff1d(keep, drop))
        if kept.sum() > max_vocabulary:
            raise UsageError(
                f"{int(kept.sum())} words must be kept but max_vocabulary is {max_vocabulary}; raise it"
            )
        free = max_vocabulary - int(kept.sum())
        kept |= ~kept & (np.cumsum(~kept) <= free)
        chosen = chosen[kept]
    return chosen
