"""Reading and writing vectors: every format there and back, and the very bytes that gensim writes."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterhall.embeddings import formats
from posterhall.embeddings.vectors import WordVectors
from posterhall.errors import DataError, MissingExtra

FORMATS = ("word2vec-binary", "word2vec-text", "glove", "fasttext", "safetensors")
ENDINGS = {
    "word2vec-binary": ".bin",
    "word2vec-text": ".txt",
    "glove": ".glove",
    "fasttext": ".vec",
    "safetensors": ".safetensors",
}

# Everything but surrogates and the white space that ends words.
words = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=" \t\n\r\x0b\x0c"), min_size=1, max_size=12
)
values = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.fixture(autouse=True, scope="module")
def _no_waiting_for_the_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield


@st.composite
def vectors(draw: st.DrawFn) -> WordVectors:
    names = draw(st.lists(words, min_size=1, max_size=8, unique=True))
    dimensions = draw(st.integers(1, 5))
    cells = draw(st.lists(values, min_size=len(names) * dimensions, max_size=len(names) * dimensions))
    return WordVectors(names, np.array(cells, np.float32).reshape(-1, dimensions))


def sample(count: int = 60, dimensions: int = 7, seed: int = 0) -> WordVectors:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(count, dimensions)).astype(np.float32)
    matrix[0] = 0
    matrix[1] *= np.float32(1e-30)
    matrix[2] = np.round(matrix[2] * 1000)
    matrix[3] *= np.float32(1e20)
    return WordVectors([f"wörd{i}" for i in range(count)], matrix, np.arange(count, 0, -1))


def same(one: WordVectors, other: WordVectors) -> None:
    assert one.words == other.words
    # As bytes: -0.0 stays -0.0.
    assert one.matrix.tobytes() == other.matrix.tobytes()


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=30)
@given(vectors())
def test_every_format_gives_back_what_was_written(tmp_path_factory, format, zipped, given_vectors):
    if format == "safetensors" and zipped:
        return
    path = tmp_path_factory.mktemp("codec") / ("v" + ENDINGS[format] + ".gz" * zipped)
    formats.save(given_vectors, path)
    same(formats.load(path, format=format), given_vectors)


@pytest.mark.parametrize("format", FORMATS)
def test_the_format_is_found_from_the_content_whatever_the_name(tmp_path, format):
    path = tmp_path / "vectors"
    formats.save(sample(), path, format=format)
    assert formats.detect(path) == ("word2vec-text" if format == "fasttext" else format)
    same(formats.load(path), sample())


@pytest.mark.parametrize("newline", [True, False])
def test_binary_is_read_with_and_without_newlines_after_vectors(tmp_path, newline):
    path = tmp_path / "v.bin"
    formats.save(sample(), path, newline=newline)
    row = b"w\xc3\xb6rd1 " + sample().matrix[1].tobytes()
    assert (row + b"\nw" in path.read_bytes()) == newline
    same(formats.load(path), sample())


def test_binary_is_laid_out_as_the_c_tool_does(tmp_path):
    path = tmp_path / "v.bin"
    formats.save(WordVectors(["</s>", "the"], [[1.5, -2], [0.25, 3]]), path)
    assert path.read_bytes() == (
        b"2 2\n</s> " + struct.pack("<2f", 1.5, -2) + b"\nthe " + struct.pack("<2f", 0.25, 3) + b"\n"
    )


def test_original_numbers_are_the_c_tools_percent_lf(tmp_path):
    path = tmp_path / "v.txt"
    formats.save(WordVectors(["a", "b"], [[1.5, -0.0000004], [1e-3, 12345.678]]), path, numbers="original")
    assert path.read_text() == "2 2\na 1.500000 -0.000000 \nb 0.001000 12345.677734 \n"
    np.testing.assert_allclose(formats.load(path).matrix, [[1.5, 0], [1e-3, 12345.678]], rtol=1e-6)


def test_glove_has_no_header_and_fasttext_a_space_before_the_newline(tmp_path):
    pair = WordVectors(["a", "b"], [[1.5, -2], [0.25, 3]])
    formats.save(pair, tmp_path / "v.glove")
    formats.save(pair, tmp_path / "v.vec")
    assert (tmp_path / "v.glove").read_text() == "a 1.5 -2.0\nb 0.25 3.0\n"
    assert (tmp_path / "v.vec").read_text() == "2 2\na 1.5 -2.0 \nb 0.25 3.0 \n"


def gensim_of(of: WordVectors):
    from gensim.models import KeyedVectors

    peer = KeyedVectors(of.dimensions)
    peer.add_vectors(list(of.words), np.array(of.matrix))
    return peer


@pytest.mark.parametrize("binary", [True, False])
def test_files_equal_gensims_byte_for_byte(tmp_path, binary, caplog):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2**32, size=(400, 30), dtype=np.uint32).view(np.float32)
    everywhere = np.where(np.isfinite(bits), bits, np.float32(1))  # all exponents, subnormals too
    everywhere[:100] = rng.normal(scale=0.1, size=(100, 30))
    everywhere[100:130] = np.float32(2.0) ** rng.integers(-140, 127, size=(30, 30))
    everywhere[130:160] = np.float32(10.0) ** rng.integers(-6, 8, size=(30, 30))
    made = WordVectors([f"é{i}" for i in range(400)], everywhere)
    gensim_of(made).save_word2vec_format(str(theirs), binary=binary)
    formats.save(made, ours, format="word2vec-binary" if binary else "word2vec-text", newline=False)
    assert ours.read_bytes() == theirs.read_bytes()
    same(formats.load(theirs), made)


@pytest.mark.parametrize("format", ["word2vec-binary", "word2vec-text", "fasttext", "glove"])
def test_gensim_reads_what_we_write(tmp_path, format):
    from gensim.models import KeyedVectors

    path = tmp_path / ("v" + ENDINGS[format])
    formats.save(sample(), path)
    peer = KeyedVectors.load_word2vec_format(
        str(path), binary=format == "word2vec-binary", no_header=format == "glove"
    )
    assert tuple(peer.index_to_key) == sample().words
    assert peer.vectors.tobytes() == sample().matrix.tobytes()


def test_numbers_are_read_as_python_reads_them(tmp_path):
    tokens = [
        "0", "-0", "+1", ".5", "5.", "1e5", "1E-5", "-1.5e+3", "123456789012345678901234567890",
        "0.1234567890123456789", "1e-45", "1.17549435e-38", "3.4028235e38", "1e-400", "0e999999999",
        "16777217", "16777219", "1.00000005960464477539", "1.00000005960464477540", "0.000001",
        "00000000000000000000000000000000000001", "9007199254740993", "8.5899345920000001e9",
    ]  # fmt: skip
    path = tmp_path / "v.txt"
    path.write_text(f"1 {len(tokens)}\nw {' '.join(tokens)}\n")
    expected = np.array([np.float32(float(token)) for token in tokens], np.float32)
    assert formats.load(path).matrix[0].tobytes() == expected.tobytes()


@settings(max_examples=25)
@given(
    st.lists(
        st.from_regex(
            r"[+-]?([0-9]{1,25}(\.[0-9]{0,25})?|\.[0-9]{1,25})([eE][+-]?[0-9]{1,2})?", fullmatch=True
        ),
        min_size=1,
        max_size=20,
    )
)
def test_any_decimal_reads_as_the_nearest_float32(tmp_path_factory, tokens):
    tokens = [token if abs(float(token)) < 3e38 else "1" for token in tokens]
    path = tmp_path_factory.mktemp("numbers") / "v.txt"
    path.write_bytes(f"1 {len(tokens)}\nw {' '.join(tokens)}\n".encode())
    read = formats.load(path).matrix[0]
    expected = np.array([np.float32(float(token)) for token in tokens], np.float32)
    # Python rounds twice (decimal, double, float32); at an exact tie that may differ by one step.
    exact = read == expected
    assert (
        exact
        | (read == np.nextafter(expected, np.float32(np.inf)))
        | (read == np.nextafter(expected, np.float32(-np.inf)))
    ).all()
    assert exact.mean() > 0.9 or len(tokens) < 10


@pytest.mark.parametrize("gap", ["  ", "\t", " \t "])
@pytest.mark.parametrize("end", ["\n", " \n", "\r\n", " \t\r\n"])
def test_separators_and_line_ends_of_other_writers(tmp_path, gap, end):
    path = tmp_path / "v.txt"
    path.write_bytes(
        ("2 2" + end + gap.join(["a", "1", "2"]) + end + gap.join(["b", "3", "4"]) + end).encode()
    )
    same(formats.load(path), WordVectors(["a", "b"], [[1, 2], [3, 4]]))


def test_a_last_line_without_newline_and_blank_lines_at_the_end(tmp_path):
    path = tmp_path / "v.txt"
    for tail in ("", "\n", "\n\n  \n", "   "):
        path.write_text("2 2\na 1 2\nb 3 4" + tail)
        same(formats.load(path), WordVectors(["a", "b"], [[1, 2], [3, 4]]))
        path.write_text("a 1 2\nb 3 4" + tail)
        same(formats.load(path), WordVectors(["a", "b"], [[1, 2], [3, 4]]))


def test_glove_words_with_spaces_are_read_as_in_the_840b_vectors(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("the 0.5 1\n. . . 2 3\nat name@domain.com 4 5\n")
    same(formats.load(path), WordVectors(["the", ". . .", "at name@domain.com"], [[0.5, 1], [2, 3], [4, 5]]))


def test_small_windows_read_what_a_large_one_reads(tmp_path, monkeypatch):
    made = sample(300, 9)
    monkeypatch.setattr("posterhall.embeddings.formats._source._WINDOW", 64)
    monkeypatch.setattr("posterhall.embeddings.formats._text._WRITE_ROWS", 7)
    monkeypatch.setattr("posterhall.embeddings.formats._binary._WRITE_ROWS", 7)
    for format in FORMATS[:4]:
        for zipped in ("", ".gz"):
            path = tmp_path / ("v" + ENDINGS[format] + zipped)
            formats.save(made, path)
            same(formats.load(path), made)


def test_limit_reads_the_first_rows_only(tmp_path):
    for format in FORMATS:
        path = tmp_path / ("v" + ENDINGS[format])
        formats.save(sample(), path)
        few = formats.load(path, limit=5)
        assert few.words == sample().words[:5]
        np.testing.assert_array_equal(few.matrix, sample().matrix[:5])
        assert len(formats.load(path, limit=1000)) == 60
    with pytest.raises(DataError, match="at least 1"):
        formats.load(path, limit=0)


def test_equal_vectors_give_equal_gzip_files(tmp_path):
    formats.save(sample(), tmp_path / "a.txt.gz")
    formats.save(sample(), tmp_path / "b.txt.gz")
    assert (tmp_path / "a.txt.gz").read_bytes() == (tmp_path / "b.txt.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.txt.gz").read_bytes()).startswith(b"60 7\n")


def test_safetensors_keeps_counts_and_words_that_text_cannot_hold(tmp_path):
    made = WordVectors(["new york", "", "a\nb"], [[1, 2], [3, 4], [5, 6]], [9, 2, 1])
    formats.save(made, tmp_path / "v.safetensors")
    back = formats.load(tmp_path / "v.safetensors")
    same(back, made)
    np.testing.assert_array_equal(back.counts, [9, 2, 1])


def test_safetensors_is_readable_without_us(tmp_path):
    from safetensors.numpy import load_file

    formats.save(sample(), tmp_path / "v.safetensors")
    tensors = load_file(tmp_path / "v.safetensors")
    np.testing.assert_array_equal(tensors["vectors"], sample().matrix)
    ends = tensors["offsets"]
    assert tensors["words"].tobytes()[ends[3] : ends[4]].decode() == "wörd3"


def test_safetensors_is_memory_mapped_on_request(tmp_path):
    path = tmp_path / "v.safetensors"
    formats.save(sample(), path)
    mapped = formats.load(path, mmap=True)
    same(mapped, sample())
    base = mapped.matrix
    while not isinstance(base, np.memmap):
        base = base.base
        assert base is not None
    assert [w for w, _ in mapped.nearest("wörd9")] == [w for w, _ in sample().nearest("wörd9")]
    with pytest.raises(ValueError, match="read-only"):
        mapped.matrix[0, 0] = 1
    assert mapped.most_frequent(3).words == sample().words[:3]
    formats.save(sample(), tmp_path / "v.bin")
    with pytest.raises(DataError, match=r"convert it.*safetensors"):
        formats.load(tmp_path / "v.bin", mmap=True)


def test_half_precision_tensors_are_widened(tmp_path):
    from safetensors.numpy import save_file

    half = np.array([[0.5, 1.5]], np.float16)
    letters, ends = np.frombuffer(b"a", np.uint8), np.array([0, 1])
    save_file({"vectors": half, "words": letters, "offsets": ends}, tmp_path / "v.safetensors")
    same(formats.load(tmp_path / "v.safetensors"), WordVectors(["a"], [[0.5, 1.5]]))


def test_without_the_extra_safetensors_is_told_to_be_missing(tmp_path, monkeypatch):
    formats.save(sample(), tmp_path / "v.safetensors")
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    monkeypatch.setitem(__import__("sys").modules, "safetensors.numpy", None)
    with pytest.raises(MissingExtra, match=r"posterhall\[train\]"):
        formats.load(tmp_path / "v.safetensors")
    with pytest.raises(MissingExtra, match=r"posterhall\[train\]"):
        formats.save(sample(), tmp_path / "w.safetensors")


def test_bytes_that_are_no_utf8_survive_with_surrogateescape(tmp_path):
    path = tmp_path / "v.bin"
    path.write_bytes(b"2 1\n\xe2\x82 " + struct.pack("<f", 1) + b"\nok " + struct.pack("<f", 2) + b"\n")
    with pytest.raises(DataError, match=r"row 1.*not UTF-8.*surrogateescape"):
        formats.load(path)
    assert formats.load(path, encoding_errors="replace").words == ("\ufffd", "ok")
    kept = formats.load(path, encoding_errors="surrogateescape")
    with pytest.raises(DataError, match="surrogateescape"):
        formats.save(kept, tmp_path / "w.bin")
    formats.save(kept, tmp_path / "w.bin", encoding_errors="surrogateescape")
    assert (tmp_path / "w.bin").read_bytes() == path.read_bytes()
    formats.save(kept, tmp_path / "w.txt", encoding_errors="surrogateescape")
    same(formats.load(tmp_path / "w.txt", encoding_errors="surrogateescape"), kept)


def test_counts_come_from_a_vocabulary_file(tmp_path):
    formats.save(WordVectors(["the", "of"], np.eye(2)), tmp_path / "v.bin")
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("</s> 0\nof 7\nthe 12\n")
    np.testing.assert_array_equal(formats.load(tmp_path / "v.bin", counts=vocabulary).counts, [12, 7])
    vocabulary.write_text("the 12\n")
    with pytest.raises(DataError, match="no count for 'of'"):
        formats.load(tmp_path / "v.bin", counts=vocabulary)
    vocabulary.write_text("the 12\nof seven\n")
    with pytest.raises(DataError, match=r"vocab.txt:2: 'of seven'"):
        formats.load(tmp_path / "v.bin", counts=vocabulary)


def test_vectors_load_and_save_themselves(tmp_path):
    sample().save(tmp_path / "v.txt", numbers="original")
    assert WordVectors.load(tmp_path / "v.txt", limit=3).words == sample().words[:3]


def test_a_vocabulary_of_millions_of_short_rows_reads_in_one_pass(tmp_path):
    count = 200_000
    made = WordVectors([f"w{i}" for i in range(count)], np.arange(count, dtype=np.float32)[:, None] / 8)
    formats.save(made, tmp_path / "v.bin")
    same(formats.load(tmp_path / "v.bin"), made)
    formats.save(made, tmp_path / "v.txt.gz")
    same(formats.load(tmp_path / "v.txt.gz"), made)


@pytest.mark.parametrize("name", ["euclidean_vectors.bin", "lee_fasttext.vec", "test_glove.txt"])
def test_old_files_of_others_load_as_gensim_loads_them(name):
    from gensim.models import KeyedVectors
    from gensim.test.utils import datapath

    path = datapath(name)
    found = formats.load(path)
    kind = formats.detect(path)
    peer = KeyedVectors.load_word2vec_format(
        path, binary=kind == "word2vec-binary", no_header=kind == "glove"
    )
    assert list(found.words) == peer.index_to_key
    np.testing.assert_array_equal(found.matrix, peer.vectors)
