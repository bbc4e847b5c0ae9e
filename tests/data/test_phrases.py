"""Phrases against a plain reading of word2phrase, against gensim, and against themselves."""

from __future__ import annotations

import gzip
import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from posterhall.data.corpus import Corpus
from posterhall.data.phrases import ENGLISH_CONNECTORS, Phrases, score
from posterhall.errors import DataError, UsageError

_sentences = st.lists(
    st.lists(st.sampled_from([*"abcdef", "a_b", "of", "the"]), max_size=9), min_size=1, max_size=12
)
_connectors = st.sampled_from([(), ("of",), ("of", "the")])


def plain_pass(sentences, *, min_count, threshold, discount, connectors):
    """One pass of word2phrase (with gensim's connectors), written without any of its data structures."""
    words = Counter(itertools.chain.from_iterable(sentences))
    pairs: Counter[tuple[str, ...]] = Counter()

    def candidates(sentence):
        """(first position, last position) of neighbouring non-connectors."""
        places = [i for i, word in enumerate(sentence) if word not in connectors]
        return list(itertools.pairwise(places))

    for sentence in sentences:
        for i, j in candidates(sentence):
            pairs[tuple(sentence[i : j + 1])] += 1
    scores = {}
    for parts, n in pairs.items():
        a, b = words[parts[0]], words[parts[-1]]
        value = (n - discount) / (a * b) * words.total()
        if min(a, b, n) >= min_count and value > threshold:
            scores[parts] = (n, value)
    joined = []
    for sentence in sentences:
        spans, busy = [], -1
        for i, j in candidates(sentence):
            if i > busy and tuple(sentence[i : j + 1]) in scores:
                spans.append((i, j))
                busy = j
        out, at = [], 0
        for i, j in spans:
            out += [*sentence[at:i], "_".join(sentence[i : j + 1])]
            at = j + 1
        joined.append(out + sentence[at:])
    return scores, joined


@settings(max_examples=200, deadline=None)
@given(
    _sentences,
    _connectors,
    st.integers(1, 3),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.lists(st.sampled_from([0.3, 0.9, 1.1, 2.0]), min_size=1, max_size=3),
    st.sampled_from([1, 3, 4_000_000]),
)
def test_equals_a_plain_word2phrase(sentences, connectors, min_count, discount, thresholds, max_pairs):
    assume(any(sentences))
    phrases = Phrases(
        min_count=min_count,
        threshold=thresholds,
        discount=discount,
        connectors=connectors,
        passes=len(thresholds),
        max_pairs=max_pairs,
    ).fit(sentences)
    stream = sentences
    for level, threshold in enumerate(thresholds):
        found, stream = plain_pass(
            stream, min_count=min_count, threshold=threshold, discount=discount, connectors=connectors
        )
        if not found:
            assert phrases.passes_[level:] == []
            break
        ours = {phrase.parts: phrase for phrase in phrases.passes_[level]}
        assert len(ours) == len(phrases.passes_[level])
        assert {parts: phrase.count for parts, phrase in ours.items()} == {
            parts: n for parts, (n, _) in found.items()
        }
        for parts, (_, value) in found.items():
            assert ours[parts].score == pytest.approx(value, rel=1e-12)
    assert list(phrases.transform(sentences)) == stream


@settings(max_examples=100, deadline=None)
@given(
    _sentences,
    _connectors,
    st.integers(0, 2),
    st.sampled_from(["gensim", "npmi"]),
    st.sampled_from([0.2, 0.6, 1.5]),
)
def test_equals_gensim(sentences, connectors, min_count, scorer, threshold):
    from gensim.models.phrases import Phrases as Gensim

    sentences = [[word for word in s if word != "a_b"] for s in sentences]  # gensim takes it for a bigram
    assume(any(sentences))
    assume(scorer == "gensim" or threshold < 1)
    theirs = Gensim(
        sentences,
        min_count=max(min_count, 1),
        threshold=threshold,
        scoring={"gensim": "default", "npmi": "npmi"}[scorer],
        connector_words=frozenset(connectors),
    )
    ours = Phrases(
        min_count=1 if scorer == "gensim" else max(min_count, 1),
        discount=max(min_count, 1),
        threshold=threshold,
        scorer=scorer,
        connectors=connectors,
    ).fit(sentences)
    expected = theirs.export_phrases()
    if scorer == "npmi":  # gensim divides 0 by 0 where a pair is the whole corpus
        expected = {name: value for name, value in expected.items() if not math.isnan(value)}
    assert {name: p.score for name, p in ours.phrases_.items()} == pytest.approx(expected, rel=1e-9)
    assert list(ours.transform(sentences)) == [list(theirs[s]) for s in sentences]


