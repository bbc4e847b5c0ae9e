"""Deliberate problem solving: thoughts, who generates and values them, and how the tree is searched.

    from posterhall import lm, search

    model = lm.connect("http://localhost:8000/v1#qwen")
    solution = search.solve(search.tasks.Game24("4 9 10 13"), model, method="bfs", breadth=5)
    print(solution.answer, solution.solved, solution.usage.tokens)

A `Task` says what a kind of problem is and how a model is asked about it; `solve` searches for one problem,
`solve_all` for many at once. Settings are those of `SearchSettings`; `preset` gives those of the paper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from posterhall import lazy

if TYPE_CHECKING:
    from posterhall.search import tasks
    from posterhall.search.jobs import Report, solve_all
    from posterhall.search.presets import preset
    from posterhall.search.protocol import Ask, Check, State, Task, Thoughts
    from posterhall.search.served import SearchLM
    from posterhall.search.settings import SearchSettings
    from posterhall.search.solution import Solution
    from posterhall.search.solving import asolve, solve
    from posterhall.search.tree import Node, Tree

__all__ = [
    "Ask",
    "Check",
    "Node",
    "Report",
    "SearchLM",
    "SearchSettings",
    "Solution",
    "State",
    "Task",
    "Thoughts",
    "Tree",
    "asolve",
    "preset",
    "solve",
    "solve_all",
    "tasks",
]

_PLACES = {
    "Ask": "protocol",
    "Check": "protocol",
    "Node": "tree",
    "Report": "jobs",
    "SearchLM": "served",
    "SearchSettings": "settings",
    "Solution": "solution",
    "State": "protocol",
    "Task": "protocol",
    "Thoughts": "protocol",
    "Tree": "tree",
    "asolve": "solving",
    "preset": "presets",
    "solve": "solving",
    "solve_all": "jobs",
}

__getattr__, __dir__ = lazy.attributes(__name__, names=_PLACES, modules=("tasks",))
