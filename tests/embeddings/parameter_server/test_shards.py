from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterhall.embeddings.parameter_server import Push, Rule, Shard, Table, coalesce
from posterhall.embeddings.parameter_server.shards import PoisonedPush
from posterhall.errors import DataError


def shard(rule: Rule | None = None, *, rows: int = 8, width: int = 5, slots: int = 3) -> Shard:
    made = Shard([Table("a", rows, width), Table("b", 2, 3)], rule or Rule(), slots=slots)
    rng = np.random.default_rng(1)
    made.assign([rng.normal(size=(rows, width)).astype("f4"), np.zeros((2, 3), "f4")])
    return made


def push(delta, rows, *, number=1, worker=0, seen=0, rate=0.1, bases=None) -> Push:
    empty = (np.zeros(0, np.int32), np.zeros((0, 3), np.float32))
    delta = np.asarray(delta, np.float32)
    bases = None if bases is None else [np.asarray(bases, np.float32), empty[1]]
    return Push(worker, number, seen, rate, [np.asarray(rows, np.int32), empty[0]], [delta, empty[1]], bases)


def pull(shard: Shard, rows, worker=0):
    rows = np.asarray(rows, np.int32)
    into, twin = np.full((len(rows), 7), 9, "f4"), np.full((len(rows), 7), 9, "f4")
    none = np.zeros((0, 3), "f4")
    seen = shard.pull(worker, [rows, np.zeros(0, np.int32)], [into, none], [twin, none])
    assert np.array_equal(into, twin)
    return seen, into


def test_pull_copies_the_rows_asked_for_and_leaves_the_padding():
    s = shard()
    _, copy = pull(s, [6, 2])
    assert np.array_equal(copy[:, :5], s.values()[0][[6, 2]])
    assert (copy[:, 5:] == 9).all()


def test_sgd_adds_the_difference_to_named_rows_only():
    s = shard()
    before = s.values()[0]
    s.push(push(np.ones((2, 5)), [7, 1]))
    changed = s.values()[0] - before
    assert np.allclose(changed[[7, 1]], 1)
    assert not changed[[0, 2, 3, 4, 5, 6]].any()


@pytest.mark.parametrize("rule", [Rule(), Rule("adagrad"), Rule(clip=0.5), Rule("adagrad", clip=0.5)])
def test_a_difference_in_two_halves_does_what_the_difference_does(rule):
    one, two = shard(rule), shard(rule)
    rng = np.random.default_rng(2)
    now, base = rng.normal(size=(2, 3, 16)).astype("f4")  # wider than the table: padded copies
    one.push(push((now - base)[:, :5], [4, 0, 5]))
    two.push(push(now, [4, 0, 5], bases=base))
    assert np.allclose(one.values()[0], two.values()[0], atol=1e-6)


def test_adagrad_follows_its_formula_in_float64():
    s = shard(Rule("adagrad", gamma=0.3))
    w = s.values()[0].astype(np.float64)
    squares = np.zeros_like(w)
    rng = np.random.default_rng(3)
    for number in range(1, 30):
        rate = 0.1 / number  # the workers' rate may fall: Adagrad sees gradients, not steps
        rows = rng.permutation(8)[:3].astype(np.int32)
        gradient = rng.normal(size=(3, 5))
        s.push(push(-rate * gradient, rows, number=number, rate=rate))
        squares[rows] += gradient**2
        w[rows] -= 0.3 * gradient / np.sqrt(squares[rows])
    assert np.allclose(s.values()[0], w, atol=2e-5)


def test_first_step_of_adagrad_has_size_gamma_whatever_the_gradient():
    s = shard(Rule("adagrad", gamma=0.01))
    before = s.values()[0]
    s.push(push([[1e-6, -1e3, 1.0, -1e-3, 7.0]], [3]))
    assert np.allclose((s.values()[0] - before)[3], [0.01, -0.01, 0.01, -0.01, 0.01], atol=1e-6)


def test_zero_gradient_changes_nothing_under_adagrad():
    s = shard(Rule("adagrad"))
    before = s.values()[0]
    s.push(push(np.zeros((1, 5)), [3]))
    assert np.array_equal(s.values()[0], before)


def test_clip_shortens_rows_and_counts_them():
    s = shard(Rule(clip=2.0))
    before = s.values()[0]
    s.push(push([[3, 4, 0, 0, 0], [1, 0, 0, 0, 0]], [2, 3]))
    moved = s.values()[0] - before
    assert np.allclose(moved[2], [1.2, 1.6, 0, 0, 0])
    assert np.allclose(moved[3], [1, 0, 0, 0, 0])
    assert s.counts()["clipped_rows"] == 1


