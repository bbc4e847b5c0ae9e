"""Conversations to learn answers from, out of the files that people have.

    found = read("chats.jsonl")
    found.rows[0].messages          # ({"role": "user", "content": ...}, {"role": "assistant", ...})
    found.refused                   # {"no answer": 3}

What a conversation looks like to a model is another matter: `posterhall.data.chat_template`. A row that
teaches nothing is refused and counted, never repaired.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from posterhall.data.objects import Object, objects
from posterhall.data.preference import EMPTY, text, value
from posterhall.data.refusals import Refusals
from posterhall.errors import DataError, did_you_mean

Form = Literal["auto", "messages", "completion", "alpaca", "conversations", "guanaco", "oasst1"]

NO_ANSWER = "no answer of the assistant"
MEDIA = "a message that is not text"
ASSISTANT = "assistant"
_SPEAKERS = {
    "human": "user", "user": "user", "gpt": ASSISTANT, "assistant": ASSISTANT, "chatgpt": ASSISTANT,
    "bing": ASSISTANT, "bard": ASSISTANT, "system": "system", "tool": "tool",
}  # fmt: skip
"""Roles of `conversations`, as LLaVA, ShareGPT and those after them name them."""
_IMAGE = re.compile(r"<image>\n|\n<image>|<image>")
_TURNS = re.compile(r"### (Human|Assistant):")


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation."""

    messages: tuple[Mapping[str, Any], ...]
    """{"role", "content"}, the content being text; some have more that a template may look at."""
    where: str
    """File and line."""
    start: int = 0
    """Answers among the first `start` messages are given, not to be learnt."""

    def answers(self) -> Iterator[int]:
        """The numbers of the messages to be learnt."""
        for number, message in enumerate(self.messages[self.start :], self.start):
            if message["role"] == ASSISTANT:
                yield number


@dataclass(frozen=True, slots=True)
class Completion:
    """A text and how it goes on: joined as they are, and the same whatever template a model has."""

    prompt: str
    completion: str
    where: str
    """File and line."""


@dataclass
class Chats(Refusals):
    """What a reader found."""

    rows: list[Chat | Completion] = field(default_factory=list)

    def add(self, row: Chat | Completion) -> None:
        """Keep a row, or refuse it."""
        if isinstance(row, Completion):
            if not row.completion.strip():
                self.refuse(EMPTY, row.where)
                return
        else:
            learnt = [row.messages[number] for number in row.answers()]
            if not learnt:
                self.refuse(NO_ANSWER, row.where)
                return
            # What a tool is asked may stand beside an empty text.
            if not all(each["content"].strip() or len(each) > 2 for each in learnt):
                self.refuse(EMPTY, row.where)
                return
        self.rows.append(row)


def read(paths: str | Path | Iterable[str | Path], *, form: Form = "auto") -> Chats:
    """Read conversations.

    Forms, told apart by the fields of the first row:

    - messages: "messages", a list of {"role": system, user, assistant, ..., "content": text}.
    - completion: "prompt" and "completion": texts, or lists of messages, of which those of the completion
      are learnt.
    - alpaca: "instruction", "output", and perhaps "input", which follows the instruction after an empty line.
    - conversations: "conversations", a list of {"from": human or gpt, "value": text} (LLaVA, ShareGPT); the
      place of an image, `<image>`, is left out of the text.
    - guanaco: "text", as ``### Human: ...### Assistant: ...``.
    - oasst1: Open Assistant's messages, one a row or a tree a row; of each tree the conversation that follows
      the best reply to every message (Dettmers et al. 2023, §4.1, app. B.1).

    Args:
        paths: JSON lines or Parquet; files, directories and patterns.
        form: one of these, or auto.

    Returns:
        Rows in the order of the files, and what was refused.

    Raises:
        DataError: naming file and line, for a row of another form; if no row is left.
    """
    if form not in get_args(Form):
        near = did_you_mean(form, get_args(Form))
        raise DataError(f"form is '{form}'; it must be one of {', '.join(get_args(Form))}.{near}")
    named = str(paths) if isinstance(paths, str | Path) else ", ".join(map(str, paths))
    found = Chats()
    stream = iter(objects(paths))
    head = next(stream, None)
    if head is None:
        raise DataError(f"{named}: no rows; give JSON lines or Parquet with conversations")
    fill(itertools.chain([head], stream), form_of(head) if form == "auto" else form, found)
    if not found.rows:
        raise DataError(f"{named}: no row is of use ({found.reasons() or NO_ANSWER})")
    return found


def fill(rows: Iterable[Object], form: str, into: Chats) -> None:
    """Add rows of a form other than auto, or refuse them.

    Raises:
        DataError: naming file and line, for a row of another form.
    """
    from posterhall.data.preference_forms import best_replies

    if form == "oasst1":
        for messages, where in best_replies(rows):
            into.add(Chat(_until_answer(messages), where))
        return
    readers: dict[str, Callable[[Object, Chats], None]] = {
        "messages": _conversation,
        "completion": _completion,
        "alpaca": _instruction,
        "conversations": _speakers,
        "guanaco": _marked,
    }
    for row in rows:
        readers[form](row, into)


