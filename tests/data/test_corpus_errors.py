"""What cannot be read is refused with its place and its remedy."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from posterhall.data.corpus import Corpus, count, encode, read
from posterhall.data.vocabulary import Vocabulary
from posterhall.errors import DataError, UsageError


def refused(source, *needles, **options):
    with pytest.raises(DataError) as caught:
        read(source, min_count=options.pop("min_count", 1), **options)
    for needle in needles:
        assert needle in str(caught.value)


@pytest.mark.parametrize("text", [b"", b" ", b"\n\n", b"\xef\xbb\xbf"])
def test_an_empty_corpus(tmp_path, text):
    path = tmp_path / "t.txt"
    path.write_bytes(text)
    refused(path, "empty")
    refused([path, path], "empty")


@pytest.mark.parametrize("source", [[], [[]], np.array([], np.int32), iter([]), iter([""])])
def test_an_empty_corpus_in_memory(source):
    refused(source, "empty")


def test_a_corpus_of_one_distinct_word():
    refused([["only"] * 9], "one distinct word", "'only'")


def test_all_pruned_names_the_largest_counts():
    refused([list("aab")], "none of 2", "min_count 5", "'a' 2", min_count=5)
    refused([list("aab")], "1 of 2", "min_count 2", min_count=2)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("packed", [False, True])
def test_invalid_utf8_names_line_and_byte(tmp_path, threads, packed):
    good = "grün blau\n" * 100
    raw = good.encode() + b"rot gr\xfcn blau\n" + good.encode()
    path = tmp_path / "t.txt"
    path.write_bytes(gzip.compress(raw) if packed else raw)
    refused(
        Corpus(path, block_bytes=64),
        "t.txt, line 101 ",
        f"(byte {len(good.encode()) + 6:,})",
        "gr\\xfcn",
        "encoding_errors",
        threads=threads,
    )
    for errors, word in (("replace", "gr�n"), ("ignore", "grn")):
        vocabulary = count(Corpus(path, block_bytes=64, encoding_errors=errors), min_count=1, threads=threads)
        assert vocabulary.items == ["grün", "blau", "rot", word] or word in vocabulary.items
        assert dict(zip(vocabulary.items, vocabulary.counts.tolist(), strict=True)) == {
            "grün": 200, "blau": 201, "rot": 1, word: 1,
        }  # fmt: skip


def test_a_pruned_word_that_is_not_utf8_is_still_refused(tmp_path):
    path = tmp_path / "t.txt"
    path.write_bytes(b"a a b b \xff")
    refused(path, "line 1 (byte 8)", min_count=2)


def test_the_second_of_two_files_is_named(tmp_path):
    (tmp_path / "good").write_bytes(b"a b\nc d\n")
    (tmp_path / "bad").write_bytes(b"a b\nc\x00d\n")
    refused([tmp_path / "good", tmp_path / "bad"], "bad, line 2 (byte 5)", "NUL", "UTF-16")


def test_nul_in_lines_names_the_sentence():
    refused(Corpus((s for s in ["a b", "c d", "e\0f"]), block_bytes=16), "sentence 3", "NUL")


@pytest.mark.parametrize("threads", [1, 2])
def test_a_word_without_end(tmp_path, threads):
    path = tmp_path / "t.txt"
    path.write_bytes(b"a b\nc " + b"x" * 10_000 + b" a b\n")
    assert len(count(path, min_count=1)) == 4
    path.write_bytes(b"a b\nc " + b"x" * 10_001 + b" a b\n")
    refused(path, "line 2 (byte 6)", "more than 10,000 bytes", threads=threads)
    path.write_bytes(b"a b\nc " + b"x" * 300_000)
    refused(Corpus(path, block_bytes=4096), "line 2 ", "more than 10,000 bytes", threads=threads)


def test_missing_files_and_directories(tmp_path):
    refused(tmp_path / "no.txt", "no.txt", "no such file")
    refused(tmp_path, "is a directory")
    refused(["the cat sat"], "no such file", "lists of words")


def test_damaged_gzip_files(tmp_path):
    rng = np.random.default_rng(0)
    raw = " ".join(map(str, rng.integers(0, 10**6, 50_000))).encode()
    packed = gzip.compress(raw)
    path = tmp_path / "t.gz"
    path.write_bytes(packed[: len(packed) // 2])
    refused(path, "truncated")
    path.write_bytes(packed[:1000] + b"\0\0\0\0" + packed[1004:])
    refused(path, "not a sound gzip")
    path.write_bytes(raw)
    refused(path, "named .gz but is not gzip")
    path.rename(tmp_path / "t.txt")
    plain = count(tmp_path / "t.txt", min_count=1)
    (tmp_path / "t.txt").write_bytes(packed)  # gzip is known by its content
    assert count(tmp_path / "t.txt", min_count=1).digest() == plain.digest()


@pytest.mark.parametrize("source", [5, {"a": 1}, b"bytes", np.zeros(3), object()])
def test_what_is_no_corpus(source):
    with pytest.raises(DataError, match="corpus"):
        Corpus(source)


def test_sentences_that_are_none():
    refused([1, 2, 3], "sentence 1 is int")
    refused([["a", ["b"]]], "cannot be counted")
    refused(iter(["a b", ["c"]]), "sentence 2 is list")
    refused(iter(["a b", "c \ud800"]), "sentence 2", "surrogates")


def test_arguments_out_of_range():
    text = [list("aabb")]
    for options in ({"min_count": 0}, {"max_vocabulary": 0}, {"chunk_words": 0}):
        with pytest.raises(UsageError, match="at least 1"):
            read(text, **{"min_count": 1, **options})
    with pytest.raises(UsageError, match="threads"):
        read(iter(["a b"]), threads=0)
    with pytest.raises(UsageError, match="strict, replace"):
        Corpus(text, encoding_errors="surrogateescape")
    with pytest.raises(UsageError, match="names"):
        Corpus(text, names=["a"])


def test_encoding_with_a_foreign_vocabulary(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("a b a b")
    with pytest.raises(DataError, match="no word of the corpus"):
        encode(path, Vocabulary(["x", "y"], [1, 1]))
    with pytest.raises(DataError, match="not text"):
        encode(path, Vocabulary([1, 2], [1, 1]))
    for bad in (["a b", "c"], ["", "a"], ["a", "a"]):
        with pytest.raises(DataError, match="distinct words"):
            encode(path, Vocabulary(bad, [1, 1]))


def test_bytes_that_are_not_utf8_are_unknown_words_when_encoding(tmp_path):
    path = tmp_path / "t.txt"
    path.write_bytes(b"a \xff b")
    assert encode(path, Vocabulary(["a", "b"], [1, 1])).read(0).tolist() == [0, 1, -1]
