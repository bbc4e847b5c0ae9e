"""Near duplicates, against sets of shingles made by Python."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterhall.curation.dedup import MinHash, near_duplicates, s_curve
from posterhall.curation.dedup import _sketch_kernels as kernels
from posterhall.curation.dedup import minhash as module
from posterhall.curation.dedup.texts import alphabet
from posterhall.errors import DataError

EXHAUSTIVE = {"bands": 128, "rows": 1}
"""Nearly every pair is proposed, so that what is found is what there is."""


def shingles(text, n=5, unit="word", normalise=True):
    clean = alphabet(normalise).normalise(text)
    units = clean.split() if unit == "word" else clean
    if not units:
        return frozenset()
    return frozenset(tuple(units[i : i + n]) for i in range(max(1, len(units) - n + 1)))


def jaccard(a, b):
    return len(a & b) / len(a | b) if a or b else 0.0


def words(rng, count):
    return [f"w{rng.randrange(5000)}" for _ in range(count)]


def text_pair(rng, length, target):
    """Two texts whose Jaccard similarity is about the target: shingles around changed words differ."""
    first = words(rng, length)
    second = list(first)
    for at in rng.sample(range(length), max(1, round(length * (1 - target) / (1 + target) / 5))):
        second[at] = f"x{rng.randrange(10**6)}"
    return " ".join(first), " ".join(second)


def clusters_of(texts, threshold, **how):
    """Connected parts of all pairs at the threshold, as the first member of each text's."""
    sets = [shingles(t, **how) for t in texts]
    head = list(range(len(texts)))

    def find(i):
        while head[i] != i:
            i = head[i]
        return i

    for i in range(len(texts)):
        for j in range(i):
            if jaccard(sets[i], sets[j]) >= threshold and find(i) != find(j):
                head[max(find(i), find(j))] = min(find(i), find(j))
    return [find(i) for i in range(len(texts))]


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "C", "d.", "é", "中"]), max_size=12), max_size=12),
    st.sampled_from([0.3, 0.5, 0.75, 1.0]),
    st.sampled_from([("word", 1), ("word", 2), ("char", 3), ("word", 5)]),
)
def test_clusters_are_those_of_comparing_every_pair(lists, threshold, how):
    texts = [" ".join(each) for each in lists]
    unit, n = how
    found = near_duplicates(
        texts, MinHash(threshold=threshold, unit=unit, ngram=n, threads=1, hashes=128, **EXHAUSTIVE)
    )
    assert found.kept.tolist() == clusters_of(texts, threshold, n=n, unit=unit)
    assert found.keep.tolist() == [k == i for i, k in enumerate(found.kept)]


@pytest.fixture(scope="module")
def corpus():
    """Texts of 5 to 400 words, a tenth of them near duplicates, with equal ones and empty ones."""
    rng = random.Random(0)
    texts = [" ".join(words(rng, rng.randint(5, 400))) for _ in range(600)]
    for target in (0.6, 0.75, 0.85, 0.95):
        for _ in range(60):
            texts += text_pair(rng, rng.randint(100, 500), target)
    texts += [texts[5].upper(), texts[6] + " !", "", " ", "..."]
    rng.shuffle(texts)
    return texts


def test_every_drop_has_a_true_pair_at_the_threshold(corpus):
    sets = [shingles(t) for t in corpus]
    found = near_duplicates(corpus, MinHash(threshold=0.7, threads=1))
    assert found.dropped.size > 100
    for i in found.dropped:
        assert found.similarity[i] == jaccard(sets[i], sets[found.match[i]]) >= 0.7
        assert found.similarity_kept[i] == jaccard(sets[i], sets[found.kept[i]])
        assert found.keep[found.kept[i]]


def test_pairs_are_found_as_often_as_the_curve_says():
    rng = random.Random(1)
    pairs = [text_pair(rng, 300, 0.8) for _ in range(400)]
    texts = [t for pair in pairs for t in pair]
    values = np.array([jaccard(shingles(a), shingles(b)) for a, b in pairs])
    how = MinHash(threshold=0.3, bands=12, rows=10, threads=1)
    found = near_duplicates(texts, how)
    expected = s_curve(values, 12, 10)
    hits = (found.kept[1::2] == found.kept[0::2]).sum()
    deviation = np.sqrt((expected * (1 - expected)).sum())
    assert 0.1 < expected.mean() < 0.9  # or the test could not fail
    assert abs(hits - expected.sum()) < 4 * deviation