def text_of(sentences, ending):
    return "\n".join(" ".join(s) for s in sentences) + ending


@settings(max_examples=150, deadline=None)
@given(_sentences, _connectors, st.integers(16, 80), st.integers(1, 2), st.sampled_from(["", "\n"]))
def test_text_is_joined_alike_in_any_blocks(tmp_path_factory, sentences, connectors, block, threads, ending):
    assume(any(sentences))
    folder = tmp_path_factory.getbasetemp()
    source, target = folder / "in.txt", folder / "out.txt.gz"
    source.write_text(text_of(sentences, ending))
    phrases = Phrases(
        min_count=1, threshold=[1.0, 0.5], discount=0, connectors=connectors, passes=2, threads=threads
    ).fit(Corpus(source, block_bytes=block))
    assert (
        phrases.phrases_
        == Phrases(min_count=1, threshold=[1.0, 0.5], discount=0, connectors=connectors, passes=2)
        .fit(sentences)
        .phrases_
    )
    joined = list(phrases.transform(sentences))
    read, written = phrases.write(Corpus(source, block_bytes=block), target)
    assert gzip.decompress(target.read_bytes()).decode() == text_of(joined, ending)
    assert read == sum(map(len, sentences))
    assert written == sum(map(len, joined))
    lines = list(phrases.transform(Corpus(source, block_bytes=block)))
    assert [s for s in lines if s] == [s for s in joined if s]


def test_a_phrase_at_a_block_border_in_a_line_without_end(tmp_path):
    """Greedy joining depends on where a sentence began: a cut must not shift the pairs."""
    source = tmp_path / "in.txt"
    source.write_text("x " + "a a a " * 2000 + "x")
    phrases = Phrases(min_count=1, threshold=0.1, discount=0).fit([["a", "a", "b"], ["b"]])
    assert list(phrases.phrases_) == ["a_a", "a_b"]
    phrases.write(Corpus(source, block_bytes=64), tmp_path / "out.txt")
    assert (tmp_path / "out.txt").read_text() == "x " + "a_a " * 3000 + "x"


def test_lines_begin_with_a_word_and_stay_lines(tmp_path):
    source, target = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("  new york \t is\r\n\n\nin new  york\nno newline new york")
    phrases = Phrases(min_count=2, threshold=1, discount=1).fit(source)
    assert list(phrases.phrases_) == ["new_york"]
    assert phrases.write(source, target) == (10, 7)
    assert target.read_text() == "new_york is\n\n\nin new_york\nno newline new_york"
    assert list(phrases.transform(source)) == [
        ["new_york", "is"], [], [], ["in", "new_york"], ["no", "newline", "new_york"],
    ]  # fmt: skip
    with source.open() as lines:  # an open file brings its own newlines
        assert list(phrases.transform(lines)) == list(phrases.transform(source))
    phrases.write(source, source)  # in place
    assert source.read_bytes() == target.read_bytes()


def test_phrases_do_not_cross_sentences_or_files(tmp_path):
    for i in range(6):
        (tmp_path / f"{i}").write_text("york\nis new" if i % 2 else "york is new")
    phrases = Phrases(min_count=1, threshold=0, discount=0).fit([tmp_path / f"{i}" for i in range(6)])
    assert set(phrases.phrases_) == {"york_is", "is_new"}
    phrases.write([tmp_path / "0", tmp_path / "1"], tmp_path / "out")
    assert (tmp_path / "out").read_text() == "york_is new\nyork\nis_new"


def test_connectors_inside_and_passes_above():
    base = [["the", "bank", "of", "america", "tower"], ["by", "the", "river"], ["a", "tower"], ["bank"]] * 30
    phrases = Phrases(min_count=5, threshold=[2, 1], connectors=ENGLISH_CONNECTORS, passes=2).fit(base)
    assert phrases.phrases_["bank_of_america"].parts == ("bank", "of", "america")
    assert phrases.phrases_["bank_of_america_tower"].parts == ("bank_of_america", "tower")
    assert next(phrases.transform(base)) == ["the", "bank_of_america_tower"]
    assert "the_bank" not in phrases.phrases_


