"""`HttpLM` against servers on this machine: what it asks for, what it makes of the answers, what it says."""

from __future__ import annotations

import asyncio
import logging

import numpy as np
import pytest
from servers import EchoAnswers, ask, error, said, serving, talk

from posterhall.lm import EchoLM, Request, Unsupported
from posterhall.lm.http import HttpLM, HttpSettings
from posterhall.lm.http.bodies import sample_seed

# -- what a server can and cannot do ----------------------------------------------------------------


def test_text_is_continued_and_messages_are_answered():
    with serving(EchoAnswers()) as server, HttpLM(f"{server.base}#echo") as lm:
        lm.generate([ask(), talk()])
        assert sorted(server.paths) == ["/chat/completions", "/completions"]


def test_text_goes_to_chat_where_there_is_nothing_else_and_only_one_request_finds_that_out():
    with serving(EchoAnswers(chat_only=True), latency=0.01) as server, HttpLM(f"{server.base}#echo") as lm:
        replies = lm.generate([ask(f"number {i}") for i in range(30)])
        assert [each.text for [each] in replies] == [f"number {i}"[-6:] for i in range(30)]
        assert server.paths == {"/completions": 1, "/chat/completions": 30}
        assert lm.capabilities.completions is False
        assert lm.record()["capabilities"]["completions"] is False


def test_a_chat_model_on_a_server_with_completions():
    def answer(path, sent):
        if path == "/completions":
            return error(404, "This is a chat model and not supported in the v1/completions endpoint.")
        return said("yes")

    with serving(answer) as server, HttpLM(f"{server.base}#gpt") as lm:
        assert lm.generate([ask()])[0][0].text == "yes"


@pytest.mark.parametrize(("mode", "path"), [("chat", "/chat/completions"), ("completions", "/completions")])
def test_where_text_goes_can_be_said(mode, path):
    with serving(EchoAnswers()) as server, HttpLM(f"{server.base}#echo", HttpSettings(text=mode)) as lm:
        lm.generate([ask()])
        assert server.paths == {path: 1}


@pytest.mark.parametrize(
    ("answers", "requests"),
    [(EchoAnswers(), 1), (EchoAnswers(gives_n=False), 4), (EchoAnswers(refuses=("n",)), 4)],
)
def test_n_samples_are_had_from_every_server(answers, requests):
    expected = EchoLM().generate([ask(n=4)])[0]
    with serving(answers) as server, HttpLM(f"{server.base}#echo") as lm:
        for _ in range(2):
            [samples] = lm.generate([talk(n=4)])
            assert [each.text for each in samples] == [each.text for each in expected]
        server.asked.clear()
        lm.generate([talk(n=4)])
        assert len(server.asked) == requests
        assert lm.capabilities.n is (requests == 1)


def test_a_server_that_gives_eight_at_most_is_asked_for_eight_at_most():
    def answer(path, sent):
        return EchoAnswers()(path, {**sent, "n": min(sent.get("n", 1), 8)})

    with serving(answer) as server, HttpLM(f"{server.base}#echo") as lm:
        for _ in range(2):
            assert len(lm.generate([talk(n=20)])[0]) == 20
        assert [sent["n"] for _, sent in server.asked] == [20, 8, 4, 8, 8, 4]
        assert lm.capabilities.most_choices == 8


def test_one_short_reply_of_a_server_that_gives_n_is_no_lesson():
    answers = EchoAnswers()

    def answer(path, sent):
        return answers(path, {**sent, "n": 1} if len(server.asked) == 2 else sent)

    with serving(answer) as server, HttpLM(f"{server.base}#echo") as lm:
        for _ in range(3):
            assert len(lm.generate([talk(n=3)])[0]) == 3
        assert [sent.get("n", 1) for _, sent in server.asked] == [3, 3, 2, 3]


def test_samples_asked_for_apart_have_seeds_of_their_own():
    def seeds(settings, **how):
        with serving(EchoAnswers()) as server, HttpLM(f"{server.base}#echo", settings) as lm:
            lm.generate([talk(seed=9, **how)])
            return sorted((sent["seed"], sent.get("n", 1)) for _, sent in server.asked)

    alone = HttpSettings(fan_out=True)
    four = sorted((sample_seed(9, i), 1) for i in range(4))
    assert seeds(alone, n=4) == four
    assert sorted(seeds(alone, n=2) + seeds(alone, n=2, first=2)) == four  # today and tomorrow
    assert seeds(HttpSettings(), n=4) == [(9, 4)]
    assert seeds(HttpSettings(), n=4, first=2) == [(sample_seed(9, 2), 4)]


