"""Asking a server: against the official client, at the same concurrency, and how memory grows.

    python -m benchmarks.lm [--requests 600] [--concurrency 64] [--queued 100000] [--json]

The server is a process of its own on this machine that answers after a fixed latency, from the prompt alone,
so that all clients must come to the same texts. No client can be faster than requests x latency / concurrency
(the ideal, among the facts); each side pays for its own connections in every run.

    chat                  600 chat requests; peer: AsyncOpenAI as it comes, with a semaphore
    chat, peer's aiohttp  the same; peer: AsyncOpenAI over aiohttp, where that transport is installed
    chat, fourfold        the same at four times the concurrency, where clients and not latency decide
    chat, adaptive        the same without a limit being named: ours finds one
    memory                peak of a process that asks `--queued` requests over that of one that asks a
                          hundredth, less what it keeps of the replies; a generator through `flow.each`
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks._harness import Result, arguments, emit, faster, interleaved

LATENCY = 0.05
"""Seconds after which the server answers."""

_SERVER = """
import asyncio, json, sys
from aiohttp import web

async def chat(request):
    sent = json.loads(await request.read())
    await asyncio.sleep(float(sys.argv[1]))
    said = sent["messages"][0]["content"][::-1]
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
    reply = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice],
             "usage": {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}}
    return web.Response(body=json.dumps(reply).encode(), content_type="application/json")

async def main():
    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""

_ASKER = """
import asyncio, json, sys
from posterhall import devices
from posterhall.lm import Message, Request, flow
from posterhall.lm.http import HttpLM, HttpSettings

base, count, concurrency, whole = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "list"
lm = HttpLM(base + "#m", HttpSettings(concurrency=concurrency))

def request(i):
    return Request((Message("user", f"This is prompt number {i}."),), max_tokens=32)

async def stream():
    letters = 0
    async def one(each):
        return (await lm.agenerate([each]))[0][0]
    async for _, sample in flow.each(one, map(request, range(count)), width=concurrency):
        letters += len(sample.text)
    return letters

async def at_once():
    return sum(len(sample.text) for [sample] in await lm.agenerate([request(i) for i in range(count)]))

async def main():
    await lm.agenerate([request(i) for i in range(200)])  # imports and connections come before
    before = devices.peak_bytes()
    letters = await (at_once() if whole else stream())
    await lm.aclose()
    print(json.dumps({"before": before, "after": devices.peak_bytes(), "letters": letters}))

asyncio.run(main())
"""


@contextlib.contextmanager
def server(latency: float) -> Iterator[str]:
    """Base URL of one that runs."""
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(latency)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.kill()


def prompts(count: int) -> list[str]:
    """Short questions, all different."""
    return [f"What comes after {i} in the sequence of whole numbers?" for i in range(count)]


def ours(base: str, texts: list[str], concurrency: int | None) -> Callable[[], list[str]]:
    """`HttpLM`, made anew each time."""
    from posterhall.lm import Message, Request
    from posterhall.lm.http import HttpLM, HttpSettings

    async def run() -> list[str]:
        lm = HttpLM(f"{base}#m", HttpSettings(concurrency=concurrency))
        requests = [Request((Message("user", each),), max_tokens=32) for each in texts]
        replies = await lm.agenerate(requests)
        await lm.aclose()
        return [each.text for [each] in replies]

    return lambda: asyncio.run(run())


def openai(base: str, texts: list[str], concurrency: int, *, aiohttp: bool) -> Callable[[], list[str]]:
    """The official client, made anew each time."""
    from openai import AsyncOpenAI

    async def run() -> list[str]:
        more: dict[str, Any] = {}
        if aiohttp:
            from openai import DefaultAioHttpClient

            more["http_client"] = DefaultAioHttpClient()
        async with AsyncOpenAI(base_url=base, api_key="none", **more) as client:
            places = asyncio.Semaphore(concurrency)

            async def one(text: str) -> str:
                async with places:
                    reply = await client.chat.completions.create(
                        model="m", messages=[{"role": "user", "content": text}], max_tokens=32
                    )
                return reply.choices[0].message.content or ""

            return list(await asyncio.gather(*map(one, texts)))

    return lambda: asyncio.run(run())