def form_of(row: Object) -> str:
    """The form that the fields of a row are of.

    Raises:
        DataError: if they are of none.
    """
    names = set(row.fields)
    if "messages" in names:
        return "messages"
    if {"prompt", "completion"} <= names:
        return "completion"
    if {"instruction", "output"} <= names:
        return "alpaca"
    if "conversations" in names:
        return "conversations"
    if "message_id" in names or ("message_tree_id" in names and isinstance(row.fields.get("prompt"), dict)):
        return "oasst1"
    if isinstance(row.fields.get("text"), str) and _TURNS.match(row.fields["text"].lstrip()):
        return "guanaco"
    hint = ""
    if {"chosen", "rejected"} <= names:
        hint = " These are preferences: `posterhall train dpo`, or --set loss=preferred_ft there."
    elif "text" in names:
        hint = " This is plain text: `posterhall train lm`."
    raise DataError(
        f"{row.where}: fields {', '.join(sorted(names)[:12]) or '(none)'}; conversations have messages, or "
        "prompt and completion, or instruction and output, or conversations, or the fields of OASST1. "
        f"Rename the fields.{hint}"
    )


def _conversation(row: Object, into: Chats) -> None:
    messages = messages_of(value(row, "messages"), row, "messages")
    if messages is None:
        into.refuse(MEDIA, row.where)
        return
    into.add(Chat(messages, row.where))


def _completion(row: Object, into: Chats) -> None:
    prompt, completion = value(row, "prompt"), value(row, "completion")
    if isinstance(prompt, str) and isinstance(completion, str):
        into.add(Completion(prompt, completion, row.where))
        return
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    if isinstance(completion, str):
        completion = [{"role": ASSISTANT, "content": completion}]
    before, after = messages_of(prompt, row, "prompt"), messages_of(completion, row, "completion")
    if before is None or after is None:
        into.refuse(MEDIA, row.where)
        return
    into.add(Chat(before + after, row.where, start=len(before)))


def _instruction(row: Object, into: Chats) -> None:
    asked, more = text(row, "instruction"), row.fields.get("input") or ""
    if not isinstance(more, str):
        raise DataError(f"{row.where}: 'input' is a {type(more).__name__}; it must be text")
    asked = f"{asked}\n\n{more}" if more.strip() else asked
    answer = text(row, "output")
    into.add(Chat(({"role": "user", "content": asked}, {"role": ASSISTANT, "content": answer}), row.where))


def _speakers(row: Object, into: Chats) -> None:
    given = value(row, "conversations")
    if not isinstance(given, list) or not all(
        isinstance(each, dict) and all(isinstance(each.get(k), str) for k in ("from", "value"))
        for each in given
    ):
        raise DataError(f'{row.where}: \'conversations\' must be a list of {{"from": ..., "value": text}}')
    messages = []
    for each in given:
        role = _SPEAKERS.get(each["from"].lower())
        if role is None:
            near = did_you_mean(each["from"], _SPEAKERS)
            raise DataError(
                f"{row.where}: 'from' is '{each['from']}'; it must be human, gpt or system.{near}"
            )
        said = _IMAGE.sub("", each["value"]) if "image" in row.fields else each["value"]
        messages.append({"role": role, "content": said})
    into.add(Chat(tuple(messages), row.where))


def _marked(row: Object, into: Chats) -> None:
    """`openassistant-guanaco`, on which QLoRA's models were trained."""
    before, *parts = _TURNS.split(text(row, "text"))
    roles = {"Human": "user", "Assistant": ASSISTANT}
    messages = [
        {"role": roles[who], "content": said.strip()}
        for who, said in zip(parts[::2], parts[1::2], strict=True)
    ]
    if before.strip():
        messages.insert(0, {"role": "system", "content": before.strip()})
    into.add(Chat(_until_answer(messages), row.where))


def _until_answer(messages: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Without what comes after the last answer, from which nothing is learnt."""
    last = max((n for n, each in enumerate(messages) if each["role"] == ASSISTANT), default=-1)
    return tuple(messages[: last + 1])


def messages_of(given: Any, row: Object, name: str) -> tuple[dict[str, Any], ...] | None:
    """A field's messages, their content as one text; None if one holds something else (an image).

    Raises:
        DataError: for what is no list of messages.
    """
    if not isinstance(given, list) or not given or not all(isinstance(each, dict) for each in given):
        raise DataError(f'{row.where}: \'{name}\' must be a list of {{"role": ..., "content": text}}')
    found = []
    for number, each in enumerate(given, 1):
        message = {str(key): part for key, part in each.items() if part is not None}
        content = message.get("content", "" if len(message) > 1 else None)
        if isinstance(content, list) and all(isinstance(part, dict) for part in content):
            if not all(isinstance(part.get("text"), str) for part in content):
                return None
            content = "".join(part["text"] for part in content)
        if not isinstance(message.get("role"), str) or not isinstance(content, str):
            raise DataError(
                f"{row.where}: message {number} of '{name}' is {_shown(each)}; it must be "
                '{"role": system, user or assistant, "content": text}'
            )
        found.append({**message, "content": content})
    return tuple(found)


def _shown(message: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f'"{key}": {type(part).__name__}' for key, part in message.items()) + "}"