@pytest.mark.parametrize("name", ["seed", "logprobs", "response_format", "stop", "temperature", "top_p"])
def test_a_parameter_that_is_refused_is_left_out_from_then_on(name, caplog):
    request = talk(seed=1, logprobs=True, schema="{}", stop=("dee",), temperature=0.5, top_p=0.9)
    with serving(EchoAnswers(refuses=(name,))) as server, HttpLM(f"{server.base}#echo") as lm:
        with caplog.at_level(logging.WARNING):
            [[sample]] = lm.generate([request])
        assert sample.text == "s "  # up to the stop text, whether the server knew it or not
        assert len(caplog.records) == (2 if name == "response_format" else 1)
        server.asked.clear()
        lm.generate([request])
        assert len(server.asked) == 1
        assert name not in server.asked[0][1]


def test_reasoning_models_name_the_length_differently():
    def answer(path, sent):
        if "max_tokens" in sent:
            return error(
                400,
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
                "'max_completion_tokens' instead.",
                param="max_tokens",
                code="unsupported_parameter",
            )
        return EchoAnswers()(path, sent)

    with serving(answer, latency=0.01) as server, HttpLM(f"{server.base}#echo") as lm:
        replies = lm.generate([talk(f"question {i}") for i in range(20)])
        assert [each.text for [each] in replies] == [f"question {i}"[-6:] for i in range(20)]
        server.asked.clear()
        lm.generate([talk()])
        assert server.asked[0][1]["max_completion_tokens"] == 6


def test_a_schema_is_enforced_as_far_as_the_server_likes_even_if_many_find_out_at_once():
    def answer(path, sent):
        if sent["response_format"]["json_schema"].get("strict"):
            return error(400, "Invalid schema for response_format: 'additionalProperties' is required")
        return EchoAnswers()(path, sent)

    with serving(answer, latency=0.02) as server, HttpLM(f"{server.base}#echo") as lm:
        lm.generate([talk(f"{i}", schema="{}") for i in range(10)])
        assert lm.capabilities.schema == "plain"


def test_missing_log_probabilities_are_none_and_recorded():
    with serving(EchoAnswers(drops=("logprobs",))) as server, HttpLM(f"{server.base}#echo") as lm:
        assert lm.generate([talk(logprobs=True)])[0][0].logprobs is None
        assert lm.capabilities.logprobs is False


def test_scores_need_echo():
    with serving(EchoAnswers(chat_only=True)) as server, HttpLM(f"{server.base}#echo") as lm:
        for _ in range(2):
            with pytest.raises(Unsupported, match="probability of a given text"):
                lm.score("a", ["b"])
        assert len(server.asked) == 1
        with pytest.raises(Unsupported, match="embed"):
            lm.embed(["a"])


def test_a_server_that_must_generate_to_score_is_let():
    def answer(path, sent):
        if sent["max_tokens"] == 0:
            return error(400, "max_tokens must be at least 1")
        return EchoAnswers()(path, sent)

    with serving(answer) as server, HttpLM(f"{server.base}#echo") as lm:
        assert lm.score("The sea", [" is"]) == EchoLM().score("The sea", [" is"])


def test_embeddings_of_many_texts_come_in_order():
    texts = [f"text number {i}" for i in range(150)]
    with serving(EchoAnswers()) as server, HttpLM(f"{server.base}#echo") as lm:
        np.testing.assert_allclose(lm.embed(texts), EchoLM().embed(texts), atol=1e-6)
        assert len(server.asked) == 3


# -- many at once -----------------------------------------------------------------------------------


def varied(count):
    return [
        (talk if i % 2 else ask)(f"prompt number {i}: ä", n=1 + i % 3, max_tokens=3 + i % 7, seed=i)
        for i in range(count)
    ]


