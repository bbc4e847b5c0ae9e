"""From a pool to a smaller one: sequences of filters, stored scores, statistics."""

from __future__ import annotations

import json

import numpy as np
import pytest

from posterhall.curation.filtering import decide, filter_pool
from posterhall.curation.filters import bottom, threshold, top
from posterhall.curation.language import parse
from posterhall.curation.ngram import NGramModel
from posterhall.curation.pool import Pool
from posterhall.curation.statistics import describe
from posterhall.errors import DataError, UsageError


def pool_of(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Pool.open(path)


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_filters_given_one_after_the_other_see_what_is_left():
    scores = {"a": np.arange(10.0), "b": np.arange(10.0)[::-1].copy()}
    decision = decide([top("a", 0.5), bottom("b", 0.2)], scores, 10)
    assert np.flatnonzero(decision.kept).tolist() == [9]  # a fifth of the five that are left
    assert decision.dropped_by == {"a top 50%": 5, "b bottom 20%": 4}
    assert decision.why(5)[0] == "b bottom 20%"
    together = decide([top("a", 0.5) & bottom("b", 0.2)], scores, 10)
    assert np.flatnonzero(together.kept).tolist() == [8, 9]
    with pytest.raises(DataError, match="keep none of 5 rows"):
        decide([top("a", 0.5), threshold("b", ">", 7)], scores, 10)
    with pytest.raises(DataError, match="empty"):
        decide([], scores, 0)


def test_scores_become_columns_and_every_dropped_row_is_explained(tmp_path):
    texts = ["a b c", "a", "a b c d", ""]
    pool = pool_of(tmp_path / "p.jsonl", [{"text": text, "n": i} for i, text in enumerate(texts)])
    done = filter_pool(
        pool, tmp_path / "k.jsonl", keep=[parse("words >= 2")], scores=["chars"], dropped=tmp_path / "d.jsonl"
    )
    assert [(r["text"], r["words"], r["chars"], r["n"]) for r in rows_of(tmp_path / "k.jsonl")] == [
        ("a b c", 3, 5, 0), ("a b c d", 4, 7, 2),
    ]  # fmt: skip
    dropped = rows_of(tmp_path / "d.jsonl")
    assert [(row["filter"], row["value"]) for row in dropped] == [("words >= 2", 1), ("words >= 2", 0)]
    kept_uids = {row["uid"] for row in rows_of(tmp_path / "k.jsonl")}
    assert kept_uids | {row["uid"] for row in dropped} == {
        uid for batch in pool.batches(["uid"]) for uid in batch.column(0).to_pylist()
    }
    assert done.computed == ("chars", "words")
    assert (done.written.kept, done.written.dropped) == (2, 2)


def test_stored_scores_are_used_as_they_are_unless_asked_for_anew(tmp_path):
    rows = [{"text": "a b", "words": 99, "quality": 0.5}, {"text": "a b c", "words": 1}]
    pool = pool_of(tmp_path / "p.jsonl", rows)
    filter_pool(pool, tmp_path / "k.jsonl", keep=[parse("words > 50 & quality > 0")])
    assert [row["words"] for row in rows_of(tmp_path / "k.jsonl")] == [99]
    filter_pool(pool, tmp_path / "k.jsonl", keep=[parse("words > 2")], scores=["words"])
    assert [row["text"] for row in rows_of(tmp_path / "k.jsonl")] == ["a b c"]
    with pytest.raises(DataError, match=r"no score 'qality'\. Did you mean: quality"):
        filter_pool(pool, tmp_path / "k.jsonl", keep=[parse("qality > 1")])
    pool = pool_of(tmp_path / "q.jsonl", [{"text": "a", "lang": "en"}])
    with pytest.raises(DataError, match="not a number, in the column 'lang'"):
        filter_pool(pool, tmp_path / "k.jsonl", keep=[parse("lang > 1")])


def test_low_perplexity_is_what_sounds_like_the_reference(tmp_path):
    rng = np.random.default_rng(0)
    text = "the river runs by the old mill and the children walk along its bank in the evening"
    words = text.split()
    prose = [" ".join(words[i % 4 :]) for i in range(30)]
    noise = [" ".join(rng.permutation(words)) for _ in range(30)]
    rows = [{"text": text, "kind": kind} for kind, of in (("prose", prose), ("noise", noise)) for text in of]
    pool = pool_of(tmp_path / "p.jsonl", rows)
    model = NGramModel.train(prose[:8])
    filter_pool(pool, tmp_path / "k.jsonl", keep=[parse("perplexity bottom 50%")], model=model)
    assert {row["kind"] for row in rows_of(tmp_path / "k.jsonl")} == {"prose"}
    with pytest.raises(UsageError, match="needs a language model"):
        filter_pool(pool, tmp_path / "k.jsonl", keep=[parse("perplexity bottom 50%")])


def test_a_filter_that_keeps_nothing_writes_nothing(tmp_path):
    pool = pool_of(tmp_path / "p.jsonl", [{"text": "a"}])
    (tmp_path / "k.jsonl").write_text("before")
    with pytest.raises(DataError, match="keep none"):
        filter_pool(pool, tmp_path / "k.jsonl", keep=[parse("words > 5")], dropped=tmp_path / "d.jsonl")
    with pytest.raises(UsageError, match="nothing would come"):
        filter_pool(pool, tmp_path / "k.jsonl")
    assert (tmp_path / "k.jsonl").read_text() == "before"
    assert not (tmp_path / "d.jsonl").exists()


def test_statistics_of_a_pool(tmp_path):
    texts = ["a b", "é", "a b", "", "a b", "  "]
    found = describe(pool_of(tmp_path / "p.jsonl", [{"text": text} for text in texts]))
    assert (found.documents, found.empty, found.words) == (6, 2, 7)
    assert (found.bytes, found.characters) == (13, 12)
    assert (found.duplicates, found.duplicate_bytes) == (2, 6)
    assert found.lengths["words"]["median"] == np.median([2, 1, 2, 0, 2, 0])
    assert found.lengths["bytes"]["max"] == 3
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="empty"):
        describe(Pool.open(tmp_path / "empty.jsonl"))
