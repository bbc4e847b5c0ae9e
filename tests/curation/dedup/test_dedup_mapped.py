"""Deduplication file by file: what is found depends neither on how texts lie in files nor on who reads."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from posterhall.curation.dedup import (
    Exact,
    Mapped,
    MinHash,
    Substring,
    exact_duplicates,
    near_duplicates,
    shared_spans,
)
from posterhall.curation.pool import Pool
from posterhall.errors import DataError, UsageError

METHODS = {
    "minhash": (near_duplicates, MinHash(threads=1)),
    "exact": (exact_duplicates, Exact(threads=1, normalise=True)),
    "substring": (shared_spans, Substring(threads=1, length=60)),
}


def make_texts(n=120):
    """Texts of which some come again: equal, in capitals, with another end, or with a passage in common."""
    rng = np.random.default_rng(5)
    words = np.array([f"{a}{b}" for a in ("ka", "lo", "mi", "tu") for b in ("ran", "sel", "dor", "pim")])
    texts = [" ".join(rng.choice(words, 40)) for _ in range(n)]
    texts[n // 2] = texts[3]
    texts[n - 1] = texts[3].upper()
    texts[n - 2] = texts[10] + " and another end"
    texts[n - 3] = texts[20][:130] + " " + texts[n - 3]
    texts[7] = texts[n - 10] = ""
    return texts


def write(folder, texts, cuts):
    folder.mkdir(exist_ok=True)
    for i, (a, b) in enumerate(zip([0, *cuts], [*cuts, len(texts)], strict=True)):
        lines = [json.dumps({"uid": f"t{j}", "text": texts[j]}) + "\n" for j in range(a, b)]
        (folder / f"{i:02d}.jsonl").write_text("".join(lines))
    return Pool.open(folder)


def arrays(found):
    return {
        name: getattr(found, name)
        for name in ("keep", "kept", "match", "similarity", "similarity_kept", "spans", "repeats")
        if hasattr(found, name)
    }


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cuts", [(), (1, 60, 60, 119)])
def test_files_give_what_one_pass_gives(tmp_path, method, cuts):
    find, settings = METHODS[method]
    texts = make_texts()
    pool = write(tmp_path / "pool", texts, cuts)
    here = find(texts, settings)
    found = find(Mapped(pool, tmp_path / "work"), settings)
    assert not here.keep.all()
    for name, array in arrays(here).items():
        np.testing.assert_array_equal(getattr(found, name), array, err_msg=name)
    assert found.facts == here.facts


def test_finished_files_are_not_read_again(tmp_path):
    pool = write(tmp_path / "pool", make_texts(), (40, 80))
    find, settings = METHODS["minhash"]
    first = find(Mapped(pool, tmp_path / "work"), settings)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.arrays")}
    assert len(times) == 6  # two passes of three files
    # Which text of a cluster stays is decided when all is read.
    again = find(Mapped(pool, tmp_path / "work"), replace(settings, keep="longest", threads=2))
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert again.kept[3] != first.kept[3] or again.keep.sum() == first.keep.sum()
    find(Mapped(pool, tmp_path / "work"), replace(settings, ngram=4))
    assert all(path.stat().st_mtime_ns != before for path, before in times.items())


def test_only_a_file_that_changed_is_read_again(tmp_path):
    texts = make_texts()
    pool = write(tmp_path / "pool", texts, (40, 80))
    find, settings = METHODS["minhash"]
    find(Mapped(pool, tmp_path / "work"), settings)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "work" / "sketch").glob("*.arrays")}
    texts[50] = texts[100]
    (tmp_path / "pool" / "01.jsonl").write_text(
        "".join(json.dumps({"uid": f"t{j}", "text": texts[j]}) + "\n" for j in range(40, 80))
    )
    found = find(Mapped(Pool.open(tmp_path / "pool"), tmp_path / "work"), settings)
    changed = [path.name[:5] for path, before in times.items() if path.stat().st_mtime_ns != before]
    assert changed == ["00001"]
    np.testing.assert_array_equal(found.match, find(texts, settings).match)


def test_results_that_were_cut_short_are_told(tmp_path):
    pool = write(tmp_path / "pool", make_texts(), (40,))
    find, settings = METHODS["exact"]
    find(Mapped(pool, tmp_path / "work"), settings)
    path = sorted((tmp_path / "work").rglob("*.arrays"))[0]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="remove it, and run the same again"):
        find(Mapped(pool, tmp_path / "work"), settings)


def test_a_suffix_array_of_all_text_needs_one_place(tmp_path):
    pool = write(tmp_path / "pool", make_texts(), (40,))
    with pytest.raises(UsageError, match="take sampled"):
        shared_spans(Mapped(pool, tmp_path / "work"), Substring(search="suffix-array"))


def test_processes_write_what_one_writes(tmp_path, posterhall):
    write(tmp_path / "pool", make_texts(), (40, 80))
    one = ["data", "dedup", tmp_path / "pool", "--quiet", "--threads", 1]
    for name, more in (("a", []), ("b", ["--workers", 2])):
        posterhall(*one, "-o", tmp_path / f"{name}.jsonl", "--dropped", tmp_path / f"{name}.txt.jsonl", *more)
    for end in (".jsonl", ".txt.jsonl"):
        assert (tmp_path / f"a{end}").read_bytes() == (tmp_path / f"b{end}").read_bytes()
    assert not list(tmp_path.glob("*.work"))


def test_killed_and_run_again_it_ends_as_if_it_had_not_been(tmp_path, posterhall):
    texts = make_texts(600)
    write(tmp_path / "pool", texts, range(50, 600, 50))
    command = ["data", "dedup", str(tmp_path / "pool"), "--quiet", "--threads", "1"]
    killed = [*command, "--work", str(tmp_path / "work"), "-o", str(tmp_path / "k.jsonl")]
    process = subprocess.Popen([sys.executable, "-m", "posterhall", *killed])
    while process.poll() is None and len(list((tmp_path / "work").rglob("*.done"))) < 3:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.done")}
    assert finished
    posterhall(*killed)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    posterhall(*command, "-o", tmp_path / "k2.jsonl")
    assert (tmp_path / "k.jsonl").read_bytes() == (tmp_path / "k2.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--workers", 2], 2, "--work DIR"),
        (["--work", "work", "--method", "substring", "--search", "suffix-array"], 2, "take sampled"),
        (["--encoding-errors", "drop"], 2, "strict, replace, ignore"),
    ],
)
def test_mistakes_are_told(tmp_path, monkeypatch, posterhall, arguments, code, said):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "pool", make_texts(60), (10,))
    assert said in posterhall("data", "dedup", "pool", *arguments, code=code).err


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_bytes_that_are_not_utf8_can_be_replaced(tmp_path, monkeypatch, posterhall, name):
    monkeypatch.chdir(tmp_path)
    body = b"caf\xe9 au lait" if name == "a.txt" else b'{"text": "caf\xe9 au lait"}\n'
    (tmp_path / name).write_bytes(body)
    said = posterhall("data", "dedup", name, code=4).err
    assert "not UTF-8" in said
    assert "replace" in said
    for errors, text in (("replace", "caf� au lait"), ("ignore", "caf au lait")):
        posterhall("data", "dedup", name, "--encoding-errors", errors, "-o", "out.jsonl", "--quiet")
        assert json.loads((tmp_path / "out.jsonl").read_text())["text"] == text
    posterhall("data", "filter", name, "--encoding-errors", "replace", "-o", "f.jsonl", "--score", "words")
    posterhall("data", "stats", name, "--split", "file", "--encoding-errors", "replace")
    posterhall("data", "mix", name, "--encoding-errors", "replace", "--bytes", 30, "-o", "m.jsonl")
