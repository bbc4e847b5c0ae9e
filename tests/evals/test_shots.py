"""Examples and items: never the same ones, and the same for every model."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.errors import DataError
from posterhall.evals.shots import plan
from posterhall.evals.tasks import Task, TaskSettings, parse


def items(count, start=0):
    return tuple(
        parse({"prompt": f"{i}+1=", "target": str(i + 1)}, f"f:{i}", default_id=str(i))
        for i in range(start, start + count)
    )


@given(
    count=st.integers(1, 30),
    most=st.integers(0, 5),
    seed=st.integers(0, 99),
    limit=st.integers(1, 30) | st.none(),
)
def test_no_item_is_among_its_examples(count, most, seed, limit):
    task = Task("t", items(count))
    try:
        made = plan(task, shots=[0, most], seed=seed, limit=limit)
    except DataError:
        assert count <= most
        return
    assert {each.key for each in made.items}.isdisjoint(each.key for each in made.examples)
    assert len(made.examples) == most
    assert len(made.items) == min(count - most, limit or count)
    assert made == plan(
        task, shots=[most], seed=seed, limit=limit
    )  # the same items for all numbers of examples
    if limit is not None and limit > 1:
        fewer = plan(task, shots=[0, most], seed=seed, limit=limit - 1)
        assert {each.id for each in fewer.items} <= {each.id for each in made.items}


def test_more_examples_are_those_before_and_others():
    made = plan(Task("t", items(9)), shots=range(4), seed=1)
    leads = [made.lead(k) for k in range(4)]
    assert leads[0] == ""
    assert all(after.startswith(before) for before, after in itertools.pairwise(leads))
    assert [lead.count("\n\n") for lead in leads] == [0, 1, 2, 3]
    assert made.prompt(made.items[0], 1) == leads[1] + made.items[0].fields["prompt"]
    assert leads[1] == f"{made.examples[0].fields['prompt']} {made.examples[0].targets[0]}\n\n"


def test_examples_that_equal_an_item_are_passed_over():
    same = parse({"prompt": " 3+1=  ", "target": "4"}, "s:1", default_id="0")
    task = Task("t", items(5), shots=(same, *items(3, start=10)), settings=TaskSettings(shot_order="first"))
    made = plan(task, shots=[2], seed=0)
    assert made.contaminated == 1
    assert [each.fields["prompt"] for each in made.examples] == ["10+1=", "11+1="]
    assert plan(task, shots=[0], seed=0).contaminated == 0  # none is shown
    with pytest.raises(DataError, match=r"4 examples are wanted and 3 can be had \(1 equal an item asked\)"):
        plan(task, shots=[4], seed=0)


def test_the_order_of_choices_makes_no_new_question():
    one = parse({"question": "Q", "choices": ["a", "b"], "answer": 0}, "f:1", default_id="0")
    other = parse({"question": "q", "choices": ["b", "a"], "answer": 1}, "f:2", default_id="1")
    assert one.key == other.key


def test_an_example_given_twice_is_one():
    task = Task("t", items(5), shots=(*items(1, start=20), *items(1, start=20)))
    with pytest.raises(DataError, match="2 examples are wanted and 1 can be had"):
        plan(task, shots=[2], seed=0)


def test_items_that_are_repeated_go_with_their_example():
    twice = items(1) * 4
    with pytest.raises(DataError, match="all 4 items would serve"):
        plan(Task("t", twice), shots=[1], seed=0)


def test_first_examples_are_those_of_the_file_and_others_are_drawn():
    pool = items(20, start=50)
    task = Task("t", items(3), shots=pool, files=(Path("t.jsonl"), Path("t.shots.jsonl")))
    first = replace(task, settings=TaskSettings(shot_order="first"))
    assert plan(first, shots=[3], seed=7).examples == pool[:3]
    drawn = {plan(task, shots=[3], seed=seed).lead(3) for seed in range(5)}
    assert len(drawn) == 5
    with pytest.raises(DataError, match=r"t.shots.jsonl: 21 examples are wanted and 20"):
        plan(task, shots=[21], seed=0)
