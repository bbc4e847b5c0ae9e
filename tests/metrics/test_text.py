"""Text scores against brute force, published examples and properties of a metric."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.errors import DataError
from posterhall.metrics import text as score

tokens = st.lists(st.integers(-3, 3), max_size=8)
texts = st.text(max_size=8)


def levenshtein(a, b):
    """The textbook recurrence."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row, above = [i], row
        for j, y in enumerate(b, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (x != y)))
    return row[-1]


def longest_common(a, b):
    for size in range(len(a), -1, -1):
        for chosen in itertools.combinations(a, size):
            rest = iter(b)
            if all(each in rest for each in chosen):
                return size
    return 0


@given(st.lists(st.tuples(tokens, tokens), max_size=5))
def test_edit_distance_and_subsequence_are_the_textbooks(pairs):
    a, b = [p[0] for p in pairs], [p[1] for p in pairs]
    assert score.token_edit_distance(a, b).tolist() == [levenshtein(x, y) for x, y in pairs]
    assert score.lcs_length(a, b).tolist() == [longest_common(x, y) for x, y in pairs]


@given(texts, texts)
def test_character_distance_is_the_textbooks_in_any_script(a, b):
    assert score.char_edit_distance([a], [b]).tolist() == [levenshtein(a, b)]


@given(tokens, tokens, tokens)
def test_edit_distance_is_a_metric(a, b, c):
    ab, ba, bc, ac = score.token_edit_distance([a, b, b, a], [b, a, c, c])
    assert ab == ba
    assert (ab == 0) == (a == b)
    assert ac <= ab + bc
    assert abs(len(a) - len(b)) <= ab <= max(len(a), len(b))


def test_tokens_with_equal_hashes_are_told_apart():
    assert hash(2**61 - 1) == hash(0)
    assert score.token_edit_distance([[2**61 - 1]], [[0]]).tolist() == [1]
    assert score.token_edit_distance([np.array([1, 2])], [["1", 2]]).tolist() == [1]


def test_expected_edit_distance_is_length_times_error_rate():  # appendix A.3 prints 1 - error rate
    rng = np.random.default_rng(0)
    target = rng.integers(0, 1000, (4000, 5))
    wrong = rng.random(target.shape) < 0.1
    said = np.where(wrong, target + 1000, target)
    assert score.token_edit_distance(list(said), list(target)).mean() == pytest.approx(5 * 0.1, abs=0.03)
    assert score.exact_match(said.tolist(), target.tolist()).mean() == pytest.approx(0.9**5, abs=0.03)


def test_matches_by_position_and_what_independence_would_make_of_them():
    matches = score.position_matches([[1, 2, 3], [1], [9, 2, 3, 4]], [[1, 2, 3], [1, 2], [1, 2, 3]])
    assert np.array_equal(matches, [[1, 1, 1], [1, 0, np.nan], [0, 1, 1]], equal_nan=True)
    rng = np.random.default_rng(0)
    right = rng.random(5000) < 0.5  # wholly right or wholly wrong: as dependent as can be
    said = np.where(right[:, None], 1, 0) * np.ones((1, 4), int)
    target = np.ones((5000, 4), int)
    independent = score.position_matches(list(said), list(target)).mean(axis=0).prod()
    assert score.exact_match(said.tolist(), target.tolist()).mean() > 5 * independent
    assert score.position_matches([], []).shape == (0, 0)


def test_exact_match_of_texts_lists_and_tokens():
    assert score.exact_match(["38", "37", "The cat."], ["38", "38", ["a dog", "cat"]]).tolist() == [1, 0, 0]
    assert score.exact_match(["The cat."], [["a dog", "cat"]], normalise=score.normalised).tolist() == [1]
    assert score.exact_match([[1, 2], [1, 2], [1]], [[1, 2], [1, 2, 3], [2]]).tolist() == [1, 0, 0]


def test_rouge_l_of_lins_example():
    # Lin 2004, §3.1: of "police killed the gunman", "police kill the gunman" has 3/4, "the gunman kill
    # police" has 2/4.
    said = ["police kill the gunman", "the gunman kill police"]
    scores = score.rouge_l(said, ["police killed the gunman"] * 2)
    assert scores.f1.tolist() == [0.75, 0.5]


