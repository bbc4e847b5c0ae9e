"""What servers really send, read; and what is no reply, told apart."""

from __future__ import annotations

import contextlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.errors import DataError
from posterhall.lm import Request
from posterhall.lm.http.bodies import CHAT, COMPLETIONS, body, sample_seed
from posterhall.lm.http.capabilities import Capabilities, is_too_long
from posterhall.lm.http.scoring import NoScores, read_scored
from posterhall.lm.http.wire import Malformed, Problem, logprob, problem, read_samples, read_vectors

ASKED = Request("a prompt of some length", max_tokens=9, logprobs=True)


def chat(*contents, usage=None, **choice):
    choices = [
        {"index": i, "message": {"content": each}, "finish_reason": "stop", **choice}
        for i, each in enumerate(contents)
    ]
    return {"choices": choices, "usage": usage}


def only(payload, request=ASKED, count=1):
    return read_samples(payload, request, count).samples[0]


def test_usage_is_read_with_what_was_cached_and_what_is_hidden():
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "prompt_tokens_details": {"cached_tokens": 64},
        "completion_tokens_details": {"reasoning_tokens": 30},
    }
    sample = only(chat("yes", usage=usage))
    assert (sample.tokens_in, sample.tokens_out, sample.tokens_cached, sample.tokens_hidden) == (
        100,
        50,
        64,
        30,
    )
    assert not sample.estimated


def test_missing_usage_is_guessed_and_said_so():
    sample = only(chat("eight by"))
    assert sample.estimated
    assert (sample.tokens_in, sample.tokens_out) == (6, 2)  # 23 and 8 bytes, 4 a token


@pytest.mark.parametrize(
    ("choice", "text", "finish"),
    [
        ({"message": {"content": None, "reasoning_content": "hm"}, "finish_reason": "length"}, "", "length"),
        ({"message": {"content": None, "tool_calls": [{}]}, "finish_reason": "tool_calls"}, "", "stop"),
        ({"message": {"content": None, "refusal": "I will not."}}, "I will not.", "filter"),
        ({"message": {"content": "a"}, "finish_reason": "content_filter"}, "a", "filter"),
        ({"message": {"content": [{"type": "text", "text": "a"}, {"text": "b"}]}}, "ab", "stop"),
        ({"text": "plain", "finish_reason": "length"}, "plain", "length"),
        ({"text": "plain", "finish_reason": None}, "plain", "stop"),
        ({"message": {}}, "", "stop"),
    ],
)
def test_what_a_choice_may_look_like(choice, text, finish):
    sample = only({"choices": [choice]})
    assert (sample.text, sample.finish_reason) == (text, finish)


def test_choices_are_taken_by_index_and_not_by_arrival():
    payload = chat("zero", "one", "two")
    payload["choices"] = [payload["choices"][i] for i in (2, 0, 1)]
    texts = [each.text for each in read_samples(payload, ASKED, 3).samples]
    assert texts == ["zero", "one", "two"]
    for each in payload["choices"]:
        each["index"] = 0  # llama.cpp has done this
    assert len(read_samples(payload, ASKED, 3).samples) == 3


def test_more_choices_than_asked_for_are_left():
    assert len(read_samples(chat("a", "b", "c"), ASKED, 2).samples) == 2


@given(st.lists(st.text(max_size=12), min_size=1, max_size=8), st.integers(0, 500))
def test_tokens_shared_out_among_choices_add_up(texts, total):
    usage = {"prompt_tokens": 1, "completion_tokens": total}
    samples = read_samples(chat(*texts, usage=usage), ASKED, len(texts)).samples
    assert sum(each.tokens_out for each in samples) == total
    assert all(each.tokens_out >= 0 for each in samples)


def test_a_choice_s_own_count_goes_before_a_share():
    payload = chat("short", "a much longer one", usage={"prompt_tokens": 1, "completion_tokens": 30})
    for choice, count in zip(payload["choices"], (20, 10), strict=True):
        choice["usage"] = {"completion_tokens": count}
    assert [each.tokens_out for each in read_samples(payload, ASKED, 2).samples] == [20, 10]


def test_log_probabilities_of_both_apis():
    content = [{"token": "a", "logprob": -1.0}, {"token": "b", "logprob": -0.5}]
    for choice in (
        {"message": {"content": "ab"}, "logprobs": {"content": content}},
        {"text": "ab", "logprobs": {"tokens": ["a", "b"], "token_logprobs": [-1.0, -0.5]}},
    ):
        sample = only({"choices": [choice]})
        assert (sample.tokens, sample.logprobs) == (("a", "b"), (-1.0, -0.5))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (-1, -1.0),
        (-math.inf, -math.inf),
        (1e-7, 0.0),
        (math.nan, None),
        (0.5, None),
        (None, None),
        (True, None),
    ],
)
def test_what_is_a_log_probability(value, expected):
    assert logprob(value) == expected


