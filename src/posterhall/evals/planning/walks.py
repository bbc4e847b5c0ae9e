"""Paths that are thought out step by step: a question of the benchmark as a task of search, and a planner's.

The model is told of the graph and asked where a path may go on to; how good a path is, whether a step is
allowed, and when the path is complete is asked of the model as well. The graph itself is for the verifier.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from typing import Any

from posterhall import config
from posterhall.errors import DataError
from posterhall.evals.planning import answers, scoring
from posterhall.evals.planning.conditions import CONDITIONS
from posterhall.evals.planning.prompts import Conversation
from posterhall.lm.parsing import classes
from posterhall.lm.protocol import LM, Message
from posterhall.lm.wrapping import BudgetExceeded
from posterhall.search.planner.protocol import Domain
from posterhall.search.protocol import Ask, Check, State, Task, Thoughts
from posterhall.search.served import told
from posterhall.search.settings import Method, SearchSettings
from posterhall.search.solving import asolve

THINKING: dict[str, Method] = {"tot": "bfs", "map": "map"}
"""Interventions in which the model is asked many times for one path: the method of search of each."""
STEPS = 10
"""Most steps of a path (Webb et al. 2023)."""
DONE = "done"
_ARROW = " -> "
_LINES = 200
_AROUND = " \t\r.*-`\"'"
_LISTED = re.compile(r"[ \t]*(?:\d{1,3}[.)]|[-*•])[ \t]+")
_PROPOSE = (
    "{ask}\n\nThe path so far: {path}\n\nTo which places can it go on from the last one, in one step? Write "
    "at most five names, each on a line of its own, the most promising first. If the path answers the "
    "question as it stands, write only: done"
)
_VALUE = (
    "{ask}\n\nThe path so far: {path}\n\nAre all of its steps possible, and can it still become a shortest "
    'path that answers the question? Think briefly, and end with a line "Answer: sure", "Answer: likely" or '
    '"Answer: impossible".'
)
_RULES = (
    "A state is the path so far; one is at its last place. A move goes on to another place, and is allowed "
    "if one step leads there from the last place of the path."
)


class Walk(Task):
    """The question of one conversation; a thought is the next place, or "done"."""

    name = "walk"
    depth = STEPS + 1
    checkable = False  # a checker would be the graph itself

    def __init__(self, conversation: Conversation) -> None:
        if conversation.domain.form == "text":
            raise DataError(
                f"domain {conversation.domain.name} is for models that continue a text; tot and map ask in "
                "words: take ordRooms, unordSpatial, socialTies or a domain of your own"
            )
        self._conversation = conversation
        self._reader = answers.reader(conversation.names, conversation.domain.node)
        self._facts = conversation.facts()
        self._ask = conversation.turns[-1].ask
        self._start = conversation.names[conversation.item.question.start]

    def read(self, text: str) -> str:
        """Any text: the problem is that of the conversation."""
        if not text.strip():
            raise DataError("an empty question; give the conversation's")
        return text.strip()

    def check(self, problem: str, answer: str | None) -> Check:
        """What the verifier says of a path."""
        if answer is None:
            return Check(False, 0.0, "no path")
        question = self._conversation.item.question
        path = self._reader.read(answer).path
        found = scoring.outcome(question.graph, path, start=question.start, goals=question.goals)
        return Check(found == "correct", float(found == "correct"), found)

    def key(self, state: State) -> Hashable:
        """Where the path is: of two that lead there by as many steps one is enough."""
        return (
            (self._start, *state.thoughts)[-2:]
            if self.finished(state)
            else (self._start, *state.thoughts)[-1]
        )

    def finished(self, state: State) -> bool:
        """Whether the model has said so."""
        return state.thoughts[-1:] == (DONE,)

    def answer(self, state: State) -> str | None:
        """The path."""
        return self.path(state) if state.thoughts else None

    def path(self, state: State) -> str:
        """All places so far."""
        return _ARROW.join([self._start, *(each for each in state.thoughts if each != DONE)])

    def propose(self, state: State) -> Ask:
        """Asks for places to go on to."""
        return self._asked(_PROPOSE, state)

    def thoughts(self, state: State, reply: str) -> Thoughts:
        """The places named, one a line; whether steps lead there is not looked at."""
        return places(self._reader, self._conversation.names, reply, done=bool(state.thoughts))

    def value(self, state: State) -> Ask:
        """Asks whether the path is a beginning of a right one."""
        return self._asked(_VALUE, state)

    def grade(self, state: State, reply: str) -> str | None:
        """The class that ends a reply."""
        return classes(reply, list(self.grades)).value

    def domain(self, problem: str) -> Domain:
        """For the planner of modules."""
        return WalkDomain(self._conversation)

    def _asked(self, form: str, state: State) -> Ask:
        text = form.format(ask=self._ask, path=self.path(state))
        return Ask((Message("system", self._facts), Message("user", text)))


class WalkDomain(Domain):
    """The same for the planner: no subgoals, and no looking ahead for plain paths (Webb et al. 2023)."""

    move_form = "Write a move as the name of the place alone."
    state_form = "Write a state as the names of its places, with -> between them."
    steps = STEPS
    examples = {  # noqa: RUF012 - a declaration
        "monitor": (
            "Now: place P -> place Q\nProposed: place R\n"
            "A way leads from P to R, but none is told of from Q to R.\nAnswer: invalid",
        ),
    }

    def __init__(self, conversation: Conversation) -> None:
        question = conversation.item.question
        self.start = conversation.names[question.start]
        self.goal = conversation.turns[-1].ask
        self.rules = f"{conversation.facts()}\n\n{_RULES}"
        self.searches = CONDITIONS[conversation.item.condition].category != "traversal"
        self._names = conversation.names
        self._graph, self._goals = question.graph, question.goals
        self._reader = answers.reader(conversation.names, conversation.domain.node)

    def moves(self, state: str, text: str) -> Thoughts:
        """The places named, one a line."""
        return places(self._reader, self._names, text, done=False)

    def state(self, text: str) -> str | None:
        """The path in a text."""
        path = self._reader.read(text).path
        return _ARROW.join(self._names[node] for node in path if node >= 0) if path else None

    def foreseen(self, state: str, move: str) -> str:
        """The path with one place more: a move says itself where it leads."""
        return f"{state}{_ARROW}{move}"

    def legal(self, state: str) -> tuple[str, ...]:
        """Places one step away."""
        here = self._last(state)
        return () if here is None else tuple(self._names[node] for node in self._graph.neighbours[here])

    def apply(self, state: str, move: str) -> str | None:
        """The longer path, if a step leads there."""
        return self.foreseen(state, move) if move in self.legal(state) else None

    def reached(self, state: str, goal: str) -> bool:
        """Whether the path ends at a place asked for."""
        return self._last(state) in self._goals

    def _last(self, state: str) -> int | None:
        name = state.rpartition(_ARROW)[2]
        return self._names.index(name) if name in self._names else None


def places(reader: answers.Reader, names: Sequence[str], text: str, *, done: bool) -> Thoughts:
    """The place named in each line (the last, where a line is a path), and perhaps that the path is done."""
    found: dict[str, None] = {}
    unread = 0
    lines = [line for line in text.splitlines() if line.strip()]
    for line in lines[:_LINES]:
        if done and line.strip(_AROUND).lower() == DONE:
            found[DONE] = None
            continue
        line = _LISTED.sub("", line, count=1) if _LISTED.match(line) else line
        node = reader.one(line)
        if node is None:
            node = (reader.read(line).path or (-1,))[-1]
        if node < 0:
            unread += 1
        else:
            found[names[node]] = None
    return Thoughts(tuple(found), unread + max(0, len(lines) - _LINES))


async def walk(
    lm: LM,
    conversation: Conversation,
    intervention: str,
    *,
    sets: Sequence[str] = (),
    temperature: float = 0.0,
    top_p: float = 1.0,
    max_tokens: int = 1024,
    seed: int = 0,
) -> dict[str, Any]:
    """Think a path out.

    Args:
        lm: the model.
        conversation: of a question for a path, in one turn.
        intervention: of `THINKING`.
        sets: settings of the search, as key=value, over the arguments below.
        temperature, top_p, max_tokens, seed: of each reply; map's modules but its actor are at temperature 0.

    Returns:
        replies: the steps and the answer, as one text; tokens: read and generated; cut: whether a reply ended
        at the limit of tokens.

    Raises:
        BudgetExceeded: if what all conversations may spend is spent; a limit to one ends that one.
    """
    settings = config.resolve(
        SearchSettings,
        sets=list(sets),
        flags={
            "method": THINKING[intervention],
            "temperature": temperature,
            "top_p": top_p,
            "max_tokens": max_tokens,
            "seed": seed,
        },
        environ={},
    )
    solution = await asolve(Walk(conversation), conversation.turns[-1].text, lm, settings=settings)
    stopped = solution.stopped_by
    if stopped is not None and not stopped.startswith("the problem's budget"):
        raise BudgetExceeded(stopped, limit="all")
    return {
        "replies": [told(solution)],
        "tokens": [solution.usage.tokens_in, solution.usage.tokens_out],
        "cut": solution.truncated > 0,
    }
