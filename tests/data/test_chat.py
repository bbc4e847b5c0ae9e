"""Readers of conversations: every form that people have, and what is refused."""

from __future__ import annotations

import json

import pytest

from posterhall.data.chat import Chat, Completion, read
from posterhall.errors import DataError


@pytest.fixture
def file(tmp_path):
    def write(*rows, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def test_messages_come_with_whatever_else_a_template_may_look_at(file, tmp_path):
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}
    parts = {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    path = file({"messages": [user("x"), call]}, {"messages": [parts, {**assistant("y"), "name": None}]})
    found = read(path).rows
    assert found[0].messages[1] == {"role": "assistant", "content": "", "tool_calls": [{"name": "f"}]}
    assert found[1].messages == (user("ab"), assistant("y"))
    import pyarrow as pa
    import pyarrow.parquet as parquet

    parquet.write_table(
        pa.Table.from_pylist([{"messages": [user("x"), assistant("y")]}]), tmp_path / "r.parquet"
    )
    (row,) = read(tmp_path / "r.parquet").rows
    assert row == Chat((user("x"), assistant("y")), f"{tmp_path / 'r.parquet'}, row 1")


def test_of_a_prompt_and_a_completion_only_the_completion_is_learnt(file):
    before = [user("a"), assistant("given"), user("b")]
    path = file(
        {"prompt": "2+2=", "completion": " 4"},
        {"prompt": before, "completion": [assistant("c")]},
        {"prompt": before, "completion": "c"},
        {"prompt": "b", "completion": [assistant("c")]},
    )
    text, *chats = read(path).rows
    assert text == Completion("2+2=", " 4", f"{path}, line 1")
    assert [list(row.answers()) for row in chats] == [[3], [3], [1]]
    assert chats[0].messages == chats[1].messages


def test_instructions_take_their_input_after_an_empty_line(file):
    path = file(
        {"instruction": "Add", "input": "1 2", "output": "3"},
        {"instruction": "Say", "input": "", "output": "hi"},
    )
    one, other = read(path).rows
    assert one.messages == (user("Add\n\n1 2"), assistant("3"))
    assert other.messages == (user("Say"), assistant("hi"))


def test_conversations_about_images_keep_their_text(file):
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
    tag = [{"from": "human", "value": "an <image> tag"}, {"from": "gpt", "value": "yes"}]
    seen, plain = read(file({"image": "1.jpg", "conversations": turns}, {"conversations": tag})).rows
    assert seen.messages == (user("What?"), assistant("A cat."))
    assert plain.messages[0] == user("an <image> tag")
    with pytest.raises(DataError, match=r"line 1: 'from' is 'humn'.*Did you mean: human"):
        read(file({"conversations": [{"from": "humn", "value": "x"}, turns[1]]}))


def test_guanaco_text_is_taken_apart_into_turns(file):
    (row,) = read(
        file({"text": "### Human: a?### Assistant: b.\n### Human: c?### Assistant: d.### Human: e"})
    ).rows
    assert row.messages == (user("a?"), assistant("b."), user("c?"), assistant("d."))


def test_the_best_reply_of_every_message_is_followed(file):
    def message(name, parent, text, role="prompter", rank=None, **more):
        return {"message_id": name, "parent_id": parent, "text": text, "role": role, "rank": rank, **more}

    rows = [
        message("r", None, "q"),
        message("a1", "r", "second", "assistant", 1),
        message("a0", "r", "best", "assistant", 0),
        message("d", "r", "deleted", "assistant", -1, deleted=True),
        message("p", "a0", "go on"),
        message("b", "p", "end", "assistant"),
        message("last", "b", "thanks"),
        message("other", None, "no answer"),
    ]
    found = read(file(*rows))
    (row,) = found.rows
    assert row.messages == (user("q"), assistant("best"), user("go on"), assistant("end"))
    assert found.refused == {"no answer of the assistant": 1}
    nested = {
        "message_tree_id": "r",
        "prompt": {**rows[0], "replies": [{**rows[1], "replies": []}, {**rows[2], "replies": []}]},
    }
    (row,) = read(file(nested)).rows
    assert row.messages == (user("q"), assistant("best"))


def test_rows_that_teach_nothing_are_refused_and_counted(file):
    image = {"role": "user", "content": [{"type": "image"}]}
    found = read(
        file(
            {"messages": [user("a"), assistant("b")]},
            {"messages": [user("a")]},
            {"messages": [user("a"), assistant(" ")]},
            {"messages": [image, assistant("b")]},
        )
    )
    assert len(found.rows) == 1
    assert found.refused == {
        "no answer of the assistant": 1, "empty answer": 1, "a message that is not text": 1,
    }  # fmt: skip
    assert found.first["empty answer"].endswith("line 3")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"chosen": "a", "rejected": "b"}, "train dpo"),
        ({"text": "plain"}, "train lm"),
        ({"body": "x"}, "fields body"),
        ({"messages": "text"}, "list of"),
        ({"messages": []}, "list of"),
        ({"messages": [{"role": "user"}]}, "message 1 of 'messages'"),
        ({"messages": [{"role": 3, "content": "x"}]}, '"role": int'),
        ({"messages": [user("only")]}, "no row is of use"),
        ({"instruction": "a", "output": 3}, "'output' is a int"),
        ({"prompt": "a", "completion": 3}, "'completion' must be a list"),
    ],
)
def test_other_rows_are_named_with_file_and_line(file, row, said):
    with pytest.raises(DataError, match=said):
        read(file(row))


def test_a_form_is_one_of_those_that_are_known(file):
    path = file({"messages": [user("a"), assistant("b")]})
    with pytest.raises(DataError, match="Did you mean: messages"):
        read(path, form="message")
    with pytest.raises(DataError, match="no field 'instruction'"):
        read(path, form="alpaca")
    with pytest.raises(DataError, match="no rows"):
        read(file(name="empty.jsonl"))
