"""Filters against numpy's own order statistics and set algebra; their language against its own writing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.curation.filters import (
    And,
    Band,
    Minus,
    Or,
    Share,
    Threshold,
    band,
    bottom,
    keep,
    threshold,
    top,
)
from posterhall.curation.language import parse
from posterhall.errors import DataError, UsageError

NAMES = ("perplexity", "words", "ümlaut_2", "_x")
percents = st.integers(1, 9999).map(lambda n: n / 10_000)
numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)
leaves = st.one_of(
    st.builds(
        Threshold, st.sampled_from(NAMES), st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), numbers
    ),
    st.builds(Share, st.sampled_from(NAMES), st.sampled_from(["top", "bottom"]), percents),
    st.tuples(st.sampled_from(NAMES), percents, percents)
    .filter(lambda t: t[1] < t[2])
    .map(lambda t: Band(*t)),
)
trees = st.recursive(
    leaves, lambda inner: st.one_of(*(st.builds(c, inner, inner) for c in (And, Or, Minus))), max_leaves=8
)
columns = st.lists(st.one_of(st.just(math.nan), st.floats(-10, 10)), min_size=1, max_size=30)


@given(trees)
def test_what_a_filter_writes_reads_as_the_same_filter(tree):
    assert parse(str(tree), {}) == tree


@given(trees, st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_composition_is_set_algebra_and_every_dropped_row_has_a_reason(tree, rows, seed):
    rng = np.random.default_rng(seed)
    scores = {
        name: np.where(rng.random(rows) < 0.1, np.nan, rng.integers(-5, 5, rows) * 1.0) for name in NAMES
    }

    def sets(node):
        if isinstance(node, And):
            return sets(node.left) & sets(node.right)
        if isinstance(node, Or):
            return sets(node.left) | sets(node.right)
        if isinstance(node, Minus):
            return sets(node.left) - sets(node.right)
        return set(np.flatnonzero(node.fit(scores).kept).tolist())

    fitted = tree.fit(scores)
    assert set(np.flatnonzero(fitted.kept).tolist()) == sets(tree)
    for row in np.flatnonzero(~fitted.kept).tolist():
        reason = fitted.reason(row)
        assert reason.text
        assert reason.filter


@given(columns, st.integers(1, 100))
def test_shares_are_the_order_statistics(column, percent):
    values = np.array(column)
    known = np.sort(values[~np.isnan(values)])
    many = -(-percent * len(known) // 100)  # exact in integers
    low, high = bottom("s", percent / 100).fit({"s": values}), top("s", percent / 100).fit({"s": values})
    expected = set(known[:many].tolist())
    assert set(values[low.kept].tolist()) == expected
    assert set(values[high.kept].tolist()) == (set(known[-many:].tolist()) if many else set())
    assert low.kept.sum() >= many
    if len(set(known.tolist())) == len(known):
        assert low.kept.sum() == high.kept.sum() == many


def test_a_band_keeps_the_middle_and_its_ends():
    values = np.arange(100.0)[::-1].copy()
    kept = band("s", 25, 75).fit({"s": values}).kept
    assert sorted(values[kept]) == list(np.arange(25.0, 75.0))
    whole = band("s", 0, 100).fit({"s": values}).kept
    assert whole.all()


def test_shares_are_of_the_whole_pool_inside_an_expression():
    scores = {"a": np.array([1.0, 2.0, 3.0, 4.0]), "b": np.array([4.0, 3.0, 2.0, 1.0])}
    assert parse("a bottom 50% & b bottom 50%", {}).fit(scores).kept.tolist() == [False] * 4
    assert parse("a bottom 50% | b bottom 50%", {}).fit(scores).kept.tolist() == [True] * 4
    assert parse("a bottom 75% - a bottom 25%", {}).fit(scores).kept.tolist() == [False, True, True, False]


def test_a_row_without_a_score_is_kept_by_no_comparison():
    scores = {"s": np.array([np.nan, 1.0])}
    for text in ("s < 5", "s != 7", "s top 100%", "s bottom 100%", "s band 0%-100%"):
        fitted = parse(text, {}).fit(scores)
        assert fitted.kept.tolist() == [False, True]
        assert fitted.reason(0).text == "no score 's'"
        assert math.isnan(fitted.reason(0).value)


def test_reasons_say_value_and_limit():
    scores = {"words": np.array([3.0, 60.0, 70.0]), "ppl": np.array([1.0, 99.0, 2.0])}
    fitted = (threshold("words", ">=", 50) & bottom("ppl", 0.5)).fit(scores)
    assert fitted.kept.tolist() == [False, False, True]
    assert fitted.reason(0).text == "words 3 is not >= 50"
    assert (fitted.reason(1).filter, fitted.reason(1).value) == ("ppl bottom 50%", 99.0)
    assert fitted.reason(1).text == "ppl 99 is above 2"
    minus = (threshold("words", ">", 0) - threshold("ppl", ">", 50)).fit(scores)
    assert minus.reason(1).text == "is in: ppl > 50"
    either = (threshold("words", ">", 65) | threshold("ppl", "<", 0)).fit(scores)
    assert "and" in either.reason(0).text
    with pytest.raises(UsageError, match="is kept"):
        fitted.reason(2)


def test_keeping_nothing_is_an_error_with_the_range_seen():
    scores = {"words": np.array([3.0, 60.0, np.nan])}
    with pytest.raises(
        DataError, match=r"keep none of 3 rows\. Seen: words: 3 to 60, median 31\.5, 1 without"
    ):
        keep(threshold("words", ">", 100), scores)
    with pytest.raises(DataError, match="no row has this score"):
        keep(top("words", 0.5), {"words": np.array([np.nan])})
    with pytest.raises(DataError, match="empty"):
        keep(top("words", 0.5), {"words": np.zeros(0)})
    with pytest.raises(DataError, match="Did you mean: words"):
        threshold("word", ">", 1).fit(scores)


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("", 1, "expected the name"),
        ("words", 6, "expected a comparison"),
        ("words >", 8, "expected a number"),
        ("words > -", 10, "expected a number"),
        ("words >= 50 &", 14, "expected the name"),
        ("words > 1 words < 2", 11, "expected &"),
        ("(words > 1", 11, r"expected \)"),
        ("words > 1)", 10, "expected &"),
        ("words top 25", 11, r"did you mean 25%\?"),
        ("words top 0%", 11, "above 0%"),
        ("words top 101%", 11, "up to 100%"),
        ("words botom 5%", 7, "Did you mean: bottom"),
        ("words band 75-25%", 7, "the lower end first"),
        ("words band 25-75", 7, r"did you mean 25-75%\?"),
        ("words band 25%", 15, "expected - between"),
        ("words band 25%-75", 18, "expected %"),
        ("words @ 3", 7, "no part of a filter"),
        ("words > 1e999", 9, "finite"),
        ("gopher > 3 gopher", 12, "expected &"),
        ("__import__('os')", 12, "no part of a filter"),
        ("(" * 99 + "a<1" + ")" * 99, 52, "nested"),
    ],
)
def test_what_is_wrong_is_pointed_at(text, place, message):
    with pytest.raises(UsageError, match=message) as caught:
        parse(text)
    assert f"character {place}:" in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_a_filter_or_a_usage_error(text):
    try:
        found = parse(text)
    except UsageError:
        return
    assert parse(str(found)) == found


def test_words_stand_for_signs_and_bind_alike():
    assert parse("a<1 and b<2 or c<3 minus d<4", {}) == parse("(a<1 & b<2) | (c<3 - d<4)", {})
    assert parse("a band 25 to 75%", {}) == parse("a band 0.25-0.75", {})
    assert str(parse("gopher_quality")).startswith("words >= 50 & words <= 100000")


@pytest.mark.parametrize(
    "make",
    [
        lambda: top("a", 25),
        lambda: bottom("a", 0),
        lambda: band("a", 75, 25),
        lambda: threshold("a", "=", 1),
        lambda: threshold("a b", "<", 1),
        lambda: threshold("a", "<", math.nan),
        lambda: Share("a", "middle", 0.5),
        lambda: top("a", 0.5) & True,
    ],
)
def test_filters_out_of_range_are_refused(make):
    with pytest.raises(UsageError):
        make()
