"""What a planner needs to know of a kind of problem."""

from __future__ import annotations

import abc
from collections.abc import Mapping

from posterhall.search.protocol import Thoughts

MODULES = ("decomposer", "actor", "monitor", "predictor", "evaluator", "orchestrator")
"""Each is a prompt, and the same model is asked them all."""


class Domain(abc.ABC):
    """A problem in words, how moves and states are written, and, for whoever checks, the truth.

    A planner works with what its modules believe: it reads states and moves as text, and asks the truth
    (`legal`, `apply`, `reached`) only where a setting has it play a module. All methods are pure, and none
    raises for what a model may say.

    Attributes:
        start: the state at the beginning, as `state` reads it.
        goal: what is to be reached, in words.
        rules: what all modules are told: the world, and which moves are allowed.
        move_form, state_form: a sentence each, of how they are to be written.
        steps: most moves of a plan, >= 1.
        decomposes: whether there is a use for subgoals.
        searches: whether there is a use for looking ahead.
        examples: what a module is shown, by its name, at most three; those that are not there need none.
    """

    start: str
    goal: str
    rules: str
    move_form: str
    state_form: str
    steps: int
    decomposes: bool = False
    searches: bool = True
    examples: Mapping[str, tuple[str, ...]] = {}

    @abc.abstractmethod
    def moves(self, state: str, text: str) -> Thoughts:
        """The moves named in a text, in canonical form, allowed or not."""

    @abc.abstractmethod
    def state(self, text: str) -> str | None:
        """The last state named in a text, in canonical form; None if there is none."""

    @abc.abstractmethod
    def legal(self, state: str) -> tuple[str, ...]:
        """The moves that are allowed in a state."""

    @abc.abstractmethod
    def apply(self, state: str, move: str) -> str | None:
        """The state after a move; None if it is not allowed."""

    @abc.abstractmethod
    def reached(self, state: str, goal: str) -> bool:
        """Whether a state is the goal, or the subgoal."""

    def foreseen(self, state: str, move: str) -> str | None:
        """The state that a move leads to by its own words, allowed or not; None: the predictor is asked."""
        return None
