"""Arithmetic written digit by digit, against Python's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.data.packing import IGNORED
from posterhall.data.synthetic.arithmetic import SYMBOLS, Arithmetic, text
from posterhall.errors import DataError


@given(
    digits=st.integers(1, 9),
    operation=st.sampled_from("+*"),
    reverse=st.booleans(),
    data=st.data(),
)
def test_what_is_written_reads_as_the_problem_and_its_answer(digits, operation, reverse, data):
    task = Arithmetic(operation, digits, reverse)
    numbers = st.integers(0, 10**digits - 1)
    a, b = data.draw(numbers), data.draw(numbers)
    prompts = task.prompts(np.array([a]), np.array([b]))
    targets = task.targets(np.array([a]), np.array([b]))
    assert prompts.shape == (1, task.prompt_length)
    assert targets.shape == (1, task.answer_length)
    read = (lambda s: int(s[::-1])) if reverse else int
    left, right = text(prompts[0]).rstrip("=").split(operation)
    assert (read(left), read(right)) == (a, b)
    assert read(text(targets[0])) == (a + b if operation == "+" else a * b)


def test_the_example_of_the_documentation():
    task = Arithmetic("+", 4)
    assert text(task.prompts(np.array([42]), np.array([99]))[0]) == "2400+9900="
    assert text(task.targets(np.array([42]), np.array([99]))[0]) == "14100"


@pytest.mark.parametrize(("operation", "digits", "test"), [("*", 2, 5000), ("+", 4, 20_000), ("+", 1, 50)])
def test_test_problems_are_different_and_never_trained_on(operation, digits, test):
    train, held = Arithmetic(operation, digits).split(30_000, test, seed=3)
    assert len(train) == 30_000
    assert len(held) == len(set(held)) == test
    assert not set(train) & set(held)


def test_problems_are_uniform():
    train, held = Arithmetic("+", 3).split(50_000, 20_000, seed=1)
    for numbers in (train.a, train.b, held.a, held.b):
        assert numbers.mean() == pytest.approx(499.5, abs=10)
        assert (numbers.min(), numbers.max()) == (0, 999)


def test_a_seed_decides_the_problems():
    first, again, other = (Arithmetic("*", 2).split(100, 50, seed=s)[0] for s in (1, 1, 2))
    assert list(first) == list(again) != list(other)


def test_only_the_answer_is_labelled_and_each_label_follows_its_input():
    task = Arithmetic("*", 2)
    train, _ = task.split(10, 5, seed=0)
    rows = train.take(8, 4)  # beyond the last, from the beginning
    assert rows["ids"].shape == rows["labels"].shape == (4, task.prompt_length + task.answer_length - 1)
    np.testing.assert_array_equal(rows["ids"][2], train.take(0, 1)["ids"][0])
    labelled = rows["labels"] != IGNORED
    assert (labelled.sum(axis=1) == task.answer_length).all()
    for ids, labels in zip(rows["ids"], rows["labels"], strict=True):
        written = text(ids)
        assert written[task.prompt_length - 1] == "="
        answer = text(labels[labels != IGNORED])
        assert written.split("=")[1] == answer[:-1], "teacher forcing: the answer so far is the input"
    assert rows["ids"].max() < len(SYMBOLS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Arithmetic("-", 2), "allowed are"),
        (lambda: Arithmetic("+", 10), "from 1 to 9"),
        (lambda: Arithmetic("*", 1).split(10, 51, seed=0), "100 problems"),
        (lambda: Arithmetic("*", 1).split(0, 5, seed=0), "0 problems to train on"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(DataError, match=message):
        make()
