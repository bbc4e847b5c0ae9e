"""Judging: both orders, marks that cannot be closed, kills, budgets, refusals; and answers from files."""

from __future__ import annotations

import csv
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.errors import DataError
from posterhall.evals.arena import verdicts
from posterhall.evals.judge import answers, jobs
from posterhall.evals.judge.prompts import prompt
from posterhall.lm import stack
from posterhall.lm.metered import Budget
from posterhall.lm.protocol import LM, Sample
from posterhall.lm.wrapping import BudgetExceeded


class Judge(LM):
    """Decides by a function of what stands between the marks."""

    def __init__(self, decide):
        self.name = "made-up"
        self.decide = decide
        self.asked = []

    async def agenerate(self, requests):
        self.asked += requests
        replies = [self.decide(*parts(each.prompt)) for each in requests]
        return [[Sample(reply, "stop", 10, 5)] for reply in replies]


def parts(messages):
    """Question, answer 1, answer 2, as a reader of the marks finds them."""
    mark = re.search(r"<(m[0-9a-f]{16}) \.\.\.>", messages[0].content)[1]
    return [
        re.search(f"<{mark} {name}>\n(.*?)\n</{mark} {name}>", messages[1].content, re.DOTALL)[1]
        for name in ("question", "answer 1", "answer 2")
    ]


def longer(question, one, two):
    return f"Answer: {'tie' if len(one) == len(two) else 1 if len(one) > len(two) else 2}"


QUESTIONS = [answers.Question(f"q{i}", f"Question {i}?", "math" if i % 2 else "general") for i in range(12)]
SHORT = answers.Answers("short", {f"q{i}": "x" * (i % 3 + 1) for i in range(12)})
LONG = answers.Answers("long", {f"q{i}": "y" * 3 for i in range(12)})


def test_each_pair_is_judged_in_both_orders_and_sides_are_turned_back(tmp_path):
    judge = Judge(longer)
    found = jobs.judge(judge, QUESTIONS, [SHORT, LONG], out=tmp_path / "run")
    [pair] = found["pairs"]
    # Every third answer is as long.
    assert (pair["a"], pair["b"], pair["tie"], pair["changed"]) == (0, 8, 4, 0)
    assert pair["share"] == pytest.approx(4 * 0.5 / 12)
    assert found["position"]["first"]["estimate"] == 0.5
    shown = [parts(each.prompt) for each in judge.asked]
    assert sorted((q, b, a) for q, a, b in shown) == sorted((q, a, b) for q, a, b in shown)
    games = verdicts.read([tmp_path / "run"])
    assert len(games) == 24
    assert {games.players[w] for w in games.second[games.result == verdicts.SECOND]} == {"long"}
    assert {games.players[w] for w in games.first[games.result == verdicts.FIRST]} == {"long"}


def test_a_judge_who_takes_the_first_is_found_out():
    found = jobs.judge(Judge(lambda q, a, b: "Answer: 1"), QUESTIONS, [SHORT, LONG])
    assert found["pairs"][0]["changed"] == 12
    assert found["position"]["flipped"]["estimate"] == 1
    assert found["pairs"][0]["share"] == 0.5


def test_scores_are_turned_back_and_taken_relative():
    def decide(question, one, two):
        return f"Scores: {2 * len(one)} {2 * len(two)}"

    found = jobs.judge(Judge(decide), QUESTIONS, [SHORT, LONG], jobs.JudgeSettings(form="scores"))
    assert found["relative"]["reference"] == "short"
    assert found["relative"]["players"][0]["estimate"] == pytest.approx(36 / 24)
    assert found["pairs"][0]["b"] == 8


def test_replies_without_a_verdict_are_counted_and_leave_the_question_out():
    def decide(question, one, two):
        return "Hard to say." if question == "Question 3?" and one[0] == "x" else longer(question, one, two)

    found = jobs.judge(Judge(decide), QUESTIONS, [SHORT, LONG])
    assert (found["unread"], found["how"]["unread"], found["pairs"][0]["incomplete"]) == (1, 1, 1)
    assert found["pairs"][0]["questions"] == 11


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=80))
def test_no_answer_can_close_its_marks(question, one, two):
    messages = prompt(question, one, two)
    assert parts(messages) == [question, one, two]
    # Who has read the prompt and puts its marks into an answer gets others.
    again = prompt(question, one + messages[1].content, two)
    assert parts(again) == [question, one + messages[1].content, two]


def test_categories_change_what_is_weighed():
    texts = {
        name: prompt("q", "a", "b", category=name)[0].content for name in ("general", "coding", "math", "x")
    }
    assert len(set(texts.values())) == 3
    assert texts["x"] == texts["general"]


def test_a_killed_run_goes_on_and_equals_an_uninterrupted_one(tmp_path):
    class Killed(Judge):
        async def agenerate(self, requests):
            if len(self.asked) == 7:
                raise RuntimeError("killed")
            return await super().agenerate(requests)

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = jobs.judge(Judge(longer), QUESTIONS, [SHORT, LONG], out=whole)
    with pytest.raises(RuntimeError):
        jobs.judge(Killed(longer), QUESTIONS, [SHORT, LONG], out=broken)
    kept = broken / "checkpoints" / jobs.REPLIES
    with open(kept, "ab") as file:
        file.write(b'{"name": "torn')
    before = kept.read_bytes().count(b"\n")
    assert before == 7
    judge = Judge(longer)
    found = jobs.judge(judge, QUESTIONS, [SHORT, LONG], out=broken, resume=True)
    assert len(judge.asked) == 24 - before
    assert found | {"run": None} == expected | {"run": None}
    for name in (jobs.VERDICTS, jobs.REPLIES):
        lines = [(run / "artifacts" / name).read_text() for run in (whole, broken)]
        assert lines[0] == lines[1]
    assert jobs.judge(Judge(None), QUESTIONS, [SHORT, LONG], out=broken, resume=True)["comparisons"] == 24


