"""Shared passages, against comparing all windows of all documents."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterhall.curation.dedup import Substring, shared_spans
from posterhall.curation.dedup import substring as module
from posterhall.curation.dedup.suffixes import suffix_array
from posterhall.errors import DataError


@settings(max_examples=200)
@given(st.lists(st.sampled_from([0, 1, 2, 255]), max_size=60) | st.binary(max_size=60))
def test_suffixes_come_in_the_order_that_sorting_gives(letters):
    text = bytes(letters)
    order = sorted(range(len(text)), key=lambda i: text[i:])
    assert suffix_array(np.frombuffer(text, np.uint8)).tolist() == order


@pytest.mark.parametrize("text", [b"a" * 5000, b"ab" * 3000, b"abcabcab" * 700, bytes(range(256)) * 20])
def test_suffixes_of_text_that_repeats_itself(text):
    array = suffix_array(np.frombuffer(text, np.uint8))
    assert array.tolist() == sorted(range(len(text)), key=lambda i: text[i:])


def windows(text, n):
    return [text[i : i + n] for i in range(len(text) - n + 1)]


def by_brute_force(docs, n):
    """(spans, repeats, match of keep=none, match of keep=first) from a table of all windows."""
    have = {}
    for d, doc in enumerate(docs):
        for window in windows(doc, n):
            owners = have.setdefault(window, [])
            if owners[-1:] != [d]:
                owners.append(d)
    found = ([], [])
    for d, doc in enumerate(docs):
        for earlier_only, out in zip((False, True), found, strict=True):
            rows = []
            for i, window in enumerate(windows(doc, n)):
                if have[window][0] < d or (not earlier_only and len(have[window]) > 1):
                    if rows and i <= rows[-1][2]:
                        rows[-1][2] = i + n
                    else:
                        rows.append([d, i, i + n])
            out += rows
    none, first, kept = [], [], set()
    for d, doc in enumerate(docs):
        with_it = {o for window in windows(doc, n) for o in have[window]} - {d}
        none.append(min(with_it, default=-1))
        first.append(min(with_it & kept, default=-1))
        if first[-1] < 0:
            kept.add(d)
    return *found, none, first


DOCUMENTS = st.sampled_from(["ab", "aé", "a中😀é", "abcdefgh"]).flatmap(
    lambda letters: st.lists(st.text(st.sampled_from(letters), max_size=25), max_size=7)
)


@settings(max_examples=150)
@given(DOCUMENTS, st.sampled_from([1, 2, 3, 5, 8]), st.sampled_from(["suffix-array", "sampled", "bounded"]))
def test_both_searches_find_what_comparing_all_windows_finds(docs, n, search):
    spans, repeats, none, first = by_brute_force(docs, n)
    how = {"search": "sampled", "memory": 64} if search == "bounded" else {"search": search}
    for keep, match in (("none", none), ("first", first)):
        found = shared_spans(docs, Substring(length=n, keep=keep, threads=1, **how))
        assert found.match.tolist() == match
        assert found.keep.tolist() == [m < 0 for m in match]
        assert found.spans.tolist() == spans
        assert found.repeats.tolist() == repeats


@pytest.fixture(scope="module")
def planted():
    """Random text, with passages of 30 to 300 characters copied from one document to others."""
    rng = random.Random(0)
    letters = "etaoin shrdlu é中"
    docs = ["".join(rng.choices(letters, k=rng.randint(50, 3000))) for _ in range(200)]
    for _ in range(80):
        source = rng.choice(docs)
        start, size = rng.randrange(len(source)), rng.randint(30, 300)
        passage = source[start : start + size]
        into = rng.randrange(len(docs))
        at = rng.randrange(len(docs[into]))
        docs[into] = docs[into][:at] + passage + docs[into][at:]
    return docs


def test_both_searches_agree_on_longer_text_and_with_the_truth(planted):
    spans, repeats, none, first = by_brute_force(planted, 100)
    assert 20 < sum(m >= 0 for m in none) < 180
    for how in (
        {"search": "suffix-array", "threads": 1},
        {"search": "sampled", "threads": 2},
        {"search": "sampled", "memory": 50_000, "threads": 1},
        {"search": "sampled", "seed": 5, "threads": 1},
    ):
        found = shared_spans(planted, Substring(keep="first", **how))
        assert found.match.tolist() == first
        assert found.spans.tolist() == spans
        assert found.repeats.tolist() == repeats
        assert shared_spans(planted, Substring(**how)).match.tolist() == none


def test_the_sampled_search_sorts_only_what_may_be_shared_and_can_spill(planted):
    texts = pa.array(planted)
    found = shared_spans(
        lambda: (texts[i : i + 50] for i in range(0, 200, 50)), Substring(memory=50_000, threads=1)
    )
    whole = shared_spans(planted, Substring(threads=1))
    assert found.spans.tolist() == whole.spans.tolist()
    assert whole.facts["bytes_sorted"] < whole.facts["bytes"] / 3
    assert found.facts["parts"] > 1
    assert found.facts["bytes_on_disk"] > 0


def test_length_is_counted_in_characters_not_bytes():
    shared = "é中😀" * 33  # 99 characters, 297 bytes
    short = shared_spans(["x" + shared + "y", "z" + shared + "w"], Substring(threads=1))
    long = shared_spans(["x" + shared + "ab", "z" + shared + "aw"], Substring(threads=1))
    assert short.keep.all()
    assert not long.keep.any()
    assert long.spans.tolist() == [[0, 1, 101], [1, 1, 101]]


def test_characters_that_share_bytes_do_not_match():
    # é = C3 A9, ê = C3 AA: a common byte is not a common character
    docs = ["a" * 99 + "é", "a" * 99 + "ê"]
    assert shared_spans(docs, Substring(length=100, threads=1)).keep.all()
    assert not shared_spans(docs, Substring(length=99, threads=1)).keep.any()


def test_no_match_crosses_from_one_document_to_the_next():
    docs = ["abc", "def", "abc def", "c", "d"]
    for search in ("sampled", "suffix-array"):
        found = shared_spans(docs, Substring(length=4, search=search, threads=1))
        assert found.keep.all()


def test_repeating_oneself_is_not_sharing():
    assert shared_spans(["ab" * 300, "other " * 5], Substring(threads=1)).keep.all()


def test_keep_first_compares_with_documents_that_stay():
    a, b = "a" * 100, "b" * 100
    docs = [a, a + " " + b, b]  # the second goes; what it shared with the third is then only there
    first = shared_spans(docs, Substring(keep="first", threads=1))
    none = shared_spans(docs, Substring(keep="none", threads=1))
    assert first.keep.tolist() == [True, False, True]
    assert none.keep.tolist() == [False, False, False]
    assert none.match.tolist() == [1, 0, 1]


def test_cutting_leaves_the_first_or_no_copy():
    shared = "s" * 120
    docs = ["one " + shared + " end", shared, "two" + shared + "mid" + shared]
    found = shared_spans(docs, Substring(threads=1))
    assert [found.cut(i, d, "first") for i, d in enumerate(docs)] == [docs[0], "", "twomid"]
    assert [found.cut(i, d, "none") for i, d in enumerate(docs)] == ["one  end", "", "twomid"]


@given(DOCUMENTS)
def test_cutting_leaves_what_no_earlier_text_has_a_window_over(docs):
    found = shared_spans(docs, Substring(length=3, threads=1))
    for i, doc in enumerate(docs):
        earlier = {window for other in docs[:i] for window in windows(other, 3)}
        gone = {p for k, window in enumerate(windows(doc, 3)) if window in earlier for p in range(k, k + 3)}
        assert found.cut(i, doc) == "".join(letter for p, letter in enumerate(doc) if p not in gone)


@pytest.mark.parametrize("docs", [[], [""], ["", ""], ["one alone " * 50], ["same " * 50] * 300])
@pytest.mark.parametrize("search", ["sampled", "suffix-array"])
def test_degenerate_pools(docs, search):
    found = shared_spans(docs, Substring(keep="first", search=search, threads=2))
    assert found.keep.sum() == (len(docs) if len(set(docs)) == len(docs) or not docs[0] else 1)


def test_the_table_says_which_spans_repeat():
    shared, other = "s" * 120, "o" * 110
    found = shared_spans([shared + "x" + other, other, "y" + shared], Substring(threads=1))
    rows = found.table(["a", "b", "c"]).to_pylist()
    assert [(r["uid"], r["start"], r["stop"], r["repeat"]) for r in rows] == [
        ("a", 0, 120, False), ("a", 121, 231, False), ("b", 0, 110, True), ("c", 1, 121, True)
    ]  # fmt: skip


def test_the_suffix_array_refuses_what_memory_cannot_hold():
    with pytest.raises(DataError, match="search=sampled"):
        shared_spans(["a" * 1000], Substring(search="suffix-array", memory=10_000))


@pytest.mark.parametrize("wrong", [{"length": 0}, {"threads": 0}, {"memory": -1}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(DataError, match=next(iter(wrong))):
        Substring(**wrong)


def test_sets_that_recur_are_written_once_or_so(monkeypatch):
    """The memory of hashes that saves writing a set again is lossy; the answer may not depend on it."""
    rng = random.Random(1)
    docs = ["".join(rng.choices("ab", k=200)) for _ in range(40)]
    wide = shared_spans(docs, Substring(length=8, keep="first", threads=1))
    monkeypatch.setattr(module, "_SEEN", 1)
    narrow = shared_spans(docs, Substring(length=8, keep="first", threads=1))
    assert narrow.match.tolist() == wide.match.tolist()
