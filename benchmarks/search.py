"""Tree of Thoughts on the Game of 24 against a server: the original's schedule, and one without caches.

    python -m benchmarks.search [--puzzles 100] [--concurrency 64] [--sequential 8] [--full] [--json]

The server is a process of its own on this machine that answers by rule after 50 ms (`_numbers_server`). All
sides ask it through the same client, with the same prompts and seeds, as the original code does: four steps,
one reply of proposals a state, three votes a value, breadth 5, every line of a reply a candidate, duplicate
candidates valued 0. They must select the same states at every step of every puzzle.

    sequential   peer: the original's schedule, one request after the other, values cached by prompt. It is
                 run on `--sequential` puzzles (on all with `--full`); the number of its requests for all is
                 counted without a server, and its time is that number at the seconds a request measured.
    asynchronous peer: all puzzles and all states of a step at once, at the same concurrency, without caches
    bookkeeping  10,000 calls of a model that answers at once: what a search costs beside its model
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks._harness import Result, arguments, cpu_seconds, emit, interleaved

LATENCY = 0.05
"""Seconds after which the server answers."""
BREADTH, VOTES, STEPS = 5, 3, 4
Selected = list[list[tuple[str, ...]]]
"""Of a puzzle: for each step, the thoughts of the states kept, best first."""


@contextlib.contextmanager
def server(latency: float) -> Iterator[str]:
    """Address of a model on one that runs."""
    command = [sys.executable, "-m", "benchmarks._numbers_server", str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1#rules"
        finally:
            process.kill()


def puzzles(count: int) -> list[str]:
    """Solvable puzzles, spread over all of them."""
    from benchmarks._numbers_server import RULES
    from posterhall.search.tasks.moves import puzzles as every

    found = every(RULES)
    return [" ".join(map(str, found[i * len(found) // count])) for i in range(count)]


@dataclass
class Counted:
    """What a side has asked."""

    calls: int = 0
    tokens: int = 0
    selected: list[Selected] = field(default_factory=list)


class Peer:
    """The original's algorithm, written down once for both peers: how it asks is what differs.

    Args:
        ask: sends a request, returns its samples' texts.
        caching: keep values by their prompt, as the original does.
    """

    def __init__(self, ask: Callable[[Any], Any], *, caching: bool, at_once: bool) -> None:
        from posterhall.search.tasks.game24 import Game24

        self.task = Game24(original=True)
        self.ask = ask
        self.at_once = at_once
        self.cache: dict[str, float] | None = {} if caching else None

    async def solve(self, puzzle: str) -> Selected:
        """The states kept after each step."""
        states: list[tuple[str, ...]] = [()]
        kept: Selected = []
        for _ in range(STEPS):
            replies = await self._all(self._propose(puzzle, state) for state in states)
            new = [(*state, line) for state, reply in zip(states, replies, strict=True) for line in reply]
            first = {state: place for place, state in reversed(list(enumerate(new)))}
            values = dict(
                zip(first, await self._all(self._value(puzzle, state) for state in first), strict=True)
            )
            scores = [values[state] if first[state] == i else 0.0 for i, state in enumerate(new)]
            order = sorted(range(len(new)), key=lambda i: scores[i], reverse=True)[:BREADTH]
            states = [new[i] for i in order]
            kept.append(states)
        return kept

    async def _all(self, work: Iterator[Any]) -> list[Any]:
        return list(await asyncio.gather(*work)) if self.at_once else [await each for each in work]

    async def _propose(self, puzzle: str, thoughts: tuple[str, ...]) -> list[str]:
        from posterhall.search.protocol import State

        [reply] = await self.ask(request("propose", self.task.propose(State(puzzle, thoughts)), 1))
        return list(reply.split("\n"))

    async def _value(self, puzzle: str, thoughts: tuple[str, ...]) -> float:
        from posterhall.search.protocol import State

        state = State(puzzle, thoughts)
        if self.task.worth(state) is not None:
            return 0.0
        ask = self.task.value(state)
        if self.cache is not None and ask.prompt in self.cache:
            return self.cache[str(ask.prompt)]
        replies = await self.ask(request("value", ask, VOTES))
        grades = [self.task.grade(state, each) for each in replies]
        value = sum(self.task.grades[each] for each in grades if each is not None)
        if self.cache is not None:
            self.cache[str(ask.prompt)] = value
        return value


def request(role: str, ask: Any, n: int) -> Any:
    """The request that a search makes of a question: the peers send the same."""
    from posterhall.lm import Request
    from posterhall.seeds import derive

    return Request(
        ask.prompt,
        max_tokens=1000,
        temperature=0.7,
        stop=ask.stop,
        seed=derive(0, role, ask.prompt),
        n=n,
    )


async def drive(lm: Any, texts: Sequence[str], *, caching: bool, at_once: bool, counted: Counted) -> None:
    """A peer on some puzzles."""

    async def ask(each: Any) -> list[str]:
        [samples] = await lm.agenerate([each])
        counted.calls += 1
        counted.tokens += samples[0].tokens_in + sum(sample.tokens_out for sample in samples)
        return [sample.text for sample in samples]

    peer = Peer(ask, caching=caching, at_once=at_once)
    if at_once:
        counted.selected = list(await asyncio.gather(*map(peer.solve, texts)))
    else:
        counted.selected = [await peer.solve(each) for each in texts]


def peer(address: str, texts: Sequence[str], *, concurrency: int, caching: bool) -> Callable[[], Counted]:
    """A peer over the client, made anew each time."""
    from posterhall.lm.http import HttpLM, HttpSettings

    async def run() -> Counted:
        counted = Counted()
        lm = HttpLM(address, HttpSettings(concurrency=concurrency))
        await drive(lm, texts, caching=caching, at_once=concurrency > 1, counted=counted)
        await lm.aclose()
        return counted

    return lambda: asyncio.run(run())


def rules() -> Any:
    """The server's model without server."""
    from benchmarks._numbers_server import reply
    from posterhall.lm.protocol import LM, Request, Sample

    class RuleLM(LM):
        name = "rules"

        async def agenerate(self, requests: Sequence[Request]) -> list[list[Sample]]:
            return [
                [
                    Sample(text, "stop", len(str(each.prompt).split()), len(text.split()))
                    for text in (reply(str(each.prompt), each.seed or 0, i) for i in range(each.n))
                ]
                for each in requests
            ]

    return RuleLM()