@pytest.mark.parametrize("length", [12, 80, 300, 3000, 9000])
@pytest.mark.parametrize("target", [0.5, 0.8])
def test_sketches_are_as_precise_as_independent_hashes(length, target):
    """Error of the estimate over many pairs: none on average, sqrt(J (1 - J) / K) in size."""
    slots, trials = 128, 300 if length < 1000 else 30
    letters = alphabet(True)
    errors, variances = [], []
    rng, draw = random.Random(2), np.random.default_rng(3)
    sketches = np.empty((2, slots), np.uint32)
    scratch = [np.empty(4200, kind) for kind in (np.uint64, np.uint64, np.uint32)]
    for _ in range(trials):
        pair = text_pair(rng, length, target)
        weights = draw.integers(0, 2**64, 6, dtype=np.uint64) | np.uint64(1)
        salts = draw.integers(0, 2**32, slots, dtype=np.uint32)
        factors = draw.integers(0, 2**32, slots, dtype=np.uint32) | np.uint32(1)
        seed = draw.integers(0, 2**64, dtype=np.uint64)
        for side, text in enumerate(pair):
            clean = letters.normalise(text).encode()
            buffer = np.frombuffer(clean + b" " * 16, np.uint8).copy()
            args = (buffer, len(clean), True, seed, weights, salts, factors, *scratch)
            kernels.sketch(*args, sketches[side])
        true = jaccard(*(shingles(t) for t in pair))
        errors.append((sketches[0] == sketches[1]).mean() - true)
        variances.append(true * (1 - true) / slots)
    theory = np.sqrt(np.mean(variances))
    assert abs(np.mean(errors)) < 4 * theory / np.sqrt(trials)
    assert np.sqrt(np.mean(np.square(errors))) < theory * (1 + 3.5 / np.sqrt(2 * trials))


def test_all_ways_of_reading_give_the_same(corpus, monkeypatch):
    base = near_duplicates(corpus, MinHash(threads=1))
    several = near_duplicates(corpus, MinHash(threads=3))
    on_disk = near_duplicates(corpus, MinHash(threads=2, memory=20_000))
    array = pa.array(corpus)
    batched = near_duplicates(lambda: (array[i : i + 7] for i in range(0, len(array), 7)), MinHash(threads=1))
    monkeypatch.setattr(module, "_BUCKETS", 3)
    monkeypatch.setattr(module, "_REFUSED", 1)  # which pairs are remembered saves time only
    few = near_duplicates(corpus, MinHash(threads=1))
    assert on_disk.facts["bytes_on_disk"] > 100_000
    for other in (several, on_disk, batched, few):
        assert (other.kept == base.kept).all()
        assert (other.similarity_kept == base.similarity_kept).all()


def test_a_bucket_of_many_alike_texts_is_one_cluster():
    rng = random.Random(4)
    base = words(rng, 200)
    texts = []
    for _ in range(3000):
        base[rng.randrange(200)] = f"y{rng.randrange(10**6)}"  # neighbours alike, ends of the chain not
        texts.append(" ".join(base))
    found = near_duplicates(texts, MinHash(threads=1))
    assert (found.kept == 0).all()
    assert found.similarity_kept[-1] == 0
    assert (found.similarity[1:] >= 0.8).all()
    assert found.facts["pairs_compared"] < 20 * len(texts)


def test_which_text_stays():
    rng = random.Random(5)
    one = " ".join(words(rng, 100))
    texts = ["other", one, one + " and more", one.upper()]
    scores = np.array([0.0, 2.0, np.nan, 3.0])
    kept = {
        policy: near_duplicates(texts, MinHash(keep=policy, threads=1), scores=scores).kept.tolist()
        for policy in ("first", "longest", "best")
    }
    assert kept == {"first": [0, 1, 1, 1], "longest": [0, 2, 2, 2], "best": [0, 3, 3, 3]}
    with pytest.raises(DataError, match="keep=best needs scores"):
        near_duplicates(texts, MinHash(keep="best"))
    with pytest.raises(DataError, match="4 texts"):
        near_duplicates(texts, MinHash(keep="best"), scores=scores[:3])


