"""A planner made of modules that each ask a model one thing (MAP: Webb, Mondal & Momennejad 2023).

A *task decomposer* names subgoals; an *actor* proposes moves; a *monitor* checks them against the rules and
says what is wrong, for the actor to try again; a *predictor* says what a move leads to; an *evaluator* how
far it is from there; an *orchestrator* when a goal is reached. Two moves are looked ahead, the first move of
the best branch is made, and what was thought of below it is kept. It is the method `map` of `search.solve`,
for tasks that have a `Domain`:

    search.solve(search.tasks.Hanoi("321 - -"), model, method="map", without=("monitor",))
"""

from __future__ import annotations

from posterhall.search.planner.protocol import MODULES, Domain

__all__ = ["MODULES", "Domain"]
