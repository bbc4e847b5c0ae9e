"""Pools: what goes in comes out, whatever the format, and bad input is named by file and line."""

from __future__ import annotations

import gzip
import hashlib
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterhall.curation import _json_lines
from posterhall.curation._uids import Namer
from posterhall.curation.pool import Pool, write, write_kept
from posterhall.errors import DataError, UsageError


def lines(path, *rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_of(pool, columns=None):
    return [row for batch in pool.batches(columns) for row in batch.to_pylist()]


ROWS = [
    {"text": "one two", "n": 1, "when": "2020-01-01"},
    {"text": 'Ünï\u2028 "quoted"\n', "n": 2.5, "tags": ["x", "y"]},
    {"text": "", "meta": {"a": {"b": 1}}},
    {"text": "one two"},
]


def test_the_uid_is_the_hash_of_the_text_and_equal_texts_are_numbered(tmp_path):
    pool = Pool.open(lines(tmp_path / "a.jsonl", *ROWS))
    digest = hashlib.blake2b(b"one two", digest_size=16).hexdigest()
    uids = [row["uid"] for row in rows_of(pool)]
    assert uids[0] == digest
    assert uids[3] == f"{digest}#2"
    assert len(set(uids)) == 4


def test_values_come_out_as_they_went_in(tmp_path):
    pool = Pool.open(lines(tmp_path / "a.jsonl", *ROWS))
    assert pool.schema.names[:2] == ["uid", "text"]
    for row, found in zip(ROWS, rows_of(pool), strict=True):
        assert {k: v for k, v in found.items() if v is not None and k != "uid"} == row
    assert pool.count() == 4


@pytest.mark.parametrize("name", ["b.jsonl", "b.jsonl.gz", "b.jsonl.zst", "b.parquet", "b.ndjson"])
def test_written_and_read_again_a_pool_is_the_same(tmp_path, name):
    pool = Pool.open(lines(tmp_path / "a.jsonl", *ROWS))
    assert write(pool.batches(), tmp_path / name) == 4
    again = Pool.open(tmp_path / name)
    assert rows_of(again) == rows_of(pool)
    assert again.count() == 4
    first = (tmp_path / name).read_bytes()
    write(pool.batches(), tmp_path / name)
    assert (tmp_path / name).read_bytes() == first


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@settings(max_examples=40)
@given(st.lists(texts, min_size=1, max_size=20))
def test_any_text_survives_json_lines_and_parquet(tmp_path_factory, written):
    folder = tmp_path_factory.mktemp("any")
    path = lines(folder / "a.jsonl", *({"text": each} for each in written))
    assert [row["text"] for row in rows_of(Pool.open(path), ["text"])] == written
    write(Pool.open(path).batches(), folder / "b.parquet")
    assert [row["text"] for row in rows_of(Pool.open(folder / "b.parquet"))] == written


def test_blocks_of_any_size_give_the_same_rows(tmp_path, monkeypatch):
    rows = [{"text": f"{i} " * (i % 50), "i": i} for i in range(500)]
    path = lines(tmp_path / "a.jsonl", *rows)
    whole = rows_of(Pool.open(path))
    monkeypatch.setattr(_json_lines, "BLOCK_BYTES", 700)
    monkeypatch.setattr(_json_lines.reading, "_BLOCK_BYTES", 64)
    assert rows_of(Pool.open(path)) == whole
    assert [row["i"] for row in whole] == list(range(500))


def test_files_of_all_kinds_are_one_pool(tmp_path):
    lines(tmp_path / "a.jsonl", {"text": "a", "n": 1})
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write('{"text": "b", "n": 0.5}')  # no newline at the end
    pq.write_table(pa.table({"text": ["c"], "n": pa.array([3], pa.int32())}), tmp_path / "c.parquet")
    (tmp_path / "d.txt").write_text("d\n\ne\n")
    (tmp_path / ".hidden").write_text("no")
    pool = Pool.open(tmp_path, split="blank")
    assert [(row["text"], row["n"]) for row in rows_of(pool)] == [
        ("a", 1), ("b", 0.5), ("c", 3), ("d", None), ("e", None),
    ]  # fmt: skip
    assert [row["source"] for row in rows_of(pool)][3] == str(tmp_path / "d.txt")
    assert rows_of(pool, ["n", "text"])[2] == {"n": 3, "text": "c"}


def test_given_fields_become_text_and_uid(tmp_path):
    path = lines(tmp_path / "a.jsonl", {"id": 7, "body": "x"}, {"id": 7, "body": "y"}, {"id": 8, "body": "z"})
    pool = Pool.open(path, text_field="body", uid_field="id")
    assert [(row["uid"], row["text"]) for row in rows_of(pool)] == [("7", "x"), ("7#2", "y"), ("8", "z")]
    lines(tmp_path / "b.jsonl", {"uid": "given", "text": "x"}, {"text": "y"})
    uids = [row["uid"] for row in rows_of(Pool.open(tmp_path / "b.jsonl"), ["uid"])]
    assert uids == ["given", hashlib.blake2b(b"y", digest_size=16).hexdigest()]


@given(st.lists(st.sampled_from(["a", "b", "a#2", "a#3", "a#2#2"]), max_size=12))
def test_uids_are_unique_whatever_is_given(given_uids):
    found = Namer().name(pa.array(given_uids, pa.string()), pa.array([""] * len(given_uids))).to_pylist()
    assert len(set(found)) == len(found)
    assert [uid.startswith(given) for uid, given in zip(found, given_uids, strict=True)] == [True] * len(
        found
    )


def test_a_loop_of_links_does_no_harm(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "up").symlink_to(tmp_path, target_is_directory=True)
    lines(tmp_path / "deep" / "a.jsonl", {"text": "a"})
    assert Pool.open(tmp_path).count() == 1
    (tmp_path / "round.jsonl").symlink_to(tmp_path / "round.jsonl")
    with pytest.raises(DataError, match=r"round\.jsonl"):
        Pool.open(tmp_path / "round.jsonl")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "a"}\n{"text": \n', r"line 2: not JSON"),
        (b'{"text": "a"}\n\n{"txt": "a"}\n', r"line 3: no field 'text'\. Did you mean: txt\?"),
        (b'{"text": "a"}\n{"text": null}\n', r"line 2: no field 'text'"),
        (b'{"text": "a"}\n[1]\n', r"line 2: a list instead of an object"),
        (b'{"text": "a"}\n{"text": 3}\n', r"line 2: field 'text' is a number"),
        (b'{"text": "a", "n": 1}\n{"text": "a", "n": "1"}\n', r"line 2: field 'n' is text, and a number in"),
        (b'{"text": "a"}\n{"text": "\xff"}\n', r"line 2: byte 11 of the line"),
        (b'{"text": "a", "uid": [1]}\n', "uid"),
    ],
)  # fmt: skip
def test_bad_json_is_named_by_its_line(tmp_path, content, message):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.jsonl") as caught:
        rows_of(Pool.open(path))
    assert caught.match(message)