def test_summary_rouge_takes_the_union_over_sentences():
    # Lin 2004, §3.2: "w1 w2 w3 w4 w5" against "w1 w2 w6 w7 w8" and "w1 w3 w8 w9 w5": union w1 w2 w3 w5, 4/5.
    scores = score.rouge_l_sum(["w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5"], ["w1 w2 w3 w4 w5"])
    assert scores.recall.tolist() == [0.8]
    assert scores.precision.tolist() == [0.4]


@given(st.text("ab \n", max_size=12), st.text("ab \n", max_size=12))
def test_one_line_each_makes_both_rouge_l_equal(a, b):
    a, b = a.replace("\n", " "), b.replace("\n", " ")
    assert score.rouge_l([a], [b]).f1 == pytest.approx(score.rouge_l_sum([a], [b]).f1)
    for overlap in (score.rouge_l([a], [b]), score.rouge_n([a], [b], 1)):
        p, r = overlap.precision[0], overlap.recall[0]
        assert overlap.f1[0] == pytest.approx(2 * p * r / (p + r) if p + r else 0.0)


def test_rouge_n_clips_repeats():
    scores = score.rouge_n(["the the the cat"], ["the cat sat"], 1)
    assert (scores.precision[0], scores.recall[0]) == pytest.approx((2 / 4, 2 / 3))
    assert score.rouge_n(["a b c"], ["b c d"], 2).f1.tolist() == [0.5]
    assert score.rouge_n([""], ["a"], 2).f1.tolist() == [0.0]


def test_bleu_of_papinenis_examples():
    # Papineni et al. 2002, §2.1: "the" seven times against two references has modified precision 2/7.
    references = [["the", "cat", "is", "on", "the", "mat"], ["there", "is", "a", "cat", "on", "the", "mat"]]
    assert score.bleu([["the"] * 7], [references], max_n=1) == pytest.approx(2 / 7)
    assert score.bleu([["the", "cat"]], [references], max_n=1) == pytest.approx(math.exp(1 - 6 / 2))
    assert score.bleu([references[0]], [references]) == 1.0
    assert score.bleu([["dog"]], [references]) == 0.0


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("37", 37, 37),
        ("about 1,234.5 or 7", 1234.5, 7),
        ("-3e2 and .5", -300, 0.5),
        ("x = \N{MINUS SIGN}4.", -4, -4),
        ("12,34", 12, 34),
        ("none", None, None),
        ("", None, None),
        ("- . ,", None, None),
        ("1e999", math.inf, math.inf),
        ("9" * 400, math.inf, math.inf),
    ],
)
def test_numbers_are_read_from_text(text, first, last):
    assert score.parse_number(text) == first
    assert score.parse_number(text, "last") == last


def test_reading_numbers_takes_linear_time():
    assert score.parse_number("1," * 50_000 + "x", "last") == 1


def test_numeric_error_gives_credit_and_counts_what_it_could_not_read():
    errors = score.numeric_error(["37", "I do not know", "-38", "0", "3800"], [38, 38, 38, 0, 38])
    assert errors.absolute[[0, 2, 3, 4]].tolist() == [1, 76, 0, 3762]
    assert errors.relative[0] == pytest.approx(1 / 38)
    assert errors.log10[[0, 2, 3, 4]] == pytest.approx([math.log10(38 / 37), math.inf, 0, 2])
    assert np.isnan(errors.absolute[1])
    assert errors.unparsable == 1
    assert score.numeric_error(["1"], [0]).relative.tolist() == [math.inf]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: score.token_edit_distance(["abc"], ["abd"]), "char_edit_distance"),
        (lambda: score.char_edit_distance("abc", "abd"), "list"),
        (lambda: score.exact_match(["a"], ["a", "b"]), "1 predictions for 2"),
        (lambda: score.rouge_n(["a"], ["a"], 0), "one word or more"),
        (lambda: score.bleu([["a"]], [[]]), "item 0"),
        (lambda: score.numeric_error(["1"], ["none"]), "no finite number"),
    ],
)
def test_what_cannot_be_scored_is_refused(call, match):
    with pytest.raises(DataError, match=match):
        call()
