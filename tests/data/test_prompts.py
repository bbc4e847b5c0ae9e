"""Prompts as texts and as conversations: what is read, what is left out, and with which tokens they end."""

from __future__ import annotations

import json

import chat_examples as examples
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.data import chat_template, tokenizer
from posterhall.data.preference import Preference
from posterhall.data.preference_tokens import encode as encode_preferences
from posterhall.data.prompts import Prompt, encode, read
from posterhall.data.special_tokens import SpecialTokens
from posterhall.data.tokenizer import ByteTokenizer
from posterhall.errors import DataError

pytest.importorskip("tokenizers")

SYSTEM, USER = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}
ANSWER = {"role": "assistant", "content": "So."}
ASKED = (("system", "Be brief."), ("user", "Why?"))


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_texts_are_continued_and_messages_answered(tmp_path):
    parts = {"role": "user", "content": [{"type": "text", "text": "Wh"}, {"type": "text", "text": "y?"}]}
    rows = [{"prompt": "Once"}, {"prompt": [SYSTEM, USER]}, {"prompt": [SYSTEM, parts]}]
    found = read(write(tmp_path / "p.jsonl", *rows))
    assert [row.asked for row in found.rows] == ["Once", ASKED]
    assert found.refused == {"the same prompt again": 1}
    assert found.rows[1].told == [SYSTEM, USER]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": [USER, ANSWER]}, "the last message is the assistant's"),
        ({"prompt": [SYSTEM, {"role": "user", "content": " "}]}, "empty prompt"),
        ({"prompt": "  "}, "empty prompt"),
        ({"prompt": [{"role": "tool", "content": "3"}]}, "a message that is not of the system"),
        ({"prompt": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]}, "not text"),
    ],
)
def test_what_asks_nothing_is_left_out_and_counted(tmp_path, row, reason):
    found = read(write(tmp_path / "p.jsonl", {"prompt": "a"}, row))
    assert len(found.rows) == 1
    assert [reason in said for said in found.refused] == [True]
    assert found.first[next(iter(found.refused))].endswith("line 2")


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        ({"messages": [SYSTEM, USER, ANSWER]}, ASKED),
        ({"messages": [SYSTEM, USER]}, ASKED),
        ({"messages": [USER, ANSWER, USER, ANSWER]},
         (("user", "Why?"), ("assistant", "So."), ("user", "Why?"))),
        ({"instruction": "Why?", "input": "", "output": "So."}, (("user", "Why?"),)),
        ({"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]},
         (("user", "Why?"),)),
        ({"text": "### Human: Why?### Assistant: So."}, (("user", "Why?"),)),
    ],
)  # fmt: skip
def test_a_file_of_conversations_is_one_of_prompts(tmp_path, row, asked):
    assert read(write(tmp_path / "c.jsonl", row)).rows[0].asked == asked


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompts": "a"}, "no field 'prompt'. Did you mean: prompts"),
        ({"prompt": 3}, "line 1: 'prompt' is a int"),
        ({"prompt": []}, "line 1: 'prompt' is empty"),
        ({"prompt": [{"role": "user"}]}, "message 1 of 'prompt'"),
    ],
)
def test_rows_that_are_no_prompts_are_named(tmp_path, row, said):
    with pytest.raises(DataError, match=said):
        read(write(tmp_path / "p.jsonl", row))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """`made(template)`: (tokeniser, template)."""
    pytest.importorskip("transformers")
    kept = {}

    def make(template):
        if template not in kept:
            directory = tmp_path_factory.mktemp("tokenizer")
            examples.tokenizer_directory(directory, "bpe", template)
            kept[template] = tokenizer.load(directory), chat_template.load(directory)
        return kept[template]

    return make


@pytest.mark.parametrize("name", examples.PLAIN)
def test_answers_are_trained_behind_the_tokens_they_are_sampled_behind(made, name):
    words, template = made(examples.PLAIN[name])
    rows = [Prompt("", "here", ASKED), Prompt("", "there", (("user", "Why <|im_end|></s>?"),))]
    found = encode(rows, words, max_length=200, template=template)
    pairs = [Preference("", ("Paris.", "Madrid."), row.where, messages=row.messages) for row in rows]
    trained = encode_preferences(pairs, words, max_length=200, template=template)
    assert [ids.tolist() for ids in found.ids] == [ids.tolist() for ids in trained.prompts]
    # and what is trained ends with the token at which sampling stops
    ends = SpecialTokens(words).closing(template)[0]
    assert {answer[-1] for answer in trained.answers} == {ends}
    plain = [words.decode(answer).strip() for answer in trained.answers]
    assert plain == ["Paris.", "Madrid."] * 2
    assert found.conversations() == {
        tuple(ids.tolist()): row.messages for ids, row in zip(found.ids, rows, strict=True)
    }


