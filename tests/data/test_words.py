"""The tokeniser of words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.data import tokenizer as tokenizers
from posterhall.data.words import UNKNOWN, word_tokenizer
from posterhall.errors import DataError

pytest.importorskip("tokenizers")
WORDS = ["4", "10", "13", "+", "=", "(left:", "sure", "##x", "-1", "\n"]


@given(st.lists(st.lists(st.sampled_from(WORDS[:-1]), max_size=5).map(" ".join), max_size=5).map("\n".join))
def test_text_comes_back_and_words_are_tokens(text: str) -> None:
    tokenizer = word_tokenizer(WORDS)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert len(ids) == len(text.split()) + text.count("\n")


def test_spaces_are_no_tokens_and_other_words_are_unknown() -> None:
    tokenizer = word_tokenizer(WORDS)
    assert tokenizer.encode("4  + \t10") == tokenizer.encode("4 + 10")
    assert tokenizer.decode(tokenizer.encode("4 + 99")) == f"4 + {UNKNOWN}"
    assert tokenizer.bos_id == tokenizer.eos_id == len(WORDS) + 1
    assert tokenizer.encode("<|endoftext|> 4") == tokenizer.encode("99 4")


def test_its_file_is_an_ordinary_one(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = word_tokenizer(WORDS)
    tokenizer.save(tmp_path)
    text = "4 + 10\n(left: 13\n\nsure"
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(text)["input_ids"] == tokenizer.encode(text)
    again = tokenizers.load(tmp_path)
    assert (again.encode(text), again.bos_id, again.pad_id) == (
        tokenizer.encode(text),
        tokenizer.bos_id,
        tokenizer.pad_id,
    )


@pytest.mark.parametrize("words", [[], ["a b"], [""], ["a", " "]])
def test_what_is_no_word_is_rejected(words: list[str]) -> None:
    with pytest.raises(DataError, match="word"):
        word_tokenizer(words)
