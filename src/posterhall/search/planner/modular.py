"""The planner's loop: goals one after the other, a look ahead, one move made, and again."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial

from posterhall.lm.flow import gather
from posterhall.search.context import Search
from posterhall.search.planner.modules import Modules
from posterhall.search.tree import Node


@dataclass
class Imagined:
    """A state that was thought of."""

    node: Node
    belief: str
    """The state as the planner believes it to be."""
    reached: bool
    """Whether it is believed to be the goal."""
    below: list[Imagined] | None = field(default=None)
    """What its moves lead to; None: nobody asked yet."""


async def modular(search: Search) -> None:
    """Plan by modules (Webb, Mondal & Momennejad 2023, algorithms 1 to 3).

    Moves already taken count in the value of a branch, so that of two branches that reach the goal the
    shorter one is preferred; the original compares estimates alone. Where no move passes, the plan ends.

    Without the orchestrator nothing tells when a goal is reached: the plan takes all its steps, towards the
    last goal at once.
    """
    domain = search.task.domain(search.problem)
    modules = Modules(search, domain)
    limit = search.settings.steps or domain.steps
    goals = [domain.goal]
    if domain.decomposes and modules.uses("decomposer") and modules.uses("orchestrator"):
        goals = [*await modules.subgoals(domain.start, domain.goal), domain.goal]
    node, belief = search.tree.root, domain.start
    search.kept = [node]
    for goal in goals:
        here = Imagined(node, belief, await modules.reached(belief, goal))
        while not here.reached and here.node.depth < limit:
            chosen = await _next(search, modules, here, goal)
            if chosen is None:
                return
            here = chosen
            search.kept = [here.node]
        node, belief = here.node, here.belief
        if not here.reached:
            return
    node.finished = True


async def _next(search: Search, modules: Modules, here: Imagined, goal: str) -> Imagined | None:
    """The state after the move that is made; None if there is none."""
    ahead = search.settings.lookahead if modules.uses("search") and modules.domain.searches else 0
    await _grow(modules, here, goal, max(1, ahead))
    children = here.below or []
    if not children:
        return None
    if ahead == 0:
        chosen = children[0]
    else:
        lengths = await gather(
            partial(_length, modules, goal=goal, ahead=ahead - 1), children, width=len(children)
        )
        for child, length in zip(children, lengths, strict=True):
            child.node.value = -length if math.isfinite(length) else None
        best = [child for child, length in zip(children, lengths, strict=True) if length == min(lengths)]
        chosen = best[int(search.random("map", here.node.number).integers(len(best)))]
    for child in children:
        child.node.status = "kept" if child is chosen else "dropped"
    return chosen


async def _grow(modules: Modules, here: Imagined, goal: str, ahead: int) -> None:
    """Think of what can follow, so many moves ahead; what has been thought of stays."""
    if ahead == 0 or here.reached:
        return
    if here.below is None:
        moves = await modules.moves(here.belief, goal)
        beliefs = await gather(partial(modules.after, here.belief), moves, width=max(1, len(moves)))
        known = [(move, belief) for move, belief in zip(moves, beliefs, strict=True) if belief is not None]
        reached = await gather(lambda pair: modules.reached(pair[1], goal), known, width=max(1, len(known)))
        here.below = [
            Imagined(modules.search.tree.add(here.node, move), belief, is_there)
            for (move, belief), is_there in zip(known, reached, strict=True)
        ]
    if here.below and ahead > 1:
        await gather(partial(_grow, modules, goal=goal, ahead=ahead - 1), here.below, width=len(here.below))


async def _length(modules: Modules, here: Imagined, goal: str, ahead: int) -> float:
    """Moves from here to the goal, as far as is believed: the fewest over what was thought of below."""
    if here.reached:
        return 0.0
    if ahead == 0 or here.below is None:
        return await modules.steps_left(here.belief, goal)
    if not here.below:
        return math.inf
    lengths = await gather(
        partial(_length, modules, goal=goal, ahead=ahead - 1), here.below, width=len(here.below)
    )
    return 1 + min(lengths)
