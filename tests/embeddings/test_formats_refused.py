"""Files that are not sound: each refused with its place and what to do, before memory is taken for it."""

from __future__ import annotations

import gzip
import pickle
import random
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.embeddings import formats
from posterhall.embeddings.vectors import WordVectors
from posterhall.errors import DataError

FOUR = WordVectors(["one", "two", "three", "four"], np.arange(12).reshape(4, 3) / 8)


@pytest.fixture(autouse=True, scope="module")
def _no_waiting_for_the_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield


def binary(words: list[str], matrix: np.ndarray, header: bytes | None = None) -> bytes:
    head = b"%d %d\n" % matrix.shape if header is None else header
    return head + b"".join(
        word.encode() + b" " + row.astype("<f4").tobytes() + b"\n"
        for word, row in zip(words, matrix, strict=True)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is empty"),
        (b"2 2\n", "at least 11 bytes, but the file has 0 after it"),
        (b"5 2\na 1 2\nb 3 4\n", "promises 5 words of 2 dimensions"),
        (b"3 2\na 1.25 2.25\nb 3.25 4.25\n", "promises 3 words but the file ends after 2"),
        (b"1 2\na 1 2\nb 3 4\n", r"more lines follow, the first of them line 3.*limit=1"),
        (b"2 2\na 1.5 2.5\nb 3.5\n", ":3: 1 values after the word; every line needs 2"),
        (b"2 2\na 1 2\nb 3 4 5\n", ":3: 3 values after the word; every line needs 2"),
        (b"2 2\na 1 2 9\nb 3 4 9\n", ":2: 3 values after the word"),
        (b"2 2\na 1 2\nb 3 x\n", ":3: value 2 is 'x'"),
        (b"2 2\na 1 2\nb 3 1_0\n", ":3: value 2 is '1_0'"),
        (b"2 2\na 1 2\nb 3 0x10\n", ":3: value 2 is '0x10'"),
        (b"2 2\na 1 2\nb 1e 4\n", ":3: value 1 is '1e'"),
        (b"2 2\na 1 2\nb - 4\n", ":3: value 1 is '-'"),
        (b"2 2\na 1 2\n\nb 3 4\n", ":3: the line is empty"),
        (b"2 2\na 1 2\n 3 4 5\n", ":3: the line starts with white space"),
        (b"2 2\na 1 2\nb nan 4\n", r"'b' \(row 2\) holds NaN or infinity.*allow_nonfinite"),
        (b"2 2\na 1 2\nb 1e39 4\n", "holds NaN or infinity"),
        (b"2 2\na 1 2\nb -inf 4\n", "holds NaN or infinity"),
        (b"0 2\n", "promises 0 words"),
        (b"2 0\na\nb\n", "0 dimensions"),
        (b"-2 2\na 1 2\nb 3 4\n", "promises -2 words"),
        (
            b"1000000000000 1000000000\na 1 2\n",
            r"1,000,000,000,000 words of 1,000,000,000 dimensions, at least",
        ),
        (b"9" * 30 + b" 2\na 1 2\n", "promises more than any file can hold"),
        (b"9" * 5000 + b" 2\na 1 2\n", "promises more than any file can hold"),
        (b"  ", "none of the known formats"),
        (b"\n\n", "none of the known formats"),
        (b"a\nb\nc\n", "none of the known formats"),
        (b"some prose, and more\nof it\n", "none of the known formats"),
        (b"2 2\n\xff\xfe 1 2\nb 3 4\n", r"row 1.*not UTF-8"),
        (b"2 2\na 1 2\n\xff\xfe 3 4\n", r"row 2.*not UTF-8"),
    ],
)
def test_text_that_is_not_sound(tmp_path, text, message):
    path = tmp_path / "v.txt"
    path.write_bytes(text)
    with pytest.raises(DataError, match=message) as caught:
        formats.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            binary(["a", "b"], np.ones((2, 3)), b"3 3\n"),
            "promises 3 words of 3 dimensions, at least 42 bytes",
        ),
        (binary(["aaaaaaaa", "bbbbbbbb"], np.ones((2, 3)), b"3 2\n"), "."),
        (binary(["a", "b"], np.ones((2, 3)), b"1 3\n"), r"data follows the 1 words.*limit=1"),
        (binary(["a", "b"], np.ones((2, 3)), b"2 4\n"), "promises 2 words of 4 dimensions"),
        (binary(["a", "b"], np.full((2, 3), 0.1), b"2 2\n"), "."),
        (binary(["a", "b"], np.ones((2, 3)))[:-6], "."),
        (binary(["a" * 50, "b" * 50], np.ones((2, 3)))[:-6], r"ends in row 2 of the 2.*cut short"),
        (binary(["a", "b"], np.ones((2, 3)), b"1000000000000 1000000000\n"), "at least 4,000,000,002,000,"),
        (binary(["a", "b"], np.array([[1, 2], [np.nan, 3]])), r"'b' \(row 2\) holds NaN"),
        (binary(["a", ""], np.ones((2, 3))), "row 2 has no word before its vector"),
        (binary(["", "a"], np.ones((2, 3))), "row 1 has no word before its vector"),
        (b"2 3\n", "at least 28 bytes"),
    ],
)
def test_binary_that_is_not_sound(tmp_path, data, message):
    path = tmp_path / "v.bin"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message):
        formats.load(path, format="word2vec-binary")
    with pytest.raises(DataError):
        formats.load(path)


