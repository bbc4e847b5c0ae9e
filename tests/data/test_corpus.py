"""Counting and encoding agree with plain Python, whatever the source, the blocks and the threads."""

from __future__ import annotations

import gzip
import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from posterhall.data.corpus import Corpus, count, encode, read
from posterhall.data.encoded import Encoded
from posterhall.errors import DataError, UsageError

# Words of every width, with control characters, borders of the hash, Unicode spaces (no separators).
_characters = st.characters(exclude_characters=" \t\n\r\v\f\0", exclude_categories=("Cs",))
_words = st.one_of(
    st.sampled_from(
        [
            "a",
            "b",
            "the",
            "seven77",
            "eight888",
            "sixteen_16_bytes",
            "\x1c",
            "a\x01b",
            "\xa0",
            "</s>",
            "longer_than_eight\x02",
        ]
    ),
    st.text(_characters, min_size=1, max_size=30),
)


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    parts = [draw(st.sampled_from(["", " ", "\n"]))]
    for _ in range(draw(st.integers(0, 14))):
        parts.append(draw(_words))
        parts.append(draw(st.sampled_from([" ", "  ", "\t", "\r\n", "\v", "\f", "\n", "\n\n", "\n \n"])))
    if draw(st.booleans()) and len(parts) > 1:
        parts.pop()  # no white space at the end
    return "".join(parts).encode()


def sentences_of(text: bytes) -> list[list[str]]:
    """bytes.split() splits at ASCII white space: an independent rule for the same thing."""
    return [[word.decode() for word in line.split()] for line in text.split(b"\n")]


def decoded(encoded: Encoded, vocabulary) -> list[list[object]]:
    return [[vocabulary.items[i] for i in sentence.tolist()] for sentence in encoded.sentences()]


def expected(sentences, min_count):
    """(items with counts in the promised order, kept sentences)."""
    plain = Counter(itertools.chain.from_iterable(sentences))
    kept = {word: n for word, n in plain.items() if n >= min_count}
    filtered = [[word for word in sentence if word in kept] for sentence in sentences]
    # Counter keeps first appearance and sorted() is stable.
    return sorted(kept.items(), key=lambda pair: -pair[1]), [s for s in filtered if s]


@settings(max_examples=200, deadline=None)
@given(
    texts(),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(16, 64),
    st.sampled_from(["file", "gz", "lines"]),
)
def test_text_counts_and_ids_equal_plain_python(tmp_path_factory, text, min_count, threads, block, kind):
    sentences = sentences_of(text)
    words, kept = expected(sentences, min_count)
    if kind == "lines":
        source = Corpus((line for line in text.decode().split("\n")), block_bytes=block)
    else:
        path = tmp_path_factory.getbasetemp() / f"corpus.{kind}"
        path.write_bytes(gzip.compress(text, 1) if kind == "gz" else text)
        source = Corpus(path, block_bytes=block)
    if len(words) < 2:
        with pytest.raises(DataError):
            read(source, min_count=min_count, threads=threads)
        return
    vocabulary, encoded = read(source, min_count=min_count, threads=threads)
    assert list(zip(vocabulary.items, vocabulary.counts.tolist(), strict=True)) == words
    assert vocabulary.raw_tokens == sum(map(len, sentences))
    assert vocabulary.raw_distinct == len(set(itertools.chain.from_iterable(sentences)))
    assert decoded(encoded, vocabulary) == kept
    assert encoded.words == vocabulary.total
    if kind != "lines":
        assert count(source, min_count=min_count, threads=threads).digest() == vocabulary.digest()
        assert encode(source, vocabulary, threads=threads).digest == encoded.digest


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.lists(st.one_of(st.integers(0, 5), st.sampled_from(["x", "y y", "", ("a", 1)])), max_size=6),
        max_size=8,
    ),
    st.integers(1, 2),
    st.booleans(),
)
def test_sequences_of_any_hashable_ids_are_a_corpus(sentences, min_count, one_shot):
    words, kept = expected(sentences, min_count)
    assume(len(words) >= 2)
    vocabulary, encoded = read((s for s in sentences) if one_shot else sentences, min_count=min_count)
    assert list(zip(vocabulary.items, vocabulary.counts.tolist(), strict=True)) == words
    assert decoded(encoded, vocabulary) == kept
    assert encode(sentences, vocabulary).digest == encoded.digest


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-1, 6), max_size=40), st.integers(1, 3))
def test_an_integer_array_is_the_corpus_of_its_sentences(stream, min_count):
    sentences = [list(g) for end, g in itertools.groupby(stream, key=lambda t: t < 0) if not end]
    words, kept = expected(sentences, min_count)
    assume(len(words) >= 2)
    vocabulary, encoded = read(np.array(stream, np.int64), min_count=min_count)
    assert list(zip(vocabulary.items, vocabulary.counts.tolist(), strict=True)) == words
    assert decoded(encoded, vocabulary) == kept
    assert encode(np.array(stream, np.int16), vocabulary).digest == encoded.digest


