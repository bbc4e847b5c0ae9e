"""The vocabulary's order, identity, growth and its file form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterhall.data.corpus import count
from posterhall.data.vocabulary import Vocabulary
from posterhall.errors import DataError, UsageError

_words = st.text(
    st.characters(exclude_characters=" \t\n\r\v\f", exclude_categories=("Cs",)), min_size=1, max_size=8
)
_counts = st.dictionaries(_words, st.integers(1, 10**12), min_size=1, max_size=20)


@given(_counts)
def test_from_counts_sorts_and_indexes(counts):
    vocabulary = Vocabulary.from_counts(counts)
    assert list(zip(vocabulary.items, vocabulary.counts.tolist(), strict=True)) == sorted(
        counts.items(), key=lambda pair: -pair[1]
    )
    assert [vocabulary.index[word] for word in vocabulary] == list(range(len(counts)))
    assert vocabulary.total == sum(counts.values())
    assert all(word in vocabulary for word in counts)


@settings(max_examples=50, deadline=None)
@given(_counts)
def test_saved_and_loaded_is_the_same(tmp_path_factory, counts):
    path = tmp_path_factory.getbasetemp() / "vocabulary.txt"
    vocabulary = Vocabulary.from_counts(counts)
    vocabulary.save(path)
    loaded = Vocabulary.load(path)
    assert loaded.digest() == vocabulary.digest()
    assert loaded.items == vocabulary.items


def test_the_file_form_is_that_of_the_c_tool(tmp_path):
    path = tmp_path / "v.txt"
    Vocabulary.from_counts({"b": 1, "a": 3}).save(path)
    assert path.read_bytes() == b"a 3\nb 1\n"
    path.write_bytes(b"</s> 0\nthe 5\r\n\nof 3")  # the C tool on a text without newlines; a foreign editor
    assert Vocabulary.load(path).items == ["the", "of"]
    path.write_bytes(b"</s> 7\nthe 5\n")
    assert Vocabulary.load(path).items == ["</s>", "the"]
    assert Vocabulary.load(path, drop={"</s>"}).items == ["the"]


@pytest.mark.parametrize(
    "line",
    [b"word", b"word x", b"two words 3", b"word -1", b"word 1.5", b"word 99999999999999999999", b"\xff 1"],
)
def test_a_bad_line_is_named(tmp_path, line):
    path = tmp_path / "v.txt"
    path.write_bytes(b"good 5\n" + line + b"\nfine 1\n")
    with pytest.raises(DataError, match=r"v.txt, line 2: .*whole count"):
        Vocabulary.load(path)


def test_other_bad_files(tmp_path):
    path = tmp_path / "v.txt"
    with pytest.raises(DataError, match="cannot be read"):
        Vocabulary.load(path)
    path.write_text("a 1\nb 1\na 2\n")
    with pytest.raises(DataError, match="line 3: 'a' was already on line 1"):
        Vocabulary.load(path)
    path.write_text("\n\n")
    with pytest.raises(DataError, match="no words"):
        Vocabulary.load(path)


@pytest.mark.parametrize("item", ["", "two words", "a\nb", ("a",), None, True])
def test_what_is_no_word_is_not_written(tmp_path, item):
    with pytest.raises(DataError):
        Vocabulary(["a", item], [2, 1]).save(tmp_path / "v.txt")
    assert not list(tmp_path.iterdir())


def test_growing_keeps_ids_and_adds_counts():
    old = count(iter(["a a a b b c c"]), min_count=2)
    new = count(iter(["d d e e e b f"]), min_count=1)
    grown = old.extend(new, min_count=2)
    assert grown.items == ["a", "b", "c", "e", "d"]
    assert grown.counts.tolist() == [3, 3, 2, 3, 2]
    assert grown.raw_tokens == 14
    assert old.items == ["a", "b", "c"]  # untouched
    assert old.counts.tolist() == [3, 2, 2]
    assert old.extend({"z": 1}).items == ["a", "b", "c", "z"]


def test_the_digest_sees_items_counts_types_and_borders():
    base = Vocabulary(["ab", "c"], [2, 1]).digest()
    assert base == Vocabulary(["ab", "c"], np.array([2, 1], np.int32)).digest()
    others = [(["a", "bc"], [2, 1]), (["ab", "c"], [2, 2]), (["c", "ab"], [2, 1]), (["ab"], [2])]
    digests = {Vocabulary(items, counts).digest() for items, counts in others}
    digests |= {Vocabulary([1, 2], [1, 1]).digest(), Vocabulary(["1", "2"], [1, 1]).digest()}
    assert len(digests | {base}) == 7


def test_it_cannot_be_changed_or_made_wrong():
    vocabulary = Vocabulary(["a", "b"], [2, 1])
    with pytest.raises(ValueError, match="read-only"):
        vocabulary.counts[0] = 5
    with pytest.raises(UsageError, match="2 items but counts of shape"):
        Vocabulary(["a", "b"], [1])
    with pytest.raises(DataError, match="'b' is -1"):
        Vocabulary(["a", "b"], [1, -1])
    with pytest.raises(DataError, match="'a' is in the vocabulary twice"):
        _ = Vocabulary(["a", "b", "a"], [1, 1, 1]).index


def test_an_unknown_word_names_its_neighbours():
    vocabulary = Vocabulary(["river", "rivers", "bank"], [3, 2, 1])
    assert vocabulary.id_of("bank") == 2
    with pytest.raises(
        DataError, match=r"'rivver' is not in the vocabulary \(3 words\). Did you mean: river"
    ):
        vocabulary.id_of("rivver")
    assert vocabulary.select([2, 0]).items == ["bank", "river"]
    assert vocabulary.select([2, 0]).counts.tolist() == [1, 3]