def test_a_header_without_numbers_is_told_in_the_named_format(tmp_path):
    path = tmp_path / "v.txt"
    path.write_text("the 0.5 1\nof 2 3\n")
    with pytest.raises(DataError, match=r"the header is 'the 0.5 1'.*'glove'"):
        formats.load(path, format="word2vec-text")
    path.write_text("1.0 2.0\n")
    with pytest.raises(DataError, match="two whole numbers"):
        formats.load(path, format="word2vec-binary")


def test_a_lying_header_takes_no_memory(tmp_path):
    for name, opener in (("v.bin", open), ("v.bin.gz", gzip.open)):
        path = tmp_path / name
        with opener(path, "wb") as file:
            file.write(b"500000000 300\n" + b"a " + bytes(1200))
        tracemalloc.start()
        with pytest.raises(DataError, match="promises 500,000,000"):
            formats.load(path, format="word2vec-binary")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 32e6
    # What gzip might hold is believed, but room is made as rows arrive.
    path = tmp_path / "w.bin.gz"
    path.write_bytes(gzip.compress(b"30000 300\na " + bytes(1200) + random.Random(0).randbytes(60_000)))
    tracemalloc.start()
    with pytest.raises(DataError):
        formats.load(path, format="word2vec-binary", allow_nonfinite=True, encoding_errors="replace")
    tracemalloc.stop()


def test_more_than_fits_in_memory_is_told_before_it_is_taken(tmp_path, monkeypatch):
    formats.save(FOUR, tmp_path / "v.bin")
    monkeypatch.setattr("posterhall.devices.memory", lambda: 20)
    with pytest.raises(DataError, match=r"0\.0 GB are free; read fewer with limit"):
        formats.load(tmp_path / "v.bin")


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was opened",))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("content", [Bomb(), {"vectors": 1}, [1, 2]])
def test_pickles_are_refused_with_the_safe_way(tmp_path, protocol, content):
    path = tmp_path / "model.kv"
    data = pickle.dumps(content, protocol=protocol)
    if protocol < 2 and not isinstance(content, dict | list):
        return  # an old pickle of our class begins with a global; it is refused as no known format
    path.write_bytes(data)
    with pytest.raises(DataError, match="save_word2vec_format"):
        formats.load(path)
    path.write_bytes(gzip.compress(data))
    with pytest.raises(DataError, match="save_word2vec_format"):
        formats.load(path)


def test_gensims_own_files_are_refused(tmp_path):
    from gensim.models import KeyedVectors

    peer = KeyedVectors(3)
    peer.add_vectors(list(FOUR.words), np.array(FOUR.matrix))
    peer.save(str(tmp_path / "v.kv"))
    with pytest.raises(DataError, match=r"runs code.*save_word2vec_format"):
        formats.load(tmp_path / "v.kv")


