"""The cache: what is asked again, what is not, and what several askers at once pay."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from fakes import Counting

from posterhall.errors import DataError, PosterhallError
from posterhall.lm import Budget, BudgetExceeded, Cached, Message, Meter, Metered, Request, Sample, Store
from posterhall.lm.flow import gather


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "cache.sqlite") as store:
        yield store


def test_the_second_time_nothing_is_asked_and_the_answer_is_the_same(store):
    inner = Counting()
    lm = Cached(inner, store)
    requests = [Request(f"p{i}", n=2) for i in range(5)]
    first = lm.generate(requests)
    assert lm.generate(requests) == first
    assert len(inner.asked) == 5
    assert first[0][0] != first[0][1]  # two samples, not one twice


def test_more_samples_pay_only_for_what_is_missing(store):
    inner = Counting()
    lm = Cached(inner, store)
    [three] = lm.generate([Request("p", n=3)])
    [ten] = lm.generate([Request("p", n=10)])
    assert ten[:3] == three
    assert inner.asked == [("p", 0, 3), ("p", 3, 7)]
    [late] = lm.generate([Request("p", first=8, n=4)])
    assert late[:2] == ten[8:]
    assert inner.asked[-1] == ("p", 10, 2)


def test_a_gap_in_the_middle_is_asked_for_by_itself(store):
    inner = Counting()
    lm = Cached(inner, store)
    lm.generate([Request("p", first=1, n=1), Request("p", first=4, n=1)])
    [six] = lm.generate([Request("p", n=6)])
    assert sorted(inner.asked[2:]) == [("p", 0, 1), ("p", 2, 2), ("p", 5, 1)]
    assert [each.text.split("/")[1] for each in six] == [*"012345"]


CHANGES = {
    "prompt": "other",
    "max_tokens": 7,
    "temperature": 0.5,
    "top_p": 0.5,
    "stop": ("x",),
    "seed": 1,
    "logprobs": True,
    "schema": "{}",
}


@pytest.mark.parametrize("name", CHANGES)
def test_whatever_may_change_the_answer_is_part_of_the_key(store, name):
    inner = Counting()
    lm = Cached(inner, store)
    lm.generate([Request("p"), replace(Request("p"), **{name: CHANGES[name]})])
    assert len(inner.asked) == 2


def test_every_field_of_a_request_was_thought_of():
    assert {*CHANGES, "n", "first"} == set(vars(Request("p")))


def test_a_conversation_is_not_the_text_that_looks_like_it(store):
    inner = Counting()
    lm = Cached(inner, store)
    chat = (Message("user", "a"), Message("assistant", "b"))
    lm.generate([Request(chat), Request('[["user","a"],["assistant","b"]]'), Request(chat[:1])])
    assert len(inner.asked) == 3


def test_another_model_is_asked_for_itself(store):
    one, two = Counting(name="one"), Counting(name="two")
    assert Cached(one, store).generate([Request("p")]) != Cached(two, store).generate([Request("p")])
    assert len(two.asked) == 1


def test_who_asks_at_the_same_time_shares_the_answer(store):
    inner = Counting(pause=0.01)
    lm = Cached(inner, store)

    async def main():
        async def ask(n):
            return (await lm.agenerate([Request("p", n=n)]))[0]

        return await gather(ask, [1, 3, 2, 3, 1], width=5)

    found = asyncio.run(main())
    assert all(each == found[1][: len(each)] for each in found)
    assert sum(n for _, _, n in inner.asked) == 3
    assert len(inner.asked) == 2


def test_the_same_request_many_times_in_one_call_is_paid_for_once(store):
    inner = Counting(pause=0.001)
    [first, *rest] = Cached(inner, store).generate([Request("p")] * 20)
    assert rest == [first] * 19
    assert len(inner.asked) == 1


def test_who_gives_up_leaves_the_others_to_ask(store):
    inner = Counting(pause=0.02)
    lm = Cached(inner, store)

    async def main():
        impatient = asyncio.create_task(lm.agenerate([Request("p")]))
        await asyncio.sleep(0.005)
        patient = asyncio.create_task(lm.agenerate([Request("p")]))
        await asyncio.sleep(0.005)
        impatient.cancel()
        return await patient

    [[sample]] = asyncio.run(main())
    assert sample.text.startswith("p/0/")
    assert len(inner.asked) == 2


def test_who_waits_and_is_cancelled_does_not_stop_who_asks(store):
    inner = Counting(pause=0.02)
    lm = Cached(inner, store)

    async def main():
        asking = asyncio.create_task(lm.agenerate([Request("p")]))
        await asyncio.sleep(0.005)
        waiting = asyncio.create_task(lm.agenerate([Request("p")]))
        await asyncio.sleep(0.005)
        waiting.cancel()
        return await asking

    assert len(asyncio.run(main())) == 1
    assert len(inner.asked) == 1


def test_an_error_reaches_all_who_wait_and_is_not_kept(store):
    wrong = [DataError("too long")]
    inner = Counting(pause=0.01, fail=lambda request: wrong[0] if wrong else None)
    lm = Cached(inner, store)

    async def main():
        tasks = [asyncio.create_task(lm.agenerate([Request("p")])) for _ in range(3)]
        return await asyncio.gather(*tasks, return_exceptions=True)

    assert [str(each) for each in asyncio.run(main())] == ["too long"] * 3
    assert len(inner.asked) == 1
    wrong.clear()
    assert lm.generate([Request("p")])


def test_the_budget_of_one_part_does_not_stop_another_that_waits(store):
    meter = Meter()
    inner = Counting()
    lm = Cached(Metered(inner, meter), store)

    async def main():
        async def poor():
            with meter.scope(Budget(calls=0)):
                await lm.agenerate([Request("p")])

        async def rich():
            with meter.scope():
                return await lm.agenerate([Request("p")])

        return await asyncio.gather(poor(), rich(), return_exceptions=True)

    refused, answered = asyncio.run(main())
    assert isinstance(refused, BudgetExceeded)
    assert answered[0][0].text.startswith("p/0/")


def test_scores_and_vectors_are_kept_one_by_one(store):
    inner = Counting()
    lm = Cached(inner, store)
    first = lm.score("p", ["a", "bb"])
    again = lm.score("p", ["bb", "ccc", "a"])
    assert [again[2], again[0]] == first
    assert inner.asked == [("p", ("a", "bb")), ("p", ("ccc",))]
    vectors = lm.embed(["x", "yy"])
    np.testing.assert_array_equal(lm.embed(["yy", "zzz", "x"])[[2, 0]], vectors)
    assert inner.asked[2:] == [("x", "yy"), ("zzz",)]


def test_odd_texts_and_minus_infinity_come_back_as_they_were(store):
    odd = Sample("\ud800 \0 é", "filter", 1, 2, ("a", "\n"), (-float("inf"), -0.5), 3, 4, estimated=True)

    class Odd(Counting):
        async def agenerate(self, requests):
            return [[odd] for _ in requests]

    lm = Cached(Odd(), store)
    assert lm.generate([Request("\udfff")]) == lm.generate([Request("\udfff")]) == [[odd]]


def test_the_file_is_its_owners_alone_and_holds_no_prompt(tmp_path):
    path = tmp_path / "deep" / "cache.sqlite"
    with Store(path) as store:
        Cached(Counting(), store).generate([Request("my secret prompt", temperature=0.0)])
        modes = {stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    assert modes == {0o600}


def test_what_was_answered_survives_a_kill(tmp_path):
    code = f"""
