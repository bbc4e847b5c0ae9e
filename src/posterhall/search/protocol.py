"""What search works on: states, the task that knows what they mean, and what a model is asked about them."""

from __future__ import annotations

import abc
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from posterhall.errors import UsageError
from posterhall.lm.protocol import Prompt

if TYPE_CHECKING:
    from posterhall.search.planner.protocol import Domain


@dataclass(frozen=True)
class State:
    """A partial solution: a problem and the thoughts so far (Yao et al. 2023, §3: s = [x, z1..zi])."""

    problem: str
    """As `Task.read` gives it."""
    thoughts: tuple[str, ...] = ()

    def then(self, thought: str) -> State:
        """This state with one thought more."""
        return State(self.problem, (*self.thoughts, thought))


@dataclass(frozen=True)
class Ask:
    """What a model is asked in one step. What is None is left to the settings of the search."""

    prompt: Prompt
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    temperature: float | None = None


@dataclass(frozen=True)
class Thoughts:
    """What could be read out of a reply."""

    found: tuple[str, ...]
    """Legal next thoughts in the order of the reply, in canonical form, each once."""
    unread: int = 0
    """Pieces of the reply that are no legal thought; counted, never silently dropped."""
    scores: tuple[float, ...] | None = None
    """How sure the model said it was of each, where a task's prompt asks for that."""


@dataclass(frozen=True)
class Check:
    """What a task says of an answer."""

    solved: bool
    score: float
    """In [0, 1]; 1 for a solved problem. Tasks with partial credit give what part is right."""
    why: str
    """One line: what is wrong, or that it is right."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Scores by name, as letters, words and games of a crossword."""


class Task(abc.ABC):
    """A kind of problem. A page of code makes a new one: `read`, `propose` or `sample`, `thoughts`, `check`.

    All methods are pure: the same state gives the same prompt. What a model says is read, never run.

    Attributes:
        name: as on the command line.
        depth: most thoughts of a solution, >= 1.
        problem: the one it is bound to, in canonical form, as in `Game24("4 9 10 13")`; None: any.
        grades: what each class that an evaluator may name is worth, best first.
        combine: how the values of several `aspects` make the value of a state: their sum, or the least.
        checkable: whether `check` needs no known answer: a free checker, which a method may be given.
    """

    name: str
    depth: int
    problem: str | None = None
    grades: Mapping[str, float] = {"sure": 20.0, "likely": 1.0, "impossible": 0.001}
    combine: Literal["sum", "min"] = "sum"
    checkable: bool = True

    # -- problems ---------------------------------------------------------------------------------

    @abc.abstractmethod
    def read(self, text: str) -> str:
        """A problem in canonical form.

        Raises:
            DataError: if it is none, saying what one looks like.
        """

    @abc.abstractmethod
    def check(self, problem: str, answer: str | None) -> Check:
        """Whether an answer solves a problem; None is no answer. Never raises for what a model may say."""

    # -- states -----------------------------------------------------------------------------------

    def key(self, state: State) -> Hashable:
        """Equal for states from which the same is reachable: of them only one is expanded and valued."""
        return state.problem, state.thoughts

    def finished(self, state: State) -> bool:
        """Whether nothing is to be added."""
        return len(state.thoughts) >= self.depth

    def answer(self, state: State) -> str | None:
        """The answer that a state amounts to; None if it has none yet."""
        return state.thoughts[-1] if self.finished(state) else None

    def worth(self, state: State) -> float | None:
        """The value of a state where no model needs to be asked, as of a finished one; None: ask."""
        return None

    def cost(self, state: State, thought: str) -> float:
        """What one more thought costs, >= 0: the path cost of A* is the sum."""
        return 1.0

    def remaining(self, state: State) -> float:
        """The least that is still to be paid from a state to a finished one: the heuristic of A*."""
        return float(max(0, self.depth - len(state.thoughts)))

    # -- generating -------------------------------------------------------------------------------

    def propose(self, state: State) -> Ask:
        """Asks for a list of next thoughts."""
        raise UsageError(f"the task {self.name} has no prompt that proposes thoughts")

    def sample(self, state: State) -> Ask:
        """Asks for one next thought; several samples give several thoughts."""
        raise UsageError(f"the task {self.name} has no prompt that samples thoughts")

    @abc.abstractmethod
    def thoughts(self, state: State, reply: str) -> Thoughts:
        """The next thoughts in a reply to `propose` or `sample`."""

    # -- evaluating -------------------------------------------------------------------------------

    def value(self, state: State) -> Ask:
        """Asks for the class of one state."""
        raise UsageError(f"the task {self.name} has no prompt that values a state")

    def aspects(self, state: State) -> Sequence[Ask]:
        """All that is asked to value a state: one question, or one for each part that is judged alone, as
        the clues of a crossword. Each takes all votes; none at all: nothing speaks against the state."""
        return (self.value(state),)

    def grade(self, state: State, reply: str) -> str | None:
        """The class named in a reply to `value`, a key of `grades`; None if there is none to be read."""
        raise UsageError(f"the task {self.name} reads no classes")

    def rating(self, state: State, reply: str) -> float | None:
        """What a reply to one of `aspects` is worth: what its class is worth, unless a task asks for a
        number and reads it here. None if there is nothing to be read."""
        grade = self.grade(state, reply)
        return None if grade is None else self.grades[grade]

    def classes(self, prompt: str) -> Mapping[str, str]:
        """How each class of `grades` goes on from the text of a value prompt, where a model's probability
        of it is taken for its vote."""
        space = "" if not prompt or prompt[-1].isspace() else " "
        return {grade: space + grade for grade in self.grades}

    def vote(self, states: Sequence[State]) -> Ask:
        """Asks which of several states is the most promising."""
        raise UsageError(f"the task {self.name} has no prompt that votes")

    def choice(self, states: Sequence[State], reply: str) -> int | None:
        """The place, from 0, of the state chosen in a reply to `vote`; None if there is none to be read."""
        raise UsageError(f"the task {self.name} reads no votes")

    # -- planning by modules ----------------------------------------------------------------------

    def domain(self, problem: str) -> Domain:
        """A problem as a planner of modules sees it (method `map`)."""
        raise UsageError(f"the task {self.name} tells a planner nothing of its moves; take another method")

    # -- without search ---------------------------------------------------------------------------

    def direct(self, problem: str) -> Ask:
        """Asks for the answer at once (input-output prompting)."""
        raise UsageError(f"the task {self.name} has no direct prompt")

    def chain(self, problem: str) -> Ask:
        """Asks for all thoughts and the answer in one go (chain of thought)."""
        raise UsageError(f"the task {self.name} has no chain-of-thought prompt")

    def refine(self, problem: str, attempts: Sequence[tuple[str, Check]]) -> Ask:
        """Asks for a better answer than the attempts so far, given what was wrong with them."""
        raise UsageError(f"the task {self.name} has no prompt that refines")

    def conclude(self, problem: str, reply: str) -> str | None:
        """The answer in a reply to `direct`, `chain` or `refine`, in a form in which equal answers are
        equal texts (for the vote of CoT-SC); None if there is none to be read."""
        return reply.strip() or None
