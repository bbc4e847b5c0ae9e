"""Search as a model: whatever asks a model gets what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from posterhall.config import digest, to_dict
from posterhall.errors import DataError
from posterhall.lm.flow import gather
from posterhall.lm.protocol import LM, Prompt, Request, Sample
from posterhall.search.jobs import PARALLEL, described
from posterhall.search.protocol import Task
from posterhall.search.settings import SearchSettings
from posterhall.search.solution import Solution
from posterhall.search.solving import asolve, changed
from posterhall.seeds import derive


class SearchLM(LM):
    """A model that answers with the solution found for the last user message, or for a text.

    The reply gives the thoughts on the chosen path, one a line, and the answer in a last line of its own,
    ``Answer: ...``. A message that is no problem of the task is answered by what a problem looks like. Of a
    request its seed and its number of samples count; all else is as the search's settings have it. Tokens
    are those of the whole search, most of them hidden.

    Args:
        task: what kind of problem messages are.
        lm: the model that the search asks; closed with this one.
        settings: of the search; None means the defaults.
        changes: single settings by name.
    """

    def __init__(
        self,
        task: Task,
        lm: LM,
        settings: SearchSettings | None = None,
        *,
        name: str | None = None,
        **changes: Any,
    ) -> None:
        self.task = task
        self.lm = lm
        self.settings = changed(settings, changes)
        self.name = name or f"tot:{lm.name}"
        self.parameters = lm.parameters
        self.source = lm.source

    def fingerprint(self) -> str:
        config = {"task": self.task.name, "task_settings": described(self.task), **to_dict(self.settings)}
        return f"SearchLM:{digest(config)[:16]}:{self.lm.fingerprint()}"

    async def agenerate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        wanted = [
            (request, number)
            for request in requests
            for number in range(request.first, request.first + request.n)
        ]
        samples = iter(await gather(self._sample, wanted, width=max(1, min(PARALLEL, len(wanted)))))
        return [[next(samples) for _ in range(request.n)] for request in requests]

    async def aclose(self) -> None:
        await self.lm.aclose()

    async def _sample(self, wanted: tuple[Request, int]) -> Sample:
        request, number = wanted
        seed = self.settings.seed if request.seed is None else request.seed
        settings = replace(self.settings, seed=seed if number == 0 else derive(seed, "sample", number))
        try:
            problem = self.task.read(question(request.prompt))
        except DataError as error:
            said = f"That is no problem that I can work on. {error}"
            words = len(said.split())
            return Sample(said, "stop", tokens_in=words, tokens_out=words, estimated=True)
        solution = await asolve(self.task, problem, self.lm, settings=settings)
        usage = solution.usage
        said = told(solution)
        return Sample(
            text=said,
            finish_reason="stop",
            tokens_in=usage.tokens_in,
            tokens_out=usage.tokens_out,
            tokens_cached=usage.tokens_cached,
            tokens_hidden=max(0, usage.tokens_out - len(said.split())),
            estimated=usage.tokens_estimated > 0,
        )


def question(prompt: Prompt) -> str:
    """The last user message of a conversation; a text as it is."""
    if isinstance(prompt, str):
        return prompt.strip()
    users = [message.content for message in prompt if message.role == "user"]
    return users[-1].strip() if users else ""


def told(solution: Solution) -> str:
    """A solution in words: the thoughts chosen, then the answer."""
    tree, answer = solution.tree, solution.answer
    lines = [] if tree.chosen is None else [node.thought for node in tree.path(tree.nodes[tree.chosen])]
    if answer is not None and lines[-1:] == [answer]:
        lines.pop()
    if solution.stopped_by is not None:
        lines.append(f"(The search was stopped: {solution.stopped_by}.)")
    lines.append("No answer was found." if answer is None else f"Answer: {answer}")
    return "\n".join(lines)
