"""Huffman codes, noise tables, subsampling and windows against their definitions."""

import heapq
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from posterhall.embeddings import sampling
from posterhall.embeddings.huffman import huffman_tree
from posterhall.embeddings.plans import Planner, Renumbering
from posterhall.embeddings.settings import Word2VecSettings
from posterhall.errors import DataError

descending = st.lists(st.integers(1, 10**6), min_size=2, max_size=60).map(lambda x: sorted(x, reverse=True))


def optimal_cost(counts):
    """Total length of an optimal code: the sum of all merged weights (Huffman 1952), with a heap."""
    heap = list(counts)
    heapq.heapify(heap)
    cost = 0
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        cost += merged
        heapq.heappush(heap, merged)
    return cost


@given(descending)
def test_huffman_code_is_prefix_free_and_optimal(counts):
    tree = huffman_tree(np.array(counts, np.int64))
    codes = [tree.code(w) for w in range(len(counts))]
    for a, b in zip(sorted(codes), sorted(codes)[1:], strict=False):
        assert not b.startswith(a)
    assert sum(2.0 ** -len(c) for c in codes) == 1.0  # complete: Kraft's inequality with equality
    assert sum(c * len(code) for c, code in zip(counts, codes, strict=True)) == optimal_cost(counts)


@given(descending)
def test_huffman_paths_start_at_the_root_and_spell_the_code(counts):
    tree = huffman_tree(np.array(counts, np.int64))
    branches = {}
    for word in range(len(counts)):
        path = tree.nodes[tree.start[word] : tree.start[word + 1]]
        bits = tree.bits[tree.start[word] : tree.start[word + 1]]
        assert path[0] == len(counts) - 2
        for node, bit, child in zip(path, bits, [*path[1:].tolist(), ("leaf", word)], strict=True):
            assert branches.setdefault((int(node), int(bit)), child) == child
    assert len(branches) == 2 * (len(counts) - 1)


def test_code_longer_than_forty_bits_is_kept_whole():  # word2vec.c writes past its 40 slots
    fibonacci = [1, 1]
    while len(fibonacci) < 60:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    tree = huffman_tree(np.array(fibonacci[::-1], np.int64))
    assert np.diff(tree.start).max() == 59


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=80))
@settings(max_examples=50)
def test_alias_table_holds_exactly_the_distribution(weights):
    p = np.array(weights) / np.sum(weights)
    thresholds, alias = sampling.alias_table(p)
    share = (thresholds.astype(np.float64) + 1) / 2.0**32
    implied = share / len(p)
    np.add.at(implied, alias, (1 - share) / len(p))
    np.testing.assert_allclose(implied, p, atol=1e-9)


def test_keep_probability_by_paper_and_by_code():
    counts = np.array([100_000, 10_000, 261, 1], np.int64)
    counts = np.append(counts, 1_000_000 - counts.sum())  # total 1e6, so f is 0.1, 0.01, 0.000261...
    paper = sampling.keep_probability(counts, 1e-4, "paper")
    code = sampling.keep_probability(counts, 1e-4, "code")
    np.testing.assert_allclose(paper[:2], [np.sqrt(1e-3), 0.1])
    np.testing.assert_allclose(code[:2], [np.sqrt(1e-3) + 1e-3, 0.11])  # .11 against .10 at f = 100 t
    assert code[2] == 1.0  # the code starts to discard at f = 2.618 t
    assert paper[2] < 1.0
    assert paper[3] == code[3] == 1.0
    assert (sampling.keep_probability(counts, 0.0, "code") == 1).all()


def planned(tokens, **changes):
    s = Word2VecSettings(**{"subsample": 0.0, "min_count": 1, **changes})
    counts = np.array(changes.pop("counts", [40, 30, 20, 10]), np.int64)
    return Planner(s, counts).plan(np.asarray(tokens, np.int32), 7)


def test_windows_never_cross_sentences_and_reach_uniformly():
    tokens = np.tile(np.array([0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, -1], np.int32), 3000)
    plan = planned(tokens, window=4)
    ends = np.flatnonzero(tokens < 0)
    assert plan.n == (tokens >= 0).sum()
    sentence = np.repeat(np.arange(len(ends)), 11)
    assert (sentence[plan.lo[: plan.n]] == sentence).all()
    assert (sentence[plan.hi[: plan.n] - 1] == sentence).all()
    middle = np.arange(plan.n) % 11 == 5
    reach = (np.arange(plan.n) - plan.lo[: plan.n])[middle]
    assert stats.chisquare(np.bincount(reach, minlength=5)[1:]).pvalue > 1e-3


