"""Search as a model."""

from __future__ import annotations

import pytest
from test_solving import noisy
from toys import Rule

from posterhall.lm import Message, Request
from posterhall.search import SearchLM, solve
from posterhall.search.tasks.game24 import Game24


def test_the_last_message_is_the_problem_and_the_reply_its_solution():
    task, say = noisy()
    lm = SearchLM(task, Rule(say), breadth=3)
    chat = (
        Message("system", "You solve."),
        Message("user", "c"),
        Message("assistant", "Answer: x"),
        Message("user", " ab "),
    )
    [[sample]] = lm.generate([Request(chat)])
    solution = solve(task, "ab", Rule(say), breadth=3)
    assert sample.text.splitlines() == [*solution.answer, f"Answer: {solution.answer}"]
    assert (sample.tokens_in, sample.tokens_out) == (solution.usage.tokens_in, solution.usage.tokens_out)
    assert 0 < sample.tokens_hidden < sample.tokens_out
    assert [[sample]] == lm.generate([Request("ab")])
    assert lm.name == "tot:rule"


def test_samples_differ_by_their_numbers_and_seeds_alone():
    task, say = noisy()
    lm = SearchLM(task, Rule(say), breadth=1)
    [many] = lm.generate([Request("ab", n=6, seed=3)])
    assert len({sample.text for sample in many}) > 1
    assert lm.generate([Request("ab", n=2, first=2, seed=3), Request("c")])[0] == many[2:4]
    assert lm.generate([Request("ab", n=6, seed=4)])[0] != many


def test_what_is_no_problem_is_told_what_one_looks_like():
    lm = SearchLM(Game24(), Rule(lambda *_: pytest.fail("asked")))
    [[sample]] = lm.generate([Request((Message("user", "Hello, who are you?"),))])
    assert "4 9 10 13" in sample.text
    assert sample.finish_reason == "stop"


def test_no_answer_and_an_early_end_are_said():
    task, say = noisy()
    [[sample]] = SearchLM(task, Rule(lambda *_: "")).generate([Request("a")])
    assert sample.text == "No answer was found."
    [[stopped]] = SearchLM(task, Rule(say), problem_calls=0).generate([Request("a")])
    assert "stopped: the problem's budget of 0 calls" in stopped.text


def test_another_search_answers_under_another_fingerprint():
    task, say = noisy()
    prints = {SearchLM(task, Rule(say), breadth=breadth).fingerprint() for breadth in (1, 2)}
    prints |= {SearchLM(Game24(target=target), Rule(say)).fingerprint() for target in (24, 10)}
    assert len(prints) == 4
