"""Generated corpora keep the law that their docstrings state."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from posterhall.data.phrases import Phrases
from posterhall.data.synthetic import planted
from posterhall.data.synthetic.bigrams import planted_phrases, spelled
from posterhall.errors import UsageError


@pytest.fixture(scope="module")
def corpus():
    return planted.analogies(tokens=200_000, entities=20, slots=5, seed=3)


def test_the_topic_is_a_stationary_walk_with_the_stated_memory():
    walk = planted.topics(60_000, 8, rho=0.97, seed=1).astype(np.float64)
    assert walk.std() == pytest.approx(1, abs=0.03)
    for lag in (1, 5, 20):
        measured = (walk[lag:] * walk[:-lag]).mean() / (walk**2).mean()
        assert measured == pytest.approx(0.97**lag, abs=0.03)


def test_frequencies_follow_zipf():
    for zipf in (0.5, 1.0):
        counts = planted.analogies(tokens=200_000, entities=20, slots=10, zipf=zipf, seed=5).counts
        top = np.sort(counts)[::-1][:150]
        slope = np.polyfit(np.log(np.arange(1, 151)), np.log(top), 1)[0]
        assert slope == pytest.approx(-zipf, abs=0.2)


def test_words_are_drawn_with_the_stated_probabilities():
    """Without drift in meaning (all vectors zero) the law is the bias alone: a chi-square by hand."""
    stream = planted.emit(np.zeros((6, 4)), tokens=60_000, zipf=1.0, seed=2)
    counts = np.sort(np.bincount(stream[stream >= 0], minlength=6))[::-1]
    expected = 60_000 / np.arange(1, 7) / (1 / np.arange(1, 7)).sum()
    assert ((counts - expected) ** 2 / expected).sum() < 20.5  # 0.999 quantile, 5 degrees of freedom


def test_pmi_follows_the_inner_products_of_the_true_vectors(corpus):
    """The theorem the corpus rests on, at distance 2 and within one topic."""
    walk = planted.analogies(tokens=400_000, entities=5, slots=4, zipf=0.0, hold=1, seed=4, scale=1.0)
    words = walk.stream[walk.stream >= 0]
    pairs = np.zeros((20, 20))
    for lag in (1, 2, 3):
        np.add.at(pairs, (words[:-lag], words[lag:]), 1)
    p = pairs.sum(axis=1) / pairs.sum()
    pmi = np.log(pairs / pairs.sum()) - np.log(p[:, None] * p[None, :])
    inner = walk.vectors @ walk.vectors.T
    assert np.corrcoef(pmi.ravel(), inner.ravel())[0, 1] > 0.9


def test_questions_are_exact_distinct_and_right(corpus):
    v = corpus.vectors.astype(np.float64)
    a, b, c, d = corpus.questions.T
    assert len(corpus.questions) == 3000
    assert len({tuple(q) for q in corpus.questions.tolist()}) == 3000
    for names in [[corpus.names[i].split("_") for i in q] for q in corpus.questions[:200].tolist()]:
        (e1, r1), (e2, r2), (e3, r3), (e4, r4) = names
        assert (e1, r1, e3, r2) == (e2, r3, e4, r4)
        assert e1 != e3
        assert r1 != r2
    # The true vectors answer nearly all of them: the noise is small.
    goal = v[b] - v[a] + v[c]
    similarity = goal @ (v / np.linalg.norm(v, axis=1, keepdims=True)).T
    for used in (a, b, c):
        similarity[np.arange(len(a)), used] = -np.inf
    assert (similarity.argmax(axis=1) == d).mean() > 0.95
    everything = planted.analogies(tokens=100, entities=3, slots=3, questions=10**6).questions
    assert len(everything) == 3 * 2 * 3 * 2


def test_the_same_seed_is_the_same_corpus_and_another_is_not():
    make = [planted.analogies(tokens=3000, seed=s) for s in (1, 1, 2)]
    assert np.array_equal(make[0].stream, make[1].stream)
    assert np.array_equal(make[0].questions, make[1].questions)
    assert not np.array_equal(make[0].stream, make[2].stream)
    # The blocks in which it is drawn leave no seam: a longer corpus begins alike.
    longer = planted.analogies(tokens=6000, seed=1)
    assert make[0].read()[1].words == 3000
    assert longer.read()[1].words == 6000


def test_shuffling_keeps_words_and_sentence_ends_and_loses_order(corpus):
    control = corpus.shuffled(seed=1)
    assert np.array_equal(control.counts, corpus.counts)
    assert np.array_equal(control.stream < 0, corpus.stream < 0)

    def same_entity(stream):
        words = stream[stream >= 0] // 5
        return (words[1:] == words[:-1]).mean()

    assert same_entity(control.stream) < same_entity(corpus.stream) / 2


def test_the_independent_control_has_no_answers():
    control = planted.analogies(tokens=100, entities=20, slots=5, structure="independent", seed=1)
    v = control.vectors.astype(np.float64)
    a, b, c, d = control.questions.T
    similarity = (v[b] - v[a] + v[c]) @ (v / np.linalg.norm(v, axis=1, keepdims=True)).T
    for used in (a, b, c):
        similarity[np.arange(len(a)), used] = -np.inf
    assert (similarity.argmax(axis=1) == d).mean() < 0.05
    truth = planted.analogies(tokens=100, entities=20, slots=5, seed=1).vectors
    assert np.linalg.norm(v, axis=1).mean() == pytest.approx(np.linalg.norm(truth, axis=1).mean(), rel=0.1)


def test_reading_gives_a_trainer_the_same_words(corpus):
    vocabulary, encoded = corpus.read(chunk_words=5000)
    assert encoded.words == 200_000
    assert [vocabulary.items[i] for i in encoded.read(0)[:50]] == corpus.sentences()[0][:50]
    assert Counter(dict(zip(vocabulary.items, vocabulary.counts.tolist(), strict=True))) == Counter(
        dict(zip(corpus.names, corpus.counts.tolist(), strict=True))
    )
    assert [len(s) for s in corpus.sentences()] == [1000] * 200
    shares = [corpus.counts[corpus.deciles == d].mean() for d in range(10)]
    assert shares == sorted(shares, reverse=True)
    assert np.bincount(corpus.deciles).tolist() == [10] * 10


def test_composition_adds_up():
    corpus = planted.composition(tokens=50_000, firsts=8, seconds=6, seed=2)
    v = corpus.vectors.astype(np.float64)
    a, b, c = corpus.sums.T
    assert len(c) == 48
    assert [corpus.names[i] for i in corpus.sums[9].tolist()] == ["a1", "b3", "a1_b3"]
    similarity = (v[a] + v[b]) @ (v / np.linalg.norm(v, axis=1, keepdims=True)).T
    for used in (a, b):
        similarity[np.arange(48), used] = -np.inf
    assert (similarity.argmax(axis=1) == c).mean() > 0.95
    control = planted.composition(tokens=50_000, firsts=8, seconds=6, structure="independent", seed=2)
    similarity = control.vectors[a] + control.vectors[b]
    assert (((similarity @ control.vectors.T).argsort(axis=1)[:, -3:]) == c[:, None]).any(axis=1).mean() < 0.4


def test_planted_phrases_are_found_and_nothing_else():
    corpus = planted_phrases(tokens=200_000, words=1000, pairs=60, triples=10, seed=1)
    found = Phrases(passes=2, threshold=[30, 10]).fit(corpus.corpus)
    pairs = {name for name in corpus.truth if name.count("_") == 1}
    triples = corpus.truth - pairs
    inside = {"_".join(p[i : i + 2]) for p in corpus.phrases if len(p) == 3 for i in (0, 1)}
    assert len(pairs & set(found.phrases_)) / len(pairs) > 0.8
    assert len(triples & set(found.phrases_)) / len(triples) > 0.7
    wrong = {n for n in found.phrases_ if n.count("_") == 1} - pairs - inside
    assert len(wrong) < 0.1 * len(pairs)
    control = Phrases(passes=2, threshold=[30, 10]).fit(corpus.shuffled().corpus)
    assert len(set(control.phrases_) & corpus.truth) <= 1


def test_planted_phrases_occur_at_their_rate_and_are_never_cut():
    corpus = planted_phrases(tokens=100_000, words=500, pairs=20, triples=5, rate=0.1, seed=1)
    assert corpus.stream[-1] == -1
    words = int((corpus.stream >= 0).sum())
    assert 100_000 <= words < 100_003
    lengths = [len(s) for s in corpus.sentences()]
    assert min(lengths[:-1]) >= 18
    assert max(lengths) <= 22
    seen = Counter(pair for s in corpus.sentences() for pair in itertools.pairwise(s))
    units = words / (1 + 0.1 * (20 * 1 + 5 * 2) / 25)
    for phrase in corpus.phrases:
        assert seen[phrase[:2]] == pytest.approx(units * 0.1 / 25, rel=0.35)


def test_words_spelled_as_two_are_whole_again_once_joined(corpus):
    two = spelled(corpus, share=0.5, alone=0.1, seed=1)
    assert len(two.phrases) == 50
    meaning = {"_".join(p): corpus.names[i] for p, i in zip(two.phrases, two.meanings.tolist(), strict=True)}
    assert len(meaning) == 50
    back = []
    for sentence in two.sentences():
        at, out = 0, []
        while at < len(sentence):  # every p followed by its q; strays are any other p or q
            name = "_".join(sentence[at : at + 2])
            out += [meaning[name]] if name in meaning else [sentence[at]] if sentence[at][0] == "e" else []
            at += 2 if name in meaning else 1
        back.append(out)
    # A stray part before its partner can hide or fake a word, seldom.
    agree = sum((Counter(a) & Counter(b)).total() for a, b in zip(back, corpus.sentences(), strict=True))
    assert agree / 200_000 > 0.97
    found = set(Phrases(scorer="npmi", threshold=0.5).fit(two.corpus).phrases_)
    assert len(two.truth & found) > 0.5 * len(two.truth)
    assert len(two.truth & found) > 0.8 * len(found)
    with pytest.raises(UsageError, match="share"):
        spelled(corpus, share=0)
    with pytest.raises(UsageError, match="sharing"):
        spelled(corpus, sharing=0)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (planted.analogies, {"entities": 1}),
        (planted.analogies, {"rho": 1.0}),
        (planted.analogies, {"tokens": 0}),
        (planted.analogies, {"hold": 0}),
        (planted.analogies, {"structure": "none"}),
        (planted.composition, {"firsts": 1}),
        (planted.composition, {"structure": "none"}),
        (planted_phrases, {"rate": 0}),
        (planted_phrases, {"words": 2}),
        (planted_phrases, {"pairs": 0, "triples": 0}),
        (planted_phrases, {"words": 3, "pairs": 5}),
    ],
)
def test_sizes_that_cannot_be(make, options):
    with pytest.raises(UsageError):
        make(**options)
