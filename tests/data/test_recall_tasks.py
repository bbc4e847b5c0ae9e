"""Generators of recall tasks: what every row must be, and the distribution of the authors' generator."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from posterhall.data.packing import IGNORED
from posterhall.data.synthetic.in_context import AssociativeRecall, InductionHeads, SelectiveCopying
from posterhall.data.synthetic.recall import Mqar, Rows, overlap
from posterhall.errors import DataError


@st.composite
def sizes(draw):
    pairs, passes = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    length = 2 * pairs * passes + 2 * pairs + 2 * draw(st.integers(0, 9))
    vocab = max(length + 1, 2 * pairs + 2) + draw(st.integers(0, 30))
    power = draw(st.sampled_from([0.01, 0.5, 1.0, 2.0]))
    filler = draw(st.sampled_from(["zero", "random"]))
    return Mqar(length=length, pairs=pairs, vocab=vocab, passes=passes, power=power, filler=filler)


@given(sizes(), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_every_query_is_a_key_and_its_label_the_keys_value(task, seed):
    ids, labels = task.draw(5, np.random.default_rng(seed))
    assert ids.shape == labels.shape == (5, task.length)
    half = task.vocab // 2
    for row, wanted in zip(ids.tolist(), labels.tolist(), strict=True):
        keys, values = row[0 : 2 * task.pairs : 2], row[1 : 2 * task.pairs : 2]
        assert row[: task.context] == row[: 2 * task.pairs] * task.passes
        assert len(set(keys)) == len(set(values)) == task.pairs
        assert all(1 <= key < half for key in keys)
        assert all(half <= value < task.vocab for value in values)
        asked = [at for at, label in enumerate(wanted) if label != IGNORED]
        assert len(asked) == task.pairs
        assert all(at >= task.context and (at - task.context) % 2 == 0 for at in asked)
        assert {row[at]: wanted[at] for at in asked} == dict(zip(keys, values, strict=True))
        others = [token for at, token in enumerate(row[task.context :], task.context) if at not in asked]
        if task.filler == "zero":
            assert not any(others)
        else:
            assert all(0 <= token < task.vocab for token in others)


def authors_rows(task: Mqar, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys and slots as the authors draw them, a row at a time by numpy's own choice."""
    rng = np.random.RandomState(seed)
    among = np.arange(1, task.vocab // 2)
    slots = (task.length - task.context) // 2
    chances = task.power * np.arange(1, slots + 1) ** (task.power - 1)
    chances /= chances.sum()
    keys = np.stack([rng.choice(among, replace=False, size=task.pairs) for _ in range(rows)])
    places = np.stack([rng.choice(slots, replace=False, size=task.pairs, p=chances) for _ in range(rows)])
    return keys, places


def drawn_rows(task: Mqar, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    ids, _ = task.draw(rows, np.random.default_rng(seed))
    keys = ids[:, 0 : 2 * task.pairs : 2]
    asked = ids[:, task.context :]
    places = np.stack([(asked == key[:, None]).argmax(axis=1) // 2 for key in keys.T], axis=1)
    return keys, places


@pytest.mark.parametrize("power", [0.01, 1.0])
def test_the_order_of_keys_and_slots_has_the_authors_distribution(power):
    task = Mqar(length=14, pairs=2, vocab=15, power=power)  # keys 1 to 6, slots 0 to 4
    ours, theirs = drawn_rows(task, 20_000, 1), authors_rows(task, 20_000, 2)
    for mine, other, among in ((ours[0] - 1, theirs[0] - 1, 6), (ours[1], theirs[1], 5)):
        table = [np.bincount(each[:, 0] * among + each[:, 1], minlength=among**2) for each in (mine, other)]
        kept = np.array(table)[:, [a * among + b for a, b in itertools.permutations(range(among), 2)]]
        assert kept.sum() == 40_000, "the two are different numbers"
        assert stats.chi2_contingency(kept).pvalue > 1e-4


def test_the_first_slot_follows_the_power_law():
    task = Mqar(length=24, pairs=2, vocab=100, power=0.3)
    places = drawn_rows(task, 30_000, 3)[1][:, 0]
    chances = np.arange(1, 11) ** -0.7
    counts = np.bincount(places, minlength=10)
    assert stats.chisquare(counts, 30_000 * chances / chances.sum()).pvalue > 1e-4


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"length": 16}, "2·pairs·passes + 2·pairs ≤ length does not hold: 2·8·1 + 2·8 = 32 > 16"),
        ({"passes": 4}, "2·8·4 + 2·8 = 80 > 64"),
        ({"length": 63}, "must be even"),
        ({"vocab": 64}, "vocab > length does not hold: 64 ≤ 64"),
        ({"length": 400, "pairs": 8, "vocab": 401, "power": 0}, "power is 0"),
        ({"pairs": 0}, "pairs is 0"),
        ({"filler": "noise"}, "zero, random"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_inequality(sizes, said):
    with pytest.raises(DataError, match=said.replace("+", r"\+").replace("(", r"\(")):
        Mqar(**sizes)


TASKS = [Mqar(), AssociativeRecall(), InductionHeads(length=20), SelectiveCopying(length=20, copied=3)]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
def test_a_row_does_not_depend_on_how_the_others_are_taken(task):
    rows = Rows(task, seed=5, split="train", items=700)
    whole = rows.take(0, 1500)
    assert whole["ids"].shape == whole["labels"].shape == (1500, task.tokens)
    again = Rows(task, seed=5, split="train", items=700)
    for first, count in ((690, 30), (0, 1), (511, 2), (1399, 101)):
        for name, array in again.take(first, count).items():
            assert (array == whole[name][first : first + count]).all()
    assert (whole["ids"][:700] == whole["ids"][700:1400]).all(), "an epoch is the rows again"


@pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
def test_labels_and_tokens_are_in_the_vocabulary(task):
    batch = Rows(task, seed=0, split="test").take(0, 300)
    assert batch["ids"].min() >= 0
    assert batch["ids"].max() < task.vocab
    labels = batch["labels"][batch["labels"] != IGNORED]
    assert labels.min() >= 0
    assert labels.max() < task.vocab


def test_splits_and_seeds_draw_different_rows_and_overlap_counts_equal_ones():
    task = Mqar()
    train, test = (Rows(task, seed=0, split=split, items=600) for split in ("train", "test"))
    assert overlap(train, 600, test) == 0
    assert overlap(train, 600, Rows(task, seed=1, split="train", items=600)) == 0
    assert overlap(train, 500, Rows(task, seed=0, split="train", items=600)) == 500


def test_overlap_counts_rows_of_a_tiny_task_as_sets_do():
    task = InductionHeads(length=6, vocab=3)
    train, test = (Rows(task, seed=2, split=split, items=40) for split in ("train", "test"))
    seen = {tuple(row) for row in train.take(0, 40)["ids"].tolist()}
    assert overlap(train, 40, test) == sum(tuple(row) in seen for row in test.take(0, 40)["ids"].tolist()) > 0


def test_associative_recall_asks_for_a_pair_that_is_there():
    task = AssociativeRecall(length=8, vocab=20)
    ids, labels = task.draw(400, np.random.default_rng(0))
    assert (labels[:, :-1] == IGNORED).all()
    assert (ids[:, -2] == 18).all()
    for row, label in zip(ids.tolist(), labels[:, -1].tolist(), strict=True):
        pairs = list(zip(row[0:8:2], row[1:8:2], strict=True))
        assert len(dict(pairs)) == len(set(pairs)), "a key has one value in a row"
        assert dict(pairs)[row[-1]] == label


def test_induction_heads_ask_for_what_followed_the_sign():
    ids, labels = InductionHeads(length=12, vocab=5).draw(500, np.random.default_rng(0))
    places = []
    for row, label in zip(ids.tolist(), labels[:, -1].tolist(), strict=True):
        assert row.count(4) == 2
        assert row[-1] == 4
        places.append(row.index(4))
        assert row[places[-1] + 1] == label
    assert set(places) == set(range(10))


def test_selective_copying_asks_for_the_tokens_in_order():
    ids, labels = SelectiveCopying(length=9, copied=3, vocab=6).draw(300, np.random.default_rng(0))
    for row, wanted in zip(ids.tolist(), labels.tolist(), strict=True):
        assert [token for token in row[:9] if token] == wanted[9:]
        assert row[9:] == [5, 5, 5]
        assert set(wanted[:9]) == {IGNORED}


@pytest.mark.parametrize(
    "make",
    [
        lambda: AssociativeRecall(length=7),
        lambda: AssociativeRecall(vocab=5),
        lambda: InductionHeads(length=3),
        lambda: InductionHeads(vocab=2),
        lambda: SelectiveCopying(length=4, copied=5),
        lambda: SelectiveCopying(vocab=3),
        lambda: Rows(Mqar(), seed=0, split="test", items=0),
    ],
)
def test_other_sizes_that_do_not_fit_are_refused(make):
    with pytest.raises(DataError, match=r"must be|does not hold|make an even"):
        make()
