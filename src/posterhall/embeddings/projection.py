"""Words on a plane: principal components, and how parallel the lines between pairs of words are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from posterhall.embeddings.vectors import WordVectors
from posterhall.errors import DataError

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Plane:
    """Words in two dimensions.

    Attributes:
        words: n distinct words.
        points: (n, 2) float64.
        explained: share of the words' variance along each axis, (2,).
        pairs: indices into `words`, (m, 2); empty if single words were drawn.
        parallel: mean cosine between the difference vectors of two pairs, over all pairs of pairs, in all
            d dimensions: 1 if every difference points the same way, 0 for unrelated pairs. None with
            fewer than two pairs.
    """

    words: tuple[str, ...]
    points: FloatArray = field(repr=False)
    explained: tuple[float, float]
    pairs: npt.NDArray[np.int64] = field(repr=False)
    parallel: float | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "words": list(self.words),
            "points": self.points.tolist(),
            "explained": list(self.explained),
            "pairs": self.pairs.tolist(),
            "parallel": self.parallel,
        }


def principal_components(matrix: npt.ArrayLike, k: int = 2) -> tuple[FloatArray, FloatArray]:
    """Coordinates on the first k principal components and the share of variance of each.

    Args:
        matrix: (n, d), n >= 2.
        k: 1 to min(n, d).

    Returns:
        points (n, k) and shares (k,) in [0, 1]. The sign of each axis is that which makes the point
        farthest from 0 positive, so that the same vectors always give the same picture.

    Raises:
        DataError: on fewer than two rows, or k out of range.
    """
    rows = np.asarray(matrix, np.float64)
    if rows.ndim != 2 or len(rows) < 2:
        raise DataError(f"the matrix has shape {rows.shape}; principal components need at least two rows")
    if not 1 <= k <= min(rows.shape):
        raise DataError(
            f"k is {k}; {rows.shape[0]} rows of {rows.shape[1]} have 1 to {min(rows.shape)} components"
        )
    centred = rows - rows.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    points = left[:, :k] * values[:k]
    farthest = np.abs(points).argmax(axis=0)
    points *= np.where(points[farthest, np.arange(k)] < 0, -1.0, 1.0)
    total = float((values**2).sum())
    shares = values[:k] ** 2 / total if total > 0 else np.zeros(k)
    return points, shares


def plane(
    vectors: WordVectors,
    words: Sequence[str] = (),
    *,
    pairs: Sequence[tuple[str, str]] = (),
    normalize: bool = False,
) -> Plane:
    """Project words, or pairs of words, on their first two principal components.

    With pairs such as (France, Paris) this is figure 2 of Mikolov et al. 2013, where countries and
    capitals fall apart along one axis though nothing told the training what a capital is.

    Args:
        vectors: the vectors.
        words: single words.
        pairs: words to join by a line, first to second.
        normalize: scale vectors to length 1 first, so that frequency (which lengthens vectors) counts less.

    Raises:
        DataError: on an unknown word, or fewer than three distinct words.
    """
    order = dict.fromkeys([*words, *(word for pair in pairs for word in pair)])
    names = tuple(order)
    if len(names) < 3:
        raise DataError(f"{len(names)} distinct word(s) given; a plane needs at least three")
    rows = vectors.rows(names)
    matrix = np.asarray(vectors.matrix[rows], np.float64)
    if normalize:
        lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
        matrix = np.divide(matrix, lengths, out=np.zeros_like(matrix), where=lengths > 0)
    components = min(2, matrix.shape[1])
    points, shares = principal_components(matrix, components)
    if components == 1:
        points, shares = np.column_stack([points, np.zeros(len(points))]), np.append(shares, 0.0)
    place = {name: i for i, name in enumerate(names)}
    joined = np.array([(place[a], place[b]) for a, b in pairs], np.int64).reshape(-1, 2)
    return Plane(
        names,
        points,
        (float(shares[0]), float(shares[1])),
        joined,
        parallelism(matrix[joined[:, 1]] - matrix[joined[:, 0]]) if len(joined) > 1 else None,
    )


def parallelism(differences: npt.ArrayLike) -> float:
    """Mean cosine between two different rows of (m, d) differences, m >= 2; zero rows count as 0."""
    rows = np.asarray(differences, np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    count = len(rows)
    # The sum over all pairs of rows is the squared length of their sum; the diagonal is taken off.
    whole = float((unit.sum(axis=0) ** 2).sum()) - float((unit**2).sum())
    return whole / (count * (count - 1))


def read_pair_file(path: Path) -> list[tuple[str, str]]:
    """Lines of two words, or of `a:b`; lines that start with `#` are skipped.

    Raises:
        DataError: if the file is missing, not UTF-8 or empty, or a line has not two words.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8; convert the file") from None
    pairs = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        fields = line.split() if ":" not in line else [part.strip() for part in line.split(":")]
        if len(fields) != 2 or not all(fields):
            raise DataError(f"{path}:{number}: '{line.strip()[:60]}' is not two words; write one pair a line")
        pairs.append((fields[0], fields[1]))
    if not pairs:
        raise DataError(f"{path} holds no pairs; write two words a line")
    return pairs