def test_an_integer_array_takes_names():
    vocabulary, encoded = read(Corpus(np.array([2, 0, -1, 2, 1]), names=["no", "yes", "maybe"]), min_count=1)
    assert decoded(encoded, vocabulary) == [["maybe", "no"], ["maybe", "yes"]]
    with pytest.raises(DataError, match="number 5 but there are only 3 names"):
        read(Corpus(np.array([5, 0]), names=["a", "b", "c"]), min_count=1)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=12), st.integers(1, 7))
def test_chunks_close_at_sentence_ends_and_never_hold_twice_their_size(lengths, chunk_words):
    sentences = [[i % 3 for i in range(n)] + [7, 8] for n in lengths]
    _, encoded = read(sentences, min_count=1, chunk_words=chunk_words)
    chunks = [encoded.read(i) for i in range(len(encoded))]
    assert encoded.chunks[0] == 0
    assert encoded.chunks[-1] == encoded.tokens_total == sum(map(len, sentences)) + len(sentences)
    for i, chunk in enumerate(chunks):
        words = int((chunk >= 0).sum())
        last = i == len(chunks) - 1
        assert chunk[0] >= 0
        assert words <= 2 * chunk_words or chunk_words < words - (
            np.flatnonzero(chunk < 0)[-1] if not last else 0
        )
        assert chunk[-1] < 0 or words == 2 * chunk_words
        assert last or words >= chunk_words
        ends = np.flatnonzero(chunk < 0)
        for end in ends[:-1].tolist():  # no earlier sentence end would have closed it
            assert int((chunk[:end] >= 0).sum()) < chunk_words


