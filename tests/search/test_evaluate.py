"""Values: votes, probabilities, chance and the task's own word."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import Rule, Written, full, teller

from posterhall.lm import EchoLM, Unsupported
from posterhall.search import Ask, solve
from posterhall.seeds import derive


def values(solution):
    return {"".join(solution.tree.state(node).thoughts): node.value for node in solution.tree.nodes[1:]}


def test_votes_go_to_the_state_that_is_chosen():
    task = Written(1, {(): "abc"})
    said = ["2", "0", "2", "7", "the second"]

    def say(kind, rest, seed, number):
        return "a b c" if kind == "next" else said[number]

    lm = Rule(say)
    solution = solve(task, "c", lm, evaluator="vote", votes=5)
    assert values(solution) == {"a": 1.0, "b": 0.0, "c": 2.0}
    assert solution.unread == {"vote": 2}
    assert solution.answers == ("c", "a", "b")
    assert len(lm.asked) == 2  # one request compares all


def test_one_state_alone_needs_no_vote():
    task = Written(1, {(): "a"})
    lm = Rule(teller(task))
    assert values(solve(task, "a", lm, evaluator="vote", votes=5)) == {"a": 5.0}
    assert len(lm.asked) == 1


@given(st.lists(st.floats(-30, 0), min_size=3, max_size=3))
def test_probabilities_weigh_the_classes(logprobs):
    grades = {"sure": 20.0, "likely": 1.0, "impossible": 0.001}
    task = Written(1, {(): "a"}, grades=grades)

    def say(kind, rest, seed, number):
        return str(logprobs[number]) if kind == "score" else "a"

    found = values(solve(task, "a", Rule(say), evaluator="logprob"))["a"]
    weights = [math.exp(each) for each in logprobs]
    expected = math.fsum(w * g for w, g in zip(weights, grades.values(), strict=True)) / math.fsum(weights)
    assert found == pytest.approx(expected, rel=1e-9)


def test_probabilities_that_are_all_zero_say_nothing():
    task = Written(1, {(): "a"})
    lm = Rule(lambda kind, *_: "-inf" if kind == "score" else "a")
    solution = solve(task, "a", lm, evaluator="logprob")
    assert (values(solution), solution.unread) == ({"a": 0.0}, {"value": 1})


def test_probabilities_come_from_the_model_itself():
    class Echoed(Written):  # an echo gives log 1/256 a byte: " best" has five, " worst" six
        def thoughts(self, state, reply):
            return super().thoughts(state, "a")

        def value(self, state):
            return Ask("a text")

    solution = solve(Echoed(1, {(): "a"}), "a", EchoLM(), evaluator="logprob")
    assert values(solution)["a"] == pytest.approx(10 * 256 / 257)


def test_a_model_that_tells_no_probabilities_is_refused():
    class Mute(Rule):
        async def ascore(self, items):
            raise Unsupported("it does not tell")

    task = Written(1, {(): "a"})
    with pytest.raises(Unsupported):
        solve(task, "a", Mute(teller(task)), evaluator="logprob")


def test_chance_follows_the_seed_and_the_state_alone():
    task = Written(2, full(2, "abc"))
    lm = Rule(teller(task))
    found = values(solve(task, "a", lm, evaluator="random", breadth=9, seed=4))
    for path, value in found.items():
        assert value == derive(4, "value", "a", *path) / 2**63
    assert not any("value" in prompt for prompt in lm.asked)
    narrow = values(solve(task, "a", lm, evaluator="random", breadth=1, seed=4))
    assert narrow.items() <= found.items()
    assert found != values(solve(task, "a", lm, evaluator="random", breadth=9, seed=5))


def test_the_tasks_own_word_goes_before_the_models_unless_it_is_not_wanted():
    task = Written(
        1, {(): "ab"}, {("a",): 1.0, ("b",): 2.0}, worth=lambda s: 7.0 if "a" in s.thoughts else None
    )
    assert values(solve(task, "a", Rule(teller(task)), votes=1)) == {"a": 7.0, "b": 2.0}
    assert values(solve(task, "a", Rule(teller(task)), votes=1, use_worth=False)) == {"a": 1.0, "b": 2.0}
    assert values(solve(task, "a", Rule(teller(task)), evaluator="free")) == {"a": 7.0, "b": 0.0}


@pytest.mark.parametrize(("combine", "expected"), [("sum", 7.0), ("min", 2.0)])
def test_a_state_may_be_judged_by_its_parts(combine, expected):
    class Parts(Written):
        def aspects(self, state):
            return [Ask(f'["part", {i}]') for i in range(2)] if "a" in state.thoughts else []

    task = Parts(1, {(): "ab"})
    task.combine = combine
    lm = Rule(lambda kind, rest, *_: "a b" if kind == "next" else ["5", "2"][rest[0]])
    found = values(solve(task, "a", lm, votes=1))
    assert found == {"a": expected, "b": 10.0}  # nothing speaks against b: the best class


@pytest.mark.parametrize("said", ["nan", "inf", "-inf", "", "prose", "1e999"])
def test_numbers_that_are_none_are_unread(said):
    task = Written(1, {(): "a"})
    lm = Rule(lambda kind, *_: "a" if kind == "next" else said)
    solution = solve(task, "a", lm, votes=2)
    assert (values(solution), solution.unread) == ({"a": 0.0}, {"value": 2})