def test_log_probabilities_that_are_none_are_left_out_and_said_so():
    payload = json.loads(
        '{"choices": [{"text": "ab", "logprobs": {"tokens": ["a", "b"], "token_logprobs": [-1, NaN]}}]}'
    )
    reply = read_samples(payload, ASKED, 1)
    assert reply.samples[0].logprobs is None
    assert not reply.logprobs


def test_a_stop_text_left_in_is_cut_with_its_tokens():
    request = Request("p", stop=("\n",), logprobs=True)
    payload = {
        "choices": [{"text": "ab\nc", "logprobs": {"tokens": ["ab", "\n", "c"], "token_logprobs": [-1] * 3}}]
    }
    sample = only(payload, request)
    assert (sample.text, sample.tokens, sample.finish_reason) == ("ab", ("ab",), "stop")


@pytest.mark.parametrize(
    "payload",
    [None, [], "no", 3, {}, {"choices": None}, {"choices": []}, {"choices": [None]}, {"choices": [{}]},
     {"choices": [{"text": 3}]}, {"choices": [{"message": {"content": 3}}]}],
)  # fmt: skip
def test_what_is_no_reply_is_malformed(payload):
    with pytest.raises(Malformed):
        read_samples(payload, ASKED, 1)


nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["choices", "message", "content", "text", "logprobs", "tokens", "token_logprobs", "usage",
             "index", "prompt_tokens", "completion_tokens", "completion_tokens_details", "finish_reason",
             "error", "code", "detail", "loc", "param", "data", "embedding"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=25,
)  # fmt: skip


@given(nested)
def test_any_json_is_a_reply_or_malformed_and_nothing_else(payload):
    with contextlib.suppress(Malformed):
        for sample in read_samples(payload, ASKED, 2).samples:
            assert isinstance(sample.text, str)
            assert sample.tokens_out >= 0
    with contextlib.suppress(Malformed):
        assert read_vectors(payload, 1).shape[0] == 1
    assert isinstance(problem(payload), Problem)


# -- errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "message", "param"),
    [
        ({"error": {"message": "no", "code": "c", "param": "n"}}, "no", "n"),
        ({"error": "plain text"}, "plain text", ""),
        ({"object": "error", "message": "vLLM says", "code": 400}, "vLLM says", ""),
        ({"detail": "Not Found"}, "Not Found", ""),
        ({"detail": [{"loc": ["body", "seed"], "msg": "extra inputs"}]}, "seed: extra inputs", "seed"),
    ],
)
def test_errors_in_every_form(payload, message, param):
    found = problem(payload)
    assert (found.message, found.param) == (message, param)


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens",
        "the request exceeds the available context size, try increasing it",
        "input length and `max_tokens` exceed context limit: maximum context is 200000",
        "prompt is too long: 210000 tokens > 200000 maximum",
    ],
)
def test_a_prompt_that_is_too_long_is_recognised(message):
    assert is_too_long(Problem(message))
    assert not is_too_long(Problem("'seed' is not supported"))


@pytest.mark.parametrize(
    ("message", "sent", "name", "value"),
    [
        ("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
         "instead.",
         {"max_tokens": 5}, "length_name", "max_completion_tokens"),
        ("Unrecognized request argument supplied: max_completion_tokens", {"max_completion_tokens": 5},
         "length_name", "max_tokens"),
        ("n must be 1 when using greedy sampling", {"n": 3}, "n", False),
        ("Only one completion choice is allowed", {"n": 3}, "n", False),
        ("seed: Extra inputs are not permitted", {"seed": 1}, "seed", False),
        ("You are not allowed to request logprobs from this model", {"logprobs": True}, "logprobs", False),
        ("Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is "
         "supported.", {"temperature": 0}, "temperature", False),
        ("Invalid 'stop': array too long. Expected an array with maximum length 4", {"stop": list("abcde")},
         "stops", 4),
    ],
)  # fmt: skip
def test_a_refused_parameter_is_done_without(message, sent, name, value):
    can = Capabilities()
    assert can.learn(Problem(message), sent)
    assert getattr(can, name) == value


