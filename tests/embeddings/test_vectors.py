"""Word vectors: lookup, queries against brute force in float64 and against gensim, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.embeddings.vectors import WordVectors
from posterhall.errors import DataError


def make(count: int = 500, dimensions: int = 20, seed: int = 0) -> WordVectors:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(count, dimensions)) * rng.uniform(0.1, 5, size=(count, 1))
    return WordVectors([f"w{i}" for i in range(count)], matrix.astype(np.float32))


def cosines(vectors: WordVectors, target: np.ndarray) -> np.ndarray:
    """Float64 reference."""
    rows = vectors.matrix.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1)
    rows = np.divide(rows, lengths[:, None], out=np.zeros_like(rows), where=lengths[:, None] > 0)
    return rows @ (target / np.linalg.norm(target))


def test_lookup_by_word_list_and_row():
    vectors = make()
    assert len(vectors) == 500
    assert vectors.dimensions == 20
    assert "w3" in vectors
    assert "x" not in vectors
    assert vectors.index["w7"] == vectors.row("w7") == 7
    np.testing.assert_array_equal(vectors["w7"], vectors.matrix[7])
    np.testing.assert_array_equal(vectors[["w9", "w2"]], vectors.matrix[[9, 2]])
    assert list(vectors)[:2] == ["w0", "w1"]


def test_nothing_in_it_can_be_changed():
    source = np.ones((2, 3), np.float32)
    vectors = WordVectors(["a", "b"], source, [3, 1])
    assert np.shares_memory(vectors.matrix, source)
    for array in (vectors.matrix, vectors.unit, vectors.counts, vectors["a"]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 9
    with pytest.raises(TypeError):
        vectors.index["c"] = 3
    source[0] = 2  # the caller's own array stays the caller's
    assert source.flags.writeable


@pytest.mark.parametrize(
    ("words", "matrix", "message"),
    [
        (["a"], np.ones((2, 3)), "1 words for 2 rows"),
        (["a", "a"], np.ones((2, 3)), "first 'a'"),
        ([], np.ones((0, 3)), "no words"),
        (["a"], np.ones((1, 0)), "needs? \\(words, dimensions\\)"),
        (["a"], np.ones(3), "shape \\(3,\\)"),
        (["a"], np.array([["x"]]), "real numbers"),
        (["a"], np.array([[1j]]), "real numbers"),
    ],
)
def test_arrays_that_are_no_vectors_are_refused(words, matrix, message):
    with pytest.raises(DataError, match=message):
        WordVectors(words, matrix)


def test_counts_need_one_a_word():
    with pytest.raises(DataError, match="2 words need one each"):
        WordVectors(["a", "b"], np.ones((2, 3)), [1])


def test_an_unknown_word_is_told_with_the_nearest_spellings():
    vectors = WordVectors(["river", "rivers", "stone", "Oslo", "new_york"], np.eye(5))
    with pytest.raises(
        DataError, match=r"^'rivver' is not in the vocabulary \(5 words\)\. Did you mean: river, rivers\?$"
    ):
        vectors["rivver"]
    with pytest.raises(DataError, match=r"Did you mean: Oslo\?"):
        vectors.nearest("oslo")
    with pytest.raises(DataError, match=r"Did you mean: new_york\?"):
        vectors.row("new york")
    with pytest.raises(DataError, match=r"\(5 words\)\.$"):
        vectors.row("zq")


@pytest.mark.parametrize("top", [1, 7, 499, 2000])
@pytest.mark.parametrize("cached", [False, True])
def test_nearest_agrees_with_brute_force(top, cached):
    vectors = make()
    if cached:
        _ = vectors.unit
    expected = cosines(vectors, vectors.matrix[11].astype(np.float64))
    expected[11] = -2
    order = np.argsort(-expected, kind="stable")[: min(top, 499)]
    found = vectors.nearest("w11", top)
    assert [word for word, _ in found] == [f"w{i}" for i in order]
    np.testing.assert_allclose([score for _, score in found], expected[order], atol=1e-6)


def test_nearest_in_blocks_finds_what_one_block_finds(monkeypatch):
    vectors = make(5000, 8)
    whole = vectors.nearest_many(["w1", "w2", "w4999"], 12)
    monkeypatch.setattr("posterhall.embeddings._search.BLOCK_SCORES", 100)
    blocked = vectors.nearest_many(["w1", "w2", "w4999"], 12)
    for one, other in zip(whole, blocked, strict=True):
        assert [word for word, _ in one] == [word for word, _ in other]


def test_many_queries_are_answered_as_one_by_one():
    vectors = make(700, 12)
    queries = ["w0", vectors["w5"] * 3, ["w1", "w2"], *[f"w{i}" for i in range(300)]]
    for query, found in zip(queries, vectors.nearest_many(queries, 5), strict=True):
        alone = vectors.nearest(query, 5)
        assert [word for word, _ in found] == [word for word, _ in alone]
        np.testing.assert_allclose([s for _, s in found], [s for _, s in alone], atol=1e-6)
    assert vectors.nearest_many([]) == []


def test_equal_scores_keep_the_order_of_the_words():
    vectors = WordVectors(list("abcdef"), np.array([[1, 0], [0, 1], [0, 2], [1, 1], [0, 3], [0, 0.5]]))
    assert [word for word, _ in vectors.nearest(np.array([0.0, 1.0]), 4)] == ["b", "c", "e", "f"]
    assert [word for word, _ in vectors.nearest(np.array([0.0, 1.0]), 2)] == ["b", "c"]


def test_query_words_exclusions_and_restriction():
    vectors = make(100)
    first = vectors.nearest("w3", 3)
    assert "w3" not in [word for word, _ in first]
    assert vectors.nearest("w3", 1, include_query=True)[0].word == "w3"
    without = vectors.nearest("w3", 3, exclude=[first[0].word])
    assert without[:2] == first[1:]
    assert all(int(word[1:]) < 20 for word, _ in vectors.nearest("w3", 50, restrict=20))
    assert len(vectors.nearest("w3", 50, restrict=20)) == 19


def test_a_sum_adds_unit_vectors_not_vectors():
    vectors = WordVectors(["long", "short", "sum", "tilted"], [[100, 0], [0, 1], [1, 1], [100, 1]])
    assert vectors.nearest(["long", "short"])[0].word == "sum"
    np.testing.assert_allclose(vectors.direction(["long", "short"]), np.sqrt([0.5, 0.5]), atol=1e-6)
    np.testing.assert_allclose(
        vectors.direction("long", minus="short"), np.sqrt([0.5, 0.5]) * [1, -1], atol=1e-6
    )


def test_zero_vectors_have_no_direction_and_are_no_nan():
    matrix = np.array([[0, 0, 0], [1, 0, 0], [0.9, 0.1, 0], [0, 0, -1]], np.float32)
    vectors = WordVectors(["zero", "a", "b", "c"], matrix)
    assert not vectors.unit[0].any()
    assert np.isfinite(vectors.unit).all()
    assert vectors.similarity("zero", "a") == 0
    found = dict(vectors.nearest("a", 3))
    assert found["zero"] == 0
    with pytest.raises(DataError, match="'zero' is zero"):
        vectors.nearest("zero")
    with pytest.raises(DataError, match="no direction"):
        vectors.nearest("a", minus="a")


def test_lengths_beyond_float32_squares_keep_their_direction():
    matrix = np.array([[3e30, 4e30], [3e-30, 4e-30], [3e-44, 4e-44], [3, 4], [4, -3]], np.float32)
    vectors = WordVectors(list("abcde"), matrix)
    np.testing.assert_allclose(vectors.norms[:2], [5e30, 5e-30], rtol=1e-5)
    np.testing.assert_allclose(vectors.unit[[0, 1, 3]], [[0.6, 0.8]] * 3, atol=1e-6)
    for word in "abc":
        scores = dict(vectors.nearest(np.array([3.0, 4.0]), 5))
        assert scores[word] == pytest.approx(1, abs=0.03)  # subnormals have few digits
        assert vectors.similarity(word, "e") == pytest.approx(0, abs=0.15)


def test_a_vector_that_is_not_finite_is_told_or_has_no_direction():
    matrix = np.array([[1, 0], [np.nan, 1], [np.inf, 0], [0.5, 0.5]], np.float32)
    with pytest.raises(DataError, match=r"'b' \(row 1\) holds NaN or infinity, as do 2 rows"):
        WordVectors(list("abcd"), matrix).nearest("a")
    vectors = WordVectors(list("abcd"), matrix, allow_nonfinite=True)
    assert [word for word, _ in vectors.nearest("a", 5) if _ != 0] == ["d"]
    assert np.isfinite(vectors.unit).all()
    with pytest.raises(DataError, match="no direction"):
        vectors.nearest("b")


def test_analogies_by_both_methods_agree_with_their_formulas():
    vectors = make(300, 15)
    a, b, c = (vectors.unit[i].astype(np.float64) for i in (1, 2, 3))
    unit = vectors.matrix / np.linalg.norm(vectors.matrix.astype(np.float64), axis=1, keepdims=True)
    add = unit @ (b - a + c)
    shifted = [(unit @ v + 1) / 2 for v in (a, b, c)]
    mul = shifted[1] * shifted[2] / (shifted[0] + 0.001)
    for method, scores in (("3cosadd", add / np.linalg.norm(b - a + c)), ("3cosmul", mul)):
        order = [i for i in np.argsort(-scores) if i not in (1, 2, 3)][:10]
        found = vectors.analogy("w1", "w2", "w3", method=method)
        assert [word for word, _ in found] == [f"w{i}" for i in order]
        np.testing.assert_allclose([s for _, s in found], scores[order], rtol=1e-5, atol=1e-6)
        everything = vectors.analogy("w1", "w2", "w3", method=method, include_query=True, top=1)
        assert everything[0].word == f"w{np.argmax(scores)}"
    with pytest.raises(DataError, match="3cosadd, 3cosmul"):
        vectors.analogy("w1", "w2", "w3", method="cos")


def test_gensim_gives_the_same_answers():
    from gensim.models import KeyedVectors

    vectors = make(400, 25, seed=3)
    peer = KeyedVectors(25)
    peer.add_vectors(list(vectors.words), np.array(vectors.matrix))
    for ours, theirs in (
        (vectors.nearest("w8", 10), peer.most_similar("w8", topn=10)),
        (vectors.nearest(["w8", "w9"], 10, minus="w2"), peer.most_similar(["w8", "w9"], ["w2"], topn=10)),
        (vectors.analogy("w1", "w2", "w3"), peer.most_similar(["w2", "w3"], ["w1"])),
        (vectors.nearest("w8", 5, restrict=50), peer.most_similar("w8", topn=5, restrict_vocab=50)),
    ):
        assert [word for word, _ in ours] == [word for word, _ in theirs]
        np.testing.assert_allclose([s for _, s in ours], [s for _, s in theirs], atol=1e-5)
    mul = peer.most_similar_cosmul(["w2", "w3"], ["w1"])
    assert [w for w, _ in vectors.analogy("w1", "w2", "w3", method="3cosmul")] == [w for w, _ in mul]
    group = ["w5", "w6", "w7", "w8"]
    assert vectors.odd_one_out(group) == peer.doesnt_match(group)
    assert vectors.similarity("w1", "w2") == pytest.approx(peer.similarity("w1", "w2"), abs=1e-6)


def test_the_odd_one_out_is_the_word_in_another_direction():
    vectors = WordVectors(["egg", "milk", "bread", "car"], [[1, 0.1], [2, 0.3], [1, 0], [-0.2, 1]])
    assert vectors.odd_one_out(["egg", "car", "milk", "bread"]) == "car"
    assert vectors.coherence(["egg", "milk", "car"])[0].word == "car"
    with pytest.raises(DataError, match="at least three"):
        vectors.odd_one_out(["egg", "milk"])


def test_similarities_of_pairs():
    vectors = make(50)
    pairs = [("w1", "w2"), ("w3", "w3")]
    np.testing.assert_allclose(
        vectors.similarities(pairs), [vectors.similarity(*pair) for pair in pairs], atol=1e-6
    )
    assert vectors.similarity("w3", "w3") == pytest.approx(1)
    assert vectors.similarities([]).shape == (0,)


def test_most_frequent_keeps_the_first_and_shares_memory():
    vectors = WordVectors(list("abc"), np.eye(3, dtype=np.float32), [9, 5, 1])
    two = vectors.most_frequent(2)
    assert two.words == ("a", "b")
    assert np.shares_memory(two.matrix, vectors.matrix)
    np.testing.assert_array_equal(two.counts, [9, 5])
    assert vectors.most_frequent(10) is vectors
    with pytest.raises(DataError, match="1 or more"):
        vectors.most_frequent(0)


@pytest.mark.parametrize(
    "ask",
    [
        lambda v: v.nearest("w1", 0),
        lambda v: v.nearest("w1", restrict=0),
        lambda v: v.nearest(np.ones(3)),
        lambda v: v.nearest([]),
        lambda v: v.search(np.ones((2, 3), np.float32), 1),
    ],
)
def test_queries_that_cannot_be_answered_are_refused(ask):
    with pytest.raises(DataError):
        ask(make(10))


@given(
    st.integers(1, 40), st.integers(1, 6), st.integers(1, 50), st.integers(0, 2**32 - 1), st.integers(1, 60)
)
def test_search_returns_the_best_rows_of_what_may_be_returned(count, dimensions, top, seed, restrict):
    rng = np.random.default_rng(seed)
    # Few distinct values, so that ties are common.
    vectors = WordVectors([str(i) for i in range(count)], rng.integers(-1, 2, size=(count, dimensions)))
    targets = rng.normal(size=(3, dimensions)).astype(np.float32)
    skip = [rng.choice(count, size=min(count, 2), replace=False).tolist() for _ in targets]
    rows, scores = vectors.search(targets, top, skip=skip, restrict=restrict)
    for target, skipped, row, score in zip(targets, skip, rows, scores, strict=True):
        every = vectors.unit @ target
        allowed = [i for i in range(min(count, restrict)) if i not in skipped]
        wanted = min(top, len(allowed))
        found = row[row >= 0]
        assert len(found) == len(set(found.tolist())) == wanted
        assert set(found.tolist()) <= set(allowed)
        np.testing.assert_allclose(score[:wanted], np.sort(every[allowed])[::-1][:wanted], atol=1e-6)