def test_a_template_says_itself_where_a_turn_ends(made):
    found = {}
    for name, template in examples.PLAIN.items():
        words, form = made(template)
        closing = SpecialTokens(words).closing(form)
        names = {each["id"]: each["content"] for each in words.to_json()["added_tokens"]}
        found[name] = names[closing[0]], words.decode(closing[1:])
    assert found == {
        "chatml": ("<|im_end|>", "\n"), "llama-2": ("</s>", ""), "zephyr": ("</s>", "\n"),
        "llama-3": ("<|eot_id|>", ""),
    }  # fmt: skip
    words, _ = made(examples.CHATML)
    special = SpecialTokens(words)
    open_ended = chat_template.ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}")
    strict = chat_template.ChatTemplate("{{ raise_exception('no') }}")
    mute = chat_template.ChatTemplate("<s>")
    assert [special.closing(each) for each in (open_ended, strict, mute)] == [[], [], []]


def test_a_reward_model_reads_to_where_the_templates_text_ends(made):
    words, template = made(examples.CHATML)
    row = Preference("", ("Paris.", "Rome."), "here", messages=(("user", "Why?"),))
    for boundary in ("refuse", "concatenate"):
        how = {"max_length": 200, "template": template, "boundary": boundary}
        short = encode_preferences([row], words, **how).answers
        whole = encode_preferences([row], words, **how, tails=True).answers
        assert [ids.tolist() + words.encode("\n") for ids in short] == [ids.tolist() for ids in whole]


def test_messages_need_a_template():
    with pytest.raises(DataError, match=r"here: a prompt of messages, .* train sft"):
        encode([Prompt("a", "x"), Prompt("", "here", ASKED)], ByteTokenizer(), max_length=50)


def test_a_conversation_that_a_template_does_not_take_is_left_out(made):
    words, template = made(examples.LLAMA_2)
    rows = [Prompt("", "one", (("user", "a"),)), Prompt("", "two", (("user", "a"), ("user", "b")))]
    found = encode(rows, words, max_length=50, template=template)
    assert [row.where for row in found.rows] == ["one"]
    assert "must alternate" in next(iter(found.refused))
    with pytest.raises(DataError, match=r"no prompt is left .*must alternate"):
        encode(rows[1:], words, max_length=50, template=template)


@given(st.lists(st.text("ab", min_size=1, max_size=12), min_size=1, max_size=6), st.integers(3, 12))
def test_no_prompt_is_longer_than_it_may_be_and_cut_ones_keep_their_end(texts, longest):
    rows = [Prompt(text, f"{i}") for i, text in enumerate(texts)]
    cut = encode(rows, ByteTokenizer(), max_length=longest, too_long="cut_prompt")
    assert len(cut.ids) == len(rows)
    for ids, text in zip(cut.ids, texts, strict=True):
        assert ids[0] == 256
        assert len(ids) == min(longest, len(text) + 1)
        assert text.encode().endswith(bytes(ids[1:].tolist()))
    kept = [text for text in texts if len(text) < longest]
    if kept:
        refused = encode(rows, ByteTokenizer(), max_length=longest)
        assert [bytes(ids[1:].tolist()).decode() for ids in refused.ids] == kept
    else:
        with pytest.raises(DataError, match="too_long=cut_prompt"):
            encode(rows, ByteTokenizer(), max_length=longest)


def test_a_cut_conversation_keeps_its_beginning_of_text(made):
    words, template = made(examples.LLAMA_3)
    row = Prompt("", "here", (("user", "What is the capital of France? " * 9),))
    whole = encode([row], words, max_length=500, template=template).ids[0]
    cut = encode([row], words, max_length=20, template=template, too_long="cut_prompt").ids[0]
    assert np.array_equal(cut, np.concatenate((whole[:1], whole[-19:])))
    assert whole[0] == words.bos_id
