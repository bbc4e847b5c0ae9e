"""Any model that `posterhall.lm` reaches, told of the graphs in the prompt as the benchmark does it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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

        self.maps = world(seed)
        self._seed = seed
        self._questions = budget.questions
        self._domain = domains.load(domain)
        self._lm = _connected(address)

    def some(self, questions: Iterable[Question]) -> list[Question]:
        groups: dict[tuple[object, ...], list[Question]] = {}
        for each in questions:
            kind = (each.graph, each.distance, each.crosses, each.held_out, each.cut is None)
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
                path = self.maps[each.graph].closed[each.cut].shortest(each.start, each.goal)[0]
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

    def steps(self, asked: Sequence[tuple[str, int, Pair | None]]) -> list[Floats]:
        """Equal shares for all that the model names when asked where one step leads."""
        prompts, conversations = [], []
        for letter, node, cut in asked:
            graph = self.maps[letter]
            goal = next(other for other in range(len(graph.graph)) if other != node)
            question = graph.question(node, goal, cut)
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
        for (letter, node, _), conversation, said in zip(
            asked, conversations, self._ask(prompts, 0.0, 1), strict=True
        ):
            named = {each for each in self._read(conversation, said[0]) or () if each != node}
            row = np.zeros(len(self.maps[letter].graph))
            row[list(named)] = 1 / max(1, len(named))
            found.append(row)
        return found

    def _conversation(self, question: Question) -> Conversation:
        from posterhall.evals.planning import conditions, prompts

        graph = self.maps[question.graph].graph
        edits = () if question.cut is None else (conditions.Edit("block", *question.cut),)
        after = self.maps[question.graph].closed[question.cut].graph
        asked = conditions.Question("path", after, question.start, (question.goal,))
        item = conditions.Item("traversal" if question.cut is None else "detour", graph, asked, edits=edits)
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

        short = tuple(self._domain.short(name) for name in conversation.names)
        return answers.reader(conversation.names, short).read(reply).path


@lru_cache(maxsize=1)
def _connected(address: str) -> LM:
    from posterhall.lm.stack import connect

    return connect(address)
