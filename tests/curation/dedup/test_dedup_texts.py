"""What a word is, and how texts come to the kernels."""

from __future__ import annotations

import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.curation.dedup.spool import Budget, Spool
from posterhall.curation.dedup.texts import alphabet, batches
from posterhall.errors import DataError

# No surrogates, and no NUL, which separates words here and not in str.split.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)


def letters_of(texts):
    return [
        b.data[b.offsets[i] : b.offsets[i + 1]].tobytes().decode()
        for b in batches(texts)
        for i in range(len(b))
    ]


@given(TEXT)
def test_without_normalising_words_are_those_of_split(text):
    assert alphabet(False).normalise(text) == " ".join(text.split())


def is_alone(letter):
    return any(letter.startswith(p) for p in ("CJK UNIFIED", "CJK COMPAT", "HIRAGANA", "KATAKANA"))


@given(st.text(st.sampled_from("aZ9 .,-_éÉßİſΣ\u0301\u00a0\u3000中文字かなカナ😀𠀀आि\n\t"), max_size=30))
def test_normalising_folds_case_and_splits_at_all_but_letters_digits_and_marks(text):
    pieces = []
    for letter in text:
        if unicodedata.category(letter)[0] not in "LNM":
            pieces.append(" ")
            continue
        lower = letter.lower() if len(letter.lower()) == 1 else letter
        pieces.append(f" {lower} " if is_alone(unicodedata.name(letter)) else lower)
    expected = " ".join("".join(pieces).split())
    assert alphabet(True).normalise(text).replace("😀", " ").split() == expected.replace("😀", " ").split()


@pytest.mark.parametrize("text", ["Ⱥ一" * 50, "一" * 99, "Ⱥ" * 99, "a一" * 50, "", " ", "😀" * 9])
def test_text_that_grows_stays_within_its_buffer(text):
    clean = alphabet(True).normalise(text)
    assert len(clean.encode()) <= 2 * len(text.encode())


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["a", "", "bcé", "d"]),
        pa.array(["a", None, "bcé", "d"], pa.large_string()),
        pa.array(["x", "a", "", "bcé", "d", "y"])[1:5],
        pa.chunked_array([["a", ""], [], ["bcé", "d"]]),
        pa.array(["a", "", "bcé", "d"], pa.string_view()),
        pa.array(["a", "", "bcé", "d"]).dictionary_encode(),
        ["a", "", "bcé", "d"],
        lambda: iter([pa.array(["a", ""]), pa.array(["bcé", "d"])]),
    ],
)
def test_every_kind_of_texts_gives_the_same(array):
    assert letters_of(array) == ["a", "", "bcé", "d"]
    assert letters_of(array) == ["a", "", "bcé", "d"]


@pytest.mark.parametrize("wrong", ["text", 3, pa.array([1, 2]), ["a", 3], (t for t in ["a"]), ["\ud800"]])
def test_what_is_not_text_is_refused(wrong):
    with pytest.raises(DataError):
        letters_of(wrong)


@given(st.lists(st.lists(st.integers(0, 255), max_size=9), max_size=9), st.integers(0, 40))
def test_a_spool_gives_back_what_it_got_from_memory_and_from_disk(blocks, limit):
    with Budget(limit) as budget:
        flat, pairs = Spool(budget, np.uint8), Spool(budget, np.int64, 2)
        for block in blocks:
            flat.append(np.array(block, np.uint8))
            pairs.append(np.column_stack([block, block]).astype(np.int64))
        whole = [v for block in blocks for v in block]
        assert flat.array().tolist() == whole
        assert pairs.array().tolist() == [[v, v] for v in whole]
        assert budget.held <= max(limit, 0) or not whole
        assert (budget.on_disk > 0) == (17 * len(whole) > limit)


def test_parts_of_a_batch_cover_it_once():
    (batch,) = batches(["a" * n for n in (0, 1, 500, 2, 0, 3)])
    for count in (1, 2, 5, 50):
        parts = batch.parts(count)
        assert [i for a, b in parts for i in range(a, b)] == list(range(6))