@pytest.mark.parametrize(
    ("message", "sent"),
    [
        ("max_tokens is too large: 100000. This model supports at most 16384", {"max_tokens": 100_000}),
        ("temperature must be between 0 and 2", {"temperature": 3}),
        ("Unsupported parameter: 'seed'", {"n": 3}),
        ("messages must not be empty", {"messages": [], "n": 3, "seed": 1}),
        ("An internal error happened to n of us", {"n": 3}),
    ],
)
def test_what_is_wrong_with_a_value_is_not_blamed_on_the_server(message, sent):
    can = Capabilities()
    assert can.learn(Problem(message), sent) is None
    assert can == Capabilities()


# -- what is sent -----------------------------------------------------------------------------------


def sent(request, path=CHAT, first=0, count=1, **can):
    return body(request, path, first=first, count=count, model="m", can=Capabilities(**can), extra={})


def test_only_what_is_needed_is_sent():
    assert sent(Request("p", max_tokens=3)) == {
        "model": "m", "messages": [{"role": "user", "content": "p"}], "max_tokens": 3, "temperature": 1.0,
    }  # fmt: skip
    everything = Request("p", max_tokens=3, top_p=0.5, stop=("a", "b"), seed=7, logprobs=True, schema="{}")
    assert sent(everything, COMPLETIONS, count=2) == {
        "model": "m", "prompt": "p", "max_tokens": 3, "temperature": 1.0, "top_p": 0.5, "n": 2, "seed": 7,
        "stop": ["a", "b"], "logprobs": 1,
        "response_format": {
            "type": "json_schema", "json_schema": {"name": "reply", "schema": {}, "strict": True}
        },
    }  # fmt: skip
    poor = sent(everything, length_name="max_completion_tokens", seed=False, logprobs=False, schema="none",
                stops=1, temperature=False, top_p=False)  # fmt: skip
    assert poor.keys() == {"model", "messages", "max_completion_tokens", "stop"}
    assert poor["stop"] == ["a"]


def test_seeds_of_samples_are_their_own_and_fit_in_31_bits():
    assert sample_seed(5, 0) == 5
    seeds = [sample_seed(5, number) for number in range(1, 200)]
    assert len(set(seeds)) == 199
    assert all(0 <= each < 2**31 for each in seeds)
    assert sent(Request("p", seed=5), first=3)["seed"] == sample_seed(5, 3)


def test_a_schema_that_is_not_json_is_refused():
    with pytest.raises(DataError, match="schema is not JSON"):
        sent(Request("p", schema="{"))


# -- scoring ----------------------------------------------------------------------------------------


def echoed(tokens, logprobs=None, offsets=None, top=None):
    logprobs = [-float(i) for i in range(len(tokens))] if logprobs is None else logprobs
    return {"choices": [{"logprobs": {"tokens": tokens, "token_logprobs": logprobs, "text_offset": offsets,
                                      "top_logprobs": top}}]}  # fmt: skip


def test_a_token_across_the_border_is_scored_whole():
    scored = read_scored(echoed(["the", " sk", "y is"]), "the s", "ky is")
    assert scored.tokens == (" sk", "y is")
    assert scored.logprobs == (-1.0, -2.0)


def test_a_token_before_the_text_and_those_after_it_do_not_count():
    scored = read_scored(echoed(["<s>", "a", "b", "c", "!"], [None, -1, -2, -3, -4]), "a", "bc")
    assert scored.logprobs == (-2.0, -3.0)


def test_parts_of_characters_are_placed_by_their_offsets():
    payload = echoed(["a", "\ufffd", "\ufffd", "b"], [-1, -2, -3, -4], offsets=[0, 1, 1, 2])
    assert read_scored(payload, "a", "éb").logprobs == (-2.0, -3.0, -4.0)


def test_greedy_is_what_no_other_token_beats():
    tops = [{"a": -0.1}, {"b": -1.0, "x": -2.0}, {"x": -0.5}]
    assert read_scored(echoed(["a", "b", "c"], [-0.1, -1, -2], top=tops), "a", "b").is_greedy
    assert not read_scored(echoed(["a", "b", "c"], [-0.1, -1, -2], top=tops), "a", "bc").is_greedy
    assert not read_scored(echoed(["a", "b"], [-0.1, -1]), "a", "b").is_greedy  # nobody says


def test_what_cannot_be_scored():
    with pytest.raises(DataError, match="no token before"):
        read_scored(echoed(["a"], [None]), "", "a")
    for payload in (
        {"choices": [{"text": "ab"}]},
        echoed(["something", "else"]),
        echoed(["a", "b"], [-1, math.nan]),
        echoed([], []),
    ):
        with pytest.raises(NoScores):
            read_scored(payload, "a", "b")
    with pytest.raises(Malformed):
        read_scored({"choices": []}, "a", "b")
