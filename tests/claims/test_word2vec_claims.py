"""The claims of word2vec: what they measure with is right, and each of them runs at a tiny size."""

from __future__ import annotations

import importlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from posterhall.claims import load
from posterhall.claims.word2vec import _planted, _text, meaning, noise
from posterhall.data.synthetic.bigrams import planted_phrases
from posterhall.data.synthetic.planted import analogies, composition
from posterhall.embeddings.sampling import keep_probability
from posterhall.embeddings.vectors import WordVectors
from posterhall.errors import DataError

CLAIMS = load(["posterhall.claims.word2vec"])


@pytest.fixture(scope="module")
def ground():
    return _planted.Ground(analogies(tokens=5000, entities=12, slots=6, noise=0.0, questions=400, seed=3), 3)


def vectors_of(ground, matrix):
    """Rows in the order of the names, as vectors in the order of the vocabulary."""
    index = {name: i for i, name in enumerate(ground.corpus.names)}
    words = [str(item) for item in ground.vocabulary.items]
    return WordVectors(words, matrix[[index[word] for word in words]])


def test_true_vectors_answer_every_question(ground):
    assert ground.right(vectors_of(ground, ground.corpus.vectors)).all()


def test_random_vectors_answer_by_chance(ground):
    random = np.random.default_rng(0).normal(size=ground.corpus.vectors.shape)
    assert ground.right(vectors_of(ground, random)).mean() < 0.1  # chance is 1 in 69


def test_one_half_of_the_questions_chooses_the_rate_and_the_other_is_the_score(ground):
    asked = []

    def fit(rate):
        asked.append(rate)
        return (rate,), 7

    class Answers:  # stands in for a Ground
        choosing = ground.choosing

        def right(
            self, vectors
        ):  # the higher the rate the better on the choosing half, and the worse on the other
            (rate,) = vectors
            return np.where(self.choosing, np.arange(400) < 400 * rate, np.arange(400) >= 400 * rate)

    found = _planted.best(fit, (0.2, 0.6, 0.4), Answers())
    assert asked == [0.2, 0.6, 0.4]
    assert (found.rate, found.pairs) == (0.6, 7)
    assert found.accuracy == pytest.approx(0.4)
    assert not (found.asked & ground.choosing).any()


def test_a_rate_that_diverges_is_passed_over(ground):
    found = ground.train([1e4, 0.05], dim=8, epochs=1)
    assert found.rate == 0.05
    with pytest.raises(DataError, match="diverges"):
        ground.train([1e4], dim=8, epochs=1)


def test_arms_of_a_seed_start_from_the_same_vectors_and_other_seeds_do_not(ground):
    a, b = (ground.train([0.05], dim=8, epochs=1) for _ in range(2))
    np.testing.assert_array_equal(a.vectors.matrix, b.vectors.matrix)
    other = _planted.Ground(ground.corpus, 4).train([0.05], dim=8, epochs=1)
    assert (a.vectors.matrix != other.vectors.matrix).any()


def test_answers_are_sorted_into_deciles_by_their_frequency(ground):
    counts, answers = ground.corpus.counts, ground.corpus.questions[:, 3]
    deciles = ground.answer_deciles
    for d in range(9):
        assert counts[answers[deciles == d]].min() >= counts[answers[deciles == d + 1]].max()


def test_threshold_leaves_the_part_it_should():
    counts = (1e6 / np.arange(1, 500)).astype(np.int64)
    keep = keep_probability(counts, noise.matching_threshold(counts, 2.5), "code")
    assert (counts * keep).sum() / counts.sum() == pytest.approx(1 / 2.5, rel=1e-6)


def test_any_words_are_dropped_alike_and_anew_each_epoch(ground):
    thinned = noise.drop_any(ground, 0.3, 40)
    expected = 40 * 0.3 * ground.corpus.counts
    assert thinned.counts.sum() == pytest.approx(expected.sum(), rel=0.01)
    often = ground.corpus.counts > 50
    assert thinned.counts[often] == pytest.approx(expected[often], rel=0.25)
    assert (thinned.stream < 0).sum() == 40 * (ground.corpus.stream < 0).sum()


def test_precision_and_recall_by_hand():
    row = meaning.agreement("arm", 0, {"a_b", "c_d", "x_y"}, {"a_b", "c_d", "e_f", "g_h"})
    assert row["precision"] == pytest.approx(2 / 3)
    assert row["recall"] == pytest.approx(2 / 4)
    assert row["f1"] == pytest.approx(4 / 7)
    assert meaning.agreement("arm", 0, set(), {"a_b"})["f1"] == 0


def test_most_frequent_neighbours_stay_within_sentences():
    corpus = planted_phrases(tokens=3000, words=40, pairs=3, triples=0, sentence_words=2, zipf=1.0)
    tally: dict[str, int] = {}
    for line in corpus.sentences():
        for a, b in pairwise(line):
            tally[f"{a}_{b}"] = tally.get(f"{a}_{b}", 0) + 1
    top = sorted(tally.values(), reverse=True)
    assert sorted((tally[p] for p in meaning.most_frequent_pairs(corpus, 5)), reverse=True) == top[:5]


def test_true_vectors_compose():
    corpus = composition(tokens=1000, firsts=6, seconds=6, noise=0.0)
    unit = corpus.vectors / np.linalg.norm(corpus.vectors, axis=1, keepdims=True)
    a, b = corpus.vectors[corpus.sums[:, 0]], corpus.vectors[corpus.sums[:, 1]]
    assert (meaning.ranks(unit, a + b, corpus.sums.astype(np.int64)) == 0).all()


