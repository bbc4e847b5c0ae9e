"""Solve a problem by search."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, overload

from posterhall.errors import UsageError, did_you_mean
from posterhall.lm.metered import Metered, Usage
from posterhall.lm.prices import Price
from posterhall.lm.protocol import LM, wait
from posterhall.lm.wrapping import BudgetExceeded
from posterhall.search import baselines
from posterhall.search.asking import Asker
from posterhall.search.best_first import a_star, best_first
from posterhall.search.breadth import breadth_first
from posterhall.search.context import Search
from posterhall.search.depth import depth_first
from posterhall.search.mcts import monte_carlo
from posterhall.search.planner.modular import modular
from posterhall.search.protocol import Task
from posterhall.search.settings import Method, SearchSettings
from posterhall.search.solution import Solution
from posterhall.search.tree import Node, Tree

METHODS: dict[Method, Callable[[Search], Awaitable[None]]] = {
    "bfs": breadth_first,
    "dfs": depth_first,
    "best-first": best_first,
    "astar": a_star,
    "mcts": monte_carlo,
    "map": modular,
    "io": baselines.direct,
    "cot": baselines.chain,
    "cot-sc": baselines.consistent,
    "best-of": baselines.best_of,
    "refine": baselines.refine,
}


@overload
def solve(
    task: Task, problem: str, lm: LM, /, *, settings: SearchSettings | None = None, **changes: Any
) -> Solution: ...
@overload
def solve(task: Task, lm: LM, /, *, settings: SearchSettings | None = None, **changes: Any) -> Solution: ...
def solve(
    task: Task, /, *problem_and_lm: str | LM, settings: SearchSettings | None = None, **changes: Any
) -> Solution:
    """Solve one problem.

    ::

        solve(Game24(), "4 9 10 13", lm, breadth=5)
        solve(Game24("4 9 10 13"), lm, method="dfs", settings=preset("paper", "game24"))

    Args:
        task: what kind of problem it is; it may be bound to the problem.
        problem: as the task reads it.
        lm: the model to ask.
        settings: of the search; None means the defaults.
        changes: single settings by name, over `settings`.

    Raises:
        DataError: for a problem that the task cannot read, or a setting out of range.
        UsageError: for what the task or the model cannot do.
    """
    problem, lm = _problem_and_lm(task, problem_and_lm)
    return wait(asolve(task, problem, lm, settings=settings, **changes))


async def asolve(
    task: Task, problem: str, lm: LM, *, settings: SearchSettings | None = None, **changes: Any
) -> Solution:
    """`solve`, asynchronous: many at once share what the model bears."""
    settings = changed(settings, changes)
    problem = task.read(problem)
    began = time.perf_counter()
    asker = Asker(lm, settings, price=_price(lm))
    search = Search(task, problem, asker, settings)
    stopped_by = None
    try:
        await METHODS[settings.method](search)
    except BudgetExceeded as error:
        stopped_by = str(error)
    return _solution(search, time.perf_counter() - began, stopped_by)


def unsolved(task: Task, problem: str, why: str) -> Solution:
    """What is told of a problem whose search failed."""
    check = task.check(problem, None)
    return Solution(problem, None, check, (), (), Tree(problem), Usage(), 0.0, stopped_by=why)


def changed(settings: SearchSettings | None, changes: dict[str, Any]) -> SearchSettings:
    """Settings with single ones replaced.

    Raises:
        UsageError: for one that there is not.
    """
    known = vars(SearchSettings())
    for name in changes:
        if name not in known:
            raise UsageError(f"a search has no setting {name!r}.{did_you_mean(name, known)}")
    return replace(settings or SearchSettings(), **changes)


def _solution(search: Search, seconds: float, stopped_by: str | None) -> Solution:
    answers = tuple(search.answer(node) for node in search.kept)
    checks = tuple(search.check(answer) for answer in answers)
    best = next((place for place, answer in enumerate(answers) if answer is not None), None)
    chosen: Node | None = None if best is None else search.kept[best]
    search.tree.chosen = None if chosen is None else chosen.number
    return Solution(
        problem=search.problem,
        answer=None if best is None else answers[best],
        check=search.check(None) if best is None else checks[best],
        answers=answers,
        checks=checks,
        tree=search.tree,
        usage=search.asker.usage,
        seconds=seconds,
        stopped_by=stopped_by,
        unread={name: count for name, count in sorted(search.unread.items()) if count},
        truncated=search.asker.truncated,
    )


def _problem_and_lm(task: Task, given: tuple[str | LM, ...]) -> tuple[str, LM]:
    match given:
        case (str(problem), LM() as lm):
            return problem, lm
        case (LM() as lm,) if task.problem is not None:
            return task.problem, lm
        case (LM(),):
            raise UsageError(
                f"no problem: give solve(task, problem, lm), or a task bound to one, as {type(task).__name__}"
                "(problem)"
            )
    raise UsageError(
        "give solve(task, problem, lm) with a problem as text and a model, as lm.connect(address) gives one"
    )


def _price(lm: LM | None) -> Price | None:
    """The price of a model, where a meter around it knows it."""
    while lm is not None:
        if isinstance(lm, Metered):
            return lm.price
        lm = getattr(lm, "inner", None)
    return None
