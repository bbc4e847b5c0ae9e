"""ListOps: values by Python's own functions, lengths and shares by a plain recursion."""

from __future__ import annotations

import random
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from posterhall.data.synthetic import list_ops
from posterhall.data.synthetic.list_ops import ListOps
from posterhall.errors import DataError

OPERATIONS = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda values: int(statistics.median(values)),
    "[SM": lambda values: sum(values) % 10,
}


def solved(words):
    """Value, depth and numbers of arguments of an expression, by a stack."""
    stack, deepest, counts = [[]], 1, []
    for word in words:
        if word in OPERATIONS:
            stack.append([word])
            deepest = max(deepest, len(stack))
        elif word == "]":
            name, *values = stack.pop()
            counts.append(len(values))
            stack[-1].append(OPERATIONS[name](values))
        else:
            stack[-1].append(int(word))
    assert len(stack) == len(stack[0]) == 1, "one expression, and all of it"
    return stack[0][0], deepest, counts


@pytest.mark.parametrize("task", [ListOps(), ListOps(4, 60, max_depth=4, max_args=5)], ids=["long", "short"])
def test_labels_are_the_values_and_sizes_are_kept(task):
    rows = task.draw(60, seed=1, split="train")
    assert rows.inputs.shape == (60, task.max_length - 1)
    for tokens, label, length in zip(rows.inputs, rows.labels, rows.lengths, strict=True):
        words = list_ops.text(tokens).split()
        assert len(words) == length
        assert task.min_length < length < task.max_length
        value, deepest, counts = solved(words)
        assert value == label
        assert deepest <= task.max_depth
        assert min(counts) >= 2
        assert max(counts) <= task.max_args
    assert len(set(rows.labels.tolist())) == 10


def recursion(rng, depth, max_depth, max_args):
    """Length of a tree as the paper's generator draws one, one node after the other."""
    if depth >= max_depth or rng.random() > 0.25:
        return 1
    return 2 + sum(recursion(rng, depth + 1, max_depth, max_args) for _ in range(rng.randint(2, max_args)))


def test_lengths_have_the_distribution_of_a_plain_recursion():
    task, rng = ListOps(3, 40, max_depth=4, max_args=5), random.Random(0)
    theirs = [length for length in (recursion(rng, 1, 4, 5) for _ in range(12_000)) if 3 < length < 40]
    ours = task.draw(len(theirs), seed=0, split="test").lengths
    edges = [4, 5, 6, 7, 8, 10, 12, 15, 20, 40]
    table = [np.histogram(each, edges)[0] for each in (ours, theirs)]
    assert stats.chi2_contingency(table).pvalue > 1e-4


def test_a_row_follows_from_seed_split_and_number():
    task = ListOps(4, 60)
    many, few = (task.draw(n, seed=3, split="train") for n in (20, 7))
    assert (many.inputs[:7] == few.inputs).all()
    for other in (task.draw(7, seed=4, split="train"), task.draw(7, seed=3, split="test")):
        assert (other.inputs != few.inputs).any()


@given(st.lists(st.integers(1, 15), min_size=1, max_size=50))
def test_tokens_and_text_are_each_others_inverse(tokens):
    text = list_ops.text(np.array([*tokens, 0, 0]))
    assert list_ops.encode(text).tolist() == tokens
    assert list_ops.encode(f"( ( {text} ) )").tolist() == tokens


def test_an_unknown_word_and_impossible_sizes_are_refused():
    with pytest.raises(DataError, match=r"line 3: '\[MEAN' is no token"):
        list_ops.encode("[MEAN 1 2 ]", "line 3")
    with pytest.raises(DataError, match="empty"):
        list_ops.encode(" ( ) ")
    with pytest.raises(DataError, match="at least min_length \\+ 2"):
        ListOps(10, 11)
    with pytest.raises(DataError, match="max_args is 1"):
        ListOps(max_args=1)
    with pytest.raises(DataError, match="widen the lengths"):
        ListOps(500, 502, max_depth=2, max_args=3).draw(1, seed=0, split="train")
