"""Prompts: what a model is to go on with, or to answer, from the files that people have."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.data import chat
from posterhall.data.chat_template import ChatTemplate, Rendered, TemplateError
from posterhall.data.documents import documents, expand, kind_of
from posterhall.data.objects import Object, objects
from posterhall.data.preference import value
from posterhall.data.preference_tokens import LONG, TooLong, cut_beginning
from posterhall.data.refusals import Refusals
from posterhall.data.special_tokens import SpecialTokens
from posterhall.data.tokenizer import Tokenizer
from posterhall.errors import DataError

FIELD = "prompt"
EMPTY, AGAIN, ANSWERED = "empty prompt", "the same prompt again", "the last message is the assistant's"
OTHER_ROLE = "a message that is not of the system, the user or the assistant"
ROLES = ("system", "user", "assistant")
NO_TEMPLATE = (
    "a prompt of messages, and the model has no chat template to put them in. Fine-tune it on conversations "
    "first (`posterhall train sft` leaves one), put a chat_template.jinja beside its tokenizer.json, or give "
    "prompts as text"
)

Asked = str | tuple[tuple[str, str], ...]
"""A text to be continued; or a conversation to be answered, (role, text) of its messages."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One of them."""

    text: str
    """To be continued; empty for a conversation."""
    where: str
    """File and line."""
    messages: tuple[tuple[str, str], ...] = ()
    """(role, text) of a conversation to be answered, which a chat template is to render."""

    @property
    def asked(self) -> Asked:
        """Whichever of the two it is."""
        return self.messages or self.text

    @property
    def told(self) -> list[dict[str, str]]:
        """Its messages as files have them."""
        return as_messages(self.messages)


def as_messages(conversation: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """Messages as files and templates have them: {"role", "content"}."""
    return [{"role": role, "content": text} for role, text in conversation]


@dataclass
class Prompts(Refusals):
    """What a reader found."""

    rows: list[Prompt] = field(default_factory=list)


@dataclass
class PromptTokens(Refusals):
    """Prompts as tokens."""

    ids: list[NDArray[np.int32]] = field(default_factory=list)
    """Of each, at least one."""
    rows: list[Prompt] = field(default_factory=list)
    """The prompts they are of."""
    cut: int = 0
    """Prompts that lost their beginning."""

    def conversations(self) -> dict[tuple[int, ...], Asked]:
        """The conversations among them, by their tokens."""
        return {
            tuple(ids.tolist()): row.messages
            for ids, row in zip(self.ids, self.rows, strict=True)
            if row.messages
        }


def read(paths: str | Path | Iterable[str | Path], *, name: str = FIELD, limit: int | None = None) -> Prompts:
    """Read prompts, each once; those that ask nothing are left out and counted.

    Of JSON lines and Parquet a field: text to be continued, or messages ({"role": system, user or assistant,
    "content": text}) to be answered. A file of preferences is one of prompts too; so is one of conversations
    (`posterhall.data.chat.read`), of which all before the last answer is asked. Of plain text every line.

    Args:
        paths: files, directories and patterns.
        name: the field.
        limit: only the first so many, >= 1; None: all.

    Raises:
        DataError: naming file and line, for a row without the field, or with something else in it; if
            there is no prompt.
    """
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}; it must be at least 1")
    found = Prompts()
    seen: set[Asked] = set()
    for prompt in _prompts(paths, name, found):
        if limit is not None and len(found.rows) == limit:
            break
        last = prompt.messages[-1] if prompt.messages else ("", prompt.text)
        if last[0] == chat.ASSISTANT:
            found.refuse(ANSWERED, prompt.where)
        elif not last[1].strip():
            found.refuse(EMPTY, prompt.where)
        elif prompt.asked in seen:
            found.refuse(AGAIN, prompt.where)
        else:
            seen.add(prompt.asked)
            found.rows.append(prompt)
    if not found.rows:
        named = str(paths) if isinstance(paths, str | Path) else ", ".join(map(str, paths))
        raise DataError(
            f"{named}: no prompt ({found.reasons() or 'no rows'}); give plain text, a prompt a line, or JSON "
            f"lines with '{name}'"
        )
    return found


