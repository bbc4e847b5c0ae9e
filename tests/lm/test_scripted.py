"""A scripted model: which rule answers, what is used up, and scripts that cannot be understood."""

from __future__ import annotations

import json

import pytest

from posterhall import lm
from posterhall.errors import DataError
from posterhall.lm import Message, Request, ScriptedLM


def said(model, prompt, **options):
    return [each.text for each in model.generate([Request(prompt, **options)])[0]]


def test_the_first_rule_that_applies_answers():
    model = ScriptedLM(
        [
            {"prompt": "exactly", "reply": "one"},
            {"contains": "sky", "ends": "?", "reply": "two"},
            {"contains": "sky", "reply": "three"},
            {"reply": "four"},
        ]
    )
    assert said(model, "exactly") == ["one"]
    assert said(model, "the sky?") == ["two"]
    assert said(model, "the sky") == ["three"]
    assert said(model, "exactly so") == ["four"]


def test_a_list_is_used_up_one_by_one_and_a_text_never():
    model = ScriptedLM([{"contains": "x", "reply": ["a", "b", "c"]}, {"contains": "x", "reply": "z"}])
    assert said(model, "x", n=2) == ["a", "b"]
    assert said(model, "x", n=3) == ["c", "z", "z"]


def test_what_was_asked_is_remembered():
    model = ScriptedLM([{"reply": "yes", "scores": {" a": -1}, "embedding": [1]}])
    request = Request((Message("user", "Hi"),), temperature=0.3)
    model.generate([request])
    model.score("p", [" a"])
    model.embed(["t"])
    assert [(each.kind, each.prompt) for each in model.asked] == [
        ("generate", "User: Hi\n\nAssistant:"),
        ("score", "p"),
        ("embed", "t"),
    ]
    assert model.asked[0].request is request
    assert model.asked[1].continuations == (" a",)


def test_what_no_rule_answers_is_an_error_that_names_the_prompt():
    model = ScriptedLM([{"prompt": "What is the sky?", "reply": ["blue"]}])
    with pytest.raises(
        DataError, match=r"no reply \(left\).*'What is a sky\?'.*Did you mean: What is the sky"
    ):
        said(model, "What is a sky?")
    said(model, "What is the sky?")
    with pytest.raises(DataError, match="left"):
        said(model, "What is the sky?")
    with pytest.raises(DataError, match="no scores"):
        model.score("What is the sky?", ["x"])


def test_replies_end_at_stop_texts_and_at_the_most_words():
    model = ScriptedLM([{"reply": "one  two\nthree four"}])
    [sample] = model.generate([Request("", stop=("\n",))])[0]
    assert (sample.text, sample.finish_reason) == ("one  two", "stop")
    [sample] = model.generate([Request("", max_tokens=3)])[0]
    assert (sample.text, sample.finish_reason, sample.tokens_out) == ("one  two\nthree", "length", 3)
    with pytest.raises(DataError, match="without log-probabilities"):
        model.generate([Request("", logprobs=True)])


def test_scores_are_those_written_down():
    model = ScriptedLM([{"scores": {" yes": [-0.5, -0.25], " no": -3}}])
    yes, no = model.score("p", [" yes", " no"])
    assert yes.logprobs == (-0.5, -0.25)
    assert "".join(yes.tokens) == " yes"
    assert (yes.is_greedy, no.is_greedy) == (True, False)
    with pytest.raises(DataError, match="there is one for ' yes', ' no'"):
        model.score("p", [" maybe"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "a rule is a JSON object"),
        ('{"replay": "x"}', "unknown key 'replay'. Did you mean: reply"),
        ('{"prompt": "x"}', "answers nothing"),
        ('{"prompt": 1, "reply": "x"}', "must be text"),
        ('{"reply": 3}', "text or a list of texts"),
        ('{"reply": ["a", null]}', "text or a list of texts"),
        ('{"scores": {}}', "object of continuations"),
        ('{"scores": {"a": 0.5}}', "Is it a probability"),
        ('{"scores": {"a": []}}', "log-probability"),
        ('{"scores": {"a": true}}', "log-probability"),
        ('{"embedding": []}', "list of numbers"),
        ('{"embedding": ["a"]}', "list of numbers"),
        ("[" * 5000, "not JSON"),
    ],
)
def test_scripts_that_cannot_be_understood_name_the_line(tmp_path, line, message):
    path = tmp_path / "script.jsonl"
    path.write_text('{"reply": "fine"}\n\n' + line + "\n")
    with pytest.raises(DataError, match=f"script.jsonl:3: .*{message}"):
        lm.connect(f"scripted:{path}")


def test_a_script_from_a_file(tmp_path):
    path = tmp_path / "script.jsonl"
    path.write_text(json.dumps({"contains": "ü", "reply": "né"}, ensure_ascii=False) + "\n", encoding="utf-8")
    model = lm.connect(f"scripted:{path}")
    assert model.name == f"scripted:{path}"
    assert said(model, "für") == ["né"]
    for content in (b"", b"\n", b"\xff\n"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="script"):
            lm.connect(f"scripted:{path}")
    with pytest.raises(DataError, match="cannot be read"):
        lm.connect(f"scripted:{tmp_path / 'none'}")
