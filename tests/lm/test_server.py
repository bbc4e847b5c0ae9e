"""The OpenAI-compatible server over HTTP: what it answers, streams and refuses; who may ask; how it ends."""

from __future__ import annotations

import asyncio
import base64
import io
import json

import aiohttp
import numpy as np
import pytest

from posterhall.errors import DataError
from posterhall.lm import LM, EchoLM, Request, Sample
from posterhall.lm.server import replies
from posterhall.lm.server.running import is_loopback, running


class Slow(LM):
    """Takes its time, and remembers how many were let go."""

    def __init__(self, seconds=30.0):
        self.name = "slow"
        self.seconds = seconds
        self.started = self.cancelled = self.finished = 0

    async def agenerate(self, requests):
        self.started += 1
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.finished += 1
        return [[Sample("done", "stop", 1, 1)] * each.n for each in requests]


class Broken(LM):
    """Fails."""

    name = "broken"

    async def agenerate(self, requests):
        raise RuntimeError("secret of the inside")


class Formal(LM):
    """Follows schemas, and says them."""

    name = "formal"
    enforces_schema = True

    async def agenerate(self, requests):
        return [
            [Sample(str(each.schema), "stop", 1, 1, tokens_cached=1, tokens_hidden=1)] for each in requests
        ]


def ask(path, body=None, *, models=None, headers=None, token=None, raw=None, method=None):
    """Status and JSON of one request."""

    async def once():
        async with (
            running(models or {"echo": EchoLM()}, token=token) as address,
            aiohttp.ClientSession() as session,
        ):
            url = address.removesuffix("/v1") + path
            verb = method or ("GET" if body is None and raw is None else "POST")
            sent = raw if raw is not None else (None if body is None else json.dumps(body))
            given = {"Content-Type": "application/json"} if sent is not None else {}
            async with session.request(verb, url, data=sent, headers={**given, **(headers or {})}) as reply:
                text = await reply.text()
                return reply.status, (json.loads(text) if reply.content_type == "application/json" else text)

    return asyncio.run(once())