def test_scores_by_hand():
    pair, a, b = (np.array([n]) for n in (30, 50, 40))
    lift = score("lift", pair, a, b, words=1000, discount=5)
    assert lift == pytest.approx([25 / 2000 * 1000])
    assert score("paper", pair, a, b, words=1000, discount=5) == pytest.approx([0.0125])
    assert score("gensim", pair, a, b, words=1000, distinct=300, discount=5) == pytest.approx([3.75])
    # Bouma 2009: independence scores 0, words that never occur apart score 1.
    assert score("npmi", np.array([2]), a, b, words=1000) == pytest.approx([0], abs=1e-12)
    assert score("npmi", np.array([40]), np.array([40]), np.array([40]), words=1000) == pytest.approx([1])
    assert score("npmi", np.array([9]), np.array([9]), np.array([9]), words=9).tolist() == [1]
    # A pair seen just min_count times scores 0 with the same discount (gensim issue 2520).
    assert score("lift", np.array([5]), a, b, words=1000, discount=5).tolist() == [0]


def test_the_threshold_falls_by_half_to_the_one_given():
    assert Phrases(passes=3).thresholds == (400, 200, 100)
    assert Phrases(passes=2, threshold=7).thresholds == (14, 7)
    assert Phrases(passes=2, threshold=[7, 9]).thresholds == (7, 9)
    assert Phrases(passes=2, scorer="npmi").thresholds == (0.5, 0.5)


def test_saved_phrases_join_as_before(tmp_path):
    text = [list("abcabdabc"), list("ofof"), ["a", "of", "b"] * 4]
    phrases = Phrases(min_count=1, threshold=[0.8, 0.5], discount=0, passes=2, connectors=["of"]).fit(text)
    assert len(phrases.passes_) == 2
    phrases.save(tmp_path / "p.tsv")
    loaded = Phrases().load(tmp_path / "p.tsv")
    assert loaded.passes_ == phrases.passes_
    assert list(loaded.transform(text)) == list(phrases.transform(text))


@pytest.mark.parametrize(
    "line", ["one\t1\t1.0\t1", "a b\t1\t1.0", "a b\tx\t1.0\t1", "a b\t1\t1.0\t3", "a  b\t1\t1.0\t1"]
)
def test_a_bad_file_of_phrases_names_the_line(tmp_path, line):
    path = tmp_path / "p.tsv"
    path.write_text("a b\t5\t2.5\t1\n" + line + "\n")
    with pytest.raises(DataError, match="line 2: not a phrase"):
        Phrases().load(path)


def test_nothing_found_changes_nothing(tmp_path):
    phrases = Phrases().fit([["a", "b"]])
    assert phrases.phrases_ == {}
    assert list(phrases.transform([["a", "b"]])) == [["a", "b"]]


def test_misuse_is_refused(tmp_path):
    for options in (
        {"scorer": "pmi"}, {"min_count": 0}, {"passes": 0}, {"discount": -1}, {"delimiter": " "},
        {"delimiter": ""}, {"connectors": "the"}, {"threshold": [1, 2]}, {"scorer": "paper"},
        {"threshold": math.nan},
    ):  # fmt: skip
        with pytest.raises(UsageError):
            Phrases(**options)
    with pytest.raises(UsageError, match="fit a corpus first"):
        list(Phrases().transform([["a"]]))
    with pytest.raises(DataError, match="empty"):
        Phrases().fit([[]])
    with pytest.raises(DataError, match="not text"):
        Phrases(min_count=1, threshold=0, discount=0).fit([[1, 2, 1, 2]])
    with pytest.raises(DataError, match="only text is written"):
        Phrases().fit([["a", "b"]]).write([["a"]], tmp_path / "x")
    bad = tmp_path / "bad"
    bad.write_bytes(b"a b\n" * 100 + b"a \0 b")
    with pytest.raises(DataError, match=r"bad, line 101 \(byte 402\).*NUL"):
        Phrases().fit([["a", "b"]]).write(Corpus(bad, block_bytes=64), tmp_path / "x")
    assert not (tmp_path / "x").exists()
