"""`posterhall embed`: results as users and programs read them, and mistakes with their exit codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from posterhall.embeddings import formats
from posterhall.embeddings.vectors import WordVectors

WORDS = ["man", "woman", "king", "queen", "river", "bank", "oslo", "norway", "paris", "france"]


@pytest.fixture
def vectors(tmp_path) -> Path:
    """Words with planted relations: woman = man + 1st axis, a capital = country + 2nd axis."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(5, 24))
    female, capital = np.eye(24)[:2] * 4
    rows = [
        base[0],
        base[0] + female,
        base[1],
        base[1] + female,
        base[2],
        base[2] + 0.3,
        base[3] + capital,
        base[3],
    ]
    rows += [base[4] + capital, base[4]]
    path = tmp_path / "v.bin"
    formats.save(WordVectors(WORDS, rows), path)
    return path


@pytest.fixture
def questions(tmp_path) -> Path:
    path = tmp_path / "questions.txt"
    path.write_text(
        ": family\nman woman king queen\nking queen man woman\n: places\nnorway oslo france paris\na b c d\n"
    )
    return path


def test_nearest_prints_aligned_words_and_cosines(posterhall, vectors):
    lines = posterhall("embed", "nearest", vectors, "river", "--top", "3").out.splitlines()
    assert len(lines) == 3
    assert lines[0].split() == ["bank", f"{WordVectors.load(vectors).similarity('river', 'bank'):.2f}"]
    assert len({line.index(line.split()[1]) for line in lines if "-" not in line}) == 1  # aligned


def test_nearest_adds_and_subtracts(posterhall, vectors):
    found = json.loads(
        posterhall("embed", "nearest", vectors, "king", "woman", "--minus", "man", "--json").out
    )
    expected = WordVectors.load(vectors).nearest(["king", "woman"], minus="man")
    assert [each["word"] for each in found["neighbors"]] == [word for word, _ in expected]
    assert found["query"] == ["king", "woman"]
    assert found["minus"] == ["man"]
    included = posterhall("embed", "nearest", vectors, "king", "--include-query", "--top", "1").out
    assert included.split() == ["king", "1.00"]


def test_an_unknown_word_ends_with_exit_code_4_and_one_line(posterhall, vectors):
    result = posterhall("embed", "nearest", vectors, "rivver", code=4)
    assert result.out == ""
    assert result.err == "error: 'rivver' is not in the vocabulary (10 words). Did you mean: river?\n"
    posterhall("embed", "nearest", vectors, "norway", "--restrict", "5", code=4)
    posterhall("embed", "nearest", vectors.with_name("missing.bin"), "river", code=4)
    posterhall("embed", "nearest", vectors, "river", "--top", "0", code=2)


def test_analogy_similarity_and_odd_one_out(posterhall, vectors):
    for method in ("3cosadd", "3cosmul"):
        arguments = ("embed", "analogy", vectors, "man", "woman", "king", "--top", "1", "--method", method)
        assert posterhall(*arguments).out.split()[0] == "queen"
        assert json.loads(posterhall(*arguments, "--json").out)["neighbors"][0]["word"] == "queen"
    posterhall("embed", "analogy", vectors, "man", "woman", "king", "--method", "cos", code=4)
    cosine = WordVectors.load(vectors).similarity("man", "king")
    assert posterhall("embed", "similarity", vectors, "man", "king").out == f"{cosine:.4f}\n"
    assert json.loads(posterhall("embed", "similarity", vectors, "man", "king", "--json").out) == {
        "a": "man",
        "b": "king",
        "cosine": pytest.approx(cosine),
    }
    odd = json.loads(posterhall("embed", "odd-one-out", vectors, "river", "bank", "oslo", "--json").out)
    assert posterhall("embed", "odd-one-out", vectors, "river", "bank", "oslo").out == odd["odd"] + "\n"
    assert len(odd["cosines"]) == 3
    posterhall("embed", "odd-one-out", vectors, "river", "bank", code=4)


