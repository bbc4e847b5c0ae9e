"""Tokenisers: nothing is lost, and Hugging Face's libraries read what is saved and agree."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.data.tokenizer import END_OF_TEXT, BPETokenizer, ByteTokenizer, load, train_bpe
from posterhall.errors import DataError

tokenizers = pytest.importorskip("tokenizers")
TEXTS = [
    "the king of france lives in paris\n",
    "le roi d'été, 12 ans — 東京 🙂\n",
    "  two\n\n  spaces\t",
] * 20
TEXT = st.text(st.characters(codec="utf-8"), max_size=40)


@pytest.fixture(scope="module")
def bpe():
    return train_bpe(TEXTS, 300)


@given(text=TEXT)
def test_text_comes_back_from_its_ids(bpe, text):
    for tokenizer in (ByteTokenizer(), bpe):
        ids = tokenizer.encode(text)
        assert all(0 <= each < tokenizer.vocab_size for each in ids)
        assert tokenizer.decode(ids) == text


@given(ids=st.lists(st.integers(-3, 400), max_size=30))
def test_any_ids_decode_to_text(bpe, ids):
    for tokenizer in (ByteTokenizer(), bpe):
        tokenizer.decode(ids).encode()
    assert ByteTokenizer().decode([0x61, 0xFF, 0x62, 256, 257, 999]) == "a�b"


@given(text=TEXT)
def test_the_saved_byte_tokeniser_gives_the_same_ids_in_hugging_face(byte_in_hugging_face, text):
    assert byte_in_hugging_face.encode(text).ids == [*text.encode()]
    assert byte_in_hugging_face.decode([*text.encode()]) == text


@pytest.fixture(scope="module")
def byte_in_hugging_face(tmp_path_factory):
    directory = tmp_path_factory.mktemp("byte")
    ByteTokenizer().save(directory)
    return tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))


@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_transformers_loads_what_is_saved(tmp_path, bpe, kind):
    transformers = pytest.importorskip("transformers")
    tokenizer = bpe if kind == "bpe" else ByteTokenizer()
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS[:3]:
        assert theirs(text)["input_ids"] == tokenizer.encode(text)
        assert theirs.decode(tokenizer.encode(text)) == text
    special = (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id)
    assert special == (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)
    assert len(theirs) == tokenizer.vocab_size


def test_a_tokeniser_comes_back_from_its_directory_and_its_file(tmp_path, bpe):
    for tokenizer in (ByteTokenizer(), bpe):
        tokenizer.save(tmp_path / tokenizer.name)
        for place in (tmp_path / tokenizer.name, tmp_path / tokenizer.name / "tokenizer.json"):
            again = load(place)
            assert type(again) is type(tokenizer)
            assert again.digest == tokenizer.digest
            assert again.eos_id == tokenizer.eos_id
    assert load("byte").digest == ByteTokenizer().digest != bpe.digest


def test_training_is_deterministic_and_learns_frequent_words(bpe):
    again = train_bpe(iter(TEXTS), 300)
    assert again.digest == bpe.digest
    assert len(bpe.encode(TEXTS[0])) < len(TEXTS[0]) / 2
    assert bpe.vocab_size == 300


def test_training_on_one_long_text_is_training_on_its_lines(monkeypatch):
    from posterhall.data import tokenizer as module

    lines = TEXTS[0] * 50
    whole = train_bpe([lines], 300).digest
    monkeypatch.setattr(module, "_PIECE", 100)
    assert train_bpe([lines], 300).digest == whole


@given(text=st.text("ab \n\té.", max_size=80), size=st.integers(1, 20))
def test_pieces_of_a_long_text_have_its_ids(bpe, text, size):
    for tokenizer in (ByteTokenizer(), bpe):
        pieces = list(tokenizer.pieces(text, size))
        assert "".join(pieces) == text
        assert all(len(piece) >= size for piece in pieces[:-1])
        assert [each for piece in pieces for each in tokenizer.encode(piece)] == tokenizer.encode(text)


def test_a_tokeniser_that_marks_the_start_of_a_text_gets_it_whole():
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"\u2581a": 0, "\u2581b": 1, "?": 2}, "?"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    tokenizer = BPETokenizer(backend, bos=None, eos=None, pad=None)
    assert list(tokenizer.pieces("a\nb\na", 1)) == ["a\nb\na"]


def test_special_tokens_in_a_text_are_plain_letters(bpe):
    for tokenizer in (ByteTokenizer(), bpe):
        ids = tokenizer.encode(f"a{END_OF_TEXT}b")
        assert tokenizer.eos_id not in ids
        assert tokenizer.decode(ids) == f"a{END_OF_TEXT}b"


def test_batches_are_arrays_of_what_single_texts_give(bpe):
    for tokenizer in (ByteTokenizer(), bpe):
        batch = tokenizer.encode_batch(TEXTS[:3])
        assert [each.tolist() for each in batch] == [tokenizer.encode(text) for text in TEXTS[:3]]
        assert all(each.dtype == np.int32 for each in batch)


def test_special_tokens_are_guessed_by_name_where_no_configuration_says(tmp_path):
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, None)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no tokenizer.json there"),
        ({"tokenizer.json": "{"}, "cannot be read as a tokeniser"),
        ({"tokenizer.json": "{}"}, "not a tokeniser that"),
        ({"tokenizer.json": None, "tokenizer_config.json": '{"eos_token": "<end>"}'}, "no token '<end>'"),
    ],
)
def test_a_tokeniser_that_cannot_be_used_is_refused(tmp_path, bpe, files, said):
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(bpe.to_json()) if content is None else content)
    with pytest.raises(DataError, match=said):
        load(tmp_path)


def test_a_vocabulary_without_room_for_the_bytes_is_refused():
    with pytest.raises(DataError, match="at least 258"):
        train_bpe(TEXTS, 257)
