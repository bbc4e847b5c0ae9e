"""Solving as a whole: the same whatever the concurrency, within its budget, from a task or a problem."""

from __future__ import annotations

import asyncio
import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import Rule, Written, full

from posterhall.errors import DataError, UsageError
from posterhall.lm import Request
from posterhall.lm.metered import Budget, Meter, Metered
from posterhall.lm.prices import Price
from posterhall.search import SearchSettings, Solution, Tree, asolve, solve, solve_all
from posterhall.search.jobs import asolve_all
from posterhall.search.shared import Shared
from posterhall.seeds import derive

METHODS = ("bfs", "dfs", "best-first", "astar", "mcts", "io", "cot", "cot-sc", "best-of", "refine")
PROBLEMS = [a + b for a in "abc" for b in "abc"] * 3


def noisy(depth=3):
    """A task, and what a model says that answers by the prompt, the seed and the number of the sample."""
    task = Written(depth, full(depth, "abc"))

    def say(kind, rest, seed, number):
        draw = derive(seed, kind, str(rest), number)
        if kind in ("next", "one"):
            return " ".join("abcz"[draw >> (2 * i) & 3] for i in range(4))
        return str(draw % 10) if kind == "value" else f"so {'abc'[draw % 3]}{'abc'[draw // 3 % 3]}"

    return task, say


def plain(report):
    return [each.to_dict() | {"seconds": 0} for each in report.solutions]


@pytest.mark.parametrize("method", METHODS)
def test_results_do_not_depend_on_what_runs_at_the_same_time(method):
    task, say = noisy()
    options = {"method": method, "proposals": 2, "votes": 2, "breadth": 2, "expansions": 6, "samples": 5}
    expected = plain(solve_all(task, PROBLEMS, Rule(say), parallel=1, **options))
    for parallel in (8, 64):
        lm = Rule(say, waits=lambda count, parallel=parallel: derive(parallel, count) % 7)
        assert plain(solve_all(task, PROBLEMS, lm, parallel=parallel, **options)) == expected
    alone = [solve(task, each, Rule(say), **options) for each in PROBLEMS[:4]]
    assert [each.to_dict() | {"seconds": 0} for each in alone] == expected[:4]

    async def here():
        return [
            await asolve(task, each, Rule(say), settings=SearchSettings(**options)) for each in PROBLEMS[:4]
        ]

    assert [each.to_dict() | {"seconds": 0} for each in asyncio.run(here())] == expected[:4]


def test_another_seed_asks_otherwise():
    task, say = noisy()
    found = {solve(task, "abc", Rule(say), seed=seed).answers for seed in range(5)}
    assert len(found) > 1


def test_equal_questions_have_equal_seeds_whoever_asks():
    task, say = noisy()
    lm = Rule(say)
    solve_all(task, ["a", "b", "a"], lm, parallel=3)
    seeds = {}
    for request in lm.requests:
        assert seeds.setdefault((request.prompt, request.n), request.seed) == request.seed


# -- what is given ------------------------------------------------------------------------------------


def test_a_task_may_be_bound_to_its_problem():
    task, say = noisy()
    task.problem = "b"
    assert solve(task, Rule(say)).problem == "b"
    assert solve(task, "  c ", Rule(say)).problem == "c"
    task.problem = None
    with pytest.raises(UsageError, match="no problem"):
        solve(task, Rule(say))
    with pytest.raises(UsageError, match="as text and a model"):
        solve(task, Rule(say), "b")


def test_bad_problems_and_settings_are_refused_before_anything_is_asked():
    task, say = noisy()
    lm = Rule(say)
    with pytest.raises(DataError, match="problem 2: an empty problem"):
        solve_all(task, ["a", " "], lm)
    with pytest.raises(DataError, match="no problems"):
        solve_all(task, [], lm)
    with pytest.raises(UsageError, match=r"no setting 'bredth'.*breadth"):
        solve(task, "a", lm, bredth=3)
    assert lm.asked == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("method", "bsf"),
        ("evaluator", "values"),
        ("breadth", 0),
        ("votes", -1),
        ("steps", 0),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("threshold", float("nan")),
        ("problem_calls", -1),
        ("doubt", float("inf")),
    ],
)
def test_settings_out_of_range_say_what_is_allowed(name, value):
    with pytest.raises(DataError, match=name):
        SearchSettings(**{name: value})


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("said", ["", "I am sorry, but I cannot help with that.", "z" * 10**6, "\0\ud800"])
def test_replies_without_sense_end_in_no_answer(method, said):
    task, _ = noisy()
    task.conclude = lambda problem, reply: None
    solution = solve(task, "a", Rule(lambda *_: said), method=method)
    assert (solution.answer, solution.solved, solution.any_solved) == (None, False, False)
    assert solution.check.why