def test_chunks_put_together_are_the_stream(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("".join(f"w{i % 17} w{i % 5}\n" if i % 3 else f"w{i % 17} " for i in range(1000)))
    whole = read(path, min_count=1)[1]
    for chunk_words in (1, 2, 10, 999, 10_000):
        encoded = read(path, min_count=1, chunk_words=chunk_words)[1]
        joined = np.concatenate([encoded.read(i) for i in range(len(encoded))])
        assert joined.dtype == np.int32
        assert np.array_equal(joined, whole.read(0))
        assert encoded.digest == whole.digest


def test_a_sentence_runs_across_chunks_but_not_across_files(tmp_path):
    (tmp_path / "a").write_text("x y z x y z")
    (tmp_path / "b").write_text("y x")
    paths = [tmp_path / "a", tmp_path / "b"]
    vocabulary, encoded = read(paths, min_count=1, chunk_words=1)
    assert len(encoded) == 4
    assert decoded(encoded, vocabulary) == [list("xyzxyz"), list("yx")]


def test_a_stream_in_a_file_reads_like_one_in_memory(tmp_path, monkeypatch):
    path = tmp_path / "t.txt"
    path.write_text("".join(f"w{i * i % 97} {'' if i % 7 else chr(10)}" for i in range(5000)))
    for min_count in (1, 60):
        memory = read(path, min_count=min_count, chunk_words=50)[1]
        monkeypatch.setattr("posterhall.data.encoded.MEMORY_BYTES", 4000)
        vocabulary, spilled = read(path, min_count=min_count, chunk_words=50, spill=tmp_path)
        again = encode(path, vocabulary, chunk_words=50, spill=tmp_path)
        monkeypatch.undo()
        assert "file" in repr(spilled)
        assert "memory" in repr(memory)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["t.txt"]  # the file has no name
        assert spilled.digest == memory.digest == again.digest
        assert np.array_equal(spilled.chunks, memory.chunks)
        assert all(np.array_equal(spilled.read(i), memory.read(i)) for i in range(len(memory)))
        spilled.read(0)[:] = 5  # the caller's own
        assert np.array_equal(spilled.read(0), memory.read(0))
        spilled.close()


def test_a_missing_spill_directory_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("posterhall.data.encoded.MEMORY_BYTES", 4)
    with pytest.raises(DataError, match="nowhere"):
        read([list("ab") * 9], min_count=1, spill=tmp_path / "nowhere")


def test_a_generator_is_refused_the_second_time():
    corpus = Corpus(iter([["a", "b"]]))
    vocabulary = count(corpus, min_count=1)
    with pytest.raises(DataError, match="consumed before"):
        encode(corpus, vocabulary)


def test_keep_drop_and_limits():
    text = ["a a a a b b b c c d e e"]
    assert count(iter(text), min_count=2).items == ["a", "b", "c", "e"]
    assert count(iter(text), min_count=2, max_vocabulary=2).items == ["a", "b"]
    kept = count(iter(text), min_count=3, keep=["d", "zebra"], drop=["a"])
    assert kept.items == ["b", "d"]
    assert kept.unseen == ("zebra",)
    assert count(iter(text), min_count=1, max_vocabulary=2, keep={"d"}).items == ["a", "d"]
    assert count(iter(text), min_count=1, keep={"d"}, drop={"d"}, max_vocabulary=4).items == [
        "a",
        "b",
        "c",
        "e",
    ]
    with pytest.raises(UsageError, match="2 words must be kept"):
        count(iter(text), min_count=1, max_vocabulary=1, keep=["d", "e"])
    with pytest.raises(UsageError, match="one string"):
        count(iter(text), keep="d")


def test_rare_words_are_given_up_when_the_table_is_full(tmp_path):
    path = tmp_path / "t.txt"
    lines = [f"often other once{i}\n" for i in range(3000)]
    path.write_text("".join(lines))
    corpus = Corpus(path, block_bytes=256)
    vocabulary = count(corpus, min_count=1, max_distinct=100)
    assert vocabulary.items[:2] == ["often", "other"]
    assert vocabulary.counts[:2].tolist() == [3000, 3000]
    assert vocabulary.approximate
    assert len(vocabulary) <= 100
    for threads in (2, 3):
        assert count(corpus, min_count=1, max_distinct=100, threads=threads).digest() == vocabulary.digest()
    # One pass cannot give up words that already have ids, so this makes two, and agrees.
    assert read(corpus, min_count=1, max_distinct=100)[0].digest() == vocabulary.digest()
    with pytest.raises(DataError, match="generator holds more than 100"):
        read(Corpus(iter(lines), block_bytes=256), min_count=1, max_distinct=100)
    assert not count(corpus, min_count=1).approximate


def test_a_byte_order_mark_is_no_part_of_the_first_word(tmp_path):
    path = tmp_path / "t.txt"
    path.write_bytes(b"\xef\xbb\xbfone two one")
    assert count(path, min_count=1).items == ["one", "two"]


def test_one_long_line_needs_little_memory(tmp_path):
    """Bounded by blocks, not by lines: tracemalloc sees numpy's buffers too."""
    import tracemalloc

    path = tmp_path / "t.txt"
    path.write_bytes(b"anarchism originated as a term of abuse " * 250_000)  # 10 MB without a newline
    count(path, min_count=1)
    tracemalloc.start()
    count(Corpus(path, block_bytes=1 << 16), min_count=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


@pytest.mark.parametrize("threads", [1, 2])
def test_many_distinct_words_of_every_length_outgrow_the_first_table(tmp_path, threads):
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 40, 30_000)
    letters = rng.integers(97, 123, int(lengths.sum()), dtype=np.uint8).tobytes()
    ends = np.cumsum(lengths)
    words = [letters[end - n : end].decode() for end, n in zip(ends.tolist(), lengths.tolist(), strict=True)]
    text = [words[i] for i in rng.integers(0, len(words), 60_000).tolist()] + ["x" * 9_999, "x" * 10_000]
    path = tmp_path / "t.txt"
    path.write_text(" ".join(text))
    vocabulary, encoded = read(Corpus(path, block_bytes=50_000), min_count=1, threads=threads)
    assert dict(zip(vocabulary.items, vocabulary.counts.tolist(), strict=True)) == Counter(text)
    assert decoded(encoded, vocabulary) == [text]
