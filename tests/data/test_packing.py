"""Streams of tokens and rows of them: every token predicted once an epoch, subsets nested, kills survived."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.data import tokens as streams
from posterhall.data.documents import Document
from posterhall.data.packing import IGNORED, Packed
from posterhall.data.tokenizer import ByteTokenizer
from posterhall.errors import DataError

EOS = ByteTokenizer.eos_id
TEXTS = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20), min_size=1, max_size=12)


class WithBoth(ByteTokenizer):
    """Beginning and end are different tokens, as in Llama's."""

    bos_id = 257


def as_documents(texts, path):
    return [Document(str(i), text, path, i + 1) for i, text in enumerate(texts)]


@given(texts=TEXTS, own_bos=st.booleans(), batch=st.sampled_from([1, 3, 20, 1 << 20]))
def test_the_stream_is_the_documents_with_their_ends(tmp_path_factory, texts, own_bos, batch):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "_BATCH_CHARACTERS", batch)
        check_stream(tmp_path_factory, texts, own_bos)


def check_stream(tmp_path_factory, texts, own_bos):
    directory = tmp_path_factory.mktemp("stream") / "new"
    tokenizer = WithBoth() if own_bos else ByteTokenizer()
    expected = [] if own_bos else [EOS]
    begins = []
    for text in texts:
        begins.append(len(expected) - (0 if own_bos else 1))
        expected += [*([257] if own_bos else []), *text.encode(), EOS]
    for tokens in (
        streams.from_texts(texts, tokenizer),
        streams.build(as_documents(texts, directory), tokenizer, directory),
    ):
        assert tokens.ids.tolist() == expected
        assert tokens.offsets.tolist() == begins
        assert tokens.document_bytes.tolist() == [len(text.encode()) for text in texts]
        assert tokens.ids.dtype == np.uint16


@given(length=st.integers(2, 60), context=st.integers(1, 9), epoch=st.integers(0, 3))
def test_each_token_is_predicted_once_an_epoch_from_the_one_before(length, context, epoch):
    rows = Packed(np.arange(length), context=context, whole=True, seed=epoch)
    got = rows.take(epoch * rows.items, rows.items)
    real = got["labels"] != IGNORED
    assert sorted(got["labels"][real].tolist()) == list(range(1, length))
    assert (got["ids"][real] + 1 == got["labels"][real]).all()
    assert rows.unique_tokens == length - 1


@given(first=st.integers(0, 70), counts=st.lists(st.integers(0, 9), max_size=8))
def test_rows_do_not_depend_on_how_they_are_taken(first, counts):
    rows = Packed(np.arange(101), context=5, seed=7)
    whole = rows.take(first, sum(counts))["ids"]
    again = Packed(np.arange(101), context=5, seed=7)
    parts = []
    for count in counts:
        parts.append(again.take(first, count)["ids"])
        first += count
    assert np.array_equal(whole, np.concatenate([np.zeros((0, 5), int), *parts]))


def test_epochs_have_the_same_rows_in_another_order_and_seeds_differ():
    rows = Packed(np.arange(401), context=4)
    one, two = rows.take(0, 100)["ids"], rows.take(100, 100)["ids"]
    assert not np.array_equal(one, two)
    assert sorted(one[:, 0]) == sorted(two[:, 0]) == list(range(0, 400, 4))
    assert not np.array_equal(one, Packed(np.arange(401), context=4, seed=1).take(0, 100)["ids"])


def test_fewer_unique_tokens_are_a_subset_of_more():
    seen = [
        set(Packed(np.arange(401), context=4, unique_tokens=u).take(0, u // 4)["ids"][:, 0].tolist())
        for u in (40, 41, 100, 400)
    ]
    assert [len(each) for each in seen] == [10, 10, 25, 100]
    assert seen[0] == seen[1] < seen[2] < seen[3]


def test_evaluation_rows_keep_the_order_of_the_text():
    rows = Packed(np.arange(12), context=5, shuffle=False, whole=True)
    assert rows.take(0, 3)["labels"].tolist() == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11] + [IGNORED] * 4]


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), WithBoth()], ids=["shared", "own"])
def test_segments_number_the_documents_in_a_row(tokenizer):
    tokens = streams.from_texts(["ab", "c", "def"], tokenizer)
    row = Packed(tokens, context=len(tokens) - 1, packing="documents").take(0, 1)
    bounds = [*tokens.offsets[1:], len(tokens) - 1]
    expected = [sum(place >= b for b in bounds) for place in range(len(tokens) - 1)]
    assert row["segments"].tolist() == [expected]
    # Within a document everything is predicted, its end too; the beginning of the next one never.
    for number in range(3):
        labels = row["labels"][row["segments"] == number]
        text = [b for b in labels.tolist() if b != IGNORED]
        assert bytes(text[:-1]) == ["ab", "c", "def"][number].encode()
    assert 257 not in row["labels"]


def test_what_a_killed_build_left_is_made_anew(tmp_path):
    cache = tmp_path / "cache"
    (cache / "key.part").mkdir(parents=True)
    (cache / "key.part" / "tokens.bin").write_bytes(b"torn")
    calls = []

    def make(place):
        calls.append(place)
        streams.build(as_documents(["abc"], tmp_path), ByteTokenizer(), place)

    for _ in range(2):
        directory = streams.cached(cache, "key", make)
    assert len(calls) == 1
    assert streams.load(directory).ids.tolist() == [EOS, *b"abc", EOS]


def test_damaged_token_files_are_refused(tmp_path):
    streams.build(as_documents(["abc"], tmp_path), ByteTokenizer(), tmp_path / "t")
    with open(tmp_path / "t" / "tokens.bin", "ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match="damaged"):
        streams.load(tmp_path / "t")


@given(texts=st.lists(st.text("ab é", min_size=1, max_size=9), min_size=20, max_size=40))
def test_holding_out_divides_the_documents(tmp_path_factory, texts):
    directory = tmp_path_factory.mktemp("hold")
    tokens = streams.from_texts(texts, ByteTokenizer())
    train, held = streams.hold_out(tokens, 0.2, ByteTokenizer(), directory, seed=3)

    def documents(part):
        assert part.ids[0] == part.ids[-1] == EOS
        pieces = np.split(part.ids[1:], np.flatnonzero(part.ids[1:] == EOS) + 1)
        return sorted(bytes(piece[:-1].tolist()) for piece in pieces if len(piece))

    assert len(held.offsets) == round(0.2 * len(texts))
    assert sorted(documents(train) + documents(held)) == sorted(text.encode() for text in texts)
    assert train.text_bytes + held.text_bytes == tokens.text_bytes


def test_of_a_few_documents_the_end_is_held_out(tmp_path):
    tokens = streams.from_texts(["a" * 50, "b" * 50], ByteTokenizer())
    train, held = streams.hold_out(tokens, 0.25, ByteTokenizer(), tmp_path, seed=0)
    assert train.ids.tolist() + held.ids.tolist() == tokens.ids.tolist()
    assert len(held) == 26
    assert train.text_bytes + held.text_bytes == 100
    assert held.text_bytes == 25


def test_too_short_texts_and_too_many_unique_tokens_are_refused(tmp_path):
    with pytest.raises(DataError, match="smaller context"):
        Packed(np.arange(8), context=8)
    with pytest.raises(DataError, match=r"gives 4 \(one row\) to 96"):
        Packed(np.arange(100), context=4, unique_tokens=97 + 4)
    with pytest.raises(DataError, match="empty"):
        streams.build([], ByteTokenizer(), tmp_path / "none")
