"""`posterhall data` as a user meets it."""

from __future__ import annotations

import gzip
import json

import pytest

from posterhall.data.phrases import Phrases


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    often = "in new york city we saw the bank of america\nold cities\n\n"
    path.write_text(often * 20 + "new ideas the york\n" * 9)
    return path


def test_phrases_are_joined_listed_and_exported(posterhall, text, tmp_path):
    out, table = tmp_path / "joined.txt.gz", tmp_path / "phrases.tsv"
    done = posterhall(
        "data", "phrases", text, "-o", out, "--threshold", 3, "--connectors", "english", "--passes", 2,
        "--export-phrases", table, "--top", 3,
    )  # fmt: skip
    lines = gzip.decompress(out.read_bytes()).decode().split("\n")
    assert "bank_of_america" in lines[0]
    assert len(lines) == len(text.read_text().split("\n"))
    assert done.out.startswith("phrase")
    assert "words became" in done.out
    assert done.err == ""
    assert Phrases().load(table).phrases_["bank_of_america"].count == 20

    again = tmp_path / "again.txt"
    posterhall("data", "phrases", text, "-o", again, "--phrases", table)
    assert again.read_text().split("\n") == lines


def test_the_options_of_the_c_tool_do_what_they_do_there(posterhall, text, tmp_path):
    out = tmp_path / "joined.txt"
    tool = ("-train", text, "-output", out, "-threshold", 3, "-min-count", 6, "-debug", 2)
    result = json.loads(posterhall("data", "phrases", *tool, "--json").out)
    phrases = Phrases(min_count=6, discount=6, threshold=3).fit(text)
    assert result["phrases"] == len(phrases.phrases_) > 0
    assert result["thresholds"] == [3.0]
    assert result["words_out"] == len(out.read_text().split())
    assert result["words_in"] == len(text.read_text().split())
    assert {row["phrase"] for row in result["top"]} <= set(phrases.phrases_)


def test_vocabulary_is_printed_and_saved(posterhall, text, tmp_path):
    out, keep = tmp_path / "vocabulary.txt", tmp_path / "keep.txt"
    keep.write_text("zebra\nideas\n")
    done = posterhall("data", "vocabulary", text, "--min-count", 20, "--keep", keep, "-o", out, "--top", 2)
    assert done.out.split("\n")[:3] == ["word  count", "new      29", "york     29"]
    assert "not in the corpus: zebra" in done.out
    assert "ideas 9" in out.read_text().split("\n")
    result = json.loads(posterhall("data", "vocabulary", text, "--min-count", 20, "--json").out)
    assert result["distinct_before_pruning"] == 13
    assert result["words"] == 12


def test_stats_count_sentences_words_and_what_stays(posterhall, text):
    result = json.loads(posterhall("data", "stats", text, "--json").out)
    assert result["bytes"] == text.stat().st_size
    assert result["sentences"] == 49
    assert result["longest_sentence"] == 10
    assert result["words"] == 20 * 12 + 9 * 4
    assert result["min_counts"]["10"] == {"vocabulary": 12, "words": 267}
    assert "distinct words" in posterhall("data", "stats", text).out


@pytest.mark.parametrize("threads", [1, 2])
def test_bad_input_is_one_line_and_exit_code_4(posterhall, tmp_path, threads):
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"good line\nbad \xff line\n")
    done = posterhall("data", "phrases", bad, "-o", tmp_path / "x", "--threads", threads, code=4)
    assert done.err.startswith("error: ")
    assert "bad.txt, line 2 (byte 14)" in done.err
    assert "--encoding-errors" in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "x").exists()
    posterhall("data", "phrases", bad, "-o", tmp_path / "x", "--encoding-errors", "replace")
    assert (tmp_path / "x").read_text() == "good line\nbad � line\n"
    assert "no such file" in posterhall("data", "stats", tmp_path / "none.txt", code=4).err


def test_misuse_is_exit_code_2(posterhall, text):
    assert "no corpus" in posterhall("data", "phrases", code=2).err
    assert "nothing would come of it" in posterhall("data", "phrases", text, "--top", 0, code=2).err
    assert "lift, paper, npmi" in posterhall("data", "phrases", text, "--scorer", "pmi", code=2).err
    assert "strict, replace" in posterhall("data", "stats", text, "--encoding-errors", "x", code=2).err
