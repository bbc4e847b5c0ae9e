"""A server that answers prompts of the Game of 24 by rule, after a fixed latency.

    python -m benchmarks._numbers_server SECONDS

prints its port. What it says depends on the prompt, the seed and the number of the sample alone: proposals
are moves drawn among the legal ones, one in twenty with its arithmetic wrong; values are those of an exact
solver, with doubt and errors while more than two numbers are left; it ends a list of steps by its answer.
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
import sys
from typing import Any

from posterhall.errors import DataError
from posterhall.search.protocol import State
from posterhall.search.tasks import expressions
from posterhall.search.tasks.game24 import Game24
from posterhall.search.tasks.moves import Numbers, Rules, moves, solvable
from posterhall.seeds import generator

RULES = Rules(24, "+-*/", None)
ODD = 0.25
"""How often a move with an unusual result is written down as readily as others. With this, requests and
distinct prompts are about as many as in the published log of the Game of 24 (16 proposals and 84 candidates a
puzzle; 4,546 requests with the original's cache for 100 puzzles, 9,997 without)."""


@functools.lru_cache(maxsize=1 << 16)
def reply(prompt: str, seed: int, number: int) -> str:
    """What is said to a prompt."""
    random = generator(seed, "reply", prompt, number)
    asked = prompt.rpartition("Input:")[2].strip()
    numbers = _numbers(asked.split("\n")[0])
    if numbers is None:
        return "I cannot see any numbers."
    if asked.endswith("Possible next steps:"):
        legal = moves(numbers, RULES)
        # As people and large models do: whole, positive and small results first.
        hard = [not isinstance(each.result, int) or not 0 <= each.result <= 40 for each in legal]
        draws = random.random((2, len(legal)))
        late = [is_hard and draw >= ODD for is_hard, draw in zip(hard, draws[0], strict=True)]
        order = sorted(range(len(legal)), key=lambda place: (late[place], draws[1, place]))
        lines = []
        for place in order[: 7 + (random.random() < 0.5)]:
            line = str(legal[place])
            wrong = random.random() < 1 / 20
            lines.append(
                re.sub(r"= (-?\d+)", lambda found: f"= {int(found[1]) + 1}", line) if wrong else line
            )
        return "\n".join(lines)
    if "Steps:" in asked:
        steps = tuple(line for line in asked.split("Steps:")[1].split("\n") if line.strip())
        try:
            return f"Answer: {Game24().answer(State(' '.join(map(str, numbers)), steps))}"
        except DataError:
            return "Answer: none"
    if asked.endswith("Judge:"):
        said = asked.split("Answer:")[-1].partition("Judge:")[0].strip()
        return "sure" if Game24().check(" ".join(map(str, numbers)), said).solved else "impossible"
    sure = solvable(numbers, RULES)
    if len(numbers) > 2 and random.random() < 0.3:
        grade = "likely" if random.random() < 0.7 else "impossible"
    else:
        grade = "sure" if sure else "impossible"
    return f"{' + '.join(map(str, numbers))} and so on: I have tried a few ways of combining them.\n{grade}"


def _numbers(line: str) -> Numbers | None:
    try:
        return tuple(sorted(map(expressions.number, line.split())))
    except DataError:
        return None


async def _serve(latency: float) -> None:
    from aiohttp import web

    async def chat(request: Any) -> Any:
        sent = json.loads(await request.read())
        await asyncio.sleep(latency)
        prompt = sent["messages"][-1]["content"]
        said = [reply(prompt, sent.get("seed", 0), number) for number in range(sent.get("n", 1))]
        choices = [
            {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            for i, text in enumerate(said)
        ]
        read, written = len(prompt.split()), sum(len(text.split()) for text in said)
        usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        whole = {"object": "chat.completion", "model": sent["model"], "choices": choices, "usage": usage}
        return web.Response(body=json.dumps(whole).encode(), content_type="application/json")

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1])))
