"""Any model that `posterhall.lm` reaches, told of the graphs in the prompt as the benchmark does it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from posterhall.claims.cogeval._asking import Floats, Path, Solver
from posterhall.claims.cogeval._world import Pair, Question, world
from posterhall.claims.rows import Budget
from posterhall.seeds import generator

if TYPE_CHECKING:
    from posterhall.evals.planning.prompts import Conversation
    from posterhall.lm.protocol import LM, Prompt

_MAX_TOKENS = 1024
"""Of a reply, as in the paper's data."""


class Told(Solver):
    """A model that reads the graph in the prompt. Names and the order of the edges are drawn for each prompt.

    What a small model is taught by lessons is told here: the path of a pair that is not held out stands in
    the prompt. Of each kind of question `budget.questions` are asked.

    Args:
        address: of the model (see `posterhall.lm.connect`).
        domain: the cover story (see `posterhall.evals.planning.domains`).
        budget: gives `questions`.
        seed: of names, orders and which questions are asked.
    """

    def __init__(self, address: str, domain: str, budget: Budget, seed: int) -> None:
        from posterhall.evals.planning import domains

        self.maps = self._before = world(seed)
        self._closed: Mapping[str, Sequence[Pair]] = {}
        self._seed = seed
        self._questions = budget.questions
        self._domain = domains.load(domain)
        self._lm = _connected(address)

    def after(self, closed: Mapping[str, Sequence[Pair]]) -> Told:
        """The same model, which is told of the change after the graph, and of the path as it was before."""
        changed = copy.copy(self)
        changed.maps = {letter: each.without(closed.get(letter, ())) for letter, each in self._before.items()}
        changed._closed = closed
        return changed

    def some(self, questions: Iterable[Question]) -> list[Question]:
        groups: dict[tuple[object, ...], list[Question]] = {}
        for each in questions:
            kind = (each.graph, each.distance, each.crosses, each.held_out)
            groups.setdefault(kind, []).append(each)
        rng = generator(self._seed, "cogeval", "questions")
        return [
            group[i]
            for group in groups.values()
            for i in sorted(rng.permutation(len(group))[: self._questions].tolist())
        ]

    def say(self, questions: Sequence[Question], temperature: float, samples: int) -> list[list[Path]]:
        prompts, conversations = [], []
        for each in questions:
            conversation = self._conversation(each)
            told, ask = self._parts(conversation, each)
            if not each.held_out:
                path = self._before[each.graph].shortest(each.start, each.goal)[0]
                way = " -> ".join(conversation.names[node] for node in path)
                ends = conversation.names[each.start], conversation.names[each.goal]
                told += f"The shortest path from {ends[0]} to {ends[1]} is: {way}.\n\n"
            prompts.append(self._prompt(told + ask))
            conversations.append(conversation)
        replies = self._ask(prompts, temperature, samples)
        return [
            [self._read(conversation, reply) for reply in said]
            for conversation, said in zip(conversations, replies, strict=True)
        ]

    def steps(self, asked: Sequence[tuple[str, int]]) -> list[Floats]:
        """Equal shares for all that the model names when asked where one step leads."""
        prompts, conversations = [], []
        for letter, node in asked:
            question = next(each for each in self.maps[letter].questions if each.start == node)
            conversation = self._conversation(question)
            told, _ = self._parts(conversation, question)
            prompts.append(
                self._prompt(
                    f"{told}Which of them can be reached from {conversation.names[node]} in exactly one "
                    'step? End with a line that begins with "Answer:" and names them all, with commas '
                    "between them, and nothing else."
                )
            )
            conversations.append(conversation)
        found = []
        for (letter, node), conversation, said in zip(
            asked, conversations, self._ask(prompts, 0.0, 1), strict=True
        ):
            named = {each for each in self._read(conversation, said[0]) or () if each != node}
            row = np.zeros(len(self.maps[letter].graph))
            row[[each for each in named if each >= 0]] = 1 / max(1, len(named))
            found.append(row)
        return found

    def _conversation(self, question: Question) -> Conversation:
        from posterhall.evals.planning import conditions, prompts

        edits = tuple(conditions.Edit("block", a, b) for a, b in self._closed.get(question.graph, ()))
        after = self.maps[question.graph].graph
        asked = conditions.Question("path", after, question.start, (question.goal,))
        before = self._before[question.graph].graph
        item = conditions.Item("detour" if edits else "traversal", before, asked, edits=edits)
        rng = generator(self._seed, "cogeval", "prompt", *map(str, question))
        return prompts.converse(item, self._domain, rng, turns="1")

    def _parts(self, conversation: Conversation, question: Question) -> tuple[str, str]:
        """What is told of the graph, and the question."""
        names = conversation.names
        ask = self._domain.say("ask_path", start=names[question.start], goal=names[question.goal])
        told, _, form = conversation.turns[-1].text.rpartition(ask)
        return told, ask + form

    def _prompt(self, text: str) -> Prompt:
        from posterhall.lm import Message

        if self._domain.form == "text":
            return text
        system = [Message("system", self._domain.system)] if self._domain.system else []
        return (*system, Message("user", text))

    def _ask(self, prompts: Sequence[Prompt], temperature: float, samples: int) -> Iterator[list[str]]:
        from posterhall.lm import Request

        stop = (self._domain.stop,) if self._domain.stop else ()
        requests = [
            Request(
                each, max_tokens=_MAX_TOKENS, temperature=temperature, n=samples, stop=stop, seed=self._seed
            )
            for each in prompts
        ]
        return ([sample.text for sample in samples] for samples in self._lm.generate(requests))

    def _read(self, conversation: Conversation, reply: str) -> Path:
        from posterhall.evals.planning import answers

        return answers.reader(conversation.names, self._domain.node).read(reply).path


@lru_cache(maxsize=1)
def _connected(address: str) -> LM:
    from posterhall.lm.stack import connect

    return connect(address)
