"""The modules of the planner: each a prompt and a way to read what comes back."""

from __future__ import annotations

import re
from functools import partial

from posterhall.lm.flow import gather
from posterhall.lm.parsing import classes, integer
from posterhall.lm.protocol import Message
from posterhall.search.context import Search
from posterhall.search.planner.protocol import Domain
from posterhall.search.protocol import Ask
from posterhall.search.tasks.templates import fill, prompt

SUBGOALS = 3
"""Most subgoals that are taken from the task decomposer."""
FARTHEST = 10_000
"""Most moves that an estimate may name."""
_WARMER = 0.1
"""Added to the actor's temperature each time it tries again (MAP: 0, then 0.1 times the try)."""
_CORRECTION = 600
"""Characters of a correction that the actor is told."""
_LABEL = {
    name: re.compile(rf"^[\s>*_#`-]*{name}[\s*_`]*:", re.IGNORECASE | re.MULTILINE)
    for name in ("moves", "next", "subgoals")
}


class Modules:
    """Asks a search's model as each of the modules.

    What cannot be read is counted in the search's `unread`, under the module's name, and never taken for an
    answer: a move has not passed of which the monitor says nothing readable, and a state is not gone on from
    that the predictor does not tell.
    """

    def __init__(self, search: Search, domain: Domain) -> None:
        self.search = search
        self.domain = domain
        self.settings = search.settings

    def uses(self, module: str) -> bool:
        """Whether a module takes part."""
        return module not in self.settings.without

    async def subgoals(self, state: str, goal: str) -> list[str]:
        """States to be passed on the way, in order."""
        reply = await self._ask(
            "decomposer",
            state=state,
            goal=goal,
            count=str(SUBGOALS),
            state_form=self.domain.state_form,
        )
        lines = _after("subgoals", reply).splitlines()
        found = [each for line in lines if (each := self.domain.state(line)) is not None]
        if not found:
            self.search.unread["decomposer"] += 1
        kept = [each for each in dict.fromkeys(found) if each not in (state, goal)]
        return kept[:SUBGOALS]

    async def moves(self, state: str, goal: str) -> list[str]:
        """Moves that the monitor lets pass, at most `branches`, the actor's first one first.

        The actor tries until all that it proposes has passed, or for `rounds`; then what has passed before
        counts. Without a monitor it tries until there is a move to be read.
        """
        passed: dict[str, None] = {}
        failed: dict[str, str] = {}
        for turn in range(self.settings.rounds):
            reply = await self._ask(
                "actor",
                temperature=_WARMER * turn,
                state=state,
                goal=goal,
                count=str(self.settings.branches),
                move_form=self.domain.move_form,
                feedback=_feedback(failed),
            )
            read = self.domain.moves(state, _after("moves", reply))
            self.search.unread["actor"] += read.unread + (not read.found and not read.unread)
            proposed = list(read.found[: self.settings.branches])
            new = [move for move in proposed if move not in passed and move not in failed]
            whys = await gather(partial(self.objection, state), new, width=max(1, len(new)))
            for move, why in zip(new, whys, strict=True):
                if why is None:
                    passed[move] = None
                else:
                    failed[move] = why
            if proposed and all(move in passed for move in proposed):
                break
        return list(passed)[: self.settings.branches]

    async def objection(self, state: str, move: str) -> str | None:
        """What is wrong with a move; None: it is allowed."""
        if not self.uses("monitor"):
            return None
        if "monitor" in self.settings.exact:
            return None if move in self.domain.legal(state) else f"{move} is not allowed."
        reply = await self._ask("monitor", state=state, move=move)
        verdict = classes(reply, ("valid", "invalid")).value
        if verdict is None:
            self.search.unread["monitor"] += 1
            return "The checker could not tell that it is allowed."
        return None if verdict == "valid" else reply.strip()[:_CORRECTION]

    async def after(self, state: str, move: str) -> str | None:
        """The state that a move is believed to lead to; None if that could not be read."""
        if "predictor" in self.settings.exact:
            return self.domain.apply(state, move)
        told = self.domain.foreseen(state, move)
        if told is not None:
            return told
        reply = await self._ask("predictor", state=state, move=move, state_form=self.domain.state_form)
        found = self.domain.state(_after("next", reply))
        self.search.unread["predictor"] += found is None
        return found

    async def steps_left(self, state: str, goal: str) -> float:
        """Moves that are believed to be left; infinite if that could not be read."""
        found = integer(await self._ask("evaluator", state=state, goal=goal), low=0, high=FARTHEST).value
        self.search.unread["evaluator"] += found is None
        return float("inf") if found is None else float(found)

    async def reached(self, state: str, goal: str) -> bool:
        """Whether a goal is believed to be reached; never without the orchestrator."""
        if not self.uses("orchestrator"):
            return False
        if "orchestrator" in self.settings.exact:
            return self.domain.reached(state, goal)
        found = classes(await self._ask("orchestrator", state=state, goal=goal), ("yes", "no")).value
        self.search.unread["orchestrator"] += found is None
        return found == "yes"

    async def _ask(self, module: str, *, temperature: float = 0.0, **fields: str) -> str:
        shown = self.domain.examples.get(module, ())[:3]
        examples = "".join(f"\nExample {number}:\n{each}\n" for number, each in enumerate(shown, 1))
        text = fill(prompt(f"planner/{module}"), {"examples": examples, **fields}).strip()
        # The rules first: all prompts of a problem share them, and servers keep what they have read.
        ask = Ask((Message("system", self.domain.rules), Message("user", text)), temperature=temperature)
        [[sample]] = await self.search.asker.generate(module, [ask], 1)
        return sample.text


def _feedback(failed: dict[str, str]) -> str:
    """What was wrong with earlier proposals."""
    if not failed:
        return ""
    lines = [f"- {move}: {' '.join(why.split())}" for move, why in failed.items()]
    return "\n".join(["\nThese were proposed before and are not allowed:", *lines, ""])


def _after(label: str, reply: str) -> str:
    """What follows the last such label of a reply; all of it where there is none."""
    found = list(_LABEL[label].finditer(reply))
    return reply[found[-1].end() :] if found else reply
