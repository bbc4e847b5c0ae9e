"""Word vectors and their queries: nearest words, sums, analogies, the odd one out.

Vectors know nothing of the trainer or file they come from: `posterhall.embeddings.formats` reads and
writes them, `analogies` and `similarity` score them, `clusters` and `projection` group and draw them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from posterhall.embeddings._search import (
    BLOCK_SCORES,
    FloatMatrix,
    IntArray,
    best_rows,
    duplicates,
    lengths,
    suggestions,
    unit_length,
)
from posterhall.errors import DataError

Query: TypeAlias = "str | npt.NDArray[np.floating[Any]] | Sequence[str | npt.NDArray[np.floating[Any]]]"
Method = Literal["3cosadd", "3cosmul"]

METHODS: tuple[Method, ...] = ("3cosadd", "3cosmul")


class Neighbor(NamedTuple):
    """A word and its cosine (or, for 3CosMul, its score)."""

    word: str
    score: float


class WordVectors:
    """Words, one float32 vector each, and what can be asked of them. Immutable.

    Args:
        words: V unique strings, most frequent first where frequency is known.
        matrix: shape (V, d). Kept without a copy if it is a C-contiguous float32 array, also a read-only
            memory map; otherwise converted.
        counts: occurrences of each word in the training text, shape (V,), if known.
        allow_nonfinite: accept NaN and infinite components (asked about when lengths are first needed).
            Such a word has no direction: its cosine with anything is 0.

    Raises:
        DataError: if the shapes disagree, a word occurs twice, or there are no words.
    """

    def __init__(
        self,
        words: Sequence[str],
        matrix: npt.ArrayLike,
        counts: npt.ArrayLike | None = None,
        *,
        allow_nonfinite: bool = False,
    ) -> None:
        array = np.asarray(matrix)
        if array.ndim != 2 or array.shape[1] == 0:
            raise DataError(f"the matrix has shape {array.shape}; vectors need (words, dimensions)")
        if array.dtype.kind not in "fiu":
            raise DataError(f"the matrix holds {array.dtype}; vectors need real numbers (float32)")
        if len(words) != array.shape[0]:
            raise DataError(
                f"{len(words):,} words for {array.shape[0]:,} rows; every word needs exactly one row"
            )
        if not words:
            raise DataError("there are no words; vectors need at least one")
        if array.dtype != np.float32 or not array.flags.c_contiguous:
            array = np.ascontiguousarray(array, dtype=np.float32)
        self._words = tuple(words)
        self._matrix: FloatMatrix = array.view()
        self._matrix.flags.writeable = False
        self._counts: IntArray | None = None
        if counts is not None:
            self._counts = np.array(counts, dtype=np.int64)
            if self._counts.shape != (len(words),):
                raise DataError(f"counts have shape {self._counts.shape}; {len(words):,} words need one each")
            self._counts.flags.writeable = False
        self._allow_nonfinite = allow_nonfinite
        self._index: Mapping[str, int] = MappingProxyType(
            dict(zip(self._words, range(len(words)), strict=True))
        )
        if len(self._index) != len(words):
            repeated, first = duplicates(self._words)
            raise DataError(
                f"{repeated:,} words occur more than once, first '{first}'; every word needs one row, so "
                "keep one of each"
            )
        self._norms: npt.NDArray[np.float64] | None = None
        self._unit: FloatMatrix | None = None

    @classmethod
    def load(cls, path: str | os.PathLike[str], **options: Any) -> WordVectors:
        """Read a file; `posterhall.embeddings.formats.load` documents the options."""
        from posterhall.embeddings import formats

        return formats.load(Path(path), **options)

    def save(self, path: str | os.PathLike[str], **options: Any) -> None:
        """Write a file; `posterhall.embeddings.formats.save` documents the options."""
        from posterhall.embeddings import formats

        formats.save(self, Path(path), **options)

    # -- what is in it ---------------------------------------------------------------------------

    @property
    def words(self) -> tuple[str, ...]:
        """The V words, in the order of the rows."""
        return self._words

    @property
    def matrix(self) -> FloatMatrix:
        """The vectors, (V, d) float32, read-only."""
        return self._matrix

    @property
    def counts(self) -> IntArray | None:
        """Occurrences of each word, (V,) int64, or None."""
        return self._counts

    @property
    def index(self) -> Mapping[str, int]:
        """Row of each word."""
        return self._index

    @property
    def dimensions(self) -> int:
        """d, the length of each vector."""
        return int(self._matrix.shape[1])

    def __len__(self) -> int:
        return len(self._words)

    def __contains__(self, word: object) -> bool:
        return word in self._index

    def __iter__(self) -> Iterator[str]:
        return iter(self._words)

    def __repr__(self) -> str:
        return f"WordVectors({len(self):,} words, {self.dimensions} dimensions)"

    def __getitem__(self, word: str | Sequence[str]) -> FloatMatrix:
        """The vector of a word, (d,), or of a list of words, (n, d)."""
        chosen: FloatMatrix = self._matrix[self.row(word) if isinstance(word, str) else self.rows(word)]
        return chosen

    def row(self, word: str) -> int:
        """Row of `word`; DataError with the nearest words if there is none."""
        try:
            return self._index[word]
        except KeyError:
            raise DataError(self._unknown(word)) from None

    def rows(self, words: Sequence[str]) -> IntArray:
        """Rows of several words, (n,) int64."""
        return np.fromiter((self.row(word) for word in words), np.int64, len(words))

    def _unknown(self, word: str) -> str:
        near = suggestions(word, self._words, self._index)
        hint = f" Did you mean: {', '.join(near)}?" if near else ""
        return f"'{word}' is not in the vocabulary ({len(self):,} words).{hint}"

    @property
    def norms(self) -> npt.NDArray[np.float64]:
        """Euclidean length of each vector, (V,) float64.

        Raises:
            DataError: if a vector holds NaN or infinity and `allow_nonfinite` was not given.
        """
        if self._norms is None:
            self._norms = lengths(self._matrix)
            bad = np.flatnonzero(~np.isfinite(self._norms))
            if bad.size and not self._allow_nonfinite:
                self._norms = None
                raise DataError(
                    f"the vector of '{self._words[bad[0]]}' (row {bad[0]}) holds NaN or infinity, as do "
                    f"{bad.size:,} rows in all; train again with a lower rate, or pass allow_nonfinite, "
                    "which gives those words a cosine of 0 with anything"
                )
        return self._norms

    @property
    def unit(self) -> FloatMatrix:
        """Vectors scaled to length 1, (V, d) float32, computed once and kept.

        A zero vector (and one that is not finite) stays zero, so that its cosine with anything is 0.
        """
        if self._unit is None:
            unit = np.empty_like(self._matrix)
            for start in range(0, len(self), 65_536):
                stop = min(start + 65_536, len(self))
                unit[start:stop] = self.unit_rows(start, stop)
            unit.flags.writeable = False
            self._unit = unit
        return self._unit

    def unit_rows(self, start: int, stop: int) -> FloatMatrix:
        """Rows start to stop of `unit`, without computing the others."""
        if self._unit is not None:
            return self._unit[start:stop]
        norms = self.norms[start:stop, None]
        usable = (norms > 0) & np.isfinite(norms)
        rows = np.divide(
            self._matrix[start:stop], norms, out=np.zeros((stop - start, self.dimensions)), where=usable
        )
        return rows.astype(np.float32)

    def most_frequent(self, count: int) -> WordVectors:
        """The first `count` words (all if there are fewer) as vectors of their own, sharing memory."""
        if count < 1:
            raise DataError(f"{count} words were asked for; restrict to 1 or more")
        if count >= len(self):
            return self
        counts = None if self._counts is None else self._counts[:count]
        return WordVectors(
            self._words[:count], self._matrix[:count], counts, allow_nonfinite=self._allow_nonfinite
        )

    # -- queries ---------------------------------------------------------------------------------

    def direction(self, query: Query, *, minus: Query | None = None) -> FloatMatrix:
        """The unit vector of a query, (d,): a word, a vector, or a sum of unit vectors of several.

        Sums are how the original's `distance` tool composes meaning: Russian + river (Mikolov et al.
        2013, table 5). `minus` is subtracted in the same way.

        Raises:
            DataError: on an unknown word, a vector of another length, or a sum that is zero.
        """
        plus_rows, names = self._unit_terms(query)
        total = plus_rows.sum(axis=0, dtype=np.float64)
        if minus is not None:
            minus_rows, minus_names = self._unit_terms(minus)
            total -= minus_rows.sum(axis=0, dtype=np.float64)
            names += [f"-{name}" for name in minus_names]
        length = float(np.linalg.norm(total))
        if not length > 1e-6 * len(names):
            raise DataError(
                f"the vector of {' + '.join(names)} is zero or not finite: it has no direction, so nothing "
                "is near it"
            )
        unit: FloatMatrix = (total / length).astype(np.float32)
        return unit

    def _unit_terms(self, query: Query) -> tuple[npt.NDArray[np.float64], list[str]]:
        terms: Sequence[Any]
        terms = [query] if isinstance(query, str | np.ndarray) else list(query)
        if not terms:
            raise DataError("the query is empty; give at least one word or vector")
        rows = np.zeros((len(terms), self.dimensions))
        names: list[str] = []
        for i, term in enumerate(terms):
            if isinstance(term, str):
                rows[i] = self._matrix[self.row(term)]
                names.append(f"'{term}'")
            else:
                if np.shape(term) != (self.dimensions,):
                    raise DataError(
                        f"the query vector has shape {np.shape(term)}; it needs ({self.dimensions},)"
                    )
                rows[i] = term
                names.append("the given vector")
        return unit_length(rows), names

    def nearest(
        self,
        query: Query,
        top: int = 10,
        *,
        minus: Query | None = None,
        exclude: Sequence[str] = (),
        include_query: bool = False,
        restrict: int | None = None,
    ) -> list[Neighbor]:
        """The words with the highest cosine to a word, a vector or a sum, best first.

        Args:
            query: a word, a vector (d,), or a list of either, which are added as unit vectors.
            top: how many to return, at least 1.
            minus: words or vectors to subtract.
            exclude: words that may not be an answer.
            include_query: let the words of the query be answers too.
            restrict: search only the first (most frequent) words.

        Raises:
            DataError: on an unknown word or a query without direction.
        """
        target = self.direction(query, minus=minus)
        skip = [self.row(word) for word in exclude]
        if not include_query:
            skip += self._query_rows(query) + ([] if minus is None else self._query_rows(minus))
        rows, scores = self.search(target[None, :], top, skip=[skip], restrict=restrict)
        return self._neighbors(rows[0], scores[0])

    def nearest_many(
        self,
        queries: Sequence[Query],
        top: int = 10,
        *,
        include_query: bool = False,
        restrict: int | None = None,
    ) -> list[list[Neighbor]]:
        """`nearest` for many queries at once: one matrix product a block."""
        if not queries:
            return []
        targets = np.stack([self.direction(query) for query in queries])
        skip = None if include_query else [self._query_rows(query) for query in queries]
        rows, scores = self.search(targets, top, skip=skip, restrict=restrict)
        return [self._neighbors(r, s) for r, s in zip(rows, scores, strict=True)]

    def search(
        self,
        targets: FloatMatrix,
        top: int,
        *,
        skip: Sequence[Sequence[int]] | None = None,
        restrict: int | None = None,
    ) -> tuple[IntArray, FloatMatrix]:
        """Rows with the highest cosine to each target, as arrays.

        Args:
            targets: (n, d) float32, of length 1 (a longer target scales its scores).
            top: answers a target, at least 1.
            skip: for each target the rows that may not be an answer.
            restrict: search only the first rows.

        Returns:
            rows (n, k) int64 and scores (n, k) float32, descending, equal scores by row; where fewer than
            `top` rows are left, k is smaller or the rest has row -1 and score -inf.
        """
        if top < 1:
            raise DataError(f"top is {top}; ask for at least 1 answer")
        if restrict is not None and restrict < 1:
            raise DataError(f"restrict is {restrict}; search at least 1 word")
        if targets.ndim != 2 or targets.shape[1] != self.dimensions:
            raise DataError(f"targets have shape {targets.shape}; these vectors need (n, {self.dimensions})")
        count = len(self) if restrict is None else min(restrict, len(self))
        skips: Sequence[Sequence[int]] = [()] * len(targets) if skip is None else skip
        return best_rows(self._cosines, targets, min(top, count), skips, count)

    def _cosines(self, targets: FloatMatrix, start: int, stop: int) -> FloatMatrix:
        """(n, stop - start) dot products of targets with unit rows."""
        if self._unit is not None:
            return targets @ self._unit[start:stop].T
        # Scaling the scores saves a second copy of the matrix, which may be larger than memory.
        norms = self.norms[start:stop]
        ordinary = (norms > 1e-30) & (norms < 1e30)
        scale = np.divide(1.0, norms, out=np.zeros(stop - start), where=ordinary).astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            dots: FloatMatrix = targets @ self._matrix[start:stop].T
            dots *= scale
        if not ordinary.all():  # zeros stay zero, and the few lengths that float32 cannot invert are exact
            dots[:, ~ordinary] = 0.0
            for column in np.flatnonzero(~ordinary & (norms > 0) & np.isfinite(norms)).tolist():
                dots[:, column] = targets @ self.unit_rows(start + column, start + column + 1)[0]
        return dots

    def similarity(self, a: Query, b: Query) -> float:
        """Cosine of two words, vectors or sums, in [-1, 1]; 0 where a word's vector is zero."""
        left, right = (self._unit_terms(q)[0].sum(axis=0) for q in (a, b))
        scale = float(np.linalg.norm(left) * np.linalg.norm(right))
        return float(np.clip(left @ right / scale, -1.0, 1.0)) if scale > 0 else 0.0

    def similarities(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float64]:
        """Cosine of each pair of words, (n,) float64."""
        if not pairs:
            return np.zeros(0)
        left = self._unit_at(self.rows([a for a, _ in pairs]))
        right = self._unit_at(self.rows([b for _, b in pairs]))
        return np.asarray(np.einsum("ij,ij->i", left, right, dtype=np.float64))

    def analogy(
        self,
        a: str,
        b: str,
        c: str,
        *,
        method: Method = "3cosadd",
        top: int = 10,
        include_query: bool = False,
        restrict: int | None = None,
    ) -> list[Neighbor]:
        """The words that are to `c` as `b` is to `a`, best first: Athens, Greece, Oslo gives Norway.

        Args:
            a, b, c: words.
            method: ``3cosadd``, the cosine with b - a + c of unit vectors (Mikolov et al. 2013), or
                ``3cosmul``, cos'(x, b) cos'(x, c) / (cos'(x, a) + 0.001) with cos' = (cos + 1) / 2 (Levy
                and Goldberg 2014, eq. 4).
            top: how many to return.
            include_query: let a, b and c be answers; the usual evaluation does not.
            restrict: search only the first words.

        Raises:
            DataError: on an unknown word or method.
        """
        skip = [] if include_query else [self.row(word) for word in (a, b, c)]
        if method == "3cosadd":
            rows, scores = self.search(
                self.direction([b, c], minus=a)[None, :], top, skip=[skip], restrict=restrict
            )
            return self._neighbors(rows[0], scores[0])
        if method != "3cosmul":
            raise DataError(f"method '{method}' is not known; choose one of {', '.join(METHODS)}")
        count = len(self) if restrict is None else min(restrict, len(self))
        targets = np.stack([self.direction(word) for word in (a, b, c)])
        score = np.empty(count, np.float32)
        for start in range(0, count, BLOCK_SCORES // 4):
            stop = min(start + BLOCK_SCORES // 4, count)
            shifted = (self._cosines(targets, start, stop) + 1) / 2
            score[start:stop] = shifted[1] * shifted[2] / (shifted[0] + np.float32(0.001))
        score[[row for row in skip if row < count]] = -np.inf
        order = np.argsort(-score, kind="stable")[: max(top, 1)]
        return self._neighbors(order, score[order])

    def coherence(self, words: Sequence[str]) -> list[Neighbor]:
        """Each word with its cosine to the mean of all their unit vectors, least fitting first.

        Raises:
            DataError: on fewer than three words or an unknown one.
        """
        if len(words) < 3:
            raise DataError(f"{len(words)} word(s) given; the odd one out needs at least three")
        mean = self.direction(list(words))
        scores = self._unit_at(self.rows(words)) @ mean
        order = np.argsort(scores, kind="stable")
        return [Neighbor(words[i], float(scores[i])) for i in order]

    def odd_one_out(self, words: Sequence[str]) -> str:
        """The word least similar to the mean of all: breakfast, cereal, dinner, lunch gives cereal."""
        return self.coherence(words)[0].word

    def _unit_at(self, rows: IntArray) -> FloatMatrix:
        if self._unit is not None:
            return self._unit[rows]
        return unit_length(self._matrix[rows].astype(np.float64)).astype(np.float32)

    def _query_rows(self, query: Query) -> list[int]:
        terms = [query] if isinstance(query, str | np.ndarray) else query
        return [self.row(term) for term in terms if isinstance(term, str)]

    def _neighbors(self, rows: IntArray, scores: npt.NDArray[np.floating[Any]]) -> list[Neighbor]:
        return [
            Neighbor(self._words[row], float(score))
            for row, score in zip(rows.tolist(), scores.tolist(), strict=True)
            if row >= 0 and score > -np.inf
        ]
