"""Methods put to the same problems with the same model, and what is measured of them."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posterhall.claims.rows import Budget, Row, Scalar
from posterhall.claims.tree_of_thoughts import _puzzles
from posterhall.lm import stack
from posterhall.lm.flow import gather
from posterhall.lm.protocol import LM, wait
from posterhall.search.protocol import Task
from posterhall.search.settings import SearchSettings
from posterhall.search.solution import Solution
from posterhall.search.solving import asolve, changed
from posterhall.search.tasks.game24 import Game24
from posterhall.search.tasks.moves import Rules, puzzles
from posterhall.seeds import generator
from posterhall.stats import wilson

_WIDTH = 64
"""Problems under way at once."""

SMALL = SearchSettings(method="bfs", generator="sample", proposals=8, use_worth=False)
"""How a small model is searched with: eight moves of a state, each sampled for itself, three values of each
candidate and five states kept (paper, §4.1). The last states are valued by the model too: nothing tells the
search whether it has solved the puzzle."""
REMOTE = SearchSettings(method="bfs", generator="propose", use_worth=False)
"""How a model behind an address is searched with, as in the paper: one reply proposes many moves."""


@dataclass(frozen=True)
class Bench:
    """A model, problems and a seed: every method is asked the same.

    Attributes:
        lm: with a cache around it, so that methods that ask the same question share the answers.
        task: what the problems are.
        problems: as the task reads them.
        settings: those that all methods share.
    """

    lm: LM
    task: Task
    problems: tuple[str, ...]
    settings: SearchSettings

    def solve(self, **changes: Any) -> list[Solution]:
        """Solutions of all problems, in order, by settings changed for this method."""
        settings = changed(self.settings, changes)

        async def solve(problem: str) -> Solution:
            return await asolve(self.task, problem, self.lm, settings=settings)

        return wait(gather(solve, self.problems, width=_WIDTH))


@contextlib.contextmanager
def bench(
    params: Mapping[str, Scalar], budget: Budget, seed: int, *, chains: _puzzles.Chains = "solutions"
) -> Iterator[Bench]:
    """The bench of a claim: puzzles held out from a small model's training, and that model; or, where
    ``model=`` names one, the Game of 24 and that model. Then the puzzles are the same for every seed, and
    seeds are those of the sampling.

    Args:
        params: of the claim; "model" is an address.
        budget: puzzles, and of the small model modulus, target and steps.
        seed: of everything.
        chains: what the small model learns chains of thought from.
    """
    address = params.get("model")
    if address is not None:
        every = puzzles(Rules())
        order = generator(0, "Game of 24").permutation(len(every))[: budget.puzzles].tolist()
        problems = [" ".join(map(str, every[place])) for place in order]
        with stack.connect(str(address)) as lm:
            yield Bench(lm, Game24(count=4), tuple(problems), changed(REMOTE, {"seed": seed}))
        return
    game = divided(budget, seed)
    path = _puzzles.model(game, steps=budget.steps, chains=chains, seed=seed)
    task = Game24(
        target=budget.target, count=4, operators=_puzzles.OPERATORS, modulus=budget.modulus, style="compact"
    )
    problems = [" ".join(map(str, numbers)) for numbers in game.held_out]
    with (
        tempfile.TemporaryDirectory(prefix="posterhall-") as folder,
        stack.connect(path, cache=Path(folder) / "answers.sqlite") as lm,
    ):
        yield Bench(lm, task, tuple(problems), changed(SMALL, {"seed": seed}))


def divided(budget: Budget, seed: int) -> _puzzles.Puzzles:
    """The puzzles of a seed."""
    return _puzzles.Puzzles.divided(
        modulus=budget.modulus, target=budget.target, held_out=budget.puzzles, seed=seed
    )


def row(arm: str, seed: int, solutions: Sequence[Solution], *, checked: bool = False) -> Row:
    """What a method did with all problems.

    Args:
        arm: its name.
        seed: it was run with.
        solutions: of all problems.
        checked: whether the free checker picks among all answers that the method kept; otherwise the answer
            is the method's own choice.

    Returns:
        "solved", the share of problems, with its 95 % Wilson interval over them ("low", "high"); the same
        for one of those kept drawn at random and any of those kept; and means a problem of what was asked.
    """
    count = len(solutions)
    right = sum(each.any_solved if checked else each.solved for each in solutions)
    interval = wilson(right, count)
    return Row(
        arm,
        seed,
        solved=right / count,
        low=interval.low,
        high=interval.high,
        share_solved=sum(each.share_solved for each in solutions) / count,
        any_solved=sum(each.any_solved for each in solutions) / count,
        calls=sum(each.usage.calls for each in solutions) / count,
        tokens_out=generated(solutions),
        states=sum(valued(each) for each in solutions) / count,
    )


def generated(solutions: Sequence[Solution]) -> float:
    """Mean tokens generated for a problem, shared answers counted for each who asks."""
    return sum(each.usage.tokens_out for each in solutions) / len(solutions)


def valued(solution: Solution) -> int:
    """States of a search that were valued, each time counted."""
    return sum(node.value is not None for node in solution.tree.nodes)
