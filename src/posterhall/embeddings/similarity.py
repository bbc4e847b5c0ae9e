"""Word-similarity sets: does the cosine of two words rank as people rank them?"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from posterhall.embeddings.vectors import WordVectors
from posterhall.errors import DataError
from posterhall.stats import Interval, spearman_interval

_FEWEST = 4  # pairs; below, a rank correlation has no interval


@dataclass(frozen=True)
class SimilaritySet:
    """Pairs of words with people's judgements.

    Attributes:
        name: of the file, without its ending.
        pairs: n pairs of words.
        scores: (n,) float64, any scale; higher is more similar.
    """

    name: str
    pairs: tuple[tuple[str, str], ...]
    scores: npt.NDArray[np.float64] = field(repr=False)

    def __len__(self) -> int:
        return len(self.pairs)


@dataclass(frozen=True)
class SimilarityScore:
    """Agreement of cosines with judgements, over the pairs whose words are both known.

    Attributes:
        name: of the set.
        covered, asked: pairs with both words known, and in the set.
        spearman: rank correlation with its 95 % interval; None with fewer than four covered pairs, or if
            all cosines or judgements are equal.
        pearson: linear correlation; None likewise.
        cosines: (asked,) float64, NaN where a word is unknown.
    """

    name: str
    covered: int
    asked: int
    spearman: Interval | None
    pearson: float | None
    cosines: npt.NDArray[np.float64] = field(repr=False)

    @property
    def coverage(self) -> float:
        """Share of pairs whose words are both known."""
        return self.covered / self.asked

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "covered": self.covered,
            "asked": self.asked,
            "coverage": self.coverage,
            "spearman": None if self.spearman is None else self.spearman.estimate,
            "interval": None if self.spearman is None else [self.spearman.low, self.spearman.high],
            "pearson": self.pearson,
        }


def read_pairs(path: str | os.PathLike[str]) -> SimilaritySet:
    """Read lines `word word ... score`, separated by tabs, semicolons, commas or spaces.

    The score is the first number after the two words, which fits WordSim-353, SimLex-999 (a part of speech
    stands before it), SimVerb, MEN, RG-65 and the rare words set (ratings follow it). Lines that start
    with `#` and a line of column names are skipped.

    Raises:
        DataError: if the file is missing, not UTF-8 or empty, or a line has no two words and score.
    """
    path = Path(path)
    try:
        text = path.read_bytes()
        lines = text.decode("utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        number = text.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{number}: the line is not UTF-8; convert the file") from None
    rows = [
        (number, line)
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not rows:
        raise DataError(f"{path} holds no pairs; give lines of two words and a number")
    separator = _separator([line for _, line in rows])
    parsed = [
        (number, [part.strip(' "') for part in re.split(separator, line.strip())]) for number, line in rows
    ]
    # Column names may hold numbers ("Word 1, Word 2, Human (mean), 1, 2"): they stand elsewhere.
    if _score_column(parsed[0][1]) is None or (
        len(parsed) > 1 and _score_column(parsed[0][1]) != _score_column(parsed[1][1])
    ):
        parsed = parsed[1:]
    if not parsed:
        raise DataError(f"{path} holds no pairs below its header; give lines of two words and a number")
    column = _score_column(parsed[0][1])
    pairs: list[tuple[str, str]] = []
    scores: list[float] = []
    for number, fields in parsed:
        score = _number(fields[column]) if column is not None and column < len(fields) else None
        if score is None or not fields[0] or not fields[1]:
            shown = " ".join(fields)[:60]
            raise DataError(f"{path}:{number}: '{shown}' is not two words and a number; correct the line")
        pairs.append((fields[0], fields[1]))
        scores.append(score)
    return SimilaritySet(path.name.split(".")[0], tuple(pairs), np.array(scores))


def _separator(lines: Sequence[str]) -> str:
    """The first of tab, semicolon and comma that cuts most lines in three; else white space."""
    for mark in ("\t", ";", ","):
        if sum(line.count(mark) >= 2 for line in lines) * 2 > len(lines):
            return mark
    return r"\s+"


def _score_column(fields: Sequence[str]) -> int | None:
    return next((i for i, part in enumerate(fields) if i >= 2 and _number(part) is not None), None)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def evaluate(
    vectors: WordVectors,
    pairs: SimilaritySet | str | os.PathLike[str],
    *,
    restrict: int | None = None,
    ignore_case: bool = True,
) -> SimilarityScore:
    """Correlate cosines with judgements.

    Args:
        vectors: the vectors, most frequent word first.
        pairs: from `read_pairs`, or a file.
        restrict: know only the first words.
        ignore_case: a word that is unknown as written is looked for in other cases, the most frequent first.

    Raises:
        DataError: on an unreadable file.
    """
    if restrict is not None and restrict < 1:
        raise DataError(f"restrict is {restrict}; know at least 1 word")
    if not isinstance(pairs, SimilaritySet):
        pairs = read_pairs(pairs)
    count = len(vectors) if restrict is None else min(restrict, len(vectors))
    rows = _rows(vectors, count, [word for pair in pairs.pairs for word in pair], ignore_case)
    known = (rows.reshape(-1, 2) >= 0).all(axis=1)
    cosines = np.full(len(pairs), np.nan)
    both = [
        (vectors.words[a], vectors.words[b]) for a, b in rows.reshape(-1, 2)[np.flatnonzero(known)].tolist()
    ]
    cosines[known] = vectors.similarities(both)
    ours, theirs = cosines[known], pairs.scores[known]
    usable = ours.size >= _FEWEST and np.ptp(ours) > 0 and np.ptp(theirs) > 0
    return SimilarityScore(
        name=pairs.name,
        covered=int(ours.size),
        asked=len(pairs),
        spearman=spearman_interval(ours, theirs) if usable else None,
        pearson=float(np.corrcoef(ours, theirs)[0, 1]) if usable else None,
        cosines=cosines,
    )


def _rows(vectors: WordVectors, count: int, words: Sequence[str], ignore_case: bool) -> npt.NDArray[np.int64]:
    """Row of each word, -1 where it is unknown among the first `count`."""
    rows = np.fromiter((vectors.index.get(word, -1) for word in words), np.int64, len(words))
    rows[rows >= count] = -1
    missing = {words[i].upper() for i in np.flatnonzero(rows < 0).tolist()} if ignore_case else set()
    if missing:
        found: dict[str, int] = {}
        for row, word in enumerate(vectors.words[:count]):
            upper = word.upper()
            if upper in missing:
                found.setdefault(upper, row)
        for i in np.flatnonzero(rows < 0).tolist():
            rows[i] = found.get(words[i].upper(), -1)
    return rows