def test_evaluate_reports_sections_groups_and_coverage(posterhall, vectors, questions, tmp_path):
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("man\twoman\t9\nriver\tbank\t8\nman\tparis\t1\nking\toslo\t2\nking\tabsent\t3\n")
    arguments = (
        "embed",
        "evaluate",
        vectors,
        "--analogies",
        questions,
        "--similarity",
        pairs,
        "--threads",
        "1",
    )
    text = posterhall(*arguments, "--include-query").out
    assert text.splitlines()[0].split() == ["section", "accuracy", "right", "covered", "asked", "95", "%"]
    assert "family" in text
    assert "query words allowed" in text
    assert "75.0% of the questions could be asked; 75.0% right if the others count as wrong" in text
    result = json.loads(posterhall(*arguments, "--json").out)
    total = result["analogies"]["total"]
    assert (total["correct"], total["covered"], total["asked"]) == (3, 3, 4)
    assert total["accuracy_of_all"] == 0.75
    assert result["analogies"]["include_query"] is None
    assert result["analogies"]["nearest"]["covered"] == 3
    assert result["similarity"][0]["covered"] == 4
    assert set(result) == {"vectors", "words", "dimensions", "analogies", "similarity"}


def test_evaluate_protocols_and_mistakes(posterhall, vectors, questions, tmp_path):
    posterhall("embed", "evaluate", vectors, code=2)
    for options in ((), ("--protocol", "strict"), ("--restrict", "4"), ("--match-case",)):
        posterhall("embed", "evaluate", vectors, "--analogies", questions, *options)
    assert (
        "protocol"
        in posterhall("embed", "evaluate", vectors, "--analogies", questions, "--protocol", "c", code=4).err
    )
    questions.write_text("a b c\n")
    assert "questions.txt:1" in posterhall("embed", "evaluate", vectors, "--analogies", questions, code=4).err
    alone = tmp_path / "few.txt"
    alone.write_text("man woman 3\nking queen 2\n")
    assert "-" in posterhall("embed", "evaluate", vectors, "--similarity", alone).out


def test_convert_there_and_back_is_the_same_file(posterhall, vectors, tmp_path):
    before = vectors.read_bytes()
    for ending in (".txt", ".glove", ".vec.gz", ".safetensors"):
        there, back = tmp_path / ("there" + ending), tmp_path / "back.bin"
        assert posterhall("embed", "convert", vectors, there).out == f"{there}  10 words x 24\n"
        posterhall("embed", "convert", there, back)
        assert back.read_bytes() == before
    posterhall("embed", "convert", vectors, tmp_path / "gensim.bin", "--no-newline", "--restrict", "3")
    found = json.loads(
        posterhall("embed", "convert", tmp_path / "gensim.bin", tmp_path / "x", "--to", "glove", "--json").out
    )
    assert found == {"target": str(tmp_path / "x"), "words": 3, "dimensions": 24}
    posterhall("embed", "convert", tmp_path / "x", tmp_path / "y.bin", "--from", "glove")


def test_convert_tells_what_it_cannot_do_before_it_reads(posterhall, vectors, tmp_path):
    missing = tmp_path / "missing.bin"
    assert "names no format" in posterhall("embed", "convert", missing, tmp_path / "x.foo", code=4).err
    assert (
        "Did you mean: glove?"
        in posterhall("embed", "convert", vectors, tmp_path / "x", "--to", "glov", code=4).err
    )
    spaced = tmp_path / "spaced.safetensors"
    formats.save(WordVectors(["new york", "b"], np.eye(2)), spaced)
    assert "--on-space" in posterhall("embed", "convert", spaced, tmp_path / "x.txt", code=4).err
    posterhall("embed", "convert", spaced, tmp_path / "x.txt", "--on-space", "underscore")
    assert (tmp_path / "x.txt").read_text().startswith("2 2\nnew_york ")


def test_an_index_answers_and_says_what_it_lacks(posterhall, vectors, tmp_path, monkeypatch):
    pytest.importorskip("usearch")
    index = tmp_path / "v.usearch"
    posterhall("embed", "convert", vectors, index)
    exact = posterhall("embed", "nearest", vectors, "river", "--top", "3").out
    assert posterhall("embed", "nearest", index, "river", "--top", "3").out == exact
    posterhall("embed", "nearest", index, "river", "bank", code=2)
    monkeypatch.setitem(sys.modules, "usearch", None)
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    assert "pip install 'posterhall[ann]'" in posterhall("embed", "nearest", index, "river", code=3).err


