"""Analogy questions: how often is b - a + c nearest to d?

Two protocols. ``original`` is word2vec's compute-accuracy.c: everything upper-cased (ASCII), the first word
that matches stands for it, only those three rows are excluded, the best score must be above 0, questions
with unknown words are skipped, the first five sections are semantic. ``strict`` is what gensim does:
Unicode upper case, and every word that equals a query word but for case is excluded; sections whose name
starts with "gram" are syntactic. Both report how many questions were covered and the accuracy with
uncovered ones counted as wrong, since skipping makes small vocabularies look good.

Accuracy depends much on the exclusion of the query words (Linzen 2016; Rogers et al. 2017), so the score
without it and that of the nearest neighbour of c alone can be had beside it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from posterhall.embeddings._search import FloatMatrix, IntArray
from posterhall.embeddings.vectors import METHODS, Method, WordVectors
from posterhall.errors import DataError
from posterhall.stats import Interval, cluster_bootstrap, wilson

Protocol = Literal["original", "strict"]
Kind = Literal["semantic", "syntactic"]

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

# Distinct query words x words of a block: 8 MB of cosines, read once for each question.
_BLOCK_CELLS = 2_000_000
# Above this many distinct words questions are answered in parts.
_MOST_DISTINCT = 12_000
_PART = 4_000


@dataclass(frozen=True)
class Questions:
    """Analogy questions a : b = c : d in sections.

    Attributes:
        words: the distinct words, as written.
        items: (n, 4) int32, indices into `words`.
        sections: names, in file order.
        section: (n,) int32, the section of each question.
    """

    words: tuple[str, ...]
    items: npt.NDArray[np.int32]
    sections: tuple[str, ...]
    section: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class Score:
    """Right answers of a section or a group of sections.

    Attributes:
        name: section name, or semantic, syntactic, total.
        kind: which group a section belongs to; None for the total.
        correct, covered, asked: questions answered rightly, with all words known, and in the file.
        interval: 95 % interval of `accuracy`, for groups (BCa bootstrap over pairs a : b, since questions
            share them; Wilson where all answers are alike).
    """

    name: str
    kind: Kind | None
    correct: int
    covered: int
    asked: int
    interval: Interval | None = None

    @property
    def accuracy(self) -> float:
        """Right answers among covered questions; 0 where none is covered."""
        return self.correct / self.covered if self.covered else 0.0

    @property
    def accuracy_of_all(self) -> float:
        """Right answers among all questions, uncovered ones wrong."""
        return self.correct / self.asked if self.asked else 0.0

    @property
    def coverage(self) -> float:
        """Share of questions whose four words are known."""
        return self.covered / self.asked if self.asked else 0.0

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        entry: dict[str, Any] = {
            "name": self.name,
            "kind": self.kind,
            "correct": self.correct,
            "covered": self.covered,
            "asked": self.asked,
            "accuracy": self.accuracy,
            "accuracy_of_all": self.accuracy_of_all,
            "coverage": self.coverage,
        }
        if self.interval is not None:
            entry["interval"] = [self.interval.low, self.interval.high]
        return entry


@dataclass(frozen=True)
class AnalogyScores:
    """What `evaluate` found.

    Attributes:
        protocol, method, restrict: as given.
        sections: one score a section.
        semantic, syntactic, total: groups of them.
        include_query: the total when a, b and c may be answers; None if not asked for.
        nearest: the total when the answer is the nearest neighbour of c (a, b, c excluded); None likewise.
        answers: (n,) int64, the vocabulary row answered to each question; -1 where not covered or none.
        right: (n,) bool.
    """

    protocol: Protocol
    method: Method
    restrict: int | None
    sections: tuple[Score, ...]
    semantic: Score
    syntactic: Score
    total: Score
    include_query: Score | None
    nearest: Score | None
    answers: IntArray = field(repr=False)
    right: npt.NDArray[np.bool_] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "protocol": self.protocol,
            "method": self.method,
            "restrict": self.restrict,
            "total": self.total.to_dict(),
            "semantic": self.semantic.to_dict(),
            "syntactic": self.syntactic.to_dict(),
            "include_query": None if self.include_query is None else self.include_query.to_dict(),
            "nearest": None if self.nearest is None else self.nearest.to_dict(),
            "sections": [section.to_dict() for section in self.sections],
        }


def read_questions(path: str | os.PathLike[str]) -> Questions:
    """Read questions-words.txt and files like it: `: section` lines, and lines of four words.

    Raises:
        DataError: if the file is missing, not UTF-8, holds no question, or a line has not four words.
    """
    path = Path(path)
    try:
        text = path.read_bytes()
        lines = text.decode().split("\n")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        number = text.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{number}: the line is not UTF-8; convert the file") from None
    known: dict[str, int] = {}
    items: list[int] = []
    sections: list[str] = []
    section: list[int] = []
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields:
            continue
        if fields[0].startswith(":"):
            sections.append(" ".join(fields).removeprefix(":").strip())
            continue
        if len(fields) != 4:
            raise DataError(
                f"{path}:{number}: '{' '.join(fields)[:60]}' has {len(fields)} words; a question has four "
                "(a b c d: a is to b as c is to d), a section starts with a colon"
            )
        if not sections:
            sections.append("questions")
        items += [known.setdefault(word, len(known)) for word in fields]
        section.append(len(sections) - 1)
    if not items:
        raise DataError(f"{path} holds no questions; give lines of four words, a b c d")
    return Questions(
        tuple(known), np.array(items, np.int32).reshape(-1, 4), tuple(sections), np.array(section, np.int32)
    )


def evaluate(
    vectors: WordVectors,
    questions: Questions | str | os.PathLike[str],
    *,
    protocol: Protocol = "original",
    method: Method = "3cosadd",
    restrict: int | None = None,
    ignore_case: bool = True,
    include_query: bool = False,
    nearest: bool = False,
    intervals: bool = True,
    threads: int | None = None,
) -> AnalogyScores:
    """Answer analogy questions and count the right ones.

    Args:
        vectors: the vectors, most frequent word first (the first of several cases stands for a word).
        questions: from `read_questions`, or a file.
        protocol: ``original`` or ``strict``, see the module.
        method: ``3cosadd`` (the paper) or ``3cosmul``, see `WordVectors.analogy`.
        restrict: know only the first words; published numbers mostly use 30000.
        ignore_case: compare upper-cased words, as both protocols do.
        include_query: also score with a, b and c allowed as answers.
        nearest: also score the nearest neighbour of c.
        intervals: give the groups their intervals (a bootstrap of some 0.1 s in all).
        threads: threads for the search besides BLAS's own; all cores if not given.

    Raises:
        DataError: on an unreadable file or unknown protocol.
    """
    from posterhall.embeddings._query_kernels import ADD, MULTIPLY, NEAREST

    if protocol not in PROTOCOLS:
        raise DataError(f"protocol '{protocol}' is not known; choose one of {', '.join(PROTOCOLS)}")
    if method not in METHODS:
        raise DataError(f"method '{method}' is not known; choose one of {', '.join(METHODS)}")
    if restrict is not None and restrict < 1:
        raise DataError(f"restrict is {restrict}; know at least 1 word")
    if not isinstance(questions, Questions):
        questions = read_questions(questions)
    count = len(vectors) if restrict is None else min(restrict, len(vectors))
    fold = _folding(protocol, ignore_case)
    matched = _match(vectors.words[:count], [fold(word) for word in questions.words], fold)
    rows = matched.rows[questions.items]  # (n, 4), -1 where unknown
    covered = np.asarray((rows >= 0).all(axis=1))
    expected = matched.forms[questions.items[:, 3]]

    def answer(score: int, exclude: bool) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        answers = np.full(len(questions), -1, np.int64)
        skips = matched.skips(every_case=protocol == "strict") if exclude else (np.zeros(0, np.int64),) * 2
        search = _Search(vectors, count, skips, threads, positive=protocol == "original")
        answers[covered] = search.answer(rows[covered, :3], score)
        given = np.full(len(questions), -1, np.int64)
        found = answers >= 0
        given[found] = matched.form_of_rows(answers[found])
        return answers, found & (given == expected)

    score = MULTIPLY if method == "3cosmul" else ADD
    answers, right = answer(score, True)
    count_up = _Counter(questions, covered, _kinds(questions.sections, protocol), intervals)
    return AnalogyScores(
        protocol=protocol,
        method=method,
        restrict=restrict,
        sections=count_up.sections(right),
        semantic=count_up.group("semantic", right),
        syntactic=count_up.group("syntactic", right),
        total=count_up.group("total", right),
        include_query=count_up.group("include_query", answer(score, False)[1]) if include_query else None,
        nearest=count_up.group("nearest", answer(NEAREST, True)[1]) if nearest else None,
        answers=answers,
        right=right,
    )


def _folding(protocol: Protocol, ignore_case: bool) -> Callable[[str], str]:
    if not ignore_case:
        return lambda word: word
    if protocol == "strict":
        return str.upper
    table = {letter: letter - 32 for letter in range(ord("a"), ord("z") + 1)}
    # C's toupper in the C locale knows the ASCII letters only
    return lambda word: word.upper() if word.isascii() else word.translate(table)


@dataclass(frozen=True)
class _Matches:
    """Where the questions' words are in the vocabulary.

    Attributes:
        rows: (words of the questions,) the first row that matches, -1 if there is none.
        forms: (words of the questions,) an id shared by words that are equal after folding.
        variants: rows of each form, ascending.
        words, fold: of the vocabulary, to fold an answer.
        ids: form ids by folded word.
    """

    rows: IntArray
    forms: IntArray
    variants: list[list[int]]
    words: Sequence[str]
    fold: Callable[[str], str]
    ids: dict[str, int]

    def form_of_rows(self, rows: IntArray) -> IntArray:
        return np.fromiter(
            (self.ids.get(self.fold(self.words[row]), -1) for row in rows.tolist()), np.int64, rows.size
        )

    def skips(self, *, every_case: bool) -> tuple[IntArray, IntArray]:
        """For each vocabulary row that a question names, the rows it excludes: pairs (row, excluded)."""
        pairs = [
            (rows[0], row) for rows in self.variants if rows for row in (rows if every_case else rows[:1])
        ]
        both = np.array(pairs, np.int64).reshape(-1, 2)
        return both[:, 0], both[:, 1]


def _match(words: Sequence[str], asked: Sequence[str], fold: Callable[[str], str]) -> _Matches:
    ids: dict[str, int] = {}
    forms = np.fromiter((ids.setdefault(word, len(ids)) for word in asked), np.int64, len(asked))
    variants: list[list[int]] = [[] for _ in ids]
    for row, word in enumerate(words):
        form = ids.get(fold(word))
        if form is not None:
            variants[form].append(row)
    firsts = np.fromiter((rows[0] if rows else -1 for rows in variants), np.int64, len(variants))
    return _Matches(firsts[forms], forms, variants, words, fold, ids)


class _Search:
    """Best rows for many questions.

    The cosines of the distinct query words (some 900 in questions-words.txt) with a block of the
    vocabulary are one matrix product; a question's scores are then sums of three of its rows. That is 20
    times less arithmetic than a product with b - a + c for each question, and memory stays at one block.
    """

    def __init__(
        self,
        vectors: WordVectors,
        count: int,
        skips: tuple[IntArray, IntArray],
        threads: int | None,
        *,
        positive: bool,
    ) -> None:
        from posterhall.devices import cores

        self.vectors = vectors
        self.count = count
        self.skip_of, self.skip = skips
        self.threads = threads or cores()
        self.positive = positive

    def answer(self, questions: IntArray, score: int) -> IntArray:
        """(n,) best rows of questions (n, 3) given as vocabulary rows; -1 where none qualifies."""
        answers = np.full(len(questions), -1, np.int64)
        order = np.lexsort((questions[:, 1], questions[:, 0]))  # questions with the same a : b together
        # A zero vector has no direction; the original divides by its length and never answers.
        usable = np.asarray((self.vectors.norms[questions] > 0).all(axis=1))
        order = order[usable[order]]
        parts = 1 if np.unique(questions).size <= _MOST_DISTINCT else -(-order.size // _PART)
        for part in np.array_split(order, parts):
            if part.size:
                answers[part] = self._part(questions[part], score)
        return answers

    def _part(self, questions: IntArray, score: int) -> IntArray:
        from posterhall.embeddings._query_kernels import EXCLUDED, MULTIPLY, answer_block

        distinct, local = np.unique(questions, return_inverse=True)
        local = local.reshape(questions.shape).astype(np.int32)
        starts, skip = self._skips_of(distinct)
        targets = np.concatenate([self.vectors.unit_rows(row, row + 1) for row in distinct.tolist()])
        width = int(np.clip(_BLOCK_CELLS // distinct.size, 256, self.count if self.count > 256 else 256))
        cosines = np.empty((distinct.size, width), np.float32)
        best = np.full(len(local), 0.0 if self.positive or score == MULTIPLY else EXCLUDED, np.float32)
        rows = np.full(len(local), -1, np.int64)
        cuts = np.linspace(0, len(local), self.threads + 1).astype(int).tolist()
        shared = np.empty((self.threads, width), np.float32)
        kept = np.empty((self.threads, int(np.diff(starts).max(initial=0))), np.float32)

        with ThreadPoolExecutor(self.threads) as pool:
            for offset in range(0, self.count, width):
                filled = min(width, self.count - offset)
                self._fill(cosines, targets, offset, filled, shift=score == MULTIPLY)

                # Bound by default arguments: the block moves on.
                def work(i: int, offset: int = offset, filled: int = filled) -> None:
                    answer_block(
                        cosines, filled, offset, local, cuts[i], cuts[i + 1], score, starts, skip, shared[i],
                        kept[i], best, rows,
                    )  # fmt: skip

                list(pool.map(work, range(self.threads)))
        return rows

    def _fill(
        self, cosines: FloatMatrix, targets: FloatMatrix, offset: int, filled: int, *, shift: bool
    ) -> None:
        unit = self.vectors.unit_rows(offset, offset + filled)
        if filled == cosines.shape[1]:
            np.matmul(targets, unit.T, out=cosines)
        else:
            cosines[:, :filled] = targets @ unit.T
        if shift:
            cosines += 1
            cosines /= 2
            np.maximum(cosines, 0, out=cosines)

    def _skips_of(self, distinct: IntArray) -> tuple[IntArray, IntArray]:
        """The rows that each distinct word excludes, as starts (words + 1,) and rows."""
        mine = np.isin(self.skip_of, distinct)
        owner = np.searchsorted(distinct, self.skip_of[mine])
        order = np.argsort(owner, kind="stable")
        starts = np.zeros(distinct.size + 1, np.int64)
        np.cumsum(np.bincount(owner, minlength=distinct.size), out=starts[1:])
        return starts, self.skip[mine][order]


def _kinds(sections: Sequence[str], protocol: Protocol) -> list[Kind]:
    if protocol == "original":
        return ["semantic" if i < 5 else "syntactic" for i in range(len(sections))]
    return ["syntactic" if name.startswith("gram") else "semantic" for name in sections]


class _Counter:
    """Counts right answers by section and by group."""

    def __init__(
        self, questions: Questions, covered: npt.NDArray[np.bool_], kinds: list[Kind], intervals: bool
    ) -> None:
        self.questions = questions
        self.covered = covered
        self.kinds = kinds
        self.intervals = intervals
        self.semantic = np.array([kind == "semantic" for kind in kinds])[questions.section]
        pairs = np.column_stack([questions.section, questions.items[:, :2]])
        self.pair = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)

    def sections(self, right: npt.NDArray[np.bool_]) -> tuple[Score, ...]:
        size = len(self.questions.sections)
        section = self.questions.section
        correct, covered, asked = (
            np.bincount(section[chosen], minlength=size).tolist()
            for chosen in (right, self.covered, np.ones(len(section), np.bool_))
        )
        return tuple(
            Score(name, self.kinds[i], correct[i], covered[i], asked[i])
            for i, name in enumerate(self.questions.sections)
        )

    def group(self, name: str, right: npt.NDArray[np.bool_]) -> Score:
        chosen = np.ones(len(right), np.bool_)
        kind: Kind | None = None
        if name == "semantic":
            chosen, kind = self.semantic, "semantic"
        elif name == "syntactic":
            chosen, kind = ~self.semantic, "syntactic"
        covered = chosen & self.covered
        return Score(
            name,
            kind,
            int(right[chosen].sum()),
            int(covered.sum()),
            int(chosen.sum()),
            _interval(right[covered], self.pair[covered]) if self.intervals else None,
        )


def _interval(right: npt.NDArray[np.bool_], pairs: npt.NDArray[np.intp]) -> Interval | None:
    if not right.size:
        return None
    clusters = np.unique(pairs).size
    share = float(right.mean())
    if clusters > 1 and 0 < share < 1:
        # The seed is fixed so that the same answers give the same interval.
        return cluster_bootstrap(right.astype(np.float64), pairs, "mean", seed=0)
    return wilson(share * clusters, clusters)