def test_a_repeated_push_is_applied_once():
    s = shard()
    before = s.values()[0]
    first = push(np.ones((1, 5)), [0], number=5)
    assert s.push(first).applied
    assert not s.push(first).applied
    assert s.push(push(np.ones((1, 5)), [0], number=5, worker=1)).applied  # numbers are per worker
    assert np.allclose((s.values()[0] - before)[0], 2)
    assert s.counts() == {"pushes": 2, "repeats": 1, "refused": 0, "clipped_rows": 0}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 90), max_size=120))
def test_push_numbers_in_any_order_apply_once_within_the_window(numbers):
    s = shard()
    applied: set[int] = set()
    newest = 0
    for number in numbers:
        fresh = number not in applied and number > newest - 64
        assert s.push(push(np.ones((1, 5)), [0], number=number)).applied == fresh
        if fresh:
            applied.add(number)
        newest = max(newest, number)
    assert s.version == len(applied)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (push(np.full((1, 5), np.nan), [0]), "NaN"),
        (push([[0, 0, np.inf, 0, 0]], [0]), "infinity"),
        (push(np.ones((2, 5)), [0, 8]), "row 8 of 8"),
        (push(np.ones((1, 5)), [-1]), "row -1"),
        (push(np.ones((2, 5)), [3, 3]), "twice"),
        (push(np.ones((1, 4)), [3]), "shape"),
        (push(np.ones((1, 5)), [3], worker=3), "slots"),
        (push(np.ones((1, 5)), [3], rate=0.0), "rate"),
    ],
)
def test_a_poisoned_push_is_refused_whole(bad, says):
    s = shard()
    before = s.values()[0]
    with pytest.raises(PoisonedPush, match=says):
        s.push(bad)
    assert np.array_equal(s.values()[0], before)
    assert s.version == 0
    assert s.push(push(np.ones((1, 5)), [3])).applied  # its number was not used up


def test_a_poisoned_last_row_leaves_the_first_ones_alone():
    s = shard()
    before = s.values()[0]
    with pytest.raises(PoisonedPush):
        s.push(push([[1] * 5, [1] * 4 + [np.nan]], [0, 1]))
    assert np.array_equal(s.values()[0], before)


def test_pulling_a_row_that_is_not_there_is_refused():
    with pytest.raises(DataError, match="holds 8 rows"):
        pull(shard(), [8])


def test_staleness_counts_the_pushes_of_others_between_pull_and_push():
    s = shard()
    seen = {worker: pull(s, [0], worker)[0] for worker in range(3)}
    one = np.ones((1, 5))
    assert s.push(push(one, [0], worker=0, seen=seen[0])).staleness == 0
    assert s.push(push(one, [0], worker=1, seen=seen[1])).staleness == 1
    assert s.push(push(one, [0], worker=2, seen=seen[2])).staleness == 2
    # a second push on the same copy: two others came since the pull, its own does not count
    assert s.push(push(one, [0], worker=0, seen=seen[0], number=2)).staleness == 2
    fresh, _ = pull(s, [0], 1)
    assert s.push(push(one, [0], worker=1, seen=fresh, number=2)).staleness == 0
    assert s.staleness()[:4].tolist() == [2, 1, 2, 0]


@pytest.mark.parametrize("rule", [Rule(), Rule("adagrad")])
def test_a_restored_shard_goes_on_as_if_nothing_had_been(rule):
    s, other = shard(rule), shard(rule, slots=1)
    rng = np.random.default_rng(4)
    deltas = [(rng.normal(size=(2, 5)), rng.permutation(8)[:2]) for _ in range(6)]
    for number, each in enumerate(deltas[:3], 1):
        s.push(push(*each, number=number))
    other.restore(s.state())
    for number, each in enumerate(deltas[3:], 1):
        s.push(push(*each, number=number + 3))
        assert other.push(push(*each, number=number, seen=3)).applied  # new workers count from 1
    for name, array in s.state().items():
        assert np.array_equal(array, other.state()[name]), name


def test_state_of_another_shape_is_refused():
    with pytest.raises(DataError, match="must be"):
        shard(rows=8).restore(shard(rows=9).state())
    with pytest.raises(DataError, match="missing"):
        shard(Rule("adagrad")).restore(shard().state())


@given(st.lists(st.integers(0, 5), max_size=20))
def test_coalesce_sums_what_is_named_twice(rows):
    delta = np.arange(len(rows) * 2, dtype=np.float32).reshape(-1, 2)
    unique, sums = coalesce(np.array(rows, np.int32), delta)
    dense = np.zeros((6, 2), np.float32)
    for row, each in zip(rows, delta, strict=True):
        dense[row] += each
    assert unique.tolist() == sorted(set(rows))
    assert np.array_equal(sums, dense[unique])