def test_short_and_empty_texts():
    texts = ["", "  ", "!?", "one", "One.", "one two", "one two", "two one", ""]
    found = near_duplicates(texts, MinHash(threads=1))
    assert found.kept.tolist() == [0, 1, 2, 3, 3, 5, 5, 7, 8]
    assert found.match.tolist() == [-1, -1, -1, 4, 3, 6, 5, -1, -1]


@pytest.mark.parametrize("texts", [[], [""], ["one text alone"], ["same"] * 500])
def test_degenerate_pools(texts):
    found = near_duplicates(texts, MinHash(threads=2))
    assert found.keep.sum() == min(len(texts), 1)


@pytest.mark.parametrize("line", ["word " * 300_000, "x" * 1_000_000, "a b c d e f g h " * 60_000])
def test_one_huge_line_takes_its_place_among_small_ones(line):
    found = near_duplicates(["small", line, line + " end", "small one"], MinHash(threads=1))
    assert found.kept[1] == 1
    repeated = len(set(line.split())) > 1  # "word word ...end" has two shingles for one: far apart
    assert (found.kept[2] == 1) == repeated
    for i in found.dropped:
        assert found.similarity[i] == jaccard(shingles(line), shingles(line + " end"))


def test_the_longest_clusters_and_the_table_name_texts():
    rng = random.Random(6)
    one = " ".join(words(rng, 100))
    found = near_duplicates(["a", one, one + " b", one + " c"], MinHash(threads=1))
    assert [c.tolist() for c in found.clusters()] == [[1, 2, 3]]
    rows = found.table(["p", "q", "r", "s"]).to_pylist()
    assert [(r["uid"], r["kept"]) for r in rows] == [("r", "q"), ("s", "q")]
    assert found.table().column("uid").to_pylist() == [2, 3]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_and_rows_reach_the_recall_with_the_most_rows(threshold):
    how = MinHash(threshold=threshold)
    bands, rows = how.banding()
    assert bands * rows <= 128
    assert s_curve(threshold, bands, rows) >= 0.95
    more = rows + 1
    assert rows == 128 or s_curve(threshold, 128 // more, more) < 0.95
    assert MinHash(bands=14, rows=8).banding() == (14, 8)


def test_the_curve_is_the_published_one():
    # datatrove's documentation: 14 bands of 8 rows, threshold .72, find 0.8 with .924
    assert s_curve(0.8, 14, 8) == pytest.approx(0.924, abs=5e-4)
    assert s_curve([0, 1], 14, 8).tolist() == [0, 1]
    assert s_curve((1 / 14) ** (1 / 8), 14, 8) == pytest.approx(1 - (1 - 1 / 14) ** 14)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"threshold": 0.0}, r"threshold is 0.0.*\(0, 1\]"),
        ({"threshold": 1.5}, "threshold is 1.5"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"ngram": 0}, "ngram is 0"),
        ({"hashes": 4}, "hashes is 4"),
        ({"recall": 1.0}, "recall is 1.0"),
        ({"bands": 3}, "both bands and rows"),
        ({"bands": 0, "rows": 3}, "bands is 0"),
        ({"bands": 500, "rows": 60}, "4,096 at most"),
        ({"memory": 0}, "memory is 0"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, said):
    with pytest.raises(DataError, match=said):
        MinHash(**wrong)


def test_texts_that_grow_while_they_are_read_are_refused():
    rng = random.Random(7)
    one = " ".join(words(rng, 50))
    calls = []

    def texts():
        calls.append(1)
        return [pa.array([one, one + " a"] + ["more"] * (len(calls) - 1))]

    with pytest.raises(DataError, match="changed while they were read"):
        near_duplicates(texts, MinHash(threads=1))