def test_duplicates_warn_on_stderr_in_one_line(posterhall, tmp_path):
    path = tmp_path / "v.txt"
    path.write_text("3 2\na 1 0\nb 0 1\na 1 1\n")
    result = posterhall("embed", "nearest", path, "a")
    assert (
        result.err
        == f"warning: {path}: 1 words occur more than once, first 'a'; kept the first row of each\n"
    )
    assert result.out.split()[0] == "b"


def test_classes_go_to_a_file_or_stdout(posterhall, vectors, tmp_path):
    out = tmp_path / "classes.txt"
    assert "10 words in 3 classes" in posterhall("embed", "classes", vectors, "-k", "3", "-o", out).out
    lines = [line.split() for line in out.read_text().splitlines()]
    assert sorted(word for word, _ in lines) == sorted(WORDS)
    assert [int(label) for _, label in lines] == sorted(int(label) for _, label in lines)
    assert posterhall("embed", "classes", vectors, "-k", "3").out == out.read_text()
    by_frequency = posterhall("embed", "classes", vectors, "-k", "3", "--order", "vocabulary").out
    assert [line.split()[0] for line in by_frequency.splitlines()] == WORDS
    facts = json.loads(
        posterhall("embed", "classes", vectors, "-k", "3", "--start", "plusplus", "-o", out, "--json").out
    )
    assert facts["converged"] is True
    posterhall("embed", "classes", vectors, "-k", "11", code=4)
    posterhall("embed", "classes", vectors, "-k", "3", "--json", code=2)
    posterhall("embed", "classes", vectors, "-k", "3", "--order", "size", code=2)


def test_plot_draws_pairs_from_file_and_command_line(posterhall, vectors, tmp_path):
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("norway oslo\nfrance paris\n")
    out = tmp_path / "plane.svg"
    told = posterhall("embed", "plot", vectors, "--pairs", pairs, "--words", "man:woman,river", "-o", out)
    assert told.out.startswith(f"{out}  7 words, mean cosine between differences ")
    assert "norway" in out.read_text()
    found = json.loads(posterhall("embed", "plot", vectors, "--pairs", pairs, "-o", out, "--json").out)
    assert found["parallel"] == pytest.approx(1, abs=1e-6)
    assert len(found["points"]) == 4
    posterhall("embed", "plot", vectors, "-o", out, code=2)
    posterhall("embed", "plot", vectors, "--words", "a:b:c", "-o", out, code=4)
    posterhall("embed", "plot", vectors, "--words", "man,woman,absent", "-o", out, code=4)
    posterhall("embed", "plot", vectors, "--pairs", pairs, "-o", tmp_path / "plane.bmp", code=4)


def test_info_tells_what_a_file_holds(posterhall, tmp_path):
    path = tmp_path / "v.txt"
    path.write_text("3 2\na 3 4\nb 0 0\nc nan 1\n")
    facts = json.loads(posterhall("embed", "info", path, "--json").out)
    assert facts == {
        "file": str(path),
        "format": "word2vec-text",
        "bytes": 24,
        "words": 3,
        "dimensions": 2,
        "counts": False,
        "norms": {"least": 0.0, "median": 2.5, "largest": 5.0},
        "zero": 1,
        "nonfinite": 1,
        "first": ["a", "b", "c"],
    }
    text = posterhall("embed", "info", path).out
    assert ["words", "3"] in [line.split() for line in text.splitlines()]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"999999999 300\na 1\n", "promises 999,999,999 words"),
        (b"2 2\na 1 2\nb 3\n", "promises 2 words|:3:"),
        (b"\x80\x04\x95", "runs code when opened"),
        (b"not vectors at all", "none of the known formats"),
    ],
)
@pytest.mark.parametrize("command", [("nearest", "a"), ("info",), ("evaluate", "--analogies", "{questions}")])
def test_a_file_that_is_not_sound_ends_with_exit_code_4(
    posterhall, tmp_path, questions, content, message, command
):
    path = tmp_path / "v.txt"
    path.write_bytes(content)
    verb, *rest = command
    result = posterhall("embed", verb, path, *(part.format(questions=questions) for part in rest), code=4)
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert any(part in result.err for part in message.split("|"))
