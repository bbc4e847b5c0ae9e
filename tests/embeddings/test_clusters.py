"""Word classes against a transcription of the original's loop; principal components against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterhall.embeddings import clusters, projection
from posterhall.embeddings.vectors import WordVectors
from posterhall.errors import DataError


def groups(count: int = 300, k: int = 5, seed: int = 0) -> tuple[WordVectors, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(k, 12))
    labels = rng.integers(0, k, count)
    matrix = centres[labels] * rng.uniform(0.5, 3, (count, 1)) + 0.1 * rng.normal(size=(count, 12))
    return WordVectors([f"w{i}" for i in range(count)], matrix), labels


def as_the_c_tool(matrix: np.ndarray, k: int) -> np.ndarray:
    """The loop of -classes, word by word."""
    labels = [i % k for i in range(len(matrix))]
    for _ in range(10):
        centres = np.zeros((k, matrix.shape[1]))
        for row, label in zip(matrix, labels, strict=True):
            centres[label] += row
        for label in range(k):
            length = np.sqrt((centres[label] ** 2).sum())
            centres[label] = centres[label] / length if length else np.nan
        for i, row in enumerate(matrix):
            best, labels[i] = -10.0, 0
            for label in range(k):
                score = centres[label] @ row
                if score > best:
                    best, labels[i] = score, label
    return np.array(labels)


@pytest.mark.parametrize("k", [1, 2, 7, 40])
def test_classes_are_the_original_tools(k):
    vectors, _ = groups()
    found = clusters.classes(vectors, k)
    np.testing.assert_array_equal(found.labels, as_the_c_tool(vectors.matrix.astype(np.float64), k))
    assert found.iterations <= 10
    lengths = np.linalg.norm(found.centroids, axis=1)
    assert ((np.abs(lengths - 1) < 1e-5) | (lengths == 0)).all()


def test_plusplus_finds_planted_groups_and_converges():
    vectors, labels = groups()
    found = clusters.classes(vectors, 5, start="plusplus", seed=1)
    assert found.converged
    assert found.cohesion > 0.9
    for label in range(5):
        assert len(set(found.labels[labels == label])) == 1
    again = clusters.classes(vectors, 5, start="plusplus", seed=1)
    np.testing.assert_array_equal(found.labels, again.labels)


def test_no_single_move_improves_a_converged_clustering():
    vectors, _ = groups(120, 4, seed=3)
    found = clusters.classes(vectors, 6, start="plusplus", seed=0)
    cosines = vectors.unit @ found.centroids.T
    np.testing.assert_array_equal(cosines.argmax(axis=1), found.labels)


def test_lines_are_sorted_by_class_then_frequency():
    vectors = WordVectors(["a", "b", "c", "d"], [[1, 0], [0, 1], [1, 0.1], [0.1, 1]])
    found = clusters.classes(vectors, 2)
    assert list(found.lines(vectors)) == ["a 0\n", "c 0\n", "b 1\n", "d 1\n"]
    assert list(found.lines(vectors, "vocabulary")) == ["a 0\n", "b 1\n", "c 0\n", "d 1\n"]


@settings(max_examples=40)
@given(st.integers(1, 25), st.integers(0, 2**32 - 1), st.data())
def test_any_words_get_a_class_also_equal_and_zero_vectors(count, seed, data):
    rng = np.random.default_rng(seed)
    vectors = WordVectors([str(i) for i in range(count)], rng.integers(-1, 2, size=(count, 2)))
    k = data.draw(st.integers(1, count))
    for start in ("modulo", "plusplus"):
        found = clusters.classes(vectors, k, start=start, seed=seed)
        assert found.labels.shape == (count,)
        assert found.labels.min() >= 0
        assert found.labels.max() < k
        assert np.isfinite(found.centroids).all()


def test_impossible_numbers_of_classes_are_refused():
    vectors, _ = groups(10)
    for k in (0, 11):
        with pytest.raises(DataError, match="between 1 and the 10 words"):
            clusters.classes(vectors, k)
    with pytest.raises(DataError, match="modulo, plusplus"):
        clusters.classes(vectors, 2, start="random")
    with pytest.raises(DataError, match="at least 1"):
        clusters.classes(vectors, 2, iterations=0)


def test_principal_components_are_the_covariances_eigenvectors():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(50, 8)) * np.arange(8, 0, -1)
    points, shares = projection.principal_components(matrix, 3)
    values, axes = np.linalg.eigh(np.cov(matrix.T))
    expected = (matrix - matrix.mean(axis=0)) @ axes[:, ::-1][:, :3]
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-9)
    np.testing.assert_allclose(shares, values[::-1][:3] / values.sum())
    assert (points[np.abs(points).argmax(axis=0), np.arange(3)] > 0).all()
    # Mirrored vectors of the same words give the mirrored picture a fixed sign again.
    flipped, _ = projection.principal_components(matrix * np.array([-1, 1, 1, 1, 1, 1, 1, 1]), 3)
    np.testing.assert_allclose(flipped, points, atol=1e-9)


def test_parallelism_is_one_for_translates_and_zero_for_orthogonal_differences():
    assert projection.parallelism([[1, 2], [2, 4], [0.5, 1]]) == pytest.approx(1)
    assert projection.parallelism(np.eye(4)) == pytest.approx(0)
    assert projection.parallelism([[1, 0], [-1, 0]]) == pytest.approx(-1)
    rows = np.random.default_rng(0).normal(size=(6, 5))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = unit @ unit.T
    assert projection.parallelism(rows) == pytest.approx((cosines.sum() - 6) / 30)


def test_a_plane_joins_pairs_and_names_words_once():
    vectors = WordVectors(["a", "A", "b", "B", "c"], [[0, 0, 0], [1, 0, 0], [0, 2, 0], [1, 2, 0], [5, 5, 5]])
    plane = projection.plane(vectors, ["c"], pairs=[("a", "A"), ("b", "B"), ("a", "B")])
    assert plane.words == ("c", "a", "A", "b", "B")
    assert plane.pairs.tolist() == [[1, 2], [3, 4], [1, 4]]
    assert plane.points.shape == (5, 2)
    assert projection.plane(vectors, pairs=[("a", "A"), ("b", "B")]).parallel == pytest.approx(1)
    assert projection.plane(vectors, ["a", "b", "c"]).parallel is None
    scaled = projection.plane(vectors, ["A", "b", "B", "c"], normalize=True)
    assert np.abs(scaled.points).max() < 2
    one = WordVectors(["a", "b", "c"], [[1], [2], [4]])
    np.testing.assert_allclose(projection.plane(one, "abc").points[:, 1], 0)


def test_what_cannot_be_projected_is_refused(tmp_path):
    vectors = WordVectors(["a", "b", "c"], np.eye(3))
    with pytest.raises(DataError, match="at least three"):
        projection.plane(vectors, ["a", "b"])
    with pytest.raises(DataError, match="'x' is not in the vocabulary"):
        projection.plane(vectors, ["a", "b", "x"])
    with pytest.raises(DataError, match="at least two rows"):
        projection.principal_components(np.ones((1, 3)))
    with pytest.raises(DataError, match="1 to 2 components"):
        projection.principal_components(np.ones((2, 3)), 3)
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("# capitals\nfrance paris\nitaly:rome\n\n")
    assert projection.read_pair_file(pairs) == [("france", "paris"), ("italy", "rome")]
    for content, message in (("a b c\n", ":1: 'a b c'"), ("a:\n", ":1: 'a:'"), ("\n", "holds no pairs")):
        pairs.write_text(content)
        with pytest.raises(DataError, match=message):
            projection.read_pair_file(pairs)
    with pytest.raises(DataError, match="cannot be read"):
        projection.read_pair_file(tmp_path / "missing")