def test_other_known_files_are_named(tmp_path):
    path = tmp_path / "x.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"")
    with pytest.raises(DataError, match="zip archive"):
        formats.load(path)
    np.save(tmp_path / "x.npy", np.ones((2, 2)))
    with pytest.raises(DataError, match="numpy array"):
        formats.load(tmp_path / "x.npy")
    path.write_bytes(struct.pack("<ii", 793712314, 12) + bytes(100))
    with pytest.raises(DataError, match=r"fastText model; use the \.vec"):
        formats.load(path)
    (tmp_path / "v.usearch").write_bytes(b"12345678")
    with pytest.raises(DataError, match="index for queries"):
        formats.load(tmp_path / "v.usearch")


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        formats.load(tmp_path / "missing.bin")
    with pytest.raises(DataError, match="is a directory"):
        formats.load(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        formats.load(tmp_path / "missing.safetensors", format="safetensors")
    with pytest.raises(DataError, match=r"choose one of word2vec-binary.* Did you mean: glove\?"):
        formats.load(tmp_path / "missing", format="glov")


def test_duplicates_keep_the_first_and_are_counted(tmp_path):
    path = tmp_path / "v.txt"
    path.write_text("5 1\na 1\nb 2\na 3\na 4\nb 5\n")
    with pytest.warns(UserWarning, match=r"3 words occur more than once, first 'a'; kept the first row"):
        kept = formats.load(path)
    assert kept.words == ("a", "b")
    np.testing.assert_array_equal(kept.matrix[:, 0], [1, 2])
    with pytest.raises(DataError, match="3 words occur more than once"):
        formats.load(path, duplicates="error")


def test_nonfinite_values_are_read_if_allowed(tmp_path):
    matrix = np.array([[1, 0], [np.nan, 1], [np.inf, -np.inf]], np.float32)
    vectors = WordVectors(list("abc"), matrix, allow_nonfinite=True)
    (tmp_path / "v.txt").write_text("3 2\na 1 0\nb NaN 1\nc inf -Infinity\n")
    (tmp_path / "v.bin").write_bytes(binary(list("abc"), matrix))
    formats.save(vectors, tmp_path / "v.safetensors")
    for name in ("v.txt", "v.bin", "v.safetensors"):
        read = formats.load(tmp_path / name, allow_nonfinite=True)
        np.testing.assert_array_equal(read.matrix, matrix)
        with pytest.raises(DataError, match="'b'"):
            formats.load(tmp_path / name)
    with pytest.raises(DataError, match=r"'b' \(row 2\).*was not written"):
        formats.save(vectors, tmp_path / "w.txt")
    # A mapped file is not scanned; the first question finds it.
    with pytest.raises(DataError, match="'b'"):
        formats.load(tmp_path / "v.safetensors", mmap=True).nearest("a")


@pytest.mark.parametrize("word", ["new york", "tab\there", "line\nbreak", "cr\r", ""])
@pytest.mark.parametrize("ending", [".bin", ".txt", ".glove", ".vec"])
def test_words_that_would_break_the_file_are_refused_and_nothing_is_written(tmp_path, word, ending):
    path = tmp_path / ("v" + ending)
    with pytest.raises(DataError, match=r"white space|empty"):
        formats.save(WordVectors(["fine", word], np.ones((2, 2))), path)
    assert not list(tmp_path.iterdir())


def test_white_space_in_words_becomes_underscores_on_request(tmp_path):
    path = tmp_path / "v.txt"
    formats.save(WordVectors(["new york", "b"], np.eye(2)), path, on_space="underscore")
    assert formats.load(path).words == ("new_york", "b")
    with pytest.raises(DataError, match="'new_york' would occur twice"):
        formats.save(WordVectors(["new york", "new_york"], np.eye(2)), path, on_space="underscore")


def test_names_and_options_that_say_nothing_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"ending of v.xyz names no format"):
        formats.save(FOUR, tmp_path / "v.xyz")
    with pytest.raises(DataError, match="choose one of"):
        formats.save(FOUR, tmp_path / "v.xyz", format="word2vec")
    with pytest.raises(DataError, match="shortest, original"):
        formats.save(FOUR, tmp_path / "v.txt", numbers="short")
    with pytest.raises(DataError, match="not compressed"):
        formats.save(FOUR, tmp_path / "v.safetensors.gz")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "v.bin"
    formats.save(FOUR, path)
    before = path.read_bytes()

    def fail(*_args, **_kwargs):
        raise OSError("disk full")

    monkeypatch.setattr("posterhall.embeddings.formats._binary.write_binary", fail)
    with pytest.raises(OSError, match="disk full"):
        formats.save(sample_other(), path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["v.bin"]


def sample_other() -> WordVectors:
    return WordVectors(["x"], np.ones((1, 3)))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weights": np.ones((2, 2), np.float32)}, "holds the tensors weights; word vectors need"),
        ({"vectors": np.ones((2, 2), np.int32)}, "I32 of shape"),
        ({"vectors": np.ones(4, np.float32)}, "F32 of shape"),
        ({"vectors": np.ones((3, 2), np.float32)}, "2 words for 3 vectors"),
        ({"offsets": np.array([0, 1, 5])}, "does not cut"),
        ({"offsets": np.array([0, 3, 2])}, "does not cut"),
        ({"offsets": np.array([-4, 1, 2])}, "does not cut"),
        ({"offsets": np.array([0, 1, 2], np.int32)}, "does not cut"),
        ({"words": np.array([255, 98], np.uint8)}, "not UTF-8"),
        ({"counts": np.array([1])}, "every word needs one"),
    ],
)
def test_safetensors_that_hold_no_word_vectors(tmp_path, tensors, message):
    from safetensors.numpy import save_file

    sound = {
        "vectors": np.ones((2, 2), np.float32),
        "words": np.frombuffer(b"ab", np.uint8),
        "offsets": np.array([0, 1, 2]),
    }
    path = tmp_path / "v.safetensors"
    save_file(tensors if "weights" in tensors else sound | tensors, path)
    for mmap in (False, True):
        with pytest.raises(DataError, match=message):
            formats.load(path, mmap=mmap)