# -- budgets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@given(limit=st.integers(0, 40))
def test_no_more_calls_are_made_than_a_problem_may(method, limit):
    task, say = noisy()
    lm = Rule(say)
    solution = solve(task, "ab", lm, method=method, expansions=20, problem_calls=limit)
    assert len(lm.asked) == solution.usage.calls <= limit
    free = solve(task, "ab", Rule(say), method=method, expansions=20)
    if free.usage.calls > limit:
        assert "budget" in solution.stopped_by
    else:
        assert solution.to_dict() | {"seconds": 0} == free.to_dict() | {"seconds": 0}


def test_the_best_so_far_is_given_when_a_budget_ends():
    task, say = noisy()
    whole = solve(task, "ab", Rule(say), method="mcts", expansions=30)
    part = solve(task, "ab", Rule(say), method="mcts", expansions=30, problem_tokens=whole.usage.tokens // 2)
    assert "tokens" in part.stopped_by
    assert part.answer is not None
    assert part.usage.tokens < whole.usage.tokens


def test_money_is_counted_where_the_price_is_known():
    task, say = noisy()
    lm = Metered(Rule(say), price=Price(input=1e6, output=2e6))  # dollars a million: 3 + 2 * 2 a sample
    solution = solve(task, "ab", lm, votes=1)
    usage = solution.usage
    assert usage.cost == pytest.approx(usage.tokens_in + 2 * usage.tokens_out)
    stopped = solve(task, "ab", lm, votes=1, problem_cost=20.0)
    assert "$20" in stopped.stopped_by


def test_a_limit_of_the_model_ends_all_problems_with_what_they_have():
    task, say = noisy()
    bare = Rule(say)
    report = solve_all(task, PROBLEMS, Metered(bare, Meter(Budget(calls=50))), parallel=4)
    assert len(bare.asked) == report.paid.calls == 50
    assert len(report.solutions) == len(PROBLEMS)
    assert report.unfinished > 0
    assert all("budget of 50 calls" in each.stopped_by for each in report.solutions if each.stopped_by)


def test_a_problem_that_fails_does_not_end_the_others():
    task, say = noisy()

    def failing(kind, rest, seed, number):
        if rest[0] == "b":
            raise DataError("the prompt does not fit in the model's context")
        return say(kind, rest, seed, number)

    report = solve_all(task, ["a", "b", "c"], Rule(failing))
    assert [each.stopped_by for each in report.solutions] == [
        None,
        "error: the prompt does not fit in the model's context",
        None,
    ]
    with pytest.raises(DataError, match="does not fit"):
        solve_all(task, ["b", "b"], Rule(failing))
    with pytest.raises(DataError, match="does not fit"):
        solve(task, "b", Rule(failing))


def test_the_collector_is_as_before_when_jobs_that_overlap_have_ended():
    task, say = noisy()
    before = gc.get_threshold()
    within = []

    async def both():
        lm = Rule(lambda *each: within.append(gc.get_threshold()) or say(*each), waits=lambda _: 3)
        jobs = [asolve_all(task, ["ab", "c"], lm, settings=SearchSettings(breadth=b)) for b in (1, 5)]
        await asyncio.gather(*jobs)

    asyncio.run(both())
    assert gc.get_threshold() == before
    assert set(within) == {(50_000, *before[1:])}


def test_what_problems_have_in_common_is_asked_once_and_forgotten_at_its_limit():
    task, say = noisy()
    lm = Rule(say, waits=lambda _: 4)
    solve_all(task, ["ab"] * 5, lm, parallel=5)
    assert len(lm.asked) == len(set(lm.asked))

    async def again(most):
        shared = Shared(inner := Rule(say), most=most)
        for letter in "aba":
            await shared.agenerate([Request(f'["next", "{letter}", []]', seed=1)])
        return len(inner.asked)

    assert [asyncio.run(again(most)) for most in (2, 1)] == [2, 3]


# -- files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_solution_comes_back_from_its_file_form(method):
    task, say = noisy()
    solution = solve(task, "ab", Rule(say), method=method)
    again = Solution.from_dict(solution.to_dict())
    assert again.to_dict() == solution.to_dict()
    assert [again.tree.state(each) for each in again.tree.nodes] == [
        solution.tree.state(each) for each in solution.tree.nodes
    ]


@pytest.mark.parametrize(
    "change",
    [{"nodes": []}, {"chosen": 99}, {"nodes": [{"number": 0}]}, {"problem": None, "nodes": None}],
)
def test_what_is_no_tree_is_refused(change):
    task, say = noisy()
    tree = solve(task, "ab", Rule(say)).tree.to_dict()
    with pytest.raises(DataError, match="not a search tree"):
        Tree.from_dict(tree | change)
