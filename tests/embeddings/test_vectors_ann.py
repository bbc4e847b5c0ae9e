"""The approximate index: what it finds, keeps in its files, and refuses."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from posterhall.embeddings.ann import AnnIndex, words_file
from posterhall.embeddings.vectors import WordVectors
from posterhall.errors import DataError, MissingExtra

pytest.importorskip("usearch")


def vectors(count: int = 800) -> WordVectors:
    matrix = np.random.default_rng(0).normal(size=(count, 16))
    matrix[7] = 0
    return WordVectors([f"w{i}" for i in range(count)], matrix * np.linspace(0.1, 9, count)[:, None])


def test_nearly_all_true_neighbours_are_found_and_survive_the_files(tmp_path):
    exact = vectors()
    built = AnnIndex.build(exact, threads=1)
    built.save(tmp_path / "v.usearch")
    for index in (
        built,
        AnnIndex.load(tmp_path / "v.usearch"),
        AnnIndex.load(tmp_path / "v.usearch", mmap=False),
    ):
        assert (len(index), index.dimensions, "w3" in index) == (800, 16, True)
        hits = 0
        for word in ("w1", "w50", "w799"):
            found, true = index.nearest(word, 10), exact.nearest(word, 10)
            assert len(found) == 10
            assert word not in dict(found)
            scores = dict(exact.nearest(word, 799))
            assert all(score == pytest.approx(scores[other], abs=1e-5) for other, score in found)
            hits += len({w for w, _ in found} & {w for w, _ in true})
        assert hits >= 27
    assert built.nearest(exact["w5"], 1)[0].word == "w5"


def test_questions_it_cannot_answer_are_refused():
    index = AnnIndex.build(vectors(), threads=1)
    with pytest.raises(DataError, match=r"'w9999' is not in the vocabulary \(800 words\)\. Did you mean"):
        index.nearest("w9999")
    with pytest.raises(DataError, match="'w7' is zero"):
        index.nearest("w7")
    with pytest.raises(DataError, match=r"needs \(16,\)"):
        index.nearest(np.ones(3))
    with pytest.raises(DataError, match="at least 1"):
        index.nearest("w1", 0)
    with pytest.raises(DataError, match="at least 2 and 1"):
        AnnIndex.build(vectors(), connectivity=1)


def test_files_that_are_missing_or_do_not_belong_together(tmp_path):
    path = tmp_path / "v.usearch"
    with pytest.raises(DataError, match="does not exist"):
        AnnIndex.load(path)
    AnnIndex.build(vectors(), threads=1).save(path)
    words = words_file(path).read_bytes()
    words_file(path).unlink()
    with pytest.raises(DataError, match="must be beside it"):
        AnnIndex.load(path)
    words_file(path).write_bytes(b"[]")
    with pytest.raises(DataError, match="does not hold the words"):
        AnnIndex.load(path)
    words_file(path).write_bytes(words)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match="convert again"):
        AnnIndex.load(path)


def test_without_the_extra_it_is_told_to_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "usearch", None)
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(MissingExtra, match=r"posterhall\[ann\]"):
        AnnIndex.build(vectors())