def test_fixed_windows_reach_all_the_way():
    plan = planned([0, 1, 2, 3, 0, 1], window=2, shrink_windows=False)
    assert plan.lo[:6].tolist() == [0, 0, 0, 1, 2, 3]
    assert plan.hi[:6].tolist() == [3, 4, 5, 6, 6, 6]


def test_long_sentences_are_cut_at_max_sentence():
    plan = planned([0] * 25, window=30, shrink_windows=False, max_sentence=10)
    assert set(zip(plan.lo[:25].tolist(), plan.hi[:25].tolist(), strict=True)) == {
        (0, 10),
        (10, 20),
        (20, 25),
    }


def test_subsampling_thins_words_out_as_promised():
    counts = np.array([500_000, 300_000, 150_000, 50_000], np.int64)
    s = Word2VecSettings(subsample=1e-2, subsample_formula="paper")
    planner = Planner(s, counts)
    tokens = np.repeat(np.arange(4, dtype=np.int32), 20_000)
    kept = Counter()
    for part in range(0, len(tokens), 1000):
        plan = planner.plan(tokens[part : part + 1000], part)
        kept.update(plan.kept[: plan.n].tolist())
    want = sampling.keep_probability(counts, 1e-2, "paper")
    for word in range(4):
        assert stats.binomtest(kept[word], 20_000, want[word]).pvalue > 1e-3


@pytest.mark.parametrize("exponent", [0.0, 0.75, 1.0])
def test_noise_words_follow_the_exponent(exponent):
    counts = np.array([4000, 1000, 500, 100, 10], np.int64)
    s = Word2VecSettings(subsample=0, noise_exponent=exponent, negative=8, loss="nce", min_count=1)
    plan = Planner(s, counts).plan(np.zeros(20_000, np.int32), 3)
    drawn = plan.rows[: plan.start[plan.n]][plan.signs[: plan.start[plan.n]] < 0]
    p = counts.astype(float) ** exponent
    assert stats.chisquare(np.bincount(drawn, minlength=5), p / p.sum() * len(drawn)).pvalue > 1e-3


def test_noise_equal_to_the_centre_is_left_out_for_negative_sampling_only():
    tokens = np.zeros(500, np.int32)
    for loss, expected in (("negative", False), ("nce", True)):
        s = Word2VecSettings(subsample=0, loss=loss, min_count=1)
        plan = Planner(s, np.array([9, 1], np.int64)).plan(tokens, 3)
        rows, signs = plan.rows[: plan.start[plan.n]], plan.signs[: plan.start[plan.n]]
        assert bool((rows[signs < 0] == 0).any()) is expected


def test_centres_share_a_draw_as_told():
    s = Word2VecSettings(subsample=0, loss="nce", min_count=1, noise_shared=3, negative=4)
    plan = Planner(s, np.full(1000, 5, np.int64)).plan(np.arange(9, dtype=np.int32), 3)
    noise = plan.rows[: 9 * 5].reshape(9, 5)[:, 1:]
    assert (noise[0:3] == noise[0]).all()
    assert (noise[3:6] == noise[3]).all()
    assert (noise[0] != noise[3]).any()


@given(st.lists(st.lists(st.integers(0, 30), max_size=20), max_size=5))
def test_renumbering_is_a_dense_bijection(batches):
    renumbering = Renumbering(31)
    for batch in batches:
        ids = np.array([*batch, 0, 0], np.int32)  # longer than n, as plans' arrays are
        original = ids.copy()
        renumbering.apply(ids, len(batch))
        rows = renumbering.rows
        np.testing.assert_array_equal(rows[ids[: len(batch)]], original[: len(batch)])
        assert len(set(rows.tolist())) == len(rows)
    renumbering.clear()
    assert len(renumbering.rows) == 0


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"dim": 0}, "dim"),
        ({"window": 0}, "window"),
        ({"negative": 0}, "negative"),
        ({"alpha": -1.0}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"subsample": 1.5}, "subsample"),
        ({"epochs": 0}, "epochs"),
        ({"noise_shared": 0}, "noise_shared"),
        ({"max_vocabulary": 1}, "max_vocabulary"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(changes, word):
    with pytest.raises(DataError, match=word):
        Word2VecSettings(**changes)
