"""Servers that fail now and then: the same answers, a little later; and an end to it where it stays."""

from __future__ import annotations

import asyncio
import time

import pytest
from aiohttp import web
from servers import EchoAnswers, error, serving

from posterhall.lm import EchoLM, Message, Request
from posterhall.lm.http import HttpLM, HttpSettings, ServerError
from posterhall.seeds import generator


def requests(count):
    return [Request((Message("user", f"What is number {i}?"),), max_tokens=4 + i % 5) for i in range(count)]


def expected(count):
    plain = [Request(each.prompt[0].content, max_tokens=each.max_tokens) for each in requests(count)]
    return [[sample.text for sample in samples] for samples in EchoLM().generate(plain)]


def texts(replies):
    return [[sample.text for sample in samples] for samples in replies]


def cut_off():
    return web.Response(text='{"choices": [{"message": {"content": "Wha', content_type="application/json")


FAULTS = {
    "429": lambda: error(429, "slow down", headers={"Retry-After": "0"}),
    "500": lambda: error(500, "oops"),
    "time-out": lambda: 1.0,  # seconds: longer than the client waits
    "truncated": cut_off,
    "html": lambda: web.Response(text="<html>Bad gateway</html>", content_type="text/html"),
    "empty": lambda: web.Response(text="", content_type="application/json"),
    "no choices": lambda: web.json_response({"choices": []}),
    "error with 200": lambda: web.json_response({"error": {"message": "upstream", "code": 502}}),
    "429 with 200": lambda: web.json_response({"error": {"message": "slow", "code": 429}}),
}


def now_and_then(kinds, share=0.2):
    """A share of requests fails, in turn in each of the ways; which ones is drawn beforehand."""
    draws = generator(0, "faults").random(10_000) < share
    names = list(kinds)

    def fault(number, path, sent):
        return FAULTS[names[number % len(names)]]() if draws[number] else None

    return fault


def test_a_fifth_of_all_replies_lost_changes_no_answer():
    fault = now_and_then(["429", "500", "time-out", "truncated", "html"])
    with serving(EchoAnswers(), latency=0.005, fault=fault) as server:
        settings = HttpSettings(concurrency=32, timeout=0.3)
        with HttpLM(f"{server.base}#echo", settings) as lm:
            began = time.perf_counter()
            replies = lm.generate(requests(300))
            took = time.perf_counter() - began
            record = lm.record()
    assert texts(replies) == expected(300)
    lost = sum(record["failures"].values())
    assert record["tries"] == 300 + lost == len(server.asked)
    assert record["failures"].keys() == {"429", "500", "time-out", "malformed"}
    assert 40 < lost < 140  # 300 * 0.25
    # Waits run side by side: a few of at most 0.25, 0.5, 1 ... seconds, not the sum of all.
    assert took < 15


@pytest.mark.parametrize("kind", FAULTS)
def test_every_kind_of_failure_passes(kind):
    waits = []

    async def sleep(seconds):
        waits.append(seconds)
        await asyncio.sleep(0)

    def fault(number, path, sent):
        return FAULTS[kind]() if number < 3 else None

    with serving(EchoAnswers(), fault=fault) as server:
        lm = HttpLM(f"{server.base}#echo", HttpSettings(timeout=0.2), sleep=sleep)
        assert texts(lm.generate(requests(1))) == expected(1)
        lm.close()
    assert len(waits) == 3
    assert waits[0] <= 0.25
    assert waits[2] <= 1.0


def test_a_server_that_hangs_up_is_asked_again():
    def fault(number, path, sent):
        return web.Response(headers={"Content-Length": "9999"}, body=b"{") if number == 0 else None

    settings = HttpSettings(timeout=0.5)
    with serving(EchoAnswers(), fault=fault) as server, HttpLM(f"{server.base}#echo", settings) as lm:
        assert texts(lm.generate(requests(1))) == expected(1)


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [({"Retry-After": "3"}, 3.0, 3.25), ({"retry-after-ms": "700"}, 0.7, 0.95), ({}, 0.0, 0.25)],
)
def test_the_wait_that_a_server_asks_for_is_kept(headers, least, most):
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    def fault(number, path, sent):
        return error(429, "slow down", headers=headers) if number == 0 else None

    with serving(EchoAnswers(), fault=fault) as server:
        lm = HttpLM(f"{server.base}#echo", sleep=sleep)
        lm.generate(requests(1))
        lm.close()
    assert len(waits) == 1
    assert least <= waits[0] <= most


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda: error(429, "slow down"), "slow down.*429; 4 tries.*lower concurrency"),
        (lambda: error(500, "oops"), "oops.*500; 4 tries"),
        (cut_off, "only a part of it.*malformed; 4 tries"),
        (lambda: 0.5, "no reply within 0.2 s.*longer timeout"),
    ],
)
def test_there_is_an_end_to_trying(answer, says):
    async def sleep(seconds):
        await asyncio.sleep(0)

    with serving(EchoAnswers(), fault=lambda *_: answer()) as server:
        lm = HttpLM(f"{server.base}#echo", HttpSettings(retries=3, timeout=0.2), sleep=sleep)
        with pytest.raises(ServerError, match=says):
            lm.generate(requests(1))
        lm.close()
        assert len(server.asked) == 4


def test_a_wait_beyond_the_deadline_is_not_begun():
    def fault(number, path, sent):
        return error(429, "come back tomorrow", headers={"Retry-After": "80000"})

    with serving(EchoAnswers(), fault=fault) as server, HttpLM(f"{server.base}#echo") as lm:
        with pytest.raises(ServerError, match=r"next try would be in 22 h.*deadline of 30 min"):
            lm.generate(requests(1))
        assert len(server.asked) == 1


def test_a_failure_ends_the_call_and_not_the_model():
    def fault(number, path, sent):
        return error(400, "bad number") if "number 7?" in sent["messages"][0]["content"] else None

    settings = HttpSettings(concurrency=4)
    with (
        serving(EchoAnswers(), latency=0.005, fault=fault) as server,
        HttpLM(f"{server.base}#echo", settings) as lm,
    ):
        with pytest.raises(ValueError, match="bad number"):
            lm.generate(requests(200))
        assert len(server.asked) < 40  # the others were not begun
        assert texts(lm.generate(requests(5))) == expected(5)


def test_rates_are_kept():
    clock = Clock()
    with serving(EchoAnswers()) as server:
        settings = HttpSettings(concurrency=8, requests_per_minute=60)
        lm = HttpLM(f"{server.base}#echo", settings, clock=clock, sleep=clock.sleep)
        assert texts(lm.generate(requests(20))) == expected(20)
        lm.close()
    assert clock.slept == pytest.approx(19, abs=1)  # one at once, then one a second


def test_tokens_a_minute_are_estimated_and_then_put_right():
    clock = Clock()
    with serving(EchoAnswers()) as server:
        settings = HttpSettings(concurrency=1, tokens_per_minute=6000)  # 100 a second
        lm = HttpLM(f"{server.base}#echo", settings, clock=clock, sleep=clock.sleep)
        many = [Request((Message("user", "x" * 40),), max_tokens=990)] * 11
        lm.generate(many)  # 1,000 tokens expected of each, and 80 used
        lm.close()
    assert clock.slept == pytest.approx(10 * 80 / 100, rel=0.35)


class Clock:
    """Time that passes by sleeping alone; who sleeps at the same time sleeps together."""

    def __init__(self):
        self.now = self.slept = 0.0

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        until = self.now + seconds
        await asyncio.sleep(0)
        if until > self.now:
            self.slept += until - self.now
            self.now = until
