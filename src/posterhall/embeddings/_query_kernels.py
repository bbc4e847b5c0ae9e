"""Numba kernels of vector queries: running top-k, and the best answer to each analogy question."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

# Lower than any sum of three cosines; finite, so that the comparisons may assume ordinary numbers.
EXCLUDED = np.float32(-1e30)

# How `answer_block` scores.
ADD, MULTIPLY, NEAREST = 0, 1, 2

# Order may change and numbers are assumed finite: that lets LLVM turn the maximum into vector code.
_FAST = {"nnan", "ninf", "nsz", "reassoc"}


@njit(cache=True, nogil=True)
def merge_top(scores: Any, offset: int, skip_starts: Any, skip: Any, top_scores: Any, top_rows: Any) -> None:
    """Merge the scores of one block of rows into the running best rows of each query, in place.

    Args:
        scores: (n, m) float32, row r of query q at [q, r - offset].
        offset: vocabulary row of the block's first column.
        skip_starts, skip: rows that query q may not return, skip[skip_starts[q]:skip_starts[q + 1]].
        top_scores: (n, k) float32, descending; -inf where nothing was found yet.
        top_rows: (n, k) int64; among equal scores the lowest row stands first.
    """
    k = top_scores.shape[1]
    for q in range(scores.shape[0]):
        worst = top_scores[q, k - 1]
        for column in range(scores.shape[1]):
            score = scores[q, column]
            if not score > worst:
                continue
            row = offset + column
            skipped = False
            for j in range(skip_starts[q], skip_starts[q + 1]):
                if skip[j] == row:
                    skipped = True
            if skipped:
                continue
            place = k - 1
            while place > 0 and score > top_scores[q, place - 1]:
                top_scores[q, place] = top_scores[q, place - 1]
                top_rows[q, place] = top_rows[q, place - 1]
                place -= 1
            top_scores[q, place] = score
            top_rows[q, place] = row
            worst = top_scores[q, k - 1]


@njit(cache=True, nogil=True, fastmath=_FAST)
def _row_max_sum(left: Any, right: Any) -> Any:
    best = EXCLUDED
    for j in range(left.shape[0]):
        value = left[j] + right[j]
        best = value if value > best else best
    return best


@njit(cache=True, nogil=True, fastmath=_FAST)
def _row_max_product(left: Any, right: Any) -> Any:
    best = EXCLUDED
    for j in range(left.shape[0]):
        value = left[j] * right[j]
        best = value if value > best else best
    return best


@njit(cache=True, nogil=True, fastmath=_FAST)
def _difference(b: Any, a: Any, out: Any) -> None:
    for j in range(out.shape[0]):
        out[j] = b[j] - a[j]


@njit(cache=True, nogil=True)
def answer_block(
    cosines: Any,
    width: int,
    offset: int,
    questions: Any,
    first: int,
    last: int,
    score: int,
    skip_starts: Any,
    skip: Any,
    shared: Any,
    kept: Any,
    best: Any,
    rows: Any,
) -> None:
    """Best vocabulary row of this block for each question, merged into the running best, in place.

    The score of row x in the question a : b = c : x is cos(x, b) - cos(x, a) + cos(x, c)
    (ADD: 3CosAdd), which is the dot product with b - a + c of unit vectors; or
    cos'(x, b) cos'(x, c) / (cos'(x, a) + 0.001) with cos' = (cos + 1) / 2 (MULTIPLY: 3CosMul; Levy
    and Goldberg 2014, eq. 4); or cos(x, c) (NEAREST: a baseline that ignores the relation). Each is one
    row of `cosines` combined with a row that all questions with the same a and b share, so questions
    should come sorted by (a, b).

    Args:
        cosines: (words, >= width) float32: cosine of each distinct query word with the block's rows;
            for MULTIPLY already moved to [0, 1].
        width: columns of the block that are filled.
        offset: vocabulary row of the block's first column.
        questions: (n, 3) int32, rows of `cosines` for a, b and c.
        first, last: the range of questions to answer.
        score: ADD, MULTIPLY or NEAREST.
        skip_starts, skip: vocabulary rows excluded on account of each distinct word (CSR).
        shared: (>= width,) float32 scratch.
        kept: float32 scratch, as long as the longest list of `skip`.
        best: (n,) float32 running best scores; a row must beat it strictly, so the lowest row wins ties.
        rows: (n,) int64 running best rows.
    """
    known_a, known_b = np.int32(-1), np.int32(-1)
    line = shared[:width]
    end = offset + width
    for q in range(first, last):
        a, b, c = questions[q]
        if a != known_a or b != known_b:
            known_a, known_b = a, b
            if score == ADD:
                _difference(cosines[b, :width], cosines[a, :width], line)
            elif score == MULTIPLY:
                for j in range(width):
                    line[j] = cosines[b, j] / (cosines[a, j] + np.float32(0.001))
            else:
                line[:] = np.float32(0.0)
            for word in (a, b):
                for j in range(skip_starts[word], skip_starts[word + 1]):
                    if offset <= skip[j] < end:
                        line[skip[j] - offset] = EXCLUDED
        held = skip_starts[c]
        for j in range(held, skip_starts[c + 1]):
            if offset <= skip[j] < end:
                kept[j - held] = line[skip[j] - offset]
                line[skip[j] - offset] = EXCLUDED
        row = cosines[c, :width]
        top = _row_max_product(line, row) if score == MULTIPLY else _row_max_sum(line, row)
        if top > best[q]:
            best[q] = top
            for j in range(width):
                value = line[j] * row[j] if score == MULTIPLY else line[j] + row[j]
                if value == top:
                    rows[q] = offset + j
                    break
        for j in range(held, skip_starts[c + 1]):
            if offset <= skip[j] < end:
                line[skip[j] - offset] = kept[j - held]
