"""Word classes: spherical K-means on word vectors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from posterhall import seeds
from posterhall.embeddings._search import FloatMatrix, IntArray
from posterhall.embeddings.vectors import WordVectors
from posterhall.errors import DataError

Start = Literal["modulo", "plusplus"]
Order = Literal["class", "vocabulary"]

STARTS: tuple[Start, ...] = get_args(Start)

_BLOCK = 8_000_000  # cells of words x classes: 32 MB
_MOST_ITERATIONS = 300


@dataclass(frozen=True)
class Classes:
    """A class for every word.

    Attributes:
        labels: (V,) int64 in [0, k).
        centroids: (k, d) float32 of length 1; a class without words has zeros.
        iterations: assignments made.
        converged: the last assignment changed nothing.
        cohesion: mean cosine of a word with its class's centroid, in [-1, 1].
    """

    labels: IntArray
    centroids: FloatMatrix = field(repr=False)
    iterations: int
    converged: bool
    cohesion: float

    def lines(self, vectors: WordVectors, order: Order = "class") -> Iterable[str]:
        """Lines `word class`, by class and within it by frequency, or in the vocabulary's order."""
        rows = np.argsort(self.labels, kind="stable") if order == "class" else np.arange(len(self.labels))
        for row in rows.tolist():
            yield f"{vectors.words[row]} {self.labels[row]}\n"


def classes(
    vectors: WordVectors,
    k: int,
    *,
    start: Start = "modulo",
    iterations: int | None = None,
    seed: int = 0,
) -> Classes:
    """Group words by direction.

    As word2vec.c's ``-classes``: word a starts in class a mod k; a centroid is the sum of its words'
    vectors (long vectors weigh more), scaled to length 1; each word goes to the centroid with the largest
    dot product, lowest class first; ten times. With ``plusplus`` centroids start at words chosen far from
    each other (k-means++, Arthur and Vassilvitskii 2007, with 1 - cosine as the squared distance), sums are
    of unit vectors, and it goes on until no word moves. A centroid that lost its words stays empty.

    Args:
        vectors: the words to group.
        k: classes, from 1 to the number of words.
        start: ``modulo`` (deterministic) or ``plusplus``.
        iterations: at most this many; 10 for ``modulo``, until convergence (300 at most) for ``plusplus``.
        seed: of the choice of centroids for ``plusplus``.

    Raises:
        DataError: if k, start or iterations is out of range.
    """
    if not 1 <= k <= len(vectors):
        raise DataError(f"k is {k:,}; choose between 1 and the {len(vectors):,} words there are")
    if start not in STARTS:
        raise DataError(f"start '{start}' is not known; choose one of {', '.join(STARTS)}")
    if iterations is not None and iterations < 1:
        raise DataError(f"iterations is {iterations}; do at least 1")
    if start == "modulo":
        labels = np.arange(len(vectors), dtype=np.int64) % k
        weighted = vectors.matrix
        centroids = _centroids(weighted, labels, k)
        rounds = iterations or 10
    else:
        weighted = vectors.unit
        labels = np.full(len(vectors), -1, np.int64)
        centroids = _far_apart(weighted, k, seeds.generator(seed, "classes"))
        rounds = iterations or _MOST_ITERATIONS
    done = 0
    while True:
        before, labels = labels, _assign(weighted, centroids)
        done += 1
        converged = bool((labels == before).all())
        if converged or done == rounds:
            break
        centroids = _centroids(weighted, labels, k)
    cohesion = float(np.einsum("ij,ij->i", vectors.unit, centroids[labels]).mean())
    return Classes(labels, centroids, done, converged, cohesion)


def _centroids(matrix: FloatMatrix, labels: IntArray, k: int) -> FloatMatrix:
    from scipy.sparse import csr_array

    members = csr_array(
        (np.ones(len(labels), np.float32), labels, np.arange(len(labels) + 1)), shape=(len(labels), k)
    )
    sums = (members.T @ matrix).astype(np.float64)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    unit: FloatMatrix = np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > 0).astype(
        np.float32
    )
    return unit


def _assign(matrix: FloatMatrix, centroids: FloatMatrix) -> IntArray:
    labels = np.empty(len(matrix), np.int64)
    empty = ~centroids.any(axis=1)
    step = max(1, _BLOCK // len(centroids))
    for start in range(0, len(matrix), step):
        scores = matrix[start : start + step] @ centroids.T
        scores[:, empty] = -np.inf
        labels[start : start + step] = scores.argmax(axis=1)
    return labels


def _far_apart(unit: FloatMatrix, k: int, generator: np.random.Generator) -> FloatMatrix:
    """Rows chosen with probability proportional to 1 - (largest cosine with those chosen before)."""
    chosen = [int(generator.integers(len(unit)))]
    distance: npt.NDArray[np.float64] = np.full(len(unit), np.inf)
    while len(chosen) < k:
        np.minimum(distance, np.maximum(1.0 - unit @ unit[chosen[-1]], 0.0), out=distance)
        distance[chosen] = 0.0  # the cosine with itself may round below 1
        reach = np.cumsum(distance)
        if reach[-1] > 0:
            chosen.append(int(np.searchsorted(reach, generator.random() * reach[-1], side="right")))
        else:  # every word lies on a chosen one: any other row will do
            chosen.append(int(np.setdiff1d(np.arange(len(unit)), chosen)[0]))
    return unit[chosen].copy()