def events(text):
    """The objects of a stream."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


HELLO = [{"role": "user", "content": "Hello"}]


def chat(**more):
    return ask("/v1/chat/completions", {"model": "echo", "messages": HELLO, **more})


def complete(**more):
    return ask("/v1/completions", {"model": "echo", "prompt": "Hello, world", **more})


def test_models_are_listed():
    status, found = ask("/v1/models")
    assert status == 200
    assert [each["id"] for each in found["data"]] == ["echo"]
    assert ask("/v1/models/echo")[1] == found["data"][0]
    assert ask("/v1/models/owner/name", models={"owner/name": EchoLM()})[1]["id"] == "owner/name"
    assert ask("/health")[1] == {"status": "ok", "models": ["echo"]}


def test_a_chat_is_answered():
    status, reply = chat(max_completion_tokens=5, n=2)
    assert status == 200
    assert reply["object"] == "chat.completion"
    assert reply["model"] == "echo"
    assert [each["index"] for each in reply["choices"]] == [0, 1]
    first = reply["choices"][0]
    assert first["message"] == {"role": "assistant", "content": "tant:", "refusal": None}
    assert first["finish_reason"] == "length"
    assert first["usage"] == {"completion_tokens": 5}
    assert "usage" not in chat()[1]["choices"][0]
    prompt = len("User: Hello\n\nAssistant:")
    assert reply["usage"] == {"prompt_tokens": prompt, "completion_tokens": 10, "total_tokens": prompt + 10}


def test_messages_may_be_in_parts_and_of_developers():
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    _, reply = chat(messages=[{"role": "developer", "content": "x"}, {"role": "user", "content": parts}])
    assert reply["choices"][0]["message"]["content"] == "System: x\n\nUser: Hello\n\nAssistant:"
    assert reply["choices"][0]["finish_reason"] == "stop"


def test_prompts_are_completed_in_order():
    status, reply = complete(prompt=["abc", "de"], n=2, max_tokens=2)
    assert status == 200
    assert [each["text"] for each in reply["choices"]] == ["bc", "bc", "de", "de"]
    assert [each["index"] for each in reply["choices"]] == [0, 1, 2, 3]
    assert reply["usage"] == {"prompt_tokens": 5, "completion_tokens": 8, "total_tokens": 13}


def test_stop_and_default_length():
    assert complete(stop=",")[1]["choices"][0]["text"] == "Hello"
    assert complete(stop=["w", ","])[1]["choices"][0]["text"] == "Hello"
    assert len(complete(prompt="x" * 99)[1]["choices"][0]["text"]) == 16


def test_a_prompt_is_scored_by_echo():
    _, reply = complete(prompt="né!", max_tokens=0, echo=True, logprobs=1)
    [choice] = reply["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("né!", "length")
    assert choice["logprobs"]["token_logprobs"] == pytest.approx([-np.log(256)] * 4)
    assert reply["usage"]["prompt_tokens"] == 4
    _, reply = complete(max_tokens=3, echo=True, logprobs=0)
    [choice] = reply["choices"]
    assert choice["text"] == "Hello, world" + "rld"
    assert "".join(choice["logprobs"]["tokens"]) == choice["text"]
    assert choice["logprobs"]["text_offset"] == list(range(15))


def test_log_probabilities_of_a_chat():
    _, reply = chat(max_tokens=3, logprobs=True)
    content = reply["choices"][0]["logprobs"]["content"]
    assert [each["token"] for each in content] == ["n", "t", ":"]
    assert content[0]["bytes"] == [110]
    assert content[0]["logprob"] == pytest.approx(-np.log(256))


def test_vectors_as_numbers_and_as_base64():
    expected = EchoLM().embed(["ab", "c"])
    _, reply = ask("/v1/embeddings", {"model": "echo", "input": ["ab", "c"]})
    assert np.array([each["embedding"] for each in reply["data"]]) == pytest.approx(expected)
    assert reply["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    _, reply = ask("/v1/embeddings", {"model": "echo", "input": "ab", "encoding_format": "base64"})
    decoded = np.frombuffer(base64.b64decode(reply["data"][0]["embedding"]), "<f4")
    assert decoded == pytest.approx(expected[0])


def test_a_chat_is_streamed():
    status, text = chat(max_tokens=4, stream=True, stream_options={"include_usage": True}, n=2)
    assert status == 200
    *found, last = events(text)
    assert all(each["object"] == "chat.completion.chunk" and each["usage"] is None for each in found)
    assert len({each["id"] for each in found}) == 1
    for index in (0, 1):
        own = [each["choices"][0] for each in found if each["choices"][0]["index"] == index]
        assert own[0]["delta"]["role"] == "assistant"
        assert "".join(each["delta"].get("content") or "" for each in own) == "ant:"
        assert [each["finish_reason"] for each in own] == [None] * (len(own) - 1) + ["length"]
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 8


def test_completions_are_streamed():
    _, text = complete(prompt=["abc", "xyz"], max_tokens=2, stream=True, echo=True)
    found = [each["choices"][0] for each in events(text)]
    texts = ["".join(each["text"] for each in found if each["index"] == index) for index in (0, 1)]
    assert texts == ["abcbc", "xyzyz"]
    _, text = complete(max_tokens=3, stream=True, logprobs=0)
    found = [each["choices"][0] for each in events(text)]
    told = [each["logprobs"] for each in found if each["logprobs"]]
    assert [token for each in told for token in each["tokens"]] == ["r", "l", "d"]
    assert [place for each in told for place in each["text_offset"]] == [0, 1, 2]


def test_a_schema_is_passed_to_who_follows_it():
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    body = {"model": "formal", "messages": HELLO, "response_format": form}
    status, reply = ask("/v1/chat/completions", body, models={"formal": Formal()})
    assert status == 200
    assert reply["choices"][0]["message"]["content"] == '{"type": "object"}'
    assert reply["usage"]["prompt_tokens_details"] == {"cached_tokens": 1}
    assert reply["usage"]["completion_tokens_details"] == {"reasoning_tokens": 1}
    status, reply = chat(response_format=form)
    assert status == 400
    assert reply["error"]["param"] == "response_format"


# -- what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message", "param"),
    [
        ({"messages": []}, "one or more messages", "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "role' is 'robot'", "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "not text", None),
        ({"messages": [{"role": "user"}]}, "must be text", "messages[0].content"),
        ({"temperature": -1}, "temperature", None),
        ({"temperature": "hot"}, "must be a number", "temperature"),
        ({"temperature": True}, "must be a number", "temperature"),
        ({"top_p": 0}, "top_p", None),
        ({"n": 0}, "whole number, at least 1", "n"),
        ({"n": 10**6}, "at most", "n"),
        ({"max_tokens": 0}, "at least 1", "max_tokens"),
        ({"max_tokens": 1.5}, "whole number", "max_tokens"),
        ({"stop": ""}, "none of them empty", "stop"),
        ({"stop": [1]}, "list of texts", "stop"),
        ({"stream": "yes"}, "true or false", "stream"),
        ({"stream_options": {}}, "goes with 'stream'", "stream_options"),
        ({"tools": [{}]}, "Unsupported parameter", "tools"),
        ({"presence_penalty": 1}, "Unsupported parameter", "presence_penalty"),
        ({"top_logprobs": 2}, "Unsupported parameter", "top_logprobs"),
        ({"response_format": {"type": "json_object"}}, "not supported", "response_format"),
        ({"best_of": 3}, "best_of", "best_of"),
        ({"colour": "red"}, "Unrecognized request argument supplied: colour", "colour"),
        ({"model": None}, "model parameter", "model"),
    ],
)
def test_what_cannot_be_done_is_refused(more, message, param):
    status, reply = chat(**more)
    assert status == 400
    assert message in reply["error"]["message"]
    assert reply["error"]["type"] == "invalid_request_error"
    if param:
        assert reply["error"]["param"] == param


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"prompt": [1, 2]}, "Numbers of tokens"),
        ({"prompt": []}, "list of texts"),
        ({"suffix": "end"}, "Unsupported parameter: 'suffix'"),
        ({"max_tokens": 0}, "without 'echo'"),
        ({"logprobs": 5}, "'logprobs' is 5"),
        ({"echo": True, "logprobs": 1, "stream": True}, "cannot be streamed"),
    ],
)
def test_completions_that_cannot_be_done(more, message):
    status, reply = complete(**more)
    assert status == 400
    assert message in reply["error"]["message"]


@pytest.mark.parametrize(
    "more", [{"user": "me"}, {"presence_penalty": 0}, {"tools": []}, {"logit_bias": {}}, {"seed": None}]
)
def test_what_changes_nothing_is_let_through(more):
    assert chat(**more)[0] == 200


def test_unknown_models_places_and_methods():
    status, reply = chat(model="ecko")
    assert status == 404
    assert reply["error"]["code"] == "model_not_found"
    assert "Did you mean: echo?" in reply["error"]["message"]
    assert ask("/v1/nothing")[0] == 404
    assert "/v1" in ask("/chat/completions", {})[1]["error"]["message"]
    status, reply = ask("/v1/chat/completions", method="GET")
    assert status == 405
    assert "POST" in reply["error"]["message"]


def test_bodies_that_are_none():
    for raw in ("", "{", "[1]", "null", "[" * 100_000):
        status, reply = ask("/v1/chat/completions", raw=raw)
        assert status == 400
        assert "body" in reply["error"]["message"]
    status, reply = ask("/v1/embeddings", raw=io.BytesIO(b" " * ((16 << 20) + 1)))
    assert status == 413
    assert "larger than 16 MB" in reply["error"]["message"]
    headers = {"Content-Type": "text/plain"}  # what a page in a browser can send anywhere
    assert ask("/v1/completions", raw="{}", headers=headers)[0] == 415


def test_the_inside_of_a_failure_stays_inside(capsys):
    for stream in (False, True):
        body = {"model": "broken", "messages": HELLO, "stream": stream}
        status, reply = ask("/v1/chat/completions", body, models={"broken": Broken()})
        assert status == 500
        assert reply["error"]["type"] == "server_error"
        assert "secret" not in json.dumps(reply)
    assert "secret of the inside" in capsys.readouterr().err


def test_what_a_model_cannot_do_is_the_askers_mistake():
    models = {"formal": Formal()}
    status, reply = ask("/v1/embeddings", {"model": "formal", "input": "x"}, models=models)
    assert status == 400
    assert "cannot embed" in reply["error"]["message"]
    body = {"model": "formal", "messages": HELLO, "logprobs": True}
    assert (
        "'logprobs' is not supported"
        in ask("/v1/chat/completions", body, models=models)[1]["error"]["message"]
    )


# -- who may ask, and the end -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        ("Bearer ", 401),
        ("Basic secret", 401),
        ("Bearer sécret", 401),
        ("Bearer secret", 200),
        ("bearer  secret ", 200),
    ],
)
def test_only_the_token_opens(header, status):
    headers = {"Authorization": header} if header else {}
    found, reply = ask("/v1/models", token="secret", headers=headers)
    assert found == status
    if status == 401:
        assert reply["error"]["code"] == "invalid_api_key"
        assert "secret" not in reply["error"]["message"].replace("'Authorization: Bearer TOKEN'", "")
    assert ask("/health", token="secret")[0] == 200


@pytest.mark.parametrize("stream", [False, True])
def test_who_goes_away_is_not_worked_for(stream):
    slow = Slow()

    async def story():
        async with running({"slow": slow}) as address, aiohttp.ClientSession() as session:
            body = {"model": "slow", "messages": HELLO, "stream": stream}
            with pytest.raises(asyncio.TimeoutError):
                await session.post(
                    f"{address}/chat/completions", json=body, timeout=aiohttp.ClientTimeout(total=0.2)
                )
            for _ in range(100):
                if slow.cancelled:
                    break
                await asyncio.sleep(0.02)

    asyncio.run(story())
    assert (slow.started, slow.cancelled) == (1, 1)


def test_requests_under_way_are_finished_at_the_end():
    slow = Slow(0.3)

    async def story():
        async with aiohttp.ClientSession() as session:
            async with running({"slow": slow}) as address:
                body = {"model": "slow", "messages": HELLO}
                asked = asyncio.create_task(session.post(f"{address}/chat/completions", json=body))
                while not slow.started:
                    await asyncio.sleep(0.01)
            return (await asked).status

    assert asyncio.run(story()) == 200
    assert slow.finished == 1


def test_an_address_that_is_taken():
    async def twice():
        async with running({"echo": EchoLM()}) as address:
            port = int(address.split(":")[-1].removesuffix("/v1"))
            async with running({"echo": EchoLM()}, port=port):
                pass

    with pytest.raises(DataError, match=r"cannot listen at 127\.0\.0\.1"):
        asyncio.run(twice())


def test_loopback_addresses():
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1", "127.3.2.1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.1", "example.org", "")))


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        ("abc", ["a", "b", "c"], [0, 1, 2]),
        ("né!", ["n", "\ufffd", "\ufffd", "!"], [0, 1, 1, 2]),
        ("日本a", ["\ufffd"] * 6 + ["a"], [0] * 6 + [2]),
        ("aé", ["a", "\ufffd", "\ufffd"], [0, 1, 1]),
        ("", [], []),
    ],
)
def test_offsets_of_tokens(text, tokens, expected):
    assert replies.offsets(text, tokens) == expected


# -- the official client ----------------------------------------------------------------------------


def test_the_official_client():
    openai = pytest.importorskip("openai")

    async def story():
        async with (
            running({"echo": EchoLM()}, token="k") as address,
            openai.AsyncOpenAI(base_url=address, api_key="k", max_retries=0) as client,
        ):
            assert [each.id async for each in client.models.list()] == ["echo"]
            reply = await client.chat.completions.create(model="echo", messages=HELLO, max_tokens=4)
            assert reply.choices[0].message.content == "ant:"
            stream = await client.chat.completions.create(
                model="echo",
                messages=HELLO,
                max_tokens=4,
                stream=True,
                stream_options={"include_usage": True},
            )
            chunks = [chunk async for chunk in stream]
            assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "ant:"
            assert chunks[-1].usage.completion_tokens == 4
            scored = await client.completions.create(
                model="echo", prompt="abc", max_tokens=0, echo=True, logprobs=1
            )
            assert scored.choices[0].logprobs.tokens == ["a", "b", "c"]
            vectors = await client.embeddings.create(model="echo", input=["a", "b"])  # in base64
            assert vectors.data[1].embedding == pytest.approx(EchoLM().embed(["b"])[0].tolist())
            with pytest.raises(openai.NotFoundError, match="does not exist"):
                await client.chat.completions.create(model="gpt", messages=HELLO)
            with pytest.raises(openai.BadRequestError, match="Unsupported parameter"):
                await client.chat.completions.create(model="echo", messages=HELLO, presence_penalty=1)
            async with openai.AsyncOpenAI(base_url=address, api_key="no", max_retries=0) as stranger:
                with pytest.raises(openai.AuthenticationError):
                    await stranger.models.list()

    asyncio.run(story())


def test_requests_without_a_seed_differ():
    seeds = []

    class Watching(EchoLM):
        async def agenerate(self, requests):
            seeds.extend(each.seed for each in requests)
            return await super().agenerate(requests)

    for seed in (None, None, 7):
        ask("/v1/completions", {"model": "e", "prompt": "x", "seed": seed}, models={"e": Watching()})
    assert seeds[0] != seeds[1]
    assert seeds[2] == 7
    assert Request("x").seed is None