import os
from posterhall.lm import Cached, EchoLM, Request, Store
lm = Cached(EchoLM(), Store({str(tmp_path / "c")!r}))
lm.generate([Request(f"p{{i}}") for i in range(50)])
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    with Store(tmp_path / "c") as store:
        assert store.contents().answers == 50


def test_several_processes_may_write_at_once(tmp_path):
    code = """
import sys
from posterhall.lm import Cached, EchoLM, Request, Store
with Store(sys.argv[1]) as store:
    lm = Cached(EchoLM(), store)
    for i in range(100):
        lm.generate([Request(f"{sys.argv[2]} {i}"), Request(f"shared {i}")])
"""
    path = tmp_path / "c"
    running = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "ab"]
    assert [each.wait() for each in running] == [0, 0]
    with Store(path) as store:
        assert store.contents().answers == 300


def test_a_forked_process_uses_a_connection_of_its_own(store):
    store.put([(b"k", 0, "parent")])
    child = os.fork()
    if child == 0:
        store.put([(b"k", 1, "child")])
        os._exit(0 if store.get(b"k", 0, 2) == {0: "parent", 1: "child"} else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert store.get(b"k", 0, 5) == {0: "parent", 1: "child"}


def test_when_it_is_full_what_was_not_used_longest_goes(tmp_path):
    now = [0.0]
    with Store(tmp_path / "c", largest=400_000, clock=lambda: now[0]) as store:
        for i in range(200):
            now[0] += 10_000
            store.put([(b"%d" % i, 0, "x" * 4000)])
            assert store.get(b"0", 0, 1)  # used all the time
        assert store.contents().bytes <= 410_000
        assert store.get(b"0", 0, 1)
        assert store.get(b"199", 0, 1)
        assert not store.get(b"1", 0, 1)


def test_the_size_limit_is_also_kept_by_a_new_process(tmp_path):
    with Store(tmp_path / "c") as store:
        store.put([(b"%d" % i, 0, "x" * 4000) for i in range(200)])
    with Store(tmp_path / "c", largest=200_000) as store:
        store.put([(b"new", 0, "x" * 5000)])
        assert store.contents().bytes <= 200_000


def test_clearing_drops_all_or_what_is_old(tmp_path):
    now = [100.0]
    with Store(tmp_path / "c", clock=lambda: now[0]) as store:
        store.put([(b"old", 0, "x")])
        now[0] = 200.0
        store.put([(b"new", 0, "x")])
        assert store.clear(before=150) == 1
        assert store.contents().answers == 1
        assert store.clear() == 1
        assert store.contents().oldest is None


def test_what_is_no_cache_is_left_alone(tmp_path):
    text = tmp_path / "text"
    text.write_text("a diary, and not a database at all. " * 50)
    with pytest.raises(DataError, match="not a cache"):
        Store(text)
    assert text.read_text().startswith("a diary")

    other = tmp_path / "other"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    with pytest.raises(DataError, match="something else"):
        Store(other)

    newer = tmp_path / "newer"
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(DataError, match="version 99"):
        Store(newer)


def test_a_broken_answer_is_named(store):
    inner = Counting()
    lm = Cached(inner, store)
    lm.generate([Request("p")])
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE answers SET value = 'not json'")
    connection.close()
    with pytest.raises(PosterhallError, match="cannot be read"):
        lm.generate([Request("p")])
