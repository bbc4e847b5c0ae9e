"""Mixtures: exact shares, nested unique parts, epochs, and equal bytes for equal seeds."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterhall.curation.mixing import Source, mix, token_sizes
from posterhall.curation.pool import Pool
from posterhall.data.tokenizer import ByteTokenizer
from posterhall.errors import DataError, UsageError


def source(folder, name, documents, weight=1.0, seed=0, longest=40):
    rng = np.random.default_rng(seed)
    rows = [
        json.dumps({"text": f"{name} {i} " + "x" * int(rng.integers(1, longest))}) for i in range(documents)
    ]
    path = folder / f"{name}.jsonl"
    path.write_text("\n".join(rows) + "\n")
    return Source(Pool.open(path), weight, name)


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("code", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_shares_are_exact_to_half_a_document(tmp_path, code):
    sources = [source(tmp_path, "prose", 900, 1 - code), source(tmp_path, "code", 900, code, seed=1)]
    done = mix(sources, tmp_path / "m.jsonl", budget=20_000)
    sizes = Counter()
    for row in rows_of(tmp_path / "m.jsonl"):
        sizes[row["source"]] += len(row["text"])
    assert abs(sizes["code"] - 20_000 * code) <= 30
    assert abs(sizes["prose"] - 20_000 * (1 - code)) <= 30
    assert {part.name: part.size for part in done.sources} == dict(sizes)
    assert done.size == sum(sizes.values())
    assert all(part.epochs == 1 for part in done.sources)


def test_any_stretch_has_about_the_shares(tmp_path):
    sources = [source(tmp_path, "prose", 900, 3), source(tmp_path, "code", 900, 1, seed=1)]
    mix(sources, tmp_path / "m.jsonl", budget=20_000)
    rows = rows_of(tmp_path / "m.jsonl")
    for begin in range(0, len(rows) - 100, 100):
        part = rows[begin : begin + 100]
        total = sum(len(row["text"]) for row in part)
        assert sum(len(row["text"]) for row in part if row["source"] == "code") / total == pytest.approx(
            0.25, abs=0.04
        )


@settings(max_examples=15)
@given(st.integers(100, 2000), st.integers(100, 2000))
def test_a_smaller_unique_part_lies_in_a_larger_one(tmp_path_factory, one, two):
    folder = tmp_path_factory.mktemp("nested")
    found = []
    for unique in sorted((one, two)):
        mix(
            [source(folder, "a", 100), source(folder, "b", 100, 2, seed=3)],
            folder / "m.jsonl",
            budget=4000,
            unique=unique,
        )
        found.append({row["text"] for row in rows_of(folder / "m.jsonl")})
    assert found[0] <= found[1]


def test_every_epoch_has_all_texts_once_in_another_order(tmp_path):
    done = mix([source(tmp_path, "a", 200)], tmp_path / "m.jsonl", budget=9000, unique=2000, seed=5)
    rows = rows_of(tmp_path / "m.jsonl")
    by_epoch = {}
    for row in rows:
        by_epoch.setdefault(row["epoch"], []).append(row["uid"])
    first = by_epoch[1]
    assert len(by_epoch) == 5
    for epoch in (2, 3, 4):
        assert sorted(by_epoch[epoch]) == sorted(first)
        assert by_epoch[epoch] != first
    assert set(by_epoch[5]) < set(first)
    assert by_epoch[2] != by_epoch[3]
    part = done.sources[0]
    assert part.unique_documents == len(first)
    assert part.epochs == pytest.approx(part.size / part.unique)
    assert abs(part.size - 9000) <= 30


def test_the_share_of_one_source_does_not_change_what_another_gives_first(tmp_path):
    first = {}
    for weight in (0.0, 0.3):
        sources = [source(tmp_path, "code", 300, weight, seed=1), source(tmp_path, "prose", 300)]
        mix(sources, tmp_path / "m.jsonl", budget=3000)
        first[weight] = [row["uid"] for row in rows_of(tmp_path / "m.jsonl") if row["source"] == "prose"][:20]
    assert first[0.0] == first[0.3]


def test_equal_seeds_give_equal_bytes_and_a_manifest_beside(tmp_path):
    sources = [source(tmp_path, "a", 50), source(tmp_path, "b", 50, seed=2)]
    mix(sources, tmp_path / "one.jsonl", budget=3000, seed=7)
    mix(sources, tmp_path / "two.jsonl", budget=3000, seed=7)
    mix(sources, tmp_path / "three.jsonl", budget=3000, seed=8)
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    assert (tmp_path / "one.jsonl").read_bytes() != (tmp_path / "three.jsonl").read_bytes()
    manifest = json.loads((tmp_path / "one.jsonl.manifest.json").read_text())
    assert manifest["version"] == 1
    assert manifest["seed"] == 7
    assert [each["name"] for each in manifest["sources"]] == ["a", "b"]
    assert manifest["sources"][0]["epochs"] > 1
    assert not [each for each in tmp_path.iterdir() if each.name.startswith(".mix")]
    again = Pool.open(tmp_path / "one.jsonl")
    uids = [uid for batch in again.batches(["uid"]) for uid in batch.column(0).to_pylist()]
    assert len(set(uids)) == len(uids)


def test_tokens_count_with_what_ends_a_document(tmp_path):
    done = mix(
        [source(tmp_path, "a", 50)], tmp_path / "m.parquet", budget=500,
        measure=token_sizes(ByteTokenizer()), unit="tokens",
    )  # fmt: skip
    texts = [row["text"] for b in Pool.open(tmp_path / "m.parquet").batches() for row in b.to_pylist()]
    assert done.size == sum(len(text) + 1 for text in texts)
    assert done.unit == "tokens"


def test_what_cannot_be_mixed_is_refused_and_nothing_is_lost(tmp_path):
    a = source(tmp_path, "a", 20)
    out = tmp_path / "m.jsonl"
    with pytest.raises(DataError, match=r"source 'a' holds .* wants 5,000 of it"):
        mix([a], out, budget=9000, unique=5000)
    with pytest.raises(UsageError, match="unique part is 50 and the budget 40"):
        mix([a], out, budget=40, unique=50)
    with pytest.raises(UsageError, match="budget is 0"):
        mix([a], out, budget=0)
    with pytest.raises(UsageError, match="no source has a weight"):
        mix([Source(a.pool, 0, "a")], out, budget=10)
    with pytest.raises(UsageError, match="weight of 'a' is -1"):
        mix([Source(a.pool, -1, "a")], out, budget=10)
    with pytest.raises(DataError, match="would be overwritten"):
        mix([a], tmp_path / "a.jsonl", budget=10)
    (tmp_path / "empty.jsonl").write_text('{"text": ""}\n')
    with pytest.raises(DataError, match="holds no text"):
        mix([Source(Pool.open(tmp_path / "empty.jsonl"), 1, "e")], out, budget=10)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.jsonl", "empty.jsonl"]
