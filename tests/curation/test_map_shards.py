"""Maps over shards: a killed map goes on, and ends as one that was not killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from posterhall.curation.filtering import score_pool
from posterhall.curation.filters import threshold
from posterhall.curation.ngram import NGramModel
from posterhall.curation.pool import Pool
from posterhall.curation.shards import map_shards
from posterhall.errors import DataError, UsageError
from posterhall.runs import write_atomic


def upper(shard, config, out):
    """A task that leaves a trace of every call."""
    with open(config["trace"], "a") as trace:
        trace.write(f"{shard.name}\n")
    if shard.name == config.get("broken"):
        raise DataError(f"{shard} is broken")
    time.sleep(config.get("seconds", 0))
    write_atomic(out, shard.read_text().upper() + config.get("end", ""))
    return {"bytes": shard.stat().st_size}


@pytest.fixture
def shards(tmp_path):
    (tmp_path / "in").mkdir()
    paths = [tmp_path / "in" / f"{i}.txt" for i in range(5)]
    for i, path in enumerate(paths):
        path.write_text(f"shard {i}")
    return paths


def calls(tmp_path):
    trace = tmp_path / "trace"
    names = trace.read_text().split() if trace.exists() else []
    trace.unlink(missing_ok=True)
    return sorted(names)


TASK = f"{__name__}:upper"


def test_finished_shards_are_not_done_again(tmp_path, shards):
    config = {"trace": str(tmp_path / "trace")}
    seen = []
    done = map_shards(TASK, config, shards, tmp_path / "out", suffix=".txt", observe=seen.append)
    assert [each.out.read_text() for each in done] == [f"SHARD {i}" for i in range(5)]
    assert [each.facts for each in done] == [{"bytes": 7}] * 5
    assert seen == [0, 1, 2, 3, 4, 5]
    assert len(calls(tmp_path)) == 5
    again = map_shards(TASK, config, shards, tmp_path / "out", suffix=".txt")
    assert all(each.again for each in again)
    assert [(a.out, a.facts) for a in again] == [(d.out, d.facts) for d in done]
    assert calls(tmp_path) == []


def test_what_has_changed_is_done_again(tmp_path, shards):
    config = {"trace": str(tmp_path / "trace")}
    done = map_shards(TASK, config, shards, tmp_path / "out")
    calls(tmp_path)
    shards[1].write_text("other")
    done[2].out.unlink()
    done[3].out.with_name(done[3].out.name + ".done").write_text("{broken")
    again = map_shards(TASK, config, shards, tmp_path / "out")
    assert calls(tmp_path) == ["1.txt", "2.txt", "3.txt"]
    assert again[1].out.read_text() == "OTHER"
    map_shards(TASK, {**config, "end": "!"}, shards, tmp_path / "out")
    assert len(calls(tmp_path)) == 5


def test_a_shard_that_fails_costs_only_itself(tmp_path, shards):
    config = {"trace": str(tmp_path / "trace")}
    with pytest.raises(DataError, match=r"3\.txt is broken"):
        map_shards(TASK, {**config, "broken": "3.txt"}, shards, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").glob("*.done")) == [
        f"{i:05d}-{i}.txt.parquet.done" for i in range(3)
    ]
    with pytest.raises(DataError, match="cannot be read"):
        map_shards(TASK, config, [tmp_path / "none"], tmp_path / "out")
    with pytest.raises(UsageError, match="workers"):
        map_shards(TASK, config, shards, tmp_path / "out", workers=0)


def write_shards(folder, files=4, rows=20):
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for i in range(files):
        words = rng.integers(0, 50, (rows, 12))
        lines = [json.dumps({"text": " ".join(f"word{w}" for w in row[: 3 + i])}) for row in words]
        (folder / f"{i}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_processes_and_shards_give_the_scores_of_one_pass(tmp_path):
    pool = Pool.open(write_shards(tmp_path / "pool"))
    model = NGramModel.train([b.column("text") for b in pool.batches(["text"])], order=3)
    model.save(tmp_path / "m.npz")
    names = ["words", "unique_words", "perplexity"]
    here, rows = score_pool(pool, names, model=model)
    spread, many = score_pool(pool, names, model=tmp_path / "m.npz", directory=tmp_path / "work", workers=2)
    assert rows == many == 80
    for name in names:
        np.testing.assert_array_equal(spread[name], here[name])
    assert threshold("words", ">", 4).fit(here).kept.sum() == 40
    with pytest.raises(UsageError, match="save it first"):
        score_pool(pool, names, model=model, directory=tmp_path / "work")


def test_killed_and_run_again_it_ends_as_if_it_had_not_been(tmp_path, monkeypatch, posterhall):
    monkeypatch.chdir(tmp_path)
    write_shards(tmp_path / "pool", files=12, rows=200)
    command = [
        "data",
        "filter",
        "pool",
        "--keep",
        "words > 4 & perplexity top 50%",
        "--perplexity-train",
        "pool",
    ]
    first = [*command, "--quiet", "--work", "work", "-o", "k.jsonl", "--dropped", "d.jsonl"]
    process = subprocess.Popen([sys.executable, "-m", "posterhall", *first])
    work = tmp_path / "work"
    while process.poll() is None and len(list(work.glob("*.done"))) < 3:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in work.glob("*.done")}
    assert finished
    posterhall(*first)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    posterhall(*command, "-o", "k2.jsonl", "--dropped", "d2.jsonl")
    for name in ("k", "d"):
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (tmp_path / f"{name}2.jsonl").read_bytes()