@pytest.mark.parametrize(
    "answers", [EchoAnswers(), EchoAnswers(gives_n=False, chat_only=True)], ids=["full", "poor"]
)
def test_results_do_not_depend_on_concurrency_or_on_being_waited_for(answers):
    requests = varied(60)
    results = []
    with serving(answers, latency=0.002) as server:
        for concurrency in (1, 8, 64, None):
            settings = HttpSettings(concurrency=concurrency)
            with HttpLM(f"{server.base}#echo", settings) as lm:
                results.append(lm.generate(requests))
            results.append(asyncio.run(HttpLM(f"{server.base}#echo", settings).agenerate(requests)))
        one_by_one = HttpLM(f"{server.base}#echo")
        results.append([lm_reply for each in requests for lm_reply in one_by_one.generate([each])])
        one_by_one.close()
    assert all(each == results[0] for each in results)
    assert [[s.text for s in each] for each in results[0]] == [
        [s.text for s in each] for each in EchoLM().generate([talk_as_text(each) for each in requests])
    ]


def talk_as_text(request):
    prompt = request.prompt if isinstance(request.prompt, str) else request.prompt[0].content
    return Request(prompt, max_tokens=request.max_tokens, n=request.n)


def test_no_more_are_under_way_than_allowed():
    with serving(EchoAnswers(), latency=0.01) as server:
        with HttpLM(f"{server.base}#echo", HttpSettings(concurrency=5)) as lm:

            async def several():
                await asyncio.gather(*[lm.agenerate([talk(f"{i}") for i in range(20)]) for _ in range(3)])

            asyncio.run(several())
        assert server.most_at_once == 5


def test_there_is_never_a_task_a_request():
    tasks = []

    async def watched(lm, requests):
        async def watch():
            while True:
                tasks.append(len(asyncio.all_tasks()))
                await asyncio.sleep(0.002)

        watcher = asyncio.create_task(watch())
        await lm.agenerate(requests)
        watcher.cancel()

    with serving(EchoAnswers(), latency=0.001) as server:
        lm = HttpLM(f"{server.base}#echo", HttpSettings(concurrency=4))
        asyncio.run(watched(lm, [talk(f"{i}") for i in range(400)]))
    assert max(tasks) <= 12


def test_two_models_of_one_server_share_its_limits():
    with (
        serving(EchoAnswers(models=("a", "b")), latency=0.01) as server,
        HttpLM(f"{server.base}#a", HttpSettings(concurrency=3)) as first,
    ):
        second = first.with_model("b")

        async def both():
            await asyncio.gather(*[each.agenerate([talk()] * 10) for each in (first, second)])

        asyncio.run(both())
        assert {sent["model"] for _, sent in server.asked} == {"a", "b"}
        assert server.most_at_once == 3
        assert first.fingerprint() != second.fingerprint()


def test_cancelled_work_leaves_the_model_usable():
    with (
        serving(EchoAnswers(), latency=0.2) as server,
        HttpLM(f"{server.base}#echo", HttpSettings(concurrency=2)) as lm,
    ):

        async def scenario():
            work = asyncio.create_task(lm.agenerate([talk(f"{i}") for i in range(50)]))
            await asyncio.sleep(0.05)
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
            return await lm.agenerate([talk("after")])

        assert asyncio.run(scenario())[0][0].text == "after"
        assert len(server.asked) <= 4


def test_a_fingerprint_names_the_server_and_what_changes_replies():
    prints = {
        HttpLM("http://h:1/v1#m").fingerprint(),
        HttpLM("http://h:1/v1#m2").fingerprint(),
        HttpLM("http://h:2/v1#m").fingerprint(),
        HttpLM("http://h:1/v1#m", HttpSettings(extra='{"top_k": 1}')).fingerprint(),
        HttpLM("http://h:1/v1#m", HttpSettings(text="chat")).fingerprint(),
    }
    assert len(prints) == 5
    same = HttpLM("http://h:1#m", HttpSettings(concurrency=3, timeout=1.0)).fingerprint()
    assert same == HttpLM("http://h:1/v1#m").fingerprint()


def test_extra_parameters_go_along():
    settings = HttpSettings(extra='{"reasoning_effort": "low"}')
    with serving(EchoAnswers()) as server, HttpLM(f"{server.base}#echo", settings) as lm:
        lm.generate([talk()])
        assert server.asked[0][1]["reasoning_effort"] == "low"
