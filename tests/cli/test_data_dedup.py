"""`posterhall data dedup` as a user meets it."""

from __future__ import annotations

import gzip
import json
import random

import pyarrow.parquet as parquet
import pytest

PASSAGE = (
    "This paragraph stands at the foot of every page of the site, and says nothing that anyone has to read "
    "a second time. "
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two shards: 30 texts, five near copies, two equal copies, three with one passage, an empty one."""
    rng = random.Random(0)
    words = [f"{a}{b}" for a in ("ka", "lo", "mi", "tu") for b in ("ran", "sel", "dor", "pim", "vex")]
    texts = [" ".join(rng.choices(words, k=80)) for _ in range(30)]
    rows = [{"uid": f"t{i}", "text": t, "stars": i} for i, t in enumerate(texts)]
    rows += [{"uid": f"near{i}", "text": texts[i] + " with an end", "stars": -i} for i in range(5)]
    rows += [{"uid": f"same{i}", "text": texts[i], "stars": 0} for i in (7, 8)]
    rows += [
        {"uid": f"foot{i}", "text": " ".join(rng.choices(words, k=60)) + PASSAGE, "stars": 1}
        for i in range(3)
    ]
    rows += [{"uid": "empty", "text": "", "stars": 0}]
    path = tmp_path_factory.mktemp("pool")
    lines = [json.dumps(row) + "\n" for row in rows]
    (path / "a.jsonl").write_text("".join(lines[:20]))
    (path / "b.jsonl.gz").write_bytes(gzip.compress("".join(lines[20:]).encode()))
    return path


def uids(path):
    return [json.loads(line)["uid"] for line in path.read_text().splitlines()]


def test_near_duplicates_go_and_the_reasons_are_written(posterhall, folder, tmp_path):
    out, dropped, report = (tmp_path / name for name in ("kept.jsonl", "dropped.jsonl", "report.parquet"))
    done = posterhall(
        "data", "dedup", folder, "-o", out, "--dropped", dropped, "--report", report, "--threads", 1
    )
    assert {u[:4] for u in uids(out)} & {"near", "same"} == set()
    assert {"t0", "foot0", "foot1", "foot2", "empty"} <= set(uids(out))
    reasons = [json.loads(line) for line in dropped.read_text().splitlines()]
    assert {r["uid"] for r in reasons} == {*(f"near{i}" for i in range(5)), "same7", "same8"}
    by_uid = {r["uid"]: r for r in reasons}
    assert by_uid["same7"]["reason"] == "equal to t7"
    assert 0.8 <= by_uid["near3"]["value"] < 1
    rows = parquet.read_table(report).to_pylist()
    assert {(r["uid"], r["kept"]) for r in rows} >= {("near3", "t3"), ("same8", "t8")}
    assert "dropped         7 (17.07 %)" in done.out
    assert "0.80                 0.9855  threshold" in done.out
    assert done.err == ""


def test_json_tells_what_was_done(posterhall, folder, tmp_path):
    out = tmp_path / "kept.parquet"
    result = json.loads(posterhall("data", "dedup", folder, "-o", out, "--json", "--threads", 1).out)
    assert (result["documents"], result["kept"], result["dropped"]) == (41, 34, 7)
    assert (result["bands"], result["rows"]) == (18, 7)
    assert result["settings"]["threshold"] == 0.8
    assert result["s_curve"][-1] == {"jaccard": 1.0, "chance": 1.0}
    assert result["output"] == str(out)
    assert parquet.read_table(out).num_rows == 34


@pytest.mark.parametrize(("keep", "left"), [("none", 0), ("first", 1)])
@pytest.mark.parametrize("search", ["sampled", "suffix-array"])
def test_documents_that_share_a_passage_go(posterhall, folder, tmp_path, keep, left, search):
    out, report = tmp_path / "kept.jsonl", tmp_path / "spans.jsonl"
    posterhall(
        "data", "dedup", folder, "-o", out, "--method", "substring", "--keep", keep, "--search", search,
        "--length", 100, "--report", report, "--threads", 1,
    )  # fmt: skip
    assert sum(u.startswith("foot") for u in uids(out)) == left
    spans = [json.loads(line) for line in report.read_text().splitlines()]
    (foot,) = [s for s in spans if s["uid"] == "foot1"]
    assert foot["stop"] - foot["start"] >= len(PASSAGE)
    assert foot["repeat"] is True


def test_passages_can_be_cut_out(posterhall, folder, tmp_path):
    out = tmp_path / "cut.jsonl"
    posterhall(
        "data",
        "dedup",
        folder,
        "-o",
        out,
        "--method",
        "substring",
        "--keep",
        "first",
        "--cut",
        "--threads",
        1,
    )
    texts = {row["uid"]: row["text"] for row in map(json.loads, out.read_text().splitlines())}
    assert PASSAGE.strip() in texts["foot0"]
    assert "paragraph stands" not in texts["foot1"]
    assert texts["foot1"]
    assert "same7" not in texts  # nothing of it is left
    assert "empty" in texts  # it was so before


def test_equal_texts_and_scores(posterhall, folder, tmp_path):
    out = tmp_path / "kept.jsonl"
    posterhall("data", "dedup", folder, "-o", out, "--method", "exact", "--threads", 1)
    assert len(uids(out)) == 39
    posterhall("data", "dedup", folder, "-o", out, "--keep", "best", "--score", "stars", "--threads", 1)
    kept = set(uids(out))
    assert {"t4", "t7", "near0"} & kept == {"t4", "t7"}
    assert "t0" in kept  # of equals the first


def test_without_an_output_it_only_tells(posterhall, folder, tmp_path):
    before = sorted(folder.iterdir())
    done = posterhall("data", "dedup", folder, "--bands", 20, "--rows", 5, "--threads", 1)
    assert "20 of 5 rows" in done.out
    assert sorted(folder.iterdir()) == before


def test_a_memory_limit_changes_nothing(posterhall, folder, tmp_path):
    outs = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    posterhall("data", "dedup", folder, "-o", outs[0], "--threads", 1)
    posterhall("data", "dedup", folder, "-o", outs[1], "--threads", 2, "--memory", "1kB")
    assert outs[0].read_bytes() == outs[1].read_bytes()


def test_settings_come_from_a_file_too(posterhall, folder, tmp_path):
    config = tmp_path / "settings.yaml"
    config.write_text("threshold: 0.99\nngram: 15\n")
    result = json.loads(posterhall("data", "dedup", folder, "-c", config, "--set", "unit=char", "--json").out)
    assert [result["settings"][k] for k in ("threshold", "ngram", "unit")] == [0.99, 15, "char"]
    assert result["dropped"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--method", "minhsh"], 2, "Did you mean: minhash"),
        (["--length", "50"], 2, "--length means nothing to --method minhash"),
        (["--method", "exact", "--threshold", "0.5"], 2, "--threshold means nothing to --method exact"),
        (["--threshold", "80"], 4, r"threshold is 80.0; a Jaccard similarity lies in (0, 1]"),
        (["--keep", "none"], 4, "first, longest, best"),
        (["--keep", "best"], 2, "--score COLUMN and --keep best go together"),
        (["--keep", "best", "--score", "strs"], 4, "Did you mean: stars"),
        (["--keep", "best", "--score", "uid"], 4, "a score is a number"),
        (["--memory", "lots"], 2, "--memory is 'lots'"),
        (["--cut"], 2, "nothing would come of --cut"),
        (["--bands", "5"], 4, "both bands and rows"),
        (["--text-field", "txt"], 4, "txt"),
    ],
)
def test_mistakes_are_told(posterhall, folder, arguments, code, said):
    done = posterhall("data", "dedup", folder, *arguments, code=code)
    assert said in done.err
    assert done.out == ""


def test_a_pool_of_nothing_and_no_pool(posterhall, tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    assert "empty" in posterhall("data", "dedup", empty, code=4).err
    assert "no pool" in posterhall("data", "dedup", code=2).err


def test_the_input_is_never_written_over(posterhall, folder):
    path = folder / "a.jsonl"
    before = path.read_bytes()
    assert "overwritten" in posterhall("data", "dedup", folder, "-o", path, code=4).err
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "command", [("stats",), ("dedup",), ("filter", "--score", "words"), ("mix", "--bytes", "99")]
)
def test_a_document_may_be_larger_if_that_is_said(posterhall, tmp_path, command):
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"text": "a word " * 60}) + "\n")
    verb, *more = command
    out = [] if verb == "stats" else ["-o", tmp_path / "out.jsonl"]
    said = posterhall("data", verb, path, *more, *out, "--quiet", "--max-document", "100B", code=4).err
    assert "longer than 100 bytes" in said
    posterhall("data", verb, path, *more, *out, "--quiet", "--max-document", "1kB")