def test_rank_counts_nearer_words_without_the_two_asked():
    unit = np.eye(4, dtype=np.float32)
    query = np.array([[0.9, 0.8, 0.1, 0.5]], np.float32)
    assert meaning.ranks(unit, query, np.array([[0, 1, 2]])).tolist() == [1]  # only word 3 is in between


def test_twins_are_the_same_text_under_two_names():
    rng = np.random.default_rng(0)
    stream = rng.integers(-1, 30, size=6000).astype(np.int32)
    names = [f"w{i}" for i in range(30)]
    twins = _text.Twins.split(stream, names, 10, 5)
    back = np.arange(len(twins.names))
    back[twins.pairs[:, 1]] = twins.pairs[:, 0]
    np.testing.assert_array_equal(np.where(stream < 0, -1, back[twins.stream]), stream)
    counts = np.bincount(twins.stream[twins.stream >= 0])
    assert counts[twins.pairs[:, 0]] == pytest.approx(counts[twins.pairs[:, 1]], rel=0.6)
    assert len(set(twins.names)) == len(twins.names) == 40


def test_twins_are_found_where_their_vectors_are_alike_and_a_lost_one_is_a_miss():
    twins = _text.Twins(np.zeros(0, np.int32), ["a", "b", "c", "a′", "b′"], np.array([[0, 3], [1, 4]]))
    matrix = np.array([[1, 0], [0.6, 0.8], [0, 1], [1, 0.1], [0, -1]], np.float32)
    assert twins.found(WordVectors(twins.names, matrix)).tolist() == [[True, True], [False, False]]
    assert twins.found(WordVectors(twins.names[:4], matrix[:4])).tolist() == [[True, True], [False, False]]


def test_text_too_short_for_twins_is_refused():
    with pytest.raises(DataError, match="20 times"):
        _text.Twins.split(np.arange(50, dtype=np.int32), [f"w{i}" for i in range(50)], 5, 1)


@pytest.fixture
def text(tmp_path):
    rng = np.random.default_rng(1)
    ids = np.minimum(rng.zipf(1.3, size=60_000), 400)
    path = tmp_path / "text.txt"
    path.write_text("\n".join(" ".join(f"w{i}" for i in line) for line in np.array_split(ids, 4000)))
    return path


def test_a_sample_is_the_beginning_of_a_larger_one(text):
    params = {"corpus": str(text)}
    small, large, other = (_text.sample(params, n, s) for n, s in ((5000, 1), (20_000, 1), (5000, 2)))
    np.testing.assert_array_equal(small, large[: len(small)])
    assert 5000 <= (small >= 0).sum() < 8000
    assert not np.array_equal(small[:1000], other[:1000])
    assert (_text.sample(params, 10**9, 1) >= 0).sum() == _text.size(params)


def test_a_missing_file_of_text_is_named():
    with pytest.raises(DataError, match=r"corpus=/nowhere.*no such file"):
        _text.size({"corpus": "/nowhere"})


TINY_PLANTED = {"tokens": 4000, "entities": 6, "slots": 4, "questions": 200, "epochs": 1, "dim": 8}
TINY = {
    "neg-over-hierarchical": TINY_PLANTED,
    "neg-over-nce": TINY_PLANTED,
    "neg-close-to-softmax": {**TINY_PLANTED, "tokens": 2000},
    "noise-three-quarters": TINY_PLANTED,
    "subsampling-sharpens-rare": TINY_PLANTED,
    "subsampling-less-work": {"words": 8000},
    "subsampling-faster": {"words": 8000, "dim": 16},
    "phrases-found": {"tokens": 20_000, "words": 300, "pairs": 20, "triples": 5, "entities": 6, "slots": 4},
    "additive-composition": {"tokens": 6000, "first_words": 4, "second_words": 5, "epochs": 1, "dim": 8},
    "data-and-dimension": {**TINY_PLANTED, "tokens": 2000, "dim": 4, "whole": True},
    "simpler-beats-recurrent": {**TINY_PLANTED, "cpu_seconds": 0.02, "more": 2},
    "negative-and-hierarchical-cross": {"words": 12_000, "cells": 3, "dim": 8, "epochs": 1, "twins": 20},
}


def test_every_claim_is_tried_below():
    assert set(TINY) == set(CLAIMS)


@pytest.mark.parametrize("id", TINY)
def test_claim_runs_at_a_tiny_size(id, text, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "contracts"))
    check_rows = importlib.import_module("claim").check_rows
    cls = CLAIMS[id]
    instance = cls({"corpus": str(text)} if "corpus" in cls.params else {})
    budget = cls.budget("smoke").replace(**TINY[id])
    rows = list(instance.run(budget, 1))
    again = None if id == "simpler-beats-recurrent" else list(instance.run(budget, 1))
    check_rows(cls, rows, again, 1, {"cpu_seconds", "words_per_second"})


def test_own_questions_take_the_place_of_twins(text, tmp_path):
    questions = tmp_path / "questions.txt"
    questions.write_text(": letters\n" + "w1 w2 w3 w4\nw2 w3 w4 w5\n" * 4)
    cls = CLAIMS["negative-and-hierarchical-cross"]
    budget = cls.budget("smoke").replace(words=6000, cells=2, dim=8, epochs=1)
    rows = list(cls({"corpus": str(text), "questions": str(questions), "words": 9000}).run(budget, 1))
    scored = [row for row in rows if "score" in row.metrics]
    assert {row.number("words") for row in scored} == {3000, 9000}
    assert all(row.number("score") * 4 % 1 == 0 for row in scored)  # a half is four questions