def encode(
    prompts: Sequence[Prompt],
    tokenizer: Tokenizer,
    *,
    max_length: int,
    template: ChatTemplate | None = None,
    begin: bool = True,
    too_long: TooLong = "refuse",
) -> PromptTokens:
    """Tokens of prompts: those with which `preference_tokens.encode` lets the answers to them begin.

    Args:
        prompts: at least one.
        tokenizer: special tokens written out in a text or a message stay text.
        max_length: longest prompt, in tokens.
        template: renders conversations up to where the answer begins; it is needed for them, and puts their
            beginning.
        begin: put the tokeniser's token of beginning (or else of end) before each text.
        too_long: leave out prompts above `max_length`, or cut their beginning off.

    Raises:
        DataError: for a conversation without a template; if none is left.
    """
    found = PromptTokens()
    first = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    start = np.array([first] if begin and first is not None else [], np.int32)
    texts = iter(tokenizer.encode_batch([each.text for each in prompts if not each.messages]))
    rendered = _rendered([each for each in prompts if each.messages], tokenizer, template, found)
    for row in prompts:
        if not row.messages:
            opening, ids = start, np.concatenate((start, next(texts))).astype(np.int32)
        elif row in rendered:
            ids = rendered[row]
            opening = ids[: int(len(ids) > 0 and ids[0] == tokenizer.bos_id)]
        else:
            continue
        if len(ids) > max_length:
            shorter = cut_beginning(opening, ids, max_length) if too_long == "cut_prompt" else None
            if shorter is None:
                found.refuse(LONG, row.where)
                continue
            found.cut += 1
            ids = shorter.astype(np.int32)
        found.ids.append(ids)
        found.rows.append(row)
    if not found.ids:
        hint = ""
        if found.refused[LONG]:
            hint = (
                f" (above {max_length:,} tokens). Set too_long=cut_prompt, ask for shorter answers, or take "
                "a model of longer texts"
            )
        raise DataError(f"no prompt is left ({found.reasons()}){hint}")
    return found


def _rendered(
    rows: Sequence[Prompt], tokenizer: Tokenizer, template: ChatTemplate | None, found: Refusals
) -> dict[Prompt, NDArray[np.int32]]:
    """The tokens of conversations; those that the template does not take are refused."""
    if not rows:
        return {}
    if template is None:
        raise DataError(f"{rows[0].where}: {NO_TEMPLATE}")
    special = SpecialTokens(tokenizer)
    texts: dict[Prompt, Rendered] = {}
    for row in rows:
        try:
            texts[row] = template.render(row.told, add_generation_prompt=True, special=special.pattern)
        except TemplateError as error:
            found.refuse(str(error), row.where)
    return {row: ids for row, (ids, _) in zip(texts, special.encode(list(texts.values())), strict=True)}


def _prompts(paths: str | Path | Iterable[str | Path], name: str, found: Prompts) -> Iterator[Prompt]:
    for path in expand(paths):
        if kind_of(path) == "text":
            for each in documents(path, split="line"):
                yield Prompt(each.text, f"{path}, line {each.line:,}")
            continue
        stream = iter(objects(path))
        head = next(stream, None)
        if head is None:
            continue
        rows, form = itertools.chain([head], stream), _conversations(head, name)
        if form is not None:
            asked = _Asked(refused=found.refused, first=found.first)
            chat.fill(rows, form, asked)
            yield from asked.prompts
            continue
        for row in rows:
            prompt = _prompt(row, name, found)
            if prompt is not None:
                yield prompt


def _conversations(head: Object, name: str) -> str | None:
    """The form of a file of conversations that has not the field; None for other files."""
    if name != FIELD or isinstance(head.fields.get(name), str | list):
        return None
    try:
        return chat.form_of(head)
    except DataError:
        return None  # what is said of the missing field says more


@dataclass
class _Asked(chat.Chats):
    """What is asked in conversations: all before the last answer."""

    prompts: list[Prompt] = field(default_factory=list)

    def add(self, row: chat.Chat | chat.Completion) -> None:
        """Keep a row's prompt, or refuse it."""
        if isinstance(row, chat.Completion):
            self.prompts.append(Prompt(row.prompt, row.where))
            return
        messages = list(row.messages)
        while messages and messages[-1]["role"] == chat.ASSISTANT:
            messages.pop()
        if not messages:
            self.refuse(EMPTY, row.where)
        elif (prompt := _conversation(messages, row.where, self)) is not None:
            self.prompts.append(prompt)


def _prompt(row: Object, name: str, found: Prompts) -> Prompt | None:
    given = value(row, name)
    if isinstance(given, str):
        return Prompt(given, row.where)
    if not isinstance(given, list) or not given:
        raise DataError(
            f"{row.where}: '{name}' is {'empty' if given == [] else f'a {type(given).__name__}'}; it must be "
            'text, or a list of messages {"role": "user" or "assistant", "content": text}'
        )
    messages = chat.messages_of(given, row, name)
    if messages is None:
        found.refuse(chat.MEDIA, row.where)
        return None
    return _conversation(messages, row.where, found)


def _conversation(messages: Sequence[Mapping[str, Any]], where: str, found: Refusals) -> Prompt | None:
    if any(each["role"] not in ROLES for each in messages):
        found.refuse(OTHER_ROLE, where)
        return None
    return Prompt("", where, tuple((each["role"], each["content"]) for each in messages))