def test_damaged_safetensors_and_gzip(tmp_path):
    formats.save(FOUR, tmp_path / "v.safetensors")
    data = (tmp_path / "v.safetensors").read_bytes()
    for broken in (data[:-5], data[:30], data[:8] + b"{" * 20 + data[28:]):
        (tmp_path / "v.safetensors").write_bytes(broken)
        with pytest.raises(DataError, match="not a sound safetensors"):
            formats.load(tmp_path / "v.safetensors")
    formats.save(FOUR, tmp_path / "v.txt.gz")
    data = (tmp_path / "v.txt.gz").read_bytes()
    for broken in (data[:-12], data[:20] + b"\xff" * 8 + data[28:]):
        (tmp_path / "v.txt.gz").write_bytes(broken)
        with pytest.raises(DataError, match=r"damaged or cut short|UTF-8|value"):
            formats.load(tmp_path / "v.txt.gz", format="word2vec-text")


def _loads_or_refuses(path, **options):
    try:
        read = formats.load(path, **options)
    except DataError:
        return
    assert len(read) >= 1
    assert read.matrix.shape == (len(read), read.dimensions)


@pytest.mark.filterwarnings("ignore:.*occur more than once")
@pytest.mark.parametrize("format", ["word2vec-binary", "word2vec-text", "glove", "safetensors"])
@given(data=st.data())
def test_no_damage_brings_anything_but_a_data_error(tmp_path_factory, format, data):
    path = tmp_path_factory.mktemp("damaged") / "v"
    formats.save(FOUR, path, format=format)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        kind = data.draw(st.sampled_from(["cut", "flip", "insert", "delete"]))
        if kind == "cut":
            del content[place:]
        elif kind == "flip" and place < len(content):
            content[place] = data.draw(st.integers(0, 255))
        elif kind == "insert":
            content[place:place] = data.draw(
                st.sampled_from([b" ", b"\n", b"9", b"-", b"\x00", b"\xff", b"nan"])
            )
        elif kind == "delete" and place < len(content):
            del content[place]
    path.write_bytes(bytes(content))
    for named in (None, format):
        _loads_or_refuses(path, format=named)


@pytest.mark.filterwarnings("ignore:.*occur more than once")
@given(st.binary(max_size=300))
def test_no_bytes_bring_anything_but_a_data_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("noise") / "v"
    for head in (b"", b"2 3\n", b"\x1f\x8b\x08\x00"):
        path.write_bytes(head + content)
        for format in (None, "word2vec-binary", "word2vec-text", "glove", "safetensors"):
            _loads_or_refuses(path, format=format)


@pytest.mark.filterwarnings("ignore:.*occur more than once")
@given(
    st.one_of(st.integers(-(10**25), 10**25), st.integers(0, 12)),
    st.one_of(st.integers(-(10**25), 10**25), st.integers(0, 12)),
    st.booleans(),
)
def test_no_header_brings_anything_but_a_data_error(tmp_path_factory, count, dimensions, text):
    path = tmp_path_factory.mktemp("header") / "v"
    formats.save(FOUR, path, format="word2vec-text" if text else "word2vec-binary")
    body = path.read_bytes().split(b"\n", 1)[1]
    path.write_bytes(b"%d %d\n" % (count, dimensions) + body)
    if (count, dimensions) == (4, 3):
        assert formats.load(path).words == FOUR.words
    else:
        with pytest.raises(DataError):
            formats.load(path)