def test_a_huge_line_is_refused_before_it_fills_the_memory(tmp_path):
    path = tmp_path / "huge.jsonl"
    path.write_text('{"text": "a"}\n{"text": "' + "x" * 20_000_000)
    with pytest.raises(DataError, match=r"line 2: longer than"):
        rows_of(Pool.open(path, max_document_bytes=1_000_000))


def test_fields_that_cannot_be_reconciled_are_named(tmp_path):
    lines(tmp_path / "a.jsonl", {"text": "a", "n": 1})
    lines(tmp_path / "b.jsonl", {"text": "b", "n": "one"})
    with pytest.raises(DataError, match=r"b\.jsonl: field 'n' is string, and int64 before"):
        _ = Pool.open(tmp_path).schema
    assert len(rows_of(Pool.open(tmp_path), ["text"])) == 2


def test_other_bad_input(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        Pool.open(tmp_path / "none.jsonl")
    with pytest.raises(UsageError, match="split is 'page'; allowed are file, line, blank"):
        Pool.open(tmp_path, split="page")
    pq.write_table(pa.table({"body": ["c"]}), tmp_path / "c.parquet")
    with pytest.raises(DataError, match=r"no column 'text'. There are: body"):
        rows_of(Pool.open(tmp_path / "c.parquet"))
    pq.write_table(pa.table({"text": [1]}), tmp_path / "c.parquet")
    with pytest.raises(DataError, match="int64, not text"):
        rows_of(Pool.open(tmp_path / "c.parquet"))
    (tmp_path / "d.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        Pool.open(tmp_path / "d.parquet").count()
    lines(tmp_path / "e.jsonl", {"text": "a"})
    with pytest.raises(DataError, match="no column 'sore'"):
        rows_of(Pool.open(tmp_path / "e.jsonl"), ["sore"])
    os.truncate(tmp_path / "e.jsonl", 0)
    assert rows_of(Pool.open(tmp_path / "e.jsonl")) == []


def test_kept_rows_are_written_and_dropped_ones_explained(tmp_path):
    pool = Pool.open(lines(tmp_path / "a.jsonl", *ROWS))
    written = write_kept(
        pool,
        np.array([True, False, True, False]),
        tmp_path / "k.jsonl",
        tmp_path / "d.parquet",
        why=lambda row: ("rule", float(row), f"row {row}"),
        extra={"score": np.array([0.5, 1.0, np.nan, 2.0])},
    )
    assert (written.rows, written.kept, written.dropped) == (4, 2, 2)
    kept = [json.loads(line) for line in (tmp_path / "k.jsonl").read_text().splitlines()]
    assert [row.get("score") for row in kept] == [0.5, None]
    dropped = pq.read_table(tmp_path / "d.parquet").to_pylist()
    uids = [row["uid"] for row in rows_of(pool)]
    assert dropped == [
        {"uid": uids[i], "filter": "rule", "value": float(i), "reason": f"row {i}"} for i in (1, 3)
    ]
    by_uid = write_kept(pool, {uids[2]}, tmp_path / "u.jsonl")
    assert by_uid.kept == 1


def test_writing_never_loses_anything(tmp_path):
    path = lines(tmp_path / "a.jsonl", *ROWS)
    before = path.read_bytes()
    pool = Pool.open(path)
    with pytest.raises(DataError, match="would be overwritten"):
        write_kept(pool, np.ones(4, bool), path)
    with pytest.raises(DataError, match="decided on"):
        write_kept(pool, np.ones(3, bool), tmp_path / "k.jsonl")
    with pytest.raises(DataError, match="decided on"):
        write_kept(pool, np.ones(5, bool), tmp_path / "k.jsonl")
    with pytest.raises(UsageError, match="name it"):
        write(pool.batches(), tmp_path / "k.txt")
    assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.jsonl"]


def test_nan_within_a_value_has_no_form_in_json(tmp_path):
    batch = pa.RecordBatch.from_pylist([{"uid": "u", "text": "t", "v": [float("nan")]}])
    with pytest.raises(DataError, match=r"item u .* write \.parquet"):
        write([batch], tmp_path / "x.jsonl")
    assert write([batch], tmp_path / "x.parquet") == 1