def has_aiohttp_transport() -> bool:
    """Whether the official client can go over aiohttp here: some versions want one more package."""
    from openai import DefaultAioHttpClient

    try:
        DefaultAioHttpClient()
    except RuntimeError:
        return False
    return True


def throughput(
    case: str, sides: dict[str, Callable[[], list[str]]], concurrency: int | None, chosen: Any
) -> Result:
    """Our side against the peer's, the same texts required."""
    from importlib.metadata import version

    for run in sides.values():
        run()
    times = interleaved(sides, repeats=chosen.repeats)
    own, peer = times["ours"], times["peer"]
    ideal = chosen.requests * LATENCY / (concurrency or chosen.concurrency)
    return faster(
        case,
        own,
        peer,
        f"openai {version('openai')}",
        quality={
            "same_texts": own.value == peer.value,
            "requests_per_second": chosen.requests / own.wall_median,
            "requests_per_second_peer": chosen.requests / peer.wall_median,
            "ideal_wall": ideal,
            "over_ideal": own.wall_median / ideal,
            "cpu_ms_per_request": 1000 * own.cpu_median / chosen.requests,
            "cpu_ms_per_request_peer": 1000 * peer.cpu_median / chosen.requests,
            "concurrency": concurrency or "adaptive",
        },
    )


def memory(base: str, queued: int, concurrency: int, how: str) -> dict[str, int]:
    """Peak bytes of a process of its own that asks so many, before and after."""
    done = subprocess.run(
        [sys.executable, "-c", _ASKER, base, str(queued), str(concurrency), how],
        check=True,
        capture_output=True,
        text=True,
    )
    measured: dict[str, int] = json.loads(done.stdout)
    return measured


def main() -> None:
    """Measure and print."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--requests", type=int, default=600)
        parser.add_argument("--concurrency", type=int, default=64)
        parser.add_argument(
            "--queued", type=int, default=100_000, help="requests of the memory case; 0: none"
        )

    chosen = arguments(__doc__ or "", add)
    os.environ["OPENAI_API_KEY"] = "none"
    texts, at_once = prompts(chosen.requests), chosen.concurrency
    results = []
    with server(LATENCY) as base:
        own = ours(base, texts, at_once)
        plain = openai(base, texts, at_once, aiohttp=False)
        results.append(throughput("chat", {"ours": own, "peer": plain}, at_once, chosen))
        if has_aiohttp_transport():
            sides = {"ours": own, "peer": openai(base, texts, at_once, aiohttp=True)}
            results.append(throughput("chat, peer's aiohttp", sides, at_once, chosen))
        sides = {
            "ours": ours(base, texts, 4 * at_once),
            "peer": openai(base, texts, 4 * at_once, aiohttp=False),
        }
        results.append(throughput("chat, fourfold", sides, 4 * at_once, chosen))
        sides = {"ours": ours(base, texts, None), "peer": plain}
        results.append(throughput("chat, adaptive", sides, None, chosen))
    if chosen.queued:
        few = max(1, chosen.queued // 100)
        with server(0.0) as base:
            small, large = (memory(base, count, at_once, "stream") for count in (few, chosen.queued))
        results.append(
            Result(
                case="memory",
                ours=(large["after"] - large["before"]) / 1e6,
                peer=(small["after"] - small["before"]) / 1e6,
                peer_name=f"ours, {few} requests",
                unit="MB above the start",
                ratio=small["after"] / large["after"],
                quality={
                    "requests": chosen.queued,
                    "peak_mb": large["after"] / 1e6,
                    "peak_mb_few": small["after"] / 1e6,
                    "letters": large["letters"],
                },
            )
        )
    emit("lm", chosen.threads, results, as_json=chosen.json)


if __name__ == "__main__":
    main()
