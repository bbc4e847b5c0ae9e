"""A model that plays all modules of the planner, rightly or with one fault, by reading its prompts."""

from __future__ import annotations

import re
from collections import Counter

from posterhall.lm.protocol import LM, Sample, transcript
from posterhall.search.tasks.hanoi import Hanoi, TowerDomain, Towers

ROLES = {
    "You prepare a plan": "decomposer",
    "You propose the next move": "actor",
    "You check a move": "monitor",
    "You say what a move leads to": "predictor",
    "You estimate how far": "evaluator",
    "You say whether the goal": "orchestrator",
}


def distances(domain, goal):
    """Fewest moves to a goal from every state that leads to it, by the domain's own moves."""
    found, waiting = {goal: 0}, [goal]
    for here in waiting:
        for move in domain.legal(here):
            there = domain.apply(here, move)
            if there not in found:
                found[there] = found[here] + 1
                waiting.append(there)
    return found


class Player(LM):
    """Plays towers. Subclasses spoil one module each."""

    name = "player"

    def __init__(self, problem):
        self.domain = TowerDomain(Hanoi().read(problem))
        self.asked = Counter()
        self.temperatures = []
        self.prompts = []

    async def agenerate(self, requests):
        return [[self._sample(request)] for request in requests]

    def _sample(self, request):
        prompt = transcript(request.prompt)
        self.prompts.append(prompt)
        [role] = [role for start, role in ROLES.items() if start in prompt]
        self.asked[role] += 1
        if role == "actor":
            self.temperatures.append(request.temperature)
        question = prompt.partition("\nExample 1:")[0]
        said = {
            name: re.search(rf"^{label}: (.*)$", question, re.MULTILINE)
            for name, label in (
                ("state", "Now"),
                ("goal", "Goal"),
                ("proposed", "Proposed"),
                ("move", "Move"),
            )
        }
        fields = {name: match[1] for name, match in said.items() if match}
        reply = getattr(self, role)(prompt=prompt, **fields)
        return Sample(reply, "stop", len(prompt.split()), len(reply.split()))

    def decomposer(self, state, goal, **_):
        return "Subgoals:\n" + state

    def ranked(self, state, goal):
        far = distances(self.domain, goal)
        return sorted(self.domain.legal(state), key=lambda move: far[self.domain.apply(state, move)])

    def actor(self, state, goal, **_):
        return "I think.\nMoves:\n" + "\n".join(self.ranked(state, goal)[:2])

    def monitor(self, state, proposed, **_):
        legal = proposed in self.domain.legal(state)
        return f"By the rules.\nAnswer: {'valid' if legal else 'invalid'}"

    def predictor(self, state, move, **_):
        return f"Next: {self.domain.apply(state, move) or state}"

    def evaluator(self, state, goal, **_):
        return f"Answer: {distances(self.domain, goal)[state]}"

    def orchestrator(self, state, goal, **_):
        return f"Answer: {'yes' if state == goal else 'no'}"


def all_problems(disks):
    """Of so many disks."""
    return Towers(disks).all()
