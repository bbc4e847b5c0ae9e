"""Rule-based stand-ins for a model: they answer the tasks' own prompts from an exact solver."""

from __future__ import annotations

import re

from posterhall import seeds
from posterhall.lm.protocol import LM, Sample, cut, transcript
from posterhall.search.tasks import expressions
from posterhall.search.tasks.moves import Rules, moves, solvable


class Rulebook(LM):
    """Knows the prompts of the Game of 24. `noise` is the share of values that are a wrong class,
    `proposals` the moves of a reply."""

    def __init__(self, rules=None, noise=0.0, proposals=8):
        self.name = "rulebook"
        self.rules = rules or Rules()
        self.noise = noise
        self.proposals = proposals
        self.prompts = []

    async def agenerate(self, requests):
        return [[self._sample(request, request.first + i) for i in range(request.n)] for request in requests]

    def _sample(self, request, number):
        prompt = transcript(request.prompt)
        self.prompts.append(prompt)
        text, _ = cut(self.reply(prompt, seeds.generator(request.seed or 0, "sample", number)), request.stop)
        return Sample(text, "stop", tokens_in=len(prompt.split()), tokens_out=len(text.split()))

    def reply(self, prompt, rng):
        last = prompt.rsplit("Input: ", 1)[-1]
        numbers = tuple(sorted(map(expressions.number, last.split("\n")[0].split())))
        legal = moves(numbers, self.rules)
        if prompt.endswith("Possible next steps:"):
            chosen = [legal[int(i)] for i in rng.permutation(len(legal))[: self.proposals]]
            return "\n".join(map(str, chosen)) + "\nThat is all <b>I</b> can do."
        if prompt.endswith("Judge:"):
            return "sure" if re.search(rf"= {self.rules.target}\n", last) else "impossible"
        if "Steps:" in last:
            return "I cannot."
        can = solvable(numbers, self.rules)
        if rng.random() < self.noise:
            can = not can
        return "Let me see.\n" + ("sure" if can else "impossible")
