"""What every language model must do, however it does it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from posterhall.errors import DataError
from posterhall.lm import LM, Message, Request, Scored, Unsupported

PROMPT = "The sea is deep, and the sky"


def check_lm(
    make: Callable[[], LM], *, scores: bool = True, embeds: bool = True, samples: bool = True
) -> None:
    """Hold a model to the protocol.

    Args:
        make: makes the model anew; it must answer any prompt.
        scores: whether it can score.
        embeds: whether it can embed.
        samples: whether it draws from a distribution (and gives log-probabilities), or says fixed things.
    """
    with make() as lm:
        assert lm.name
        check_generation(lm)
        if samples:
            check_sampling(lm)
            check_logprobs(lm)
        if scores:
            check_scores(lm)
        else:
            with pytest.raises(Unsupported):
                lm.score(PROMPT, [" is blue"])
        if embeds:
            check_embeddings(lm)
        else:
            with pytest.raises(Unsupported):
                lm.embed([PROMPT])
        lm.close()  # a second time does no harm


def check_generation(lm: LM) -> None:
    assert lm.generate([]) == []
    greedy = Request(PROMPT, max_tokens=5, temperature=0.0)
    [[sample]] = lm.generate([greedy])
    assert sample.text == lm.generate([greedy])[0][0].text
    assert 0 <= sample.tokens_out <= 5
    assert sample.tokens_in > 0
    assert sample.finish_reason in ("stop", "length")
    assert sample.tokens is None
    assert sample.logprobs is None

    requests = [
        greedy,
        Request("Another prompt altogether, a longer one: ", max_tokens=9, temperature=0.0, n=3),
        Request((Message("user", "Who are you?"),), max_tokens=2, temperature=0.0),
    ]
    together = lm.generate(requests)
    assert [len(each) for each in together] == [1, 3, 1]
    assert together == [lm.generate([each])[0] for each in requests]
    assert together == lm.generate(requests[::-1])[::-1]
    assert together == asyncio.run(lm.agenerate(requests))

    async def from_a_loop() -> object:
        return lm.generate(requests)  # as in a notebook

    assert together == asyncio.run(from_a_loop())

    [[whole]] = lm.generate([Request(PROMPT, max_tokens=12, temperature=0.0)])
    if len(whole.text) > 3:
        stop = whole.text[2:4]
        [[cut]] = lm.generate([Request(PROMPT, max_tokens=12, temperature=0.0, stop=("\0never", stop))])
        assert cut.text == whole.text[: whole.text.index(stop)]
        assert cut.finish_reason == "stop"
        assert cut.tokens_out <= whole.tokens_out


def check_sampling(lm: LM) -> None:
    request = Request(PROMPT, max_tokens=8, temperature=1.0, seed=3, n=4)
    [drawn] = lm.generate([request])
    assert [drawn] == lm.generate([request])
    others = [Request("Elsewhere", max_tokens=20, seed=i) for i in range(5)]
    assert lm.generate([*others, request])[-1] == drawn
    [fewer] = lm.generate([replace(request, n=2)])
    assert fewer == drawn[:2]  # a sample follows from its number, not from how many there are
    [other] = lm.generate([replace(request, seed=4)])
    if len({each.text for each in drawn}) > 1:  # not a model that always says the same
        assert other != drawn


def check_logprobs(lm: LM) -> None:
    [[sample]] = lm.generate([Request(PROMPT, max_tokens=6, temperature=0.0, logprobs=True)])
    assert sample.tokens is not None
    assert sample.logprobs is not None
    assert len(sample.tokens) == len(sample.logprobs)
    assert all(each <= 0 for each in sample.logprobs)


def check_scores(lm: LM) -> None:
    assert lm.score_many([]) == []
    assert lm.score(PROMPT, []) == []
    options = [" is blue", " is", " is high and blue", " was"]
    scored = lm.score(PROMPT, options)
    assert [each.continuation for each in scored] == options
    for each, option in zip(scored, options, strict=True):
        assert len(each.tokens) == len(each.logprobs) > 0
        assert all(logprob <= 0 for logprob in each.logprobs)
        assert each.total == pytest.approx(sum(each.logprobs))
        assert each.bytes == len(option.encode())
        assert isinstance(each.is_greedy, bool)

    items = [
        (PROMPT, options),
        ("", ["A beginning"]),
        (PROMPT + " above", [" is", " was"]),
        (PROMPT, [" is"]),
    ]
    together = lm.score_many(items)
    alone = [lm.score(*item) for item in items]
    assert_close(together, alone)
    assert_close(together, asyncio.run(lm.ascore(items)))
    assert sum(math.exp(each.total) for each in lm.score("", [*"abcdefgh"])) <= 1 + 1e-6
    with pytest.raises(DataError, match=r"empty|no token"):
        lm.score(PROMPT, ["x", ""])


def assert_close(found: list[list[Scored]], expected: list[list[Scored]]) -> None:
    """The same up to the rounding of another batch."""
    assert [len(each) for each in found] == [len(each) for each in expected]
    for many, one in zip(found, expected, strict=True):
        for a, b in zip(many, one, strict=True):
            assert a.tokens == b.tokens
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
            assert a.is_greedy == b.is_greedy


def check_embeddings(lm: LM) -> None:
    texts = ["a text", "another, longer text", "a text"]
    vectors = lm.embed(texts)
    assert vectors.dtype == np.float32
    assert vectors.ndim == 2
    assert len(vectors) == 3
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(vectors[0], vectors[2], atol=1e-6)
    np.testing.assert_allclose(vectors[1:2], lm.embed(texts[1:2]), atol=1e-5)
    assert len(lm.embed([])) == 0
