"""A local model behind the server: the same as in process, token by token, and through our own client."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

torch = pytest.importorskip("torch")

from posterhall.data.tokenizer import ByteTokenizer, train_bpe  # noqa: E402
from posterhall.lm import LocalLM, Message, Request, connect  # noqa: E402
from posterhall.lm.server.running import running  # noqa: E402
from posterhall.models import Decoder, DecoderConfig  # noqa: E402
from posterhall.models.generate import generate  # noqa: E402

torch.set_num_threads(1)

PROMPTS = ["The sea is deep", "A cat sat", "né, 日本", "x" * 30, "Once"] * 4


def local(tokenizer=None, **more):
    tokenizer = tokenizer or ByteTokenizer()
    shape = {"dim": 32, "layers": 2, "heads": 4, "max_length": 128, "init_std": 0.3, **more}
    return LocalLM(Decoder(DecoderConfig(vocab_size=tokenizer.vocab_size, **shape), seed=2), tokenizer)


@pytest.fixture(scope="module", params=["byte", "bpe"])
def lm(request):
    if request.param == "byte":
        return local()
    return local(train_bpe(["the cat sat on the mat, and the sea is deep " * 9], 300))


def with_server(lm, story):
    async def run():
        async with running({"tiny": lm}) as address, aiohttp.ClientSession() as session:

            async def post(path, **body):
                async with session.post(f"{address}{path}", json={"model": "tiny", **body}) as reply:
                    assert reply.status == 200, await reply.text()
                    return await (reply.text() if body.get("stream") else reply.json())

            return await story(post, address)

    return asyncio.run(run())


def test_many_clients_get_the_greedy_text_of_model_generate(lm):
    start = [] if lm.tokenizer.bos_id is None else [lm.tokenizer.bos_id]
    rows = [[*start, *lm.tokenizer.encode(each)] for each in PROMPTS]
    ends = () if lm.tokenizer.eos_id is None else (lm.tokenizer.eos_id,)
    expected = [
        lm.tokenizer.decode(each.ids)
        for each in generate(lm.model, rows, max_new_tokens=20, temperature=0.0, stop_ids=ends)
    ]

    async def story(post, _):
        asked = (post("/completions", prompt=each, max_tokens=20, temperature=0) for each in PROMPTS)
        return [each["choices"][0]["text"] for each in await asyncio.gather(*asked)]

    assert with_server(lm, story) == expected


def test_echoed_log_probabilities_are_those_of_score(lm):
    pairs = [("The sea is", " deep"), ("A cat", " sat on"), ("né, ", "日本")]

    async def story(post, _):
        return [
            (await post("/completions", prompt=a + b, max_tokens=0, echo=True, logprobs=1))["choices"][0]
            for a, b in pairs
        ]

    for (prompt, continuation), choice in zip(pairs, with_server(lm, story), strict=True):
        [scored] = lm.score(prompt, [continuation])
        told = choice["logprobs"]
        size = len(scored.tokens)
        assert told["tokens"][-size:] == list(scored.tokens)
        assert told["token_logprobs"][-size:] == pytest.approx(scored.logprobs, abs=1e-4)
        for token, own, best in zip(
            told["tokens"], told["token_logprobs"], told["top_logprobs"], strict=True
        ):
            assert max(best.values()) >= own - 1e-6
            assert token in best or own == pytest.approx(max(best.values()))


def test_a_stream_comes_in_pieces_and_is_the_same_text(lm):
    async def story(post, _):
        body = {
            "messages": [{"role": "user", "content": "Hi"}],
            "max_tokens": 24,
            "seed": 5,
            "logprobs": True,
        }
        whole = await post("/chat/completions", **body)
        return whole, await post("/chat/completions", **body, stream=True)

    whole, stream = with_server(lm, story)
    found = [json.loads(line[6:])["choices"][0] for line in stream.split("\n\n") if "{" in line]
    texts = [each["delta"].get("content") or "" for each in found]
    assert "".join(texts) == whole["choices"][0]["message"]["content"]
    assert sum(map(bool, texts)) > 1
    told = [token for each in found if each["logprobs"] for token in each["logprobs"]["content"]]
    assert [each["token"] for each in told] == [
        each["token"] for each in whole["choices"][0]["logprobs"]["content"]
    ]


def test_a_prompt_that_is_too_long_is_the_clients_mistake():
    async def run():
        async with running({"tiny": local()}) as address, aiohttp.ClientSession() as session:
            for stream in (False, True):
                body = {"model": "tiny", "prompt": "x" * 500, "stream": stream}
                async with session.post(f"{address}/completions", json=body) as reply:
                    yield reply.status, (await reply.json())["error"]

    async def collect():
        return [each async for each in run()]

    for status, error in asyncio.run(collect()):
        assert status == 400
        assert error["code"] == "context_length_exceeded"
        assert "501 tokens, and the model's context is 128" in error["message"]


def test_our_own_client_finds_the_same_model_behind_the_server(lm):
    requests = [Request(each, max_tokens=12, temperature=0.0, logprobs=True) for each in PROMPTS[:5]]
    chat = Request((Message("user", "Hi"),), max_tokens=9, temperature=0.0)
    # A stop text, so that samples of one request come to different numbers of tokens.
    several = Request("The sea", max_tokens=20, seed=4, n=6, stop=("e", " "))
    items = [("The sea is", [" deep", " wide"]), ("A cat", [" sat"])]

    async def story(_, address):
        remote = connect(f"{address}#tiny")
        try:
            return (
                await remote.agenerate(requests),
                await remote.agenerate([chat]),
                await remote.agenerate([several]),
                await remote.ascore(items),
                await remote.aembed(["a", "bc"]),
            )
        finally:
            await remote.aclose()

    drawn, talked, [choices], scored, vectors = with_server(lm, story)
    for [found], [expected] in zip(drawn, lm.generate(requests), strict=True):
        assert (found.text, found.tokens_in, found.tokens_out) == (
            expected.text, expected.tokens_in, expected.tokens_out
        )  # fmt: skip
        assert found.finish_reason == expected.finish_reason
        assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
    assert talked[0][0].text == lm.generate([chat])[0][0].text
    own = [(each.text, each.tokens_out) for each in lm.generate([several])[0]]
    assert len({tokens for _, tokens in own}) > 1
    assert [(each.text, each.tokens_out) for each in choices] == own
    for found, expected in zip(scored, lm.score_many(items), strict=True):
        for a, b in zip(found, expected, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
            assert a.is_greedy == b.is_greedy
    assert vectors == pytest.approx(lm.embed(["a", "bc"]), abs=1e-5)
