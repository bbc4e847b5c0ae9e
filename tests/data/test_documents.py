"""Reading documents: every format gives the same texts, and what is wrong is named with its place."""

from __future__ import annotations

import gzip
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.data import documents as module
from posterhall.data.documents import documents, expand
from posterhall.errors import DataError, UsageError

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)


def compressed(data: bytes, ending: str) -> bytes:
    if ending == ".gz":
        return gzip.compress(data)
    if ending == ".zst":
        return pa.compress(data, codec="zstd", asbytes=True)
    return data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("documents")


@given(
    texts=st.lists(TEXT, max_size=12), ending=st.sampled_from(["", ".gz", ".zst"]), block=st.integers(1, 50)
)
def test_json_lines_come_back_whatever_they_hold(folder, texts, ending, block):
    path = folder / f"rows.jsonl{ending}"
    lines = [json.dumps({"id": i, "text": text}, ensure_ascii=i % 2 == 0) for i, text in enumerate(texts)]
    path.write_bytes(compressed("\n".join(lines).encode(), ending))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_BYTES", block)
        found = list(documents(path, uid_field="id"))
    assert [(each.uid, each.text, each.line) for each in found] == [
        (str(i), text, i + 1) for i, text in enumerate(texts)
    ]


@given(texts=st.lists(TEXT, min_size=1, max_size=12))
def test_parquet_columns_come_back(folder, texts):
    path = folder / "rows.parquet"
    pq.write_table(pa.table({"body": texts, "other": range(len(texts))}), path)
    found = list(documents(path, text_field="body"))
    assert [(each.text, each.line) for each in found] == [(text, i + 1) for i, text in enumerate(texts)]


@given(text=TEXT, block=st.integers(1, 9))
def test_lines_of_plain_text_are_those_between_newlines(folder, text, block):
    path = folder / "plain.txt"
    path.write_bytes(text.encode())
    expected = [
        (number, line.removesuffix("\r"))
        for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1)
        if line.strip()
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_BYTES", max(block, 3))  # a byte-order mark comes in one piece
        assert [(each.line, each.text) for each in documents(path, split="line")] == expected


def test_plain_text_is_cut_as_asked(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n\n \n\nthree\n")
    assert [each.text for each in documents(path)] == ["one\ntwo\n\n \n\nthree\n"]
    assert [each.text for each in documents(path, split="line")] == ["one", "two", "three"]
    paragraphs = list(documents(path, split="blank"))
    assert [(each.text, each.line) for each in paragraphs] == [("one\ntwo", 1), ("three", 6)]
    assert paragraphs[1].uid == f"{path}:6"


def test_directories_and_patterns_expand_in_the_order_of_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.txt", "a.md", "sub/c.txt", ".hidden", ".git/config"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    os.symlink(tmp_path, tmp_path / "sub" / "loop")
    names = ["a.md", "b.txt", "sub/c.txt"]
    assert [path.as_posix() for path in expand(".")] == names
    assert [path.as_posix() for path in expand("**/*.txt")] == names[1:]
    assert [path.as_posix() for path in expand(["sub", "b.txt", "*.txt"])] == ["sub/c.txt", "b.txt"]
    assert [each.text for each in documents(".")] == names


def test_concatenated_members_of_gzip_and_zstd_are_one_text(tmp_path):
    for ending in (".gz", ".zst"):
        path = tmp_path / f"a.txt{ending}"
        path.write_bytes(compressed(b"one\n", ending) + compressed(b"two\n", ending))
        assert [each.text for each in documents(path)] == ["one\ntwo\n"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"fine\nnot \xff fine\n", "line 2: byte 5 of the line"),
        ("a.txt", b"h\0i\0", "line 1: a NUL byte"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "line 2: not JSON"),
        ("a.jsonl", b'{"text": "a"}\n\n[1]\n', "line 3: a JSON array"),
        ("a.jsonl", b'{"tex": "a"}\n', r"line 1: no field 'text'. Did you mean: tex\?"),
        ("a.jsonl", b'{"text": null}\n', "line 1: 'text' is a JSON null"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "line 1: half of a surrogate pair"),
        ("a.jsonl", b"[" * 100_000, "line 1: (JSON nested too deep|not JSON)"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xc3\x28"}\n', "line 2: byte 11 of the line"),
        ("a.txt.gz", b"plain", "is named .gz but starts with"),
        ("a.txt.gz", gzip.compress(bytes(range(97, 123)) * 99, mtime=0)[:-12], "cannot be read after"),
        ("a.txt.zst", compressed(os.urandom(999).hex().encode(), ".zst")[:-9], "cannot be read after"),
        ("a.parquet", b"PAR1 nothing", "cannot be read as Parquet"),
    ],
)  # fmt: skip
def test_bad_input_is_named_with_its_place(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        list(documents(tmp_path / name))
    assert name in str(caught.value)


def test_bytes_that_are_not_utf8_are_replaced_or_dropped_on_request(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"a\xffb")
    assert next(documents(path, encoding_errors="replace")).text == "a�b"
    assert next(documents(path, encoding_errors="ignore")).text == "ab"


def test_a_column_that_is_no_text_or_null_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [1, 2], "body": ["a", None]}), path)
    with pytest.raises(DataError, match="'text' is int64"):
        list(documents(path))
    with pytest.raises(DataError, match="row 2: 'body' is null"):
        list(documents(path, text_field="body"))
    with pytest.raises(DataError, match=r"no column 'tex'\. Did you mean: text"):
        list(documents(path, text_field="tex"))


@pytest.mark.parametrize("split", ["file", "line", "blank"])
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl"])
def test_a_document_beyond_the_limit_is_refused_without_being_read(tmp_path, name, split, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_BYTES", 64)
    (tmp_path / name).write_bytes(compressed(b"x" * 100_000, ".gz" if name.endswith("gz") else ""))
    with pytest.raises(DataError, match="over 1,000 bytes"):
        list(documents(tmp_path / name, split=split, max_document_bytes=1000))


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_decompression_bomb_is_stopped_early(tmp_path, ending, monkeypatch):
    monkeypatch.setattr(module, "BOMB_BYTES", 1 << 20)
    path = tmp_path / f"bomb.txt{ending}"
    path.write_bytes(compressed(b"\n" * (24 << 20), ending))
    read = []
    original = module._decompressed

    def counted(path, raw):
        stream = original(path, raw)
        read.append(stream)
        return stream

    monkeypatch.setattr(module, "_decompressed", counted)
    with pytest.raises(DataError, match="decompression bomb"):
        list(documents(path, split="line"))
    assert len(read) == 1


def test_text_that_compresses_well_is_no_bomb(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"the same line\n" * 100_000))
    assert sum(1 for _ in documents(path, split="line")) == 100_000


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "no text given"),
        ("gone.txt", "no such file"),
        ("*.none", "no file matches"),
        ("empty", "no file"),
    ],
)
def test_what_names_no_file_is_refused(tmp_path, monkeypatch, given, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=said):
        expand(given)


def test_an_unknown_way_to_cut_is_a_usage_error(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(UsageError, match="allowed are file, line and blank"):
        list(documents(tmp_path / "a.txt", split="words"))
