"""Preferences from a model's own answers: which pairs, which labels, budgets, and going on."""

from __future__ import annotations

import json
import math
from collections import Counter

import numpy as np
import pytest

from posterhall.curation.pairs import Answer, PairSettings, collect, compare, rank
from posterhall.data import preference
from posterhall.errors import DataError
from posterhall.lm.metered import Budget
from posterhall.lm.stack import connect
from posterhall.lm.wrapping import BudgetExceeded
from posterhall.train.scorers import Lexicon, scorer


def test_four_different_answers_make_six_pairs_better_first():
    dropped = Counter()
    answers = [Answer(text, score) for text, score in (("a", 1.0), ("b", 3.0), ("c", 0.0), ("d", 2.0))]
    rows = list(compare("p", answers, PairSettings(), dropped))
    assert len(rows) == 6
    assert not dropped
    assert all(row["score_chosen"] > row["score_rejected"] for row in rows)
    assert Counter(row["chosen"] for row in rows) == {"b": 3, "d": 2, "a": 1}


def test_what_says_nothing_is_dropped_and_counted():
    dropped = Counter()
    answers = [Answer("a", 1.0), Answer("a", 1.0), Answer(" ", 2.0), Answer("b", 1.0), Answer("c", math.nan)]
    assert list(compare("p", answers, PairSettings(samples=5), dropped)) == []
    assert dropped == {"identical answers": 1, "empty answer": 4, "tied": 2, "no score": 3}
    again = Counter()
    assert rank("p", answers, again) is None
    assert again == {"identical answers": 1, "empty answer": 1, "no score": 1, "tied": 2}
    ranked = rank("p", [Answer("a", 1.0), Answer("b", 3.0), Answer("c", 1.0)], Counter())
    assert ranked == {"prompt": "p", "answers": ["b", "a", "c"], "scores": [3.0, 1.0, 1.0]}


def test_drawn_labels_follow_bradley_and_terry():
    settings = PairSettings(label_temperature=2.0)
    pair = [Answer("better", 1.0), Answer("worse", 0.0)]
    won = [next(compare(f"p{i}", pair, settings, Counter()))["chosen"] == "better" for i in range(4000)]
    assert np.mean(won) == pytest.approx(1 / (1 + math.exp(-0.5)), abs=0.03)
    assert won == [
        next(compare(f"p{i}", pair, settings, Counter()))["chosen"] == "better" for i in range(4000)
    ]


@pytest.fixture
def inputs(tmp_path):
    """A scripted model with four answers a prompt, and prompts."""
    said = {"one": ["good", "bad", "good good", "plain"], "two": ["bad", "bad", "good", "other"]}
    rules = [{"contains": key, "reply": replies} for key, replies in said.items()]
    (tmp_path / "lm.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rules))
    (tmp_path / "prompts.txt").write_text("one:\ntwo:\none:\n")
    return f"scripted:{tmp_path / 'lm.jsonl'}", tmp_path / "prompts.txt"


WORDS = Lexicon({"good": 1.0, "bad": -1.0})


def test_the_file_is_what_training_on_preferences_reads(inputs, tmp_path):
    model, prompts = inputs
    with connect(model, cache=False) as lm:
        done = collect(lm, WORDS, [prompts], PairSettings(), out=tmp_path / "pairs.jsonl", quiet=True)
    assert done["refused"] == {"the same prompt again": 1}
    assert (done["prompts"], done["answers"], done["rows"]) == (2, 8, 11)
    assert done["dropped"] == {"identical answers": 1}
    found = preference.read(tmp_path / "pairs.jsonl")
    assert len(found.rows) == 11
    assert {row.prompt for row in found.rows} == {"one:", "two:"}
    run = tmp_path / "pairs.run"
    assert len((run / "artifacts" / "candidates.jsonl").read_text().splitlines()) == 8
    assert list((run / "checkpoints").iterdir()) == []
    with connect(model, cache=False) as lm:
        again = collect(
            lm, WORDS, [prompts], PairSettings(), out=tmp_path / "pairs.jsonl", resume=True, quiet=True
        )
        assert again == done
        with pytest.raises(DataError, match="go on with it by --resume"):
            collect(lm, WORDS, [prompts], PairSettings(), out=tmp_path / "pairs.jsonl", quiet=True)
        ranked = collect(
            lm, WORDS, [prompts], PairSettings(rows="rankings"), out=tmp_path / "ranked.jsonl", quiet=True
        )
    assert ranked["rows"] == 2
    assert sum(1 for row in preference.read(tmp_path / "ranked.jsonl").rows for _ in row.pairs()) == 9


def test_a_budget_ends_it_and_what_was_answered_is_not_asked_again(inputs, tmp_path):
    model, prompts = inputs
    how = {"out": tmp_path / "run", "quiet": True, "resume": True}
    with (
        connect(model, cache=False, budget=Budget(calls=1), concurrency=1) as lm,
        pytest.raises(BudgetExceeded),
    ):
        collect(lm, WORDS, [prompts], PairSettings(), **how)
    with connect(model, cache=False) as lm:
        done = collect(lm, WORDS, [prompts], PairSettings(), **how)
        assert done["rows"] == 11
        assert done["usage"]["calls"] == 2


def test_a_judge_scores_and_ties_are_dropped(inputs, tmp_path):
    model, prompts = inputs
    rules = [{"contains": "answer>\ngood", "reply": "Answer: 9"},
             {"contains": "answer>\nplain", "reply": "?"}, {"reply": "Answer: 2"}]  # fmt: skip
    (tmp_path / "judge.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rules))
    with scorer(f"judge:scripted:{tmp_path / 'judge.jsonl'}") as judge, connect(model, cache=False) as lm:
        done = collect(lm, judge, [prompts], PairSettings(), out=tmp_path / "run", quiet=True)
    assert done["judging"]["calls"] == 8
    assert done["dropped"] == {"identical answers": 1, "no score": 3, "tied": 3}
    assert done["rows"] == 5


def test_nothing_to_compare_is_an_error_that_says_why(inputs, tmp_path):
    model, prompts = inputs
    with connect(model, cache=False) as lm, pytest.raises(DataError, match="11 tied"):
        collect(lm, Lexicon({"none": 1.0}), [prompts], PairSettings(), out=tmp_path / "run", quiet=True)


def test_the_command_writes_pairs(posterhall, inputs, tmp_path):
    model, prompts = inputs
    (tmp_path / "words.txt").write_text("good 1\nbad -1\n")
    words = f"lexicon:{tmp_path / 'words.txt'}"
    done = json.loads(
        posterhall(
            "data", "pairs", model, prompts, "-o", tmp_path / "p.jsonl", "--score", words, "--json", "-q"
        ).out
    )
    assert done["rows"] == 11
    failed = posterhall(
        "data", "pairs", model, prompts, "-o", tmp_path / "q", "--score", words, "-n", 1, code=4
    )
    assert "samples is 1" in failed.err
    failed = posterhall(
        "data", "pairs", model, tmp_path / "no.txt", "-o", tmp_path / "q", "--score", words, code=4
    )
    assert "no.txt" in failed.err
