"""`HttpLM` where something is wrong: addresses, keys, models, prompts, replies; and how it is let go."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import traceback

import pytest
from aiohttp import web
from servers import EchoAnswers, ask, error, said, serving, talk

from posterhall.errors import DataError
from posterhall.lm import connect
from posterhall.lm.http import HttpLM, HttpSettings, ServerError


def test_the_only_model_of_a_server_need_not_be_named():
    with serving(EchoAnswers()) as server, connect(server.base) as lm:
        assert lm.name == f"{server.base}#echo"
        assert lm.generate([talk()])[0][0].text == "s deep"
    with (
        serving(EchoAnswers(models=("one", "two"))) as server,
        pytest.raises(DataError, match=r"one, two.*#one"),
    ):
        connect(server.base)


def test_options_of_a_connection_are_checked():
    with pytest.raises(DataError, match="concurrency"):
        connect("http://127.0.0.1:1/v1#m", concurency=3)
    with connect("http://127.0.0.1:1/v1", model="m", concurrency=3) as lm:
        assert lm.settings.concurrency == 3


@pytest.mark.parametrize("given", ["", "/", "/v1/", "/v1/chat/completions", "/api/v1"])
def test_an_address_that_is_not_quite_right_is_understood(given):
    prefix = "/api/v1" if "api" in given else "/v1"
    with serving(EchoAnswers(), prefix=prefix) as server:
        address = server.base.removesuffix(prefix) + given
        with HttpLM(f"{address}#echo") as lm:
            assert [each.text for [each] in lm.generate([talk(), talk("again")])] == ["s deep", "again"]
            assert lm.record()["base_url"] == server.base


def test_an_address_where_nothing_is_says_what_to_write():
    with (
        serving(EchoAnswers(), prefix="/somewhere") as server,
        HttpLM(server.base.replace("somewhere", "else") + "#echo") as lm,
    ):
        for request in (ask(), talk()):
            with pytest.raises(DataError, match=r"no API here.*#MODEL"):
                lm.generate([request])


def test_a_web_page_with_status_200_is_no_api():
    def page(path, sent):
        return web.Response(text="<html>Welcome</html>", content_type="text/html")

    with (
        serving(page) as server,
        HttpLM(f"{server.base}#m", HttpSettings(retries=2)) as lm,
        pytest.raises(ServerError, match=r"HTML.*Welcome"),
    ):
        lm.generate([talk()])


def test_nobody_there():
    with HttpLM("http://127.0.0.1:9/v1#m") as lm:
        with pytest.raises(ServerError, match=r"Connection refused.*is the server running"):
            lm.generate([talk()])
        assert lm.record()["failures"] == {"connection": 3}  # not as often as a server that was there


def test_redirects_are_not_followed_with_a_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hunter2")

    def elsewhere(path, sent):
        return web.Response(status=307, headers={"Location": "http://127.0.0.1:9/v1?key=sk-hunter2"})

    with serving(elsewhere) as server, HttpLM(f"{server.base}#m") as lm:
        with pytest.raises(DataError, match=r"redirects \(307\) to http://127.0.0.1:9") as caught:
            lm.generate([talk()])
        assert len(server.asked) == 1
        assert "hunter2" not in str(caught.value)


def test_a_wrong_key_is_said_without_showing_it(monkeypatch, caplog):
    monkeypatch.setenv("MINE", "sk-hunter2")

    def refuse(path, sent):
        return error(401, "Incorrect API key provided: sk-hunter2. You can find yours in your account.")

    settings = HttpSettings(api_key_env="MINE")
    with serving(refuse) as server, HttpLM(f"{server.base}#m", settings) as lm:
        with pytest.raises(DataError, match="does not accept the key in MINE") as caught:
            lm.generate([talk()])
        assert server.headers[0]["Authorization"] == "Bearer sk-hunter2"
        assert len(server.asked) == 1
        server.headers.clear()
        shown = "".join(
            traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
        )
        for text in (shown, caplog.text, repr(lm), repr(vars(lm)), json.dumps(lm.record()), lm.fingerprint()):
            assert "hunter2" not in text
    monkeypatch.delenv("MINE")
    with serving(refuse) as server, HttpLM(f"{server.base}#m") as lm:
        with pytest.raises(DataError, match=r"wants a key.*OPENAI_API_KEY"):
            lm.generate([talk()])
        assert "Authorization" not in server.headers[0]


def test_an_unknown_model_is_said_with_those_there_are():
    with serving(EchoAnswers(models=("llama-8b",))) as server, HttpLM(f"{server.base}#lama-8b") as lm:
        for request in (ask(), talk()):
            with pytest.raises(DataError, match=r"does not exist.*Did you mean: llama-8b"):
                lm.generate([request])
        with pytest.raises(DataError, match="llama-8b"):
            lm.score("a", ["b"])


def test_a_prompt_that_does_not_fit_is_said_with_its_size():
    def full(path, sent):
        return error(
            400, "This model's maximum context length is 16 tokens. However, you requested 40 tokens"
        )

    with serving(full) as server, HttpLM(f"{server.base}#m") as lm:
        for work in (lambda: lm.generate([talk("x" * 1000)]), lambda: lm.score("x" * 1000, ["y"])):
            with pytest.raises(DataError, match=r"too long.*about 25\d tokens.*16 tokens"):
                work()


def test_what_is_never_tried_again():
    for status in (400, 403, 413, 422):
        with serving(lambda path, sent, s=status: error(s, "no")) as server, HttpLM(f"{server.base}#m") as lm:
            with pytest.raises(DataError):
                lm.generate([talk()])
            assert len(server.asked) == 1


def test_a_quota_that_is_used_up_is_not_waited_for():
    answer = error(429, "You exceeded your current quota", code="insufficient_quota").text
    with (
        serving(
            lambda path, sent: web.Response(status=429, text=answer, content_type="application/json")
        ) as server,
        HttpLM(f"{server.base}#m") as lm,
    ):
        with pytest.raises(DataError, match="no quota left"):
            lm.generate([talk()])
        assert len(server.asked) == 1


def test_a_huge_reply_is_not_read():
    plain = json.dumps(said("x" * 300_000)).encode()

    def huge(path, sent):
        return web.Response(body=plain, content_type="application/json")

    def bomb(path, sent):
        packed = {"Content-Encoding": "gzip"}
        return web.Response(body=gzip.compress(plain), headers=packed, content_type="application/json")

    for answer in (huge, bomb):
        with serving(answer) as server:
            small = HttpSettings(largest_reply=100_000)
            with HttpLM(f"{server.base}#m", small) as lm, pytest.raises(ServerError, match="than 100 kB"):
                lm.generate([talk()])
            with HttpLM(f"{server.base}#m") as lm:
                assert len(lm.generate([talk()])[0][0].text) == 300_000


def test_many_loops_one_after_the_other(recwarn):
    with serving(EchoAnswers()) as server:
        lm = HttpLM(f"{server.base}#echo")
        for i in range(5):
            assert asyncio.run(lm.agenerate([talk(f"{i}")]))[0][0].text == f"{i}"
        assert len(lm._client._places) <= 2
        lm.close()
    assert not [each for each in recwarn if "nclosed" in str(each.message)]


def test_who_asks_for_little_does_not_wait_for_who_asks_for_much():
    async def scenario(lm):
        many = asyncio.create_task(lm.agenerate([talk(f"{i}") for i in range(300)]))
        await asyncio.sleep(0.05)
        await lm.agenerate([talk("a"), talk("b")])
        return many.done() or await many

    settings = HttpSettings(concurrency=4)
    with serving(EchoAnswers(), latency=0.005) as server, HttpLM(f"{server.base}#echo", settings) as lm:
        assert asyncio.run(scenario(lm)) is not True
        order = [sent["messages"][0]["content"] for _, sent in server.asked]
        assert order.index("b") - order.index("a") < 12


def test_a_model_that_is_let_go_without_being_closed_says_nothing(recwarn, caplog):
    with serving(EchoAnswers()) as server:
        lm = HttpLM(f"{server.base}#echo")
        lm.generate([talk()])
        asyncio.run(lm.agenerate([talk()]))
        del lm
        gc.collect()
        with HttpLM(f"{server.base}#echo") as other:
            other.generate([talk()])  # the loop has had time to close the connections
    assert not caplog.records
    assert not [each for each in recwarn if "nclosed" in str(each.message)]


def test_text_on_a_chat_server_whose_address_lacks_v1():
    with (
        serving(EchoAnswers(chat_only=True), latency=0.005) as server,
        HttpLM(server.base.removesuffix("/v1") + "#echo") as lm,
    ):
        assert [each.text for [each] in lm.generate([ask(f"number {i}") for i in range(9)])] == [
            f"number {i}"[-6:] for i in range(9)
        ]
        assert lm.record()["base_url"] == server.base
