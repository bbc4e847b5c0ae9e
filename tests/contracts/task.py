"""What every task of a search must do, whatever a model says."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterhall.errors import DataError, UsageError
from posterhall.lm.protocol import transcript
from posterhall.search import Ask, Check, State, Task

HUGE = 10**6
"""Letters of a reply that no reader may choke on."""
NONSENSE = (
    "",
    " \n\t ",
    "I am sorry, but I cannot help with that.",
    "Answer:",
    "Answer: Answer: 1\nAnswer:",
    "sure impossible likely maybe",
    "__import__('os').system('true')",
    "9**9**9**9",
    "(" * 100_000 + "1" + ")" * 100_000,
    "1/0",
    "\0\ud800\u202e",
    "a" * HUGE,
    "1 " * (HUGE // 2),
    "\n" * HUGE,
    "{numbers} {0} %s {{x}}",
    '{"answer": [1, 2, {"value": null}]}',
    "−1 × 2 ÷ 3 ＝ ½",
)
TEXT = st.one_of(
    st.text(max_size=200),
    st.text("0123456789+-*/()=. \nleft:abhv", max_size=200),
    st.sampled_from(NONSENSE[:7]),
)


def check_task(
    task: Task,
    problems: Sequence[str],
    replies: Sequence[str],
    *,
    bad: Sequence[str] = ("", "\0"),
    examples: int = 40,
) -> None:
    """Hold a task to the protocol.

    Args:
        task: bound to no problem.
        problems: that it can read.
        replies: what a good model may say to `propose` or `sample` at the beginning of the first problem, and
            in the states after it: some of them must give thoughts.
        bad: texts that are no problems.
        examples: random texts that are tried on each reader.
    """
    assert task.name
    assert task.depth >= 1
    assert task.grades
    assert all(math.isfinite(each) and each >= 0 for each in task.grades.values())
    for text in bad:
        with pytest.raises(DataError):
            task.read(text)
    for text in problems:
        problem = task.read(text)
        assert task.read(problem) == problem  # canonical: reading it again changes nothing
        check_readers(task, problem, examples)
    reached = walk(task, task.read(problems[0]), replies)
    assert len(reached) > 1, "no reply gave a thought"
    for state in reached:
        check_state(task, state)
    check_votes(task, reached)


def check_readers(task: Task, problem: str, examples: int) -> None:
    """No reader raises for what a model may say, and says the same again."""
    state = State(problem)
    assert task.check(problem, None).solved is False

    def read(text: str) -> None:
        thoughts = task.thoughts(state, text)
        assert thoughts == task.thoughts(state, text)
        assert all(isinstance(each, str) for each in thoughts.found)
        assert thoughts.unread >= 0
        if thoughts.scores is not None:
            assert len(thoughts.scores) == len(thoughts.found)
        answer = task.conclude(problem, text)
        assert answer is None or isinstance(answer, str)
        for each in (text, answer):
            found = task.check(problem, each)
            assert isinstance(found, Check)
            assert found == task.check(problem, each)
            assert 0 <= found.score <= 1
            assert found.why
            assert "\n" not in found.why
            assert not found.solved or found.score == 1
        try:
            grade, rating = task.grade(state, text), task.rating(state, text)
        except UsageError:  # it has no classes
            return
        assert grade is None or grade in task.grades
        assert rating is None or isinstance(rating, int | float)

    for text in NONSENSE:
        read(text)

    @settings(max_examples=examples)
    @given(TEXT)
    def any_text(text: str) -> None:
        read(text)

    any_text()


def walk(task: Task, problem: str, replies: Sequence[str], *, most: int = 40) -> list[State]:
    """States that good replies lead to."""
    reached, waiting = [], [State(problem)]
    while waiting and len(reached) < most:
        state = waiting.pop(0)
        reached.append(state)
        if not task.finished(state):
            for reply in replies:
                waiting += [state.then(each) for each in task.thoughts(state, reply).found[:3]]
    return reached


def check_state(task: Task, state: State) -> None:
    """What is told of a state is told again, and fits together."""
    again = State(state.problem, tuple(state.thoughts))
    assert hash(task.key(state)) == hash(task.key(again))
    assert task.key(state) == task.key(again)
    worth = task.worth(state)
    assert worth is None or (math.isfinite(worth) and worth == task.worth(again))
    assert task.remaining(state) >= 0
    answer = task.answer(state)
    if task.finished(state):
        assert answer is not None, f"{state} is finished and has no answer"
        task.check(state.problem, answer)
    for kind in ("propose", "sample", "value", "direct", "chain"):
        try:
            ask = getattr(task, kind)(state.problem if kind in ("direct", "chain") else state)
        except UsageError:
            continue
        assert isinstance(ask, Ask)
        assert ask == getattr(task, kind)(again.problem if kind in ("direct", "chain") else again)
        assert transcript(ask.prompt).strip()
        assert ask.max_tokens is None or ask.max_tokens >= 1
        if kind == "value":
            classes = task.classes(transcript(ask.prompt))
            assert classes.keys() == task.grades.keys()
            assert all(classes.values())


def check_votes(task: Task, states: Sequence[State]) -> None:
    """A vote names one of the states, or none."""
    some = states[1:4]
    try:
        ask = task.vote(some)
    except UsageError:
        return
    assert ask == task.vote(tuple(some))
    for text in NONSENSE:
        place = task.choice(some, text)
        assert place is None or 0 <= place < len(some)
