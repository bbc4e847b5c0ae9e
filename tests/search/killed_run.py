"""A search as a process to be killed: `python killed_run.py RUN LOG PAUSE` appends to LOG each call made."""

from __future__ import annotations

import asyncio
import sys

from toys import Rule, Written, full

from posterhall.search import solve_all
from posterhall.seeds import derive

PROBLEMS = [f"{letter}{number}" for letter in "abc" for number in range(4)]


def say(kind, rest, seed, number):
    """Never the same twice: a reply that is asked for again would show."""
    draw = derive(seed, kind, str(rest), number, Slow.salt)
    Slow.salt += 1
    return " ".join("abc"[draw >> (2 * i) & 3] for i in range(4) if draw >> (2 * i) & 3 < 3) or "a"


class Slow(Rule):
    """Answers after a pause, and writes down that it was asked."""

    salt = 0

    def __init__(self, log, pause):
        super().__init__(say)
        self.log = open(log, "a", buffering=1)  # noqa: SIM115 - until the process dies
        self.pause = pause

    async def _one(self, request):
        self.log.write(f"{request.prompt}\n")
        Slow.salt += len(request.prompt)
        if self.pause:
            await asyncio.sleep(self.pause)
        return await super()._one(request)


def main(run, log, pause):
    task = Written(3, full(3, "abc"))
    solve_all(task, PROBLEMS, Slow(log, float(pause)), votes=1, breadth=2, parallel=5, out=run, resume=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