def ours(
    address: Any, texts: Sequence[str], concurrency: int, *, cache: bool = True
) -> Callable[[], Counted]:
    """`solve_all` with the preset of the original, an empty cache each time."""
    from posterhall.lm.stack import connect
    from posterhall.search import preset
    from posterhall.search.jobs import asolve_all
    from posterhall.search.tasks.game24 import Game24

    async def run() -> Counted:
        with tempfile.TemporaryDirectory() as directory:
            place = Path(directory) / "cache.sqlite" if cache else False
            lm = connect(address, cache=place, concurrency=concurrency)
            report = await asolve_all(
                Game24(original=True), texts, lm, settings=preset("original", "game24"), parallel=len(texts)
            )
            await lm.aclose()
        selected = [selections(solution.tree) for solution in report.solutions]
        return Counted(report.paid.calls, report.paid.tokens, selected)

    return lambda: asyncio.run(run())


def selections(tree: Any) -> Selected:
    """The states kept at each depth of a tree, best first."""
    from posterhall.search.context import by_value

    kept = [node for node in tree.nodes if node.status == "kept" and node.depth]
    return [
        [tree.state(node).thoughts for node in by_value(each for each in kept if each.depth == depth)]
        for depth in range(1, STEPS + 1)
    ]


def bookkeeping(calls: int) -> Result:
    """Seconds that a search takes beside its model."""
    from posterhall.search import preset
    from posterhall.search.jobs import asolve_all
    from posterhall.search.tasks.game24 import Game24

    texts = puzzles(calls // 40)
    lm = rules()
    settings = preset("original", "game24")
    for _ in range(2):  # the first time the model's answers are worked out, and kept
        used, began = cpu_seconds(), time.perf_counter()
        report = asyncio.run(
            asolve_all(Game24(original=True), texts, lm, settings=settings, parallel=len(texts))
        )
        cpu, wall = cpu_seconds() - used, time.perf_counter() - began
    scale = calls / report.paid.calls
    return Result(
        case=f"bookkeeping of {calls:,} calls, at most 3 s",
        ours=cpu * scale,
        peer=3.0,
        peer_name="the floor set",
        unit="CPU s",
        ratio=3.0 / (cpu * scale),
        quality={
            "calls": report.paid.calls,
            "cpu": cpu,
            "wall": wall,
            "ms_per_call": 1000 * cpu / report.paid.calls,
        },
    )


def sequential(address: str, texts: list[str], own: Any, chosen: Any) -> Result:
    """Against the original's schedule."""
    counted = Counted()  # the whole schedule, without waiting for a server
    asyncio.run(drive(rules(), texts, caching=True, at_once=False, counted=counted))
    some = texts if chosen.full else texts[: chosen.sequential]
    began = time.perf_counter()
    real = peer(address, some, concurrency=1, caching=True)()
    wall = time.perf_counter() - began
    each = wall / real.calls
    whole = wall if chosen.full else each * counted.calls
    return Result(
        case=f"{len(texts)} puzzles, against the original's schedule",
        ours=own.wall_median,
        peer=whole,
        peer_name="the original's schedule, one request after the other",
        unit="s",
        ratio=whole / own.wall_median,
        quality={
            "same_states": own.value.selected == counted.selected
            and real.selected == counted.selected[: len(some)],
            "calls": own.value.calls,
            "calls_peer": counted.calls,
            "tokens": own.value.tokens,
            "tokens_peer": counted.tokens,
            "puzzles_run_by_peer": len(some),
            "calls_run_by_peer": real.calls,
            "wall_run_by_peer": wall,
            "seconds_per_call_peer": each,
        },
    )


def main() -> None:
    """Run the comparisons."""

    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--puzzles", type=int, default=100)
        parser.add_argument("--concurrency", type=int, default=64)
        parser.add_argument("--sequential", type=int, default=8, help="puzzles that the sequential peer runs")
        parser.add_argument("--full", action="store_true", help="the sequential peer runs all (4 minutes)")

    chosen = arguments(__doc__ or "", more)
    from posterhall.devices import peak_bytes

    texts = puzzles(chosen.puzzles)
    with server(LATENCY) as address:
        sides = {
            "ours": ours(address, texts, chosen.concurrency),
            "peer": peer(address, texts, concurrency=chosen.concurrency, caching=False),
        }
        for run in sides.values():  # the server works its answers out once, too
            run()
        times = interleaved(sides, repeats=chosen.repeats)
        own, other = times["ours"], times["peer"]
        ideal = own.value.calls * LATENCY / chosen.concurrency
        asynchronous = Result(
            case=f"{len(texts)} puzzles, against an asynchronous port without caches",
            ours=own.wall_median,
            peer=other.wall_median,
            peer_name=f"all at once, concurrency {chosen.concurrency}",
            unit="s",
            ratio=other.wall_median / own.wall_median,
            quality={
                "same_states": own.value.selected == other.value.selected,
                "calls": own.value.calls,
                "calls_peer": other.value.calls,
                "tokens": own.value.tokens,
                "tokens_peer": other.value.tokens,
                "cpu_ours": own.cpu_median,
                "cpu_peer": other.cpu_median,
                "ideal_wall": ideal,
                "over_ideal": own.wall_median / ideal,
                "peak_bytes": peak_bytes(),
            },
        )
        results = [sequential(address, texts, own, chosen), asynchronous]
    results.append(bookkeeping(10_000))
    emit("search", chosen.threads, results, as_json=chosen.json)
    if not all(result.quality.get("same_states", True) for result in results):
        sys.exit("the sides selected different states: the times do not count")


if __name__ == "__main__":
    main()
