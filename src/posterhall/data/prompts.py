"""Prompts: what a model is to go on with, from the files that people have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.data.documents import documents, expand, kind_of
from posterhall.data.objects import Object, objects
from posterhall.data.preference import ASSISTANT, render
from posterhall.data.preference_tokens import LONG, TooLong
from posterhall.data.refusals import Refusals
from posterhall.data.tokenizer import Tokenizer
from posterhall.errors import DataError, did_you_mean

FIELD = "prompt"
EMPTY, AGAIN = "empty prompt", "the same prompt again"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One of them."""

    text: str
    where: str
    """File and line."""
    rendered: bool = False
    """Whether it was chat messages."""


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


def read(paths: str | Path | Iterable[str | Path], *, name: str = FIELD, limit: int | None = None) -> Prompts:
    """Read prompts, each text once; empty ones are left out and counted.

    Of JSON lines and Parquet a field: text, or chat messages ({"role", "content"}), which become text as in
    files of preferences (``\\n\\nHuman: ...\\n\\nAssistant:``). A file of preferences is one of prompts too.
    Of plain text every line.

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
    seen: set[str] = set()
    for prompt in _prompts(paths, name):
        if limit is not None and len(found.rows) == limit:
            break
        if not prompt.text.strip():
            found.refuse(EMPTY, prompt.where)
        elif prompt.text in seen:
            found.refuse(AGAIN, prompt.where)
        else:
            seen.add(prompt.text)
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
    begin: bool = True,
    too_long: TooLong = "refuse",
) -> PromptTokens:
    """Tokens of prompts.

    Args:
        prompts: at least one.
        tokenizer: special tokens written out in a text stay text.
        max_length: longest prompt, in tokens.
        begin: put the tokeniser's token of beginning (or else of end) before each.
        too_long: leave out prompts above `max_length`, or cut their beginning off.

    Raises:
        DataError: if none is left.
    """
    found = PromptTokens()
    first = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    start = np.array([first] if begin and first is not None else [], np.int32)
    for row, ids in zip(prompts, tokenizer.encode_batch([each.text for each in prompts]), strict=True):
        room = max_length - len(start)
        if len(ids) > room:
            if too_long == "refuse" or room < 1:
                found.refuse(LONG, row.where)
                continue
            found.cut += 1
            ids = ids[len(ids) - room :]
        found.ids.append(np.concatenate((start, ids)).astype(np.int32))
        found.rows.append(row)
    if not found.ids:
        raise DataError(
            f"no prompt is left ({found.reasons()}): none has at most {max_length:,} tokens. Set "
            "too_long=cut_prompt, or ask for shorter answers"
        )
    return found


def _prompts(paths: str | Path | Iterable[str | Path], name: str) -> Iterator[Prompt]:
    for path in expand(paths):
        if kind_of(path) == "text":
            for each in documents(path, split="line"):
                yield Prompt(each.text, f"{path}, line {each.line:,}")
        else:
            for row in objects(path):
                yield Prompt(_text(row, name), row.where, not isinstance(row.fields[name], str))


def _text(row: Object, name: str) -> str:
    if name not in row.fields:
        near = did_you_mean(name, row.fields) or f" There are: {', '.join(list(row.fields)[:12])}."
        raise DataError(f"{row.where}: no field '{name}'.{near}")
    given: Any = row.fields[name]
    if isinstance(given, str):
        return given
    if (
        not isinstance(given, list)
        or not given
        or not all(
            isinstance(m, dict) and all(isinstance(m.get(k), str) for k in ("role", "content")) for m in given
        )
    ):
        raise DataError(
            f"{row.where}: '{name}' is a {type(given).__name__}; it must be text, or a list of messages "
            '{"role": "user" or "assistant", "content": text}'
        )
    return render(given, row.where) + ASSISTANT