def test_other_answers_are_another_run(tmp_path):
    def judged(judge, answer, **more):
        other = answers.Answers("long", {"q0": answer})
        return jobs.judge(judge, QUESTIONS[:1], [SHORT, other], out=tmp_path / "r", **more)

    with pytest.raises(TypeError):
        judged(Judge(None), "an answer")
    with pytest.raises(DataError, match="started with: answers"):
        judged(Judge(longer), "another", resume=True)
    assert judged(Judge(longer), "an answer", resume=True)["comparisons"] == 2


def test_a_budget_ends_it_and_a_larger_one_goes_on(tmp_path):
    small = stack.connect(Judge(longer), budget=Budget(calls=5), concurrency=1)
    with pytest.raises(BudgetExceeded, match="5 of 24 comparisons are judged; go on by --resume"):
        jobs.judge(small, QUESTIONS, [SHORT, LONG], out=tmp_path / "r")
    judge = Judge(longer)
    more = stack.connect(judge, budget=Budget(calls=24))
    found = jobs.judge(more, QUESTIONS, [SHORT, LONG], out=tmp_path / "r", resume=True)
    assert len(judge.asked) == 19
    assert found["usage"]["calls"] == 24  # those before count too


def test_what_the_judge_refuses_is_counted_and_asked_again_on_resuming(tmp_path):
    def refuses(question, one, two):
        if question == "Question 2?":
            raise DataError("too long")
        return longer(question, one, two)

    found = jobs.judge(Judge(refuses), QUESTIONS, [SHORT, LONG])
    assert (found["failed"], found["unread"]) == (2, 0)

    def always(question, one, two):
        raise DataError("no such model")

    with pytest.raises(DataError, match="no such model"):
        jobs.judge(Judge(always), QUESTIONS, [SHORT, LONG])


def test_several_models_make_all_pairs():
    third = answers.Answers("third", {"q0": "zz", "q1": "zz"})
    settings = jobs.JudgeSettings(limit=3)
    names = [each.name for each in jobs.comparisons(QUESTIONS, [SHORT, LONG, third], settings)]
    assert len(names) == len(set(names)) == 2 * (3 + 3 + 1)


@pytest.mark.parametrize("wrong", [{"form": "essay"}, {"limit": 0}, {"temperature": -1}, {"max_tokens": 0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(DataError):
        jobs.JudgeSettings(**wrong)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_answers_are_read_from_files_of_several_kinds(tmp_path):
    own = write(
        tmp_path / "own.jsonl",
        [{"id": "1", "question": "Why?", "answer": "So.", "category": "math", "model": "m/one"}],
    )
    mapped = write(
        tmp_path / "mapped.v2.jsonl",
        [{"id": "1", "sample": 0, "reply": ""}, {"id": "1", "sample": 1, "reply": "no"},
         {"id": "2", "error": "too long"}],
    )  # fmt: skip
    questions, found = answers.load([own, mapped])
    assert questions == [answers.Question("1", "Why?", "math")]
    assert [(each.player, each.by_question, each.missing) for each in found] == [
        ("m/one", {"1": "So."}, 0),
        ("mapped", {"1": ""}, 1),
    ]
    asked = write(tmp_path / "questions.jsonl", [{"question_id": 1, "text": "How?"}])
    questions, found = answers.load([own, mapped], questions=asked, names=["a", "b"])
    assert (questions[0].text, found[1].player) == ("How?", "b")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"id": "1", "answer": "x"}], "no question in it"),
        ([{"question": "Q", "answer": "x"}], "line 1: no id"),
        ([{"id": "1", "question": "Q"}], "line 1: no answer"),
        ([{"id": "1", "question": "Q", "answer": "x"}] * 2, "line 2: the id '1' is there twice"),
        ([{"id": "1", "question": "other", "answer": "x"}], "another question has the id"),
        ([{"id": "9", "question": "Q9", "answer": "x"}], "no question was answered by two"),
        ([{"id": "1", "question": "Q", "answer": "x", "model": "good"}], "are both of 'good'"),
        ([], "no answer in it"),
    ],
)
def test_files_that_cannot_be_compared_are_refused(tmp_path, rows, says):
    good = write(tmp_path / "good.jsonl", [{"id": "1", "question": "Q", "answer": "x"}])
    bad = write(tmp_path / "bad.jsonl", rows)
    order = [bad, good] if "no question in it" in says else [good, bad]
    with pytest.raises(DataError, match=says):
        answers.load(order)


def test_too_few_files_and_unknown_ids_are_refused(tmp_path):
    good = write(tmp_path / "good.jsonl", [{"id": "1", "question": "Q", "answer": "x"}])
    with pytest.raises(DataError, match="1 file of answers"):
        answers.load([good])
    with pytest.raises(DataError, match="1 names for 2"):
        answers.load([good, good], names=["a"])
    asked = write(tmp_path / "questions.jsonl", [{"id": "2", "question": "How?"}])
    with pytest.raises(DataError, match="no question has the id '1'"):
        answers.load([good, good], questions=asked)


def test_verdicts_have_the_documented_columns(tmp_path):
    jobs.judge(Judge(longer), QUESTIONS[:2], [SHORT, LONG], out=tmp_path / "run")
    with open(tmp_path / "run" / "artifacts" / jobs.VERDICTS) as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == jobs.COLUMNS
    assert [row["order"] for row in rows] == ["ab", "ba"] * 2
    assert rows[2]["category"] == "math"
