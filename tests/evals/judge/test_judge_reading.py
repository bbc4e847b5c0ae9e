"""Replies of judges: what is a verdict, and what only looks like one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.evals.judge.reading import scores, verdict


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("1", "1"),
        ("Answer: 2", "2"),
        ("Both are fine, but the second is deeper.\n\n**Answer: 2**", "2"),
        ("Answer 1 is wrong about the date.\nAnswer: tie", "tie"),
        ("It is better.\nBest Answer: 2", "2"),  # of the released verdicts without one, 1,307 are so
        ("Better answer is Answer 1.", "1"),
        ("Verdict: [[A]]", "1"),
        ("I prefer the second. [[B]]", "2"),
        ("[[C]]", "tie"),
        ("Winner: Assistant 2", "2"),
        ("verdict = `tie`", "tie"),
        ('{"reason": "shorter", "winner": "1"}', "1"),
        ("1\nThat is all.\n2", "2"),
        # No verdicts:
        ("This is a close call.", None),
        ("Answer 1 is good. Answer 2 is a mess.", None),
        ("The first answer is better because it has 1 error.", None),
        ("The winner is 1 of 2 contenders, hard to say", None),
        ("[[A]] or [[B]]", None),
        ("Answer: 1 or 2", None),
        ("Answer: neither 1 nor 2 is right, 1 least", None),
        ("I cannot judge.", None),
        ("", None),
    ],
)
def test_verdicts_are_labelled_or_alone_and_never_guessed(reply, said):
    found = verdict(reply)
    assert found.value == said
    assert found.read == (said is not None)


def test_what_the_judge_is_told_is_no_verdict():
    from posterhall.evals.judge.prompts import prompt

    for category in ("general", "coding", "math"):
        for message in prompt("Question?", "one", "two", category=category):
            assert verdict(message.content).value is None
        for message in prompt("Question?", "one", "two", form="scores"):
            assert scores(message.content).value is None


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("Scores: 8 6.5", (8, 6.5)),
        ("8 9", (8, 9)),
        ("8/10, 6/10\nBecause ...", (8, 6)),
        ("Good.\n**Scores: 10, 1**", (10, 1)),
        ("Scores: 3 4\nNo, rather:\nScores: 5 4", (5, 4)),
        ("Scores: 11 4", None),
        ("Scores: 0 4", None),
        ("I give 8 to the first and 6 to the second.", None),
        ("8", None),
        ("8 9 7", None),
        ("86", None),
        ("", None),
    ],
)
def test_scores_stand_on_a_line_of_their_own_and_in_range(reply, said):
    found = scores(reply)
    assert found.value == said
    if reply == "Scores: 11 4":
        assert "out of range" in found.failures[0]


@given(st.text(max_size=200))
def test_any_reply_is_read_or_not(reply):
    assert verdict(reply).value in ("1", "2", "tie", None)
    found = scores(reply).value
    assert found is None or all(1 <= each <= 10 for each in found)


@given(st.text(alphabet="abc 12\n", max_size=60), st.sampled_from(["1", "2", "tie"]))
def test_a_verdict_on_the_last_line_counts_whatever_stands_before(before, said):
    assert verdict(f"{before}\nAnswer: {said}").value == said
