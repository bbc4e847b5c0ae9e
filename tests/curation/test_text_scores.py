"""Scores against plain Python."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterhall.curation.scores import NAMES, compute, scorer
from posterhall.errors import UsageError

LETTERS = st.sampled_from([*"ab \n\n.#-•…9é·", "\u3000", "\u0301", "漢", "🙂", "...", "the cat "])
texts = st.lists(LETTERS, max_size=60).map("".join)


def expected(text):
    """What each score is, by the words of its description."""
    import unicodedata

    words = text.split()
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    solid = [c for c in text if not c.isspace()]
    letter = [unicodedata.category(c)[0] in "LM" for c in solid]
    digit = [unicodedata.category(c) == "Nd" for c in solid]

    def share(part, whole):
        return part / whole if whole else np.nan

    ellipses = text.count("…")
    for run in "".join(c if c == "." else " " for c in text).split():
        ellipses += len(run) >= 3
    seen, again, again_chars = set(), 0, 0
    for line in lines:
        again += line in seen
        again_chars += len(line) * (line in seen)
        seen.add(line)
    found = {
        "chars": len(text),
        "words": len(words),
        "lines": len(lines),
        "mean_word_length": share(len(solid), len(words)),
        "digits": share(sum(digit), len(solid)),
        "symbols": share(sum(not (a or b) for a, b in zip(letter, digit, strict=True)), len(solid)),
        "symbol_ratio": share(max(text.count("#"), ellipses), len(words)),
        "bullet_lines": share(sum(line[0] in "•-·" for line in lines), len(lines)),
        "ellipsis_lines": share(sum(line.endswith(("...", "…")) for line in lines), len(lines)),
        "alphabetic_words": share(
            sum(any(unicodedata.category(c)[0] in "LM" for c in word) for word in words), len(words)
        ),
        "unique_words": share(len(set(words)), len(words)),
        "repeated_lines": share(again, len(lines)),
        "repeated_line_chars": share(again_chars, sum(map(len, lines))),
    }
    chars = sum(map(len, words))
    for n in range(2, 5):
        grams = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
        most = max(grams.values(), default=0)
        best = max((len("".join(g)) for g, c in grams.items() if c == most), default=0)
        found[f"top_{n}grams"] = share(min(most * best, chars) if most > 1 else 0, chars)
    for n in range(5, 11):
        before, covered = set(), set()
        for i in range(len(words) - n + 1):
            gram = tuple(words[i : i + n])
            if gram in before:
                covered |= set(range(i, i + n))
            before.add(gram)
        found[f"repeated_{n}grams"] = share(sum(len(words[i]) for i in covered), chars)
    return found


@settings(max_examples=50)
@given(st.lists(texts, min_size=1, max_size=5))
def test_scores_are_what_their_descriptions_say(given_texts):
    found = compute(list(NAMES), pa.array(given_texts))
    for i, text in enumerate(given_texts):
        for name, value in expected(text).items():
            assert found[name][i] == pytest.approx(value, nan_ok=True), name


@pytest.mark.parametrize("repeats", [2, 5, 40])
def test_a_text_that_repeats_itself_is_seen_to(repeats):
    rng = np.random.default_rng(0)
    text = " ".join(f"w{i}" for i in rng.integers(0, 10_000, 50))
    found = compute(
        ["repeated_10grams", "unique_words", "top_2grams"], pa.array([text, " ".join([text] * repeats)])
    )
    assert found["repeated_10grams"][0] == 0
    assert found["repeated_10grams"][1] == pytest.approx((repeats - 1) / repeats)
    assert found["unique_words"][1] < 1.01 / repeats


def test_columns_come_in_the_order_asked_and_only_those():
    batch = pa.RecordBatch.from_pylist([{"uid": "u", "text": "a b"}])
    assert list(scorer(["words", "chars"])(batch)) == ["words", "chars"]
    with pytest.raises(UsageError, match="Did you mean: words"):
        scorer(["wrds"])
