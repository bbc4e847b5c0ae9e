"""A task whose tree is written down, and models that say what it has: what searches can be held against."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence

from posterhall.errors import DataError
from posterhall.lm.protocol import LM, Request, Sample, Scored
from posterhall.search import Ask, Check, State, Task, Thoughts

Path = tuple[str, ...]


class Written(Task):
    """A tree by its paths: `children` has the thoughts after each, `values` what each is worth.

    The problem is the thought that right answers end in; prompts and replies are as plain as can be.
    """

    name = "written"

    def __init__(
        self,
        depth: int,
        children: Mapping[Path, Sequence[str]],
        values: Mapping[Path, float] | None = None,
        *,
        scores: Mapping[Path, float] | None = None,
        key: Callable[[State], object] | None = None,
        grades: Mapping[str, float] | None = None,
        worth: Callable[[State], float | None] = lambda _: None,
        checkable: bool = True,
    ) -> None:
        self.depth = depth
        self.children = children
        self.values = values or {}
        self.scores = scores
        self._key = key
        self._worth = worth
        self.grades = grades or {"best": 10.0, "worst": 0.0}
        self.checkable = checkable

    def read(self, text):
        if not text.strip():
            raise DataError("an empty problem; write a letter")
        return text.strip()

    def check(self, problem, answer):
        solved = answer is not None and answer.endswith(problem)
        return Check(solved, float(solved), "right" if solved else f"it does not end in {problem}")

    def key(self, state):
        return self._key(state) if self._key else super().key(state)

    def worth(self, state):
        return self._worth(state)

    def answer(self, state):
        return "".join(state.thoughts) if self.finished(state) else None

    def propose(self, state):
        return Ask(_prompt("next", state.problem, state.thoughts))

    def sample(self, state):
        return Ask(_prompt("one", state.problem, state.thoughts))

    def thoughts(self, state, reply):
        words = reply.split()
        legal = [word for word in dict.fromkeys(words) if word in self.children.get(state.thoughts, ())]
        scores = None
        if self.scores is not None:
            scores = tuple(self.scores[(*state.thoughts, word)] for word in legal)
        return Thoughts(tuple(legal), len(words) - len(legal), scores)

    def value(self, state):
        return Ask(_prompt("value", state.problem, state.thoughts), max_tokens=5)

    def grade(self, state, reply):
        return reply if reply in self.grades else None

    def rating(self, state, reply):
        try:
            return float(reply)
        except ValueError:
            return super().rating(state, reply)

    def vote(self, states):
        return Ask(json.dumps(["vote", ["".join(each.thoughts) for each in states]]))

    def choice(self, states, reply):
        return int(reply) if reply.isdigit() else None

    def direct(self, problem):
        return Ask(_prompt("direct", problem, ()))

    def chain(self, problem):
        return Ask(_prompt("chain", problem, ()))

    def refine(self, problem, attempts):
        return Ask(json.dumps(["refine", problem, [[text, check.why] for text, check in attempts]]))

    def conclude(self, problem, reply):
        return reply.split()[-1] if reply.strip() else None


def _prompt(kind: str, problem: str, thoughts: Path) -> str:
    return json.dumps([kind, problem, list(thoughts)])


class Rule(LM):
    """A model that is a function: `say(kind, rest of the prompt, seed, number of the sample)`.

    Attributes:
        asked: all prompts, in the order of asking.
        waits: for each request in turn, how often it lets others go first.
    """

    name = "rule"

    def __init__(self, say: Callable[..., str], *, waits: Callable[[int], int] = lambda _: 0) -> None:
        self.say = say
        self.asked: list[str] = []
        self.requests: list[Request] = []
        self.waits = waits

    async def agenerate(self, requests):
        return [await self._one(each) for each in requests]

    async def _one(self, request):
        self.asked.append(request.prompt)
        self.requests.append(request)
        for _ in range(self.waits(len(self.asked))):
            await asyncio.sleep(0)
        kind, *rest = json.loads(request.prompt)
        numbers = range(request.first, request.first + request.n)
        return [Sample(self.say(kind, rest, request.seed, i), "stop", 3, 2) for i in numbers]

    async def ascore(self, items):
        return [
            [
                Scored(each, (each,), (float(self.say("score", prompt, 0, place)),), False)
                for place, each in enumerate(c)
            ]
            for prompt, c in items
        ]


def teller(task: Written) -> Callable[..., str]:
    """What a model says that knows the written tree: all children, and values to the digit."""

    def say(kind, rest, seed, number):
        if kind in ("next", "one"):
            children = list(task.children.get(tuple(rest[1]), ()))
            return " ".join(children) if kind == "next" else children[(seed + number) % len(children)]
        if kind == "value":
            return repr(task.values.get(tuple(rest[1]), 0.0))
        return rest[0]

    return say


def full(depth: int, letters: str) -> dict[Path, str]:
    """The children of a tree in which each state has the same next thoughts."""
    paths: list[Path] = [()]
    children = {}
    for _ in range(depth):
        for path in paths:
            children[path] = letters
        paths = [(*path, letter) for path in paths for letter in letters]
    return children
