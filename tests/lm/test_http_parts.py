"""The parts of the HTTP backend, each by itself: addresses, keys, turns, rates, waits."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from posterhall.errors import DataError
from posterhall.lm.http import Address, HttpSettings
from posterhall.lm.http.address import Secret
from posterhall.lm.http.gate import LARGEST, START, Gate, Limit
from posterhall.lm.http.limits import Bucket
from posterhall.lm.http.retry import FIRST_WAIT, LONGEST_WAIT, Failure, Waits, asked_wait, may_pass


@pytest.mark.parametrize(
    ("text", "base", "model"),
    [
        ("http://localhost:8000/v1#qwen", "http://localhost:8000/v1", "qwen"),
        ("http://localhost:8000/v1/#qwen", "http://localhost:8000/v1", "qwen"),
        ("HTTPS://API.Example.com/v1/chat/completions#m", "https://api.example.com/v1", "m"),
        ("https://example.com/v1/completions/#m", "https://example.com/v1", "m"),
        ("http://h/v1#meta%2Fllama:8b", "http://h/v1", "meta/llama:8b"),
        ("http://h/v1#meta/llama:8b", "http://h/v1", "meta/llama:8b"),
        ("http://[::1]:8000", "http://[::1]:8000", ""),
    ],
)
def test_address_is_read_as_it_is_commonly_pasted(text, base, model):
    address = Address.parse(text)
    assert (address.base, address.model) == (base, model)
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ftp://h/v1#m", "http://HOST"),
        ("localhost:8000", "http://HOST"),
        ("http://", "http://HOST"),
        ("http://h:99999/v1", "port|Port"),
        ("http://user:hunter2@h/v1#m", "environment variable"),
        ("https://h/v1?api_key=hunter2#m", "environment variable"),
        ("https://h/v1?sig=hunter2#m", "environment variable"),
    ],
)
def test_what_is_no_address_is_refused_without_showing_keys(text, says):
    with pytest.raises(DataError, match=says) as caught:
        Address.parse(text)
    assert "hunter2" not in str(caught.value)


def test_two_models_for_one_address_are_refused():
    with pytest.raises(DataError, match=r"'a'.*'b'"):
        Address.parse("http://h/v1#a", model="b")
    assert Address.parse("http://h/v1", model="b").model == "b"


def test_an_api_version_goes_with_every_request():
    address = Address.parse("https://h/openai?api-version=2025-01-01#m")
    assert address.url("/chat/completions") == "https://h/openai/chat/completions?api-version=2025-01-01"


@pytest.mark.parametrize(
    "other", ["http://h:1/v1#m", "http://h:1/v1/#m", "http://h:1#m", "http://h:1/api/v1#m"]
)
def test_one_server_has_one_identity(other):
    assert Address.parse("http://h:1/v1#m").identity == Address.parse(other).identity


def test_the_usual_key_is_not_sent_in_the_clear_over_a_network():
    environ = {"OPENAI_API_KEY": "sk-secret", "MINE": " sk-mine "}
    for base in ("https://h/v1", "http://localhost:1/v1", "http://127.0.0.1:1/v1", "http://[::1]:1/v1"):
        assert Address.parse(base).key(None, environ).reveal() == "sk-secret"
    lan = Address.parse("http://192.168.0.2:8000/v1")
    assert lan.key(None, environ) is None
    assert lan.key("MINE", environ).reveal() == "sk-mine"
    assert Address.parse("https://h/v1").key(None, {}) is None


def test_a_named_key_must_be_there_and_is_never_shown():
    with pytest.raises(DataError, match="export NOTHING="):
        Address.parse("https://h/v1").key("NOTHING", {})
    with pytest.raises(DataError, match="not the key itself") as caught:
        Address.parse("https://h/v1").key("sk-hunter2", {})
    assert "hunter2" not in str(caught.value)
    with pytest.raises(DataError, match="characters") as caught:
        Address.parse("https://h/v1").key("K", {"K": "hunter2\nx"})
    assert "hunter2" not in str(caught.value)
    secret = Secret("sk-hunter2")
    assert "hunter2" not in f"{secret!r} {secret} {[secret]}"
    assert secret.redact("wrong key sk-hunter2!") == "wrong key [key]!"


def test_proxies_are_not_used_for_this_machine(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    assert Address.parse("http://127.0.0.1:1/v1").proxy() is None
    assert Address.parse("http://inside.example/v1").proxy() is None
    assert Address.parse("http://outside.example/v1").proxy() == "http://proxy:3128"
    monkeypatch.setenv("http_proxy", "socks5://me:hunter2@proxy:1080")
    with pytest.raises(DataError, match="only http") as caught:
        Address.parse("http://outside.example/v1").proxy()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"retries": -1}, "retries"),
        ({"largest_reply": 10}, "largest_reply"),
        ({"text": "talk"}, "auto, completions, chat"),
        ({"extra": "{"}, "extra is not JSON"),
        ({"extra": "[1]"}, "JSON object"),
        ({"extra": '{"messages": []}'}, "messages"),
    ],
)
def test_settings_out_of_range_are_refused(given, says):
    with pytest.raises(DataError, match=says):
        HttpSettings(**given)


# -- turns ------------------------------------------------------------------------------------------


def test_callers_take_turns():
    async def scenario():
        gate, order = Gate(Limit(1)), []

        async def ask(caller):
            await gate.enter(caller)
            order.append(caller)
            await asyncio.sleep(0)
            gate.leave()

        await gate.enter("first")
        tasks = [asyncio.create_task(ask("many")) for _ in range(6)]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(ask("few")) for _ in range(2)]
        await asyncio.sleep(0)
        gate.leave()
        await asyncio.gather(*tasks)
        assert gate.inside == 0
        return order

    assert asyncio.run(scenario()) == ["many", "few", "many", "few", "many", "many", "many", "many"]


def test_never_more_inside_than_the_limit_and_no_place_is_lost_to_cancellation():
    async def scenario():
        gate, most = Gate(Limit(3)), 0

        async def ask(number):
            nonlocal most
            await gate.enter(number % 4)
            try:
                most = max(most, gate.inside)
                await asyncio.sleep(0.001 * (number % 3))
            finally:
                gate.leave()

        tasks = [asyncio.create_task(ask(number)) for number in range(60)]
        await asyncio.sleep(0.002)
        for task in tasks[::3]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (gate.inside, most) == (0, 3)
        await asyncio.wait_for(ask(0), 1)

    asyncio.run(scenario())


def test_a_place_given_at_the_moment_of_cancellation_goes_to_the_next():
    async def scenario():
        gate = Gate(Limit(1))
        await gate.enter("a")
        second = asyncio.create_task(gate.enter("b"))
        third = asyncio.create_task(gate.enter("c"))
        await asyncio.sleep(0)
        gate.leave()  # now it is b's
        second.cancel()
        await asyncio.wait_for(third, 1)
        assert gate.inside == 1

    asyncio.run(scenario())


def test_limit_grows_to_what_is_asked_for_and_no_further():
    limit = Limit()
    for _ in range(10 * LARGEST):
        limit.replied(0.05, full=True)
    assert limit.now == LARGEST
    idle = Limit()
    for _ in range(1000):
        idle.replied(0.05, full=False)
    assert idle.now == START
    fixed = Limit(7)
    for _ in range(100):
        fixed.replied(0.05, full=True)
        fixed.refused(1.0, 1.0)
    assert fixed.now == 7


def test_limit_settles_where_a_server_queues():
    limit, slots = Limit(), 32  # replies take as long as the queue is deep
    for _ in range(5000):
        limit.replied(max(1.0, limit.now / slots), full=True)
    assert slots <= limit.now <= 4 * slots


def test_limit_falls_to_what_a_server_admits():
    limit, admits, now = Limit(), 5, 0.0
    for _ in range(400):
        now += 1.0
        for number in range(limit.now):
            if number < admits:
                limit.replied(1.0, full=True)
            else:
                limit.refused(now - 1.0, now)
    assert 1 <= limit.now <= 10


def test_a_refusal_now_and_then_does_not_starve():
    limit, now = Limit(), 0.0
    for number in range(20_000):
        now += 0.01
        if number % 25 == 0:
            limit.refused(now, now)
        else:
            limit.replied(0.05, full=True)
    assert limit.now > START


# -- rates ------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 5), min_size=1, max_size=60), st.floats(6, 6000))
def test_no_minute_has_more_than_its_rate_and_a_second_s_worth(gaps, per_minute):
    bucket, now, starts = Bucket(per_minute, 0.0), 0.0, []
    for gap in gaps:
        now += gap
        starts.append(now + bucket.take(1, now))
    for i, begin in enumerate(starts):
        within = sum(begin <= each < begin + 60 for each in starts[i:])
        assert within <= per_minute + max(1.0, per_minute / 60) + 1


def test_what_is_larger_than_the_bucket_is_paid_for_afterwards():
    bucket = Bucket(600, 0.0)  # 10 a second
    assert bucket.take(100, 0.0) == 0.0
    assert bucket.take(10, 0.0) == pytest.approx(10.0)


def test_an_estimate_is_put_right():
    bucket = Bucket(600, 0.0)
    bucket.take(100, 0.0)
    bucket.put_back(90, 0.0)  # it was 10
    assert bucket.take(10, 0.0) == pytest.approx(1.0)
    dear = Bucket(600, 0.0)
    dear.take(5, 0.0)
    dear.put_back(-15, 0.0)  # it was 20
    assert dear.take(10, 0.0) == pytest.approx(2.0)


# -- waits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_what_may_pass_is_tried_again(status):
    assert may_pass(status)


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 413, 422])
def test_what_stays_is_not(status):
    assert not may_pass(status)


NOW = datetime(2026, 11, 28, 12, 0, 0, tzinfo=UTC)


def stamp(seconds):
    return format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"Retry-After": "3"}, 3.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-2"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "1e99"}, 86_400.0),
        ({"retry-after-ms": "250", "Retry-After": "1"}, 0.25),
        ({"Retry-After": stamp(7)}, 7.0),
        ({"Retry-After": stamp(-500)}, 0.0),
        # The server's clock is an hour ahead; what counts is the difference.
        ({"Retry-After": stamp(3607), "Date": stamp(3600)}, 7.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m2s"}, 62.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms"}, 0.02),
        ({"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "9s"}, None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6.5"}, 6.5),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "?"}, None),
    ],
)
def test_what_a_server_asks_to_wait(headers, expected):
    assert asked_wait(CIMultiDict(headers), wall=NOW.timestamp()) == (
        expected if expected is None else pytest.approx(expected)
    )


@given(st.text(max_size=40))
def test_no_header_is_too_strange(text):
    for name in ("Retry-After", "retry-after-ms", "Date", "x-ratelimit-reset-tokens"):
        wait = asked_wait({name: text, "x-ratelimit-remaining-tokens": "0"}, wall=0.0)
        assert wait is None or 0 <= wait <= 86_400


def test_waits_are_drawn_below_a_doubling_bound_and_never_below_what_was_asked():
    waits = Waits(0)
    drawn = [[waits.before(again, Failure("500", "")) for _ in range(200)] for again in range(1, 12)]
    for again, each in enumerate(drawn, 1):
        bound = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (again - 1))
        assert 0 <= min(each) < 0.1 * bound
        assert 0.9 * bound < max(each) <= bound
    assert all(waits.before(1, Failure("429", "", 5.0)) >= 5 for _ in range(20))
    assert Waits(3).before(4, Failure("500", "")) == Waits(3).before(4, Failure("500", ""))
