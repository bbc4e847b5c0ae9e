"""The search below `WordVectors`: best rows by blocks of scores, lengths, and near spellings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

FloatMatrix: TypeAlias = npt.NDArray[np.float32]
IntArray: TypeAlias = npt.NDArray[np.int64]

BLOCK_SCORES = 16_000_000
"""Scores of one block of queries against one block of words: at most 64 MB."""

# The insertion in merge_top costs k an insertion; above this a full sort is cheaper.
_LARGEST_INSERTED = 1000
_ROWS = 65_536


def best_rows(
    score: Callable[[FloatMatrix, int, int], FloatMatrix],
    targets: FloatMatrix,
    top: int,
    skips: Sequence[Sequence[int]],
    count: int,
) -> tuple[IntArray, FloatMatrix]:
    """Rows with the highest scores among the first `count`.

    Args:
        score: (targets, start, stop) -> (n, stop - start) float32, the scores of rows start to stop.
        targets: (n, d) float32.
        top: k, from 1 to count.
        skips: for each target the rows that may not be an answer.

    Returns:
        rows (n, k) and scores (n, k), descending, equal scores by row; -1 and -inf where none is left.
    """
    rows = np.full((len(targets), top), -1, np.int64)
    scores = np.full((len(targets), top), -np.inf, np.float32)
    block = _sorted if top > _LARGEST_INSERTED else _merged
    at_once = 1 if top > _LARGEST_INSERTED else 256
    for first in range(0, len(targets), at_once):
        part = slice(first, min(first + at_once, len(targets)))
        block(score, targets[part], skips[part], count, scores[part], rows[part])
    return rows, scores


def _merged(
    score: Callable[[FloatMatrix, int, int], FloatMatrix],
    targets: FloatMatrix,
    skips: Sequence[Sequence[int]],
    count: int,
    scores: FloatMatrix,
    rows: IntArray,
) -> None:
    from posterhall.embeddings._query_kernels import merge_top

    starts = np.zeros(len(skips) + 1, np.int64)
    np.cumsum([len(s) for s in skips], out=starts[1:])
    flat = np.fromiter((row for s in skips for row in s), np.int64, int(starts[-1]))
    step = max(1024, BLOCK_SCORES // len(targets))
    for start in range(0, count, step):
        block = score(targets, start, min(start + step, count))
        merge_top(block, start, starts, flat, scores, rows)


def _sorted(
    score: Callable[[FloatMatrix, int, int], FloatMatrix],
    targets: FloatMatrix,
    skips: Sequence[Sequence[int]],
    count: int,
    scores: FloatMatrix,
    rows: IntArray,
) -> None:
    """One target, many answers: sort all scores."""
    blocks = [
        score(targets, start, min(start + BLOCK_SCORES, count))[0] for start in range(0, count, BLOCK_SCORES)
    ]
    every = np.concatenate(blocks)
    every[[row for row in skips[0] if row < count]] = -np.inf
    order = np.argsort(-every, kind="stable")[: rows.shape[1]]
    found = int((every[order] > -np.inf).sum())
    rows[0, :found] = order[:found]
    scores[0, :found] = every[order[:found]]


def lengths(matrix: FloatMatrix) -> npt.NDArray[np.float64]:
    """Euclidean length of each row; rows whose squares over- or underflow float32 again in float64."""
    norms = np.empty(len(matrix))
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        for start in range(0, len(matrix), _ROWS):
            block = matrix[start : start + _ROWS]
            norms[start : start + _ROWS] = np.sqrt(np.einsum("ij,ij->i", block, block))
        doubtful = np.flatnonzero(~((norms > 1e-15) & (norms < 1e15)))
        for start in range(0, doubtful.size, _ROWS):
            rows = doubtful[start : start + _ROWS]
            norms[rows] = np.linalg.norm(matrix[rows].astype(np.float64), axis=1)
    return norms


def unit_length(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rows scaled to length 1; zero where a row is zero or not finite."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    usable = (norms > 0) & np.isfinite(norms)
    return np.asarray(np.divide(rows, norms, out=np.zeros_like(rows), where=usable))


def suggestions(word: str, words: Sequence[str], index: Mapping[str, int], limit: int = 3) -> list[str]:
    """Known words that `word` was probably meant to be: other cases and joints first, then by spelling."""
    from rapidfuzz import fuzz, process

    joined = word.replace(" ", "_")
    variants = (
        word.lower(),
        word.capitalize(),
        word.title(),
        word.upper(),
        joined,
        joined.lower(),
        word.strip(),
    )
    found = [variant for variant in dict.fromkeys(variants) if variant in index]
    if not found and len(word) > 2:
        matches = process.extract(word, words, scorer=fuzz.ratio, limit=limit, score_cutoff=70)
        found = [match[0] for match in matches]
    return found[:limit]


def duplicates(words: Sequence[str]) -> tuple[int, str]:
    """How many words repeat an earlier one, and the first that does."""
    seen: set[str] = set()
    repeated = []
    for word in words:
        if word in seen:
            repeated.append(word)
        seen.add(word)
    return len(repeated), repeated[0]
