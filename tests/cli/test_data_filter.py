"""`posterhall data filter` and `data stats` of pools, as a user meets them."""

from __future__ import annotations

import json

import pytest

TEXTS = ["the river is wide and calm", "the river", "a b c d e f g h", "the river is wide and calm", ""]


@pytest.fixture
def pool(tmp_path):
    path = tmp_path / "pool.jsonl"
    path.write_text("".join(json.dumps({"text": text, "id": i}) + "\n" for i, text in enumerate(TEXTS)))
    return path


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_filter_tells_what_it_kept_and_why_the_rest_went(posterhall, pool, tmp_path):
    out, dropped = tmp_path / "kept.jsonl", tmp_path / "dropped.jsonl"
    done = posterhall(
        "data", "filter", pool, "-o", out, "--keep", "words >= 3 & unique_words > 0.5", "--dropped", dropped
    )
    assert done.out.startswith("score")
    assert f"3 of 5 items (60.0 %) in {out}" in done.out
    assert [row["id"] for row in rows_of(out)] == [0, 2, 3]
    assert [row["reason"] for row in rows_of(dropped)] == ["words 2 is not >= 3", "words 0 is not >= 3"]
    result = json.loads(posterhall("data", "filter", pool, "-o", out, "--keep", "words >= 3", "--json").out)
    assert (result["rows"], result["kept"], result["dropped"]) == (5, 3, 2)
    assert result["keep"] == ["words >= 3"]
    assert result["dropped_by"] == {"words >= 3": 2}
    assert result["scores"]["words"]["max"] == 8
    assert result["scores"]["words"]["missing"] == 0
    assert result["output"] == str(out)


def test_scores_alone_keep_everything(posterhall, pool, tmp_path):
    out = tmp_path / "scored.parquet"
    posterhall("data", "filter", pool, "-o", out, "--score", "words", "--score", "digits")
    again = json.loads(
        posterhall("data", "filter", out, "-o", tmp_path / "k.jsonl", "--keep", "digits < 1", "--json").out
    )
    assert again["computed"] == []
    assert again["kept"] == 4  # the empty text has no share of digits
    assert again["scores"]["digits"]["missing"] == 1


def test_a_model_is_trained_kept_and_used_again(posterhall, pool, tmp_path):
    model, out = tmp_path / "reference.npz", tmp_path / "k.jsonl"
    keep = ("--keep", "perplexity bottom 50%")
    posterhall(
        "data", "filter", pool, "-o", out, *keep, "--perplexity-train", pool, "--perplexity-save", model
    )
    first = out.read_bytes()
    assert all("perplexity" in row for row in rows_of(out))
    posterhall("data", "filter", pool, "-o", out, *keep, "--perplexity-model", model)
    assert out.read_bytes() == first
    posterhall(
        "data", "filter", pool, "-o", out, *keep, "--perplexity-model", model, "--work", tmp_path / "work"
    )
    assert out.read_bytes() == first
    assert list((tmp_path / "work").glob("*.done"))
    arpa = (
        "--perplexity-train",
        pool,
        "--perplexity-save",
        tmp_path / "reference.arpa",
        "--work",
        tmp_path / "again",
    )
    posterhall("data", "filter", pool, "-o", out, *keep, *arpa)
    assert out.read_bytes() == first


def test_scores_and_presets_are_listed(posterhall):
    assert "share of distinct words" in posterhall("data", "scores").out
    listed = json.loads(posterhall("data", "scores", "--json").out)
    assert "perplexity" in listed["scores"]
    assert listed["filters"]["gopher_quality"].startswith("words >= 50")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "give -o FILE"),
        (("-o", "k.jsonl"), 2, "nothing would come of it"),
        (("-o", "k.txt", "--keep", "words > 1"), 2, "name it .jsonl"),
        (("-o", "k.jsonl", "--keep", "words >"), 2, "character 8: expected a number"),
        (("-o", "k.jsonl", "--keep", "wrds > 1"), 4, "Did you mean: words"),
        (("-o", "k.jsonl", "--keep", "words > 99"), 4, "Seen: words: 0 to 8"),
        (("-o", "k.jsonl", "--keep", "perplexity < 9"), 2, "perplexity needs a language model"),
        (("-o", "k.jsonl", "--score", "wrds"), 2, "Did you mean: words"),
        (("-o", "k.jsonl", "--score", "words", "--text-field", "body"), 4, "line 1: no field 'body'"),
        (("-o", "k.jsonl", "--score", "words", "--perplexity-save", "m.npz"), 2, "--perplexity-train"),
        (("-o", "pool.jsonl", "--score", "words"), 4, "would be overwritten"),
    ],
)
def test_what_is_wrong_is_one_line(posterhall, pool, monkeypatch, arguments, code, message):
    monkeypatch.chdir(pool.parent)
    before = pool.read_bytes()
    done = posterhall("data", "filter", pool, *arguments, code=code)
    assert done.err.startswith("error: ")
    assert message in done.err
    assert done.err.count("\n") == 1
    assert [each.name for each in pool.parent.iterdir()] == ["pool.jsonl"]
    assert pool.read_bytes() == before


def test_stats_of_a_pool(posterhall, pool, tmp_path):
    result = json.loads(posterhall("data", "stats", pool, "--json").out)
    assert result["documents"] == 5
    assert result["duplicates"] == 1
    assert result["empty"] == 1
    assert result["lengths"]["words"]["max"] == 8
    assert "exact duplicates  1 (20.00 %)" in posterhall("data", "stats", pool).out
    text = tmp_path / "plain.txt"
    text.write_text("one\n\ntwo\n")
    assert "sentences" in json.loads(posterhall("data", "stats", text, "--json").out)
    assert json.loads(posterhall("data", "stats", text, "--split", "blank", "--json").out)["documents"] == 2
